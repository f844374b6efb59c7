"""From an API key to what its account may see."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import attrs
from sqlalchemy import Engine, or_, select, true, update
from sqlalchemy.orm import Session

from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.models import Agent, ApiKey, Project
from memoair_cloud.errors import InvalidKeyError, NotFoundError
from memoair_cloud.tenancy.scoped import Scope, ScopedSession
from memoair_cloud.timeutil import utc_now

KEY_PREFIX = "memoair_pk_"
# "Last used" tells which keys can go; to the minute is enough for that, and spares a write with every request.
_LAST_USED_PRECISION = timedelta(minutes=1)


@attrs.frozen
class Credentials:
    """A key that is known, and whose it is."""

    key_id: str
    account_id: str


def hash_key(key: str) -> str:
    """What is kept of a key. It has 256 random bits, so a plain hash is as good as a slow one."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def authenticate(engine: Engine, key: str) -> Credentials:
    """Tell whose key it is; raises `InvalidKeyError`."""
    now = utc_now()
    with Session(engine) as session:
        row = session.execute(
            select(ApiKey.id, ApiKey.account_id, ApiKey.last_used_at).where(
                ApiKey.sha256 == hash_key(key), ApiKey.revoked_at.is_(None)
            )
        ).one_or_none()
    if row is None:
        raise InvalidKeyError("the API key is unknown or revoked")
    if row.last_used_at is None or now - row.last_used_at > _LAST_USED_PRECISION:
        is_outdated = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - _LAST_USED_PRECISION)
        with Session(engine.execution_options(**{WRITE_OPTION: True})) as session, session.begin():
            session.execute(update(ApiKey).where(ApiKey.id == row.id, is_outdated).values(last_used_at=now))
    return Credentials(row.id, row.account_id)


@attrs.frozen
class Tenant:
    """What a request is about: the only door to the database that a route is given.

    Opening it looks the project and the agent up; raises `NotFoundError` for those of others, the same as for none.
    """

    engine: Engine = attrs.field(repr=False)
    scope: Scope

    def for_project(self, project_id: str) -> "Tenant":
        """The same, for one project."""
        return attrs.evolve(self, scope=attrs.evolve(self.scope, project_id=project_id))

    @contextmanager
    def begin_read(self) -> Iterator[ScopedSession]:
        """A transaction that only reads: all of it sees the database at one moment."""
        is_sqlite = self.engine.dialect.name == "sqlite"  # where every transaction is like that
        reader = self.engine if is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        with ScopedSession(reader, self.scope) as session, session.begin():
            self._check_scope_exists(session)
            yield session

    @contextmanager
    def begin_write(self) -> Iterator[ScopedSession]:
        """A transaction that writes: committed when the block ends, taken back when it raises."""
        writer = self.engine.execution_options(**{WRITE_OPTION: True})
        with ScopedSession(writer, self.scope) as session, session.begin():
            self._check_scope_exists(session)
            yield session

    def _check_scope_exists(self, session: ScopedSession) -> None:
        agent_id = self.scope.agent_id
        if not self.scope.project_id:
            return
        agent_exists = select(Agent.id).where(Agent.id == agent_id).exists() if agent_id else true()
        row = session.execute(select(Project.id, agent_exists).where(Project.id == self.scope.project_id)).one_or_none()
        if row is None:
            raise NotFoundError("there is no such project")
        if not row[1]:
            raise NotFoundError("there is no such agent in this project")


def find_project_tenant(engine: Engine, project_id: str) -> Tenant | None:
    """A project's tenant, for work that no request has asked for; None where the project is gone."""
    with Session(engine) as session:
        account_id = session.scalar(select(Project.account_id).where(Project.id == project_id))
    return None if account_id is None else Tenant(engine, Scope(account_id, project_id))
