"""Accounts and their API keys. They are created on the server's command line, never over HTTP."""

import secrets
from datetime import datetime

import attrs
from sqlalchemy import Engine, or_, select, update
from sqlalchemy.orm import Session

from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.models import Account, ApiKey, Project
from memoair_cloud.errors import NotFoundError
from memoair_cloud.identifiers import new_id
from memoair_cloud.tenancy.access import KEY_PREFIX, hash_key
from memoair_cloud.tenancy.grants import Grant, KeyScope
from memoair_protocol.timestamps import utc_now

_KEY_BYTES = 32
_HINT_CHARS = len(KEY_PREFIX) + 6


@attrs.frozen
class IssuedKey:
    """A new API key. It is shown once: only its hash is stored.

    Attributes:
        account_id: The account that it belongs to.
        key_id: The id by which it can be revoked.
        key: The secret itself.
    """

    account_id: str
    key_id: str
    key: str = attrs.field(repr=False)


@attrs.frozen
class KnownKey:
    """A stored API key, without the secret.

    Attributes:
        account_id: The account that it belongs to.
        account_name: The name of that account.
        key_id: The id by which it can be revoked.
        name: The name of the key.
        hint: The first characters of the key.
        created_at: When it was created.
        last_used_at: When it was last used, to the minute; None if never.
        revoked_at: When it was revoked; None if it is valid.
        grant: What it may do.
    """

    account_id: str
    account_name: str
    key_id: str
    name: str
    hint: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    grant: Grant = attrs.field(factory=Grant)


class Accounts:
    """All accounts of a server.

    Args:
        engine: The database of the server.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(**{WRITE_OPTION: True})

    def create(self, name: str) -> IssuedKey:
        """Create an account with a first key."""
        account = Account(id=new_id("acct"), name=name, created_at=utc_now())
        with Session(self._engine) as session, session.begin():
            session.add(account)
            session.flush()  # the key's row refers to it, and no relationship defines the order
            return _issue_key(session, account.id, "first key")

    def create_or_issue_key(self, name: str) -> IssuedKey:
        """Issue a key for the oldest account of this name, or create the account."""
        with Session(self._engine) as session:
            oldest_first = select(Account.id).where(Account.name == name).order_by(Account.created_at, Account.id)
            account_id = session.scalar(oldest_first.limit(1))
        return self.create(name) if account_id is None else self.issue_key(account_id, "further key")

    def find_account(self, name_or_id: str) -> str:
        """Return the id of the oldest account of a name, or of the account of an id.

        Raises:
            NotFoundError: If there is no such account.
        """
        is_wanted = or_(Account.name == name_or_id, Account.id == name_or_id)
        with Session(self._engine) as session:
            account_id = session.scalar(
                select(Account.id).where(is_wanted).order_by(Account.created_at, Account.id).limit(1)
            )
        if account_id is None:
            raise NotFoundError("unknown account")
        return account_id

    def issue_key(self, account_id: str, name: str, grant: Grant | None = None) -> IssuedKey:
        """Issue another key for an account.

        Args:
            account_id: The account.
            name: A name for the key, shown when keys are listed.
            grant: What it may do; everything by default.

        Raises:
            NotFoundError: If there is no such account, or no such project in it.
        """
        grant = grant or Grant()
        with Session(self._engine) as session, session.begin():
            if session.get(Account, account_id) is None:
                raise NotFoundError("unknown account")
            if grant.project_id is not None:
                project = session.get(Project, grant.project_id)
                if project is None or project.account_id != account_id:
                    raise NotFoundError("unknown project in this account", resource="project")
            return _issue_key(session, account_id, name, grant)

    def list_keys(self, account_id: str | None = None) -> list[KnownKey]:
        """Return the keys of one account or of all, including revoked ones, oldest first.

        Args:
            account_id: The account; None for all accounts.
        """
        statement = select(ApiKey, Account.name).join(Account, Account.id == ApiKey.account_id)
        if account_id is not None:
            statement = statement.where(ApiKey.account_id == account_id)
        with Session(self._engine) as session:
            return [
                KnownKey(
                    key.account_id,
                    name,
                    key.id,
                    key.name,
                    key.hint,
                    key.created_at,
                    key.last_used_at,
                    key.revoked_at,
                    Grant(KeyScope(key.scope), key.project_id),
                )
                for key, name in session.execute(statement.order_by(ApiKey.created_at, ApiKey.id))
            ]

    def revoke_key(self, key_id: str) -> None:
        """Revoke a key. Revoking it again changes nothing.

        Args:
            key_id: The id of the key, not the key itself.

        Raises:
            NotFoundError: If there is no such key.
        """
        with Session(self._engine) as session, session.begin():
            if session.get(ApiKey, key_id) is None:
                raise NotFoundError("unknown key")
            session.execute(
                update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=utc_now())
            )


def _issue_key(session: Session, account_id: str, name: str, grant: Grant | None = None) -> IssuedKey:
    grant = grant or Grant()
    key = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    row = ApiKey(
        id=new_id("key"),
        account_id=account_id,
        sha256=hash_key(key),
        hint=key[:_HINT_CHARS],
        name=name,
        created_at=utc_now(),
        last_used_at=None,
        revoked_at=None,
        scope=grant.scope.value,
        project_id=grant.project_id,
    )
    session.add(row)
    return IssuedKey(account_id, row.id, key)
