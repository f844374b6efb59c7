"""Signatures of cookies and forms, with secrets that all servers of a database share and that are replaced monthly."""

import secrets
import threading
import time
from datetime import timedelta

from itsdangerous import BadData, URLSafeTimedSerializer
from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from memoair_cloud.database.access_models import SigningSecret
from memoair_cloud.database.deferred import DeferredWrites
from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.identifiers import new_id
from memoair_protocol.timestamps import utc_now

_SECRET_BYTES = 32
_REPLACE_AFTER = timedelta(days=30)
# Longer than anything that was signed stays valid.
_DELETE_AFTER = timedelta(days=60)
_REFRESH_S = 60.0


class SignatureError(Exception):
    """A signature is missing, forged or too old."""


class Signer:
    """Signs texts. Thread-safe.

    Args:
        engine: The database of the server.
        deferred: Where an old secret is replaced: until the database takes writes, it stays in use.
    """

    def __init__(self, engine: Engine, deferred: DeferredWrites) -> None:
        self._engine = engine
        self._deferred = deferred
        self._lock = threading.Lock()
        self._secrets: list[str] = []
        self._loaded_at = -_REFRESH_S

    def sign(self, purpose: str, value: str) -> str:
        """Return a text with its signature and the time, to be checked by `verify`.

        Args:
            purpose: What it is for: a text that is signed for one purpose is not valid for another.
            value: The text. It is signed, not encrypted.
        """
        return str(self._serializer(purpose).dumps(value))

    def verify(self, purpose: str, signed: str, max_age_s: float) -> str:
        """Return the text of a signed text.

        Args:
            purpose: What it was signed for.
            signed: The result of `sign`.
            max_age_s: How old it may be, in seconds.

        Raises:
            SignatureError: If the signature is invalid or too old.
        """
        try:
            return str(self._serializer(purpose).loads(signed, max_age=int(max_age_s)))
        except BadData:
            raise SignatureError("invalid or too old") from None

    def _serializer(self, purpose: str) -> URLSafeTimedSerializer:
        with self._lock:
            if time.monotonic() - self._loaded_at >= _REFRESH_S:
                self._secrets = self._load()
                self._loaded_at = time.monotonic()
            return URLSafeTimedSerializer(self._secrets, salt=f"memoair.{purpose}")

    def _load(self) -> list[str]:
        """Return the secrets, oldest first. If the latest is old, it is replaced in the background.

        Only the first secret of a database is written here: without it, nothing can be signed.
        """
        oldest_first = select(SigningSecret).order_by(SigningSecret.created_at, SigningSecret.id)
        now = utc_now()
        with Session(self._engine) as session:
            rows = session.scalars(oldest_first).all()
        if rows:
            if now - rows[-1].created_at >= _REPLACE_AFTER:
                self._deferred.put("signing secret", _replace_secret)
            return [row.value for row in rows]
        with Session(self._engine.execution_options(**{WRITE_OPTION: True})) as session, session.begin():
            _replace_secret(session)
            return [row.value for row in session.scalars(oldest_first)]


def _replace_secret(session: Session) -> None:
    # Two servers that replace it at the same time add two secrets. Both are valid everywhere after a minute.
    now = utc_now()
    session.execute(delete(SigningSecret).where(SigningSecret.created_at < now - _DELETE_AFTER))
    session.add(SigningSecret(id=new_id("secret"), value=secrets.token_urlsafe(_SECRET_BYTES), created_at=now))
    session.flush()
