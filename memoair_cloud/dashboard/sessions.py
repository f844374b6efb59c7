"""Sessions of people who signed in with a key. They end when idle, after some hours, and when the key is revoked."""

import hashlib
import secrets
from datetime import timedelta

import attrs
from sqlalchemy import Engine, delete, update
from sqlalchemy.orm import Session

from memoair_cloud.database.access_models import DashboardSession
from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.errors import InvalidKeyError
from memoair_cloud.tenancy.access import Credentials, authenticate, find_credentials
from memoair_protocol.timestamps import utc_now

_TOKEN_BYTES = 32
# When a session was last used is known to the minute, which saves a write per request.
_SEEN_PRECISION = timedelta(minutes=1)


@attrs.frozen
class SessionStore:
    """The sessions of a database. Thread-safe.

    Attributes:
        engine: The database of the server.
        idle_timeout: How long a session lasts without a request.
        max_age: How long it lasts at most.
    """

    engine: Engine
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
        if row is None or now - row.created_at > self.max_age or now - row.seen_at > self.idle_timeout:
            return None
        try:
            credentials = find_credentials(self.engine, row.key_id)
        except InvalidKeyError:
            return None
        if now - row.seen_at > min(_SEEN_PRECISION, self.idle_timeout / 10):
            with self._begin_write() as session, session.begin():
                session.execute(update(DashboardSession).where(DashboardSession.sha256 == digest).values(seen_at=now))
        return credentials

    def sign_out(self, token: str) -> None:
        """End a session. Ending it again has no effect."""
        with self._begin_write() as session, session.begin():
            session.execute(delete(DashboardSession).where(DashboardSession.sha256 == _hash_token(token)))

    def _begin_write(self) -> Session:
        return Session(self.engine.execution_options(**{WRITE_OPTION: True}))


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
