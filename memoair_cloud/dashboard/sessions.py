"""Sessions of people who signed in with a key. They end when idle, after some hours, and when the key is revoked."""

import hashlib
import secrets
from datetime import datetime, timedelta

import attrs
from sqlalchemy import Engine, delete, update
from sqlalchemy.orm import Session

from memoair_cloud.database.access_models import DashboardSession
from memoair_cloud.database.deferred import DeferredWrites
from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.errors import InvalidKeyError
from memoair_cloud.tenancy.access import Credentials, authenticate, find_credentials, note_last_use
from memoair_protocol.timestamps import utc_now

_TOKEN_BYTES = 32
# When a session was last used is known to the minute, which saves a write per request.
_SEEN_PRECISION = timedelta(minutes=1)


@attrs.frozen
class SessionStore:
    """The sessions of a database. Thread-safe.

    Attributes:
        engine: The database of the server.
        deferred: Where it notes when a session was last used: a page is shown whether the database takes writes or not.
        idle_timeout: How long a session lasts without a request.
        max_age: How long it lasts at most.
    """

    engine: Engine
    deferred: DeferredWrites
    idle_timeout: timedelta
    max_age: timedelta

    def sign_in(self, key: str) -> tuple[str, Credentials]:
        """Start a session with a key.

        Args:
            key: The API key.

        Returns:
            The secret token of the session, and what the key may do.

        Raises:
            InvalidKeyError: If the key is unknown or revoked.
        """
        credentials = authenticate(self.engine, key)
        note_last_use(credentials, self.deferred)
        token, now = secrets.token_urlsafe(_TOKEN_BYTES), utc_now()
        with self._begin_write() as session, session.begin():
            session.execute(delete(DashboardSession).where(DashboardSession.created_at < now - self.max_age))
            session.add(
                DashboardSession(
                    sha256=_hash_token(token),
                    account_id=credentials.account_id,
                    key_id=credentials.key_id,
                    created_at=now,
                    seen_at=now,
                )
            )
        return token, credentials

    def resume(self, token: str) -> Credentials | None:
        """Return what the key of a session may do now; None if the session has ended, or the key is revoked."""
        now, digest = utc_now(), _hash_token(token)
        with Session(self.engine) as session:
            row = session.get(DashboardSession, digest)
        if row is None or now - row.created_at > self.max_age:
            return None
        # While the database takes no writes, a session that is in use must not end as if it were idle.
        waiting = self.deferred.find(("session", digest))
        seen_at = max(row.seen_at, waiting.at) if isinstance(waiting, _SessionUse) else row.seen_at
        if now - seen_at > self.idle_timeout:
            return None
        try:
            credentials = find_credentials(self.engine, row.key_id)
        except InvalidKeyError:
            return None
        note_last_use(credentials, self.deferred)
        if now - seen_at > min(_SEEN_PRECISION, self.idle_timeout / 10):
            self.deferred.put(("session", digest), _SessionUse(digest, now))
        return credentials

    def sign_out(self, token: str) -> None:
        """End a session. Ending it again has no effect."""
        with self._begin_write() as session, session.begin():
            session.execute(delete(DashboardSession).where(DashboardSession.sha256 == _hash_token(token)))

    def _begin_write(self) -> Session:
        return Session(self.engine.execution_options(**{WRITE_OPTION: True}))


@attrs.frozen
class _SessionUse:
    sha256: str
    at: datetime

    def __call__(self, session: Session) -> None:
        is_session = DashboardSession.sha256 == self.sha256, DashboardSession.seen_at < self.at
        session.execute(update(DashboardSession).where(*is_session).values(seen_at=self.at))


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
