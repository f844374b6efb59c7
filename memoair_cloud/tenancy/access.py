"""From an API key to the data that its account may access."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import attrs
from sqlalchemy import ColumnElement, Engine, or_, select, true, update
from sqlalchemy.orm import Session

from memoair_cloud.database.deferred import DeferredWrites
from memoair_cloud.database.engine import LOCK_TIMEOUT_OPTION, WRITE_OPTION
from memoair_cloud.database.models import Agent, ApiKey, Project
from memoair_cloud.errors import InvalidKeyError, InvalidRequestError, NotFoundError
from memoair_cloud.tenancy.grants import Action, Grant, KeyScope
from memoair_cloud.tenancy.scoped import Actor, Scope, ScopedSession
from memoair_protocol.timestamps import utc_now

KEY_PREFIX = "memoair_pk_"
# Last use shows which keys can be revoked. Minute precision is enough for that and saves a write per request.
_LAST_USED_PRECISION = timedelta(minutes=1)


@attrs.frozen
class Credentials:
    """A valid API key, its account, what it may do, and when it was last used as far as the database knows."""

    key_id: str
    account_id: str
    grant: Grant = attrs.field(factory=Grant)
    label: str = ""
    last_used_at: datetime | None = None

    def make_tenant(self, engine: Engine) -> "Tenant":
        """Return the tenant of the account, without a project."""
        return make_tenant(engine, self.account_id, self.grant, Actor("key", self.key_id, self.label))


def hash_key(key: str) -> str:
    """Return the hash that is stored of a key. A key has 256 random bits, so a fast hash is as safe as a slow one."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def authenticate(engine: Engine, key: str) -> Credentials:
    """Return the credentials of an API key.

    Args:
        engine: The database of the server.
        key: The key as the client sent it.

    Raises:
        InvalidKeyError: If the key is unknown or revoked.
    """
    return _load_credentials(engine, ApiKey.sha256 == hash_key(key))


def list_key_hashes(engine: Engine, limit: int) -> list[str]:
    """Return the hashes of the valid keys; of more than ``limit`` those that were used last."""
    statement = select(ApiKey.sha256).where(ApiKey.revoked_at.is_(None))
    with Session(engine) as session:
        return list(session.scalars(statement.order_by(ApiKey.last_used_at.desc().nulls_last()).limit(limit)))


def find_credentials(engine: Engine, key_id: str) -> Credentials:
    """Return the credentials of an API key by its id, for someone who has shown the key before.

    Raises:
        InvalidKeyError: If the key is unknown or revoked.
    """
    return _load_credentials(engine, ApiKey.id == key_id)


def note_last_use(credentials: Credentials, deferred: DeferredWrites) -> None:
    """Note that a key was just used. The database learns of it in the background: a request need not wait for that.

    A note is lost if the server ends while the database takes no writes, or if too many notes wait.
    """
    use = _KeyUse(credentials.key_id, utc_now())
    if credentials.last_used_at is None or use.at - credentials.last_used_at > _LAST_USED_PRECISION:
        deferred.put(("key", credentials.key_id), use)


@attrs.frozen
class _KeyUse:
    key_id: str
    at: datetime

    def __call__(self, session: Session) -> None:
        is_outdated = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < self.at - _LAST_USED_PRECISION)
        session.execute(update(ApiKey).where(ApiKey.id == self.key_id, is_outdated).values(last_used_at=self.at))


def _load_credentials(engine: Engine, is_key: ColumnElement[bool]) -> Credentials:
    with Session(engine) as session:
        row = session.scalar(select(ApiKey).where(is_key, ApiKey.revoked_at.is_(None)))
    if row is None:
        raise InvalidKeyError("unknown or revoked API key")
    label = f"{row.name} ({row.hint}…)"
    return Credentials(row.id, row.account_id, Grant(KeyScope(row.scope), row.project_id), label, row.last_used_at)


@attrs.frozen
class Tenant:
    """The account, project, agent and user of a request. Routes reach the database only through it.

    Beginning a transaction checks that the project and the agent exist in the account; it raises `NotFoundError` for
    those of other accounts exactly as for unknown ones.

    Attributes:
        engine: The database of the server.
        scope: The account, project, agent and user.
        grant: What the request may do. Beginning a transaction raises `ForbiddenError` for anything else.
    """

    engine: Engine = attrs.field(repr=False)
    scope: Scope
    grant: Grant = attrs.field(factory=Grant)

    def for_project(self, project_id: str) -> "Tenant":
        """Return the same tenant in another project."""
        return attrs.evolve(self, scope=attrs.evolve(self.scope, project_id=project_id))

    def for_user(self, user_id: str) -> "Tenant":
        """Return the same tenant for requests about a user."""
        return attrs.evolve(self, scope=attrs.evolve(self.scope, user_id=user_id))

    def for_agent(self, agent_id: str) -> "Tenant":
        """Return the same tenant for requests about an agent."""
        return attrs.evolve(self, scope=attrs.evolve(self.scope, agent_id=agent_id))

    def require_agent(self) -> str:
        """Return the agent that the request is about; raise `InvalidRequestError` if it names none."""
        if self.scope.agent_id is None:
            raise InvalidRequestError("X-Agent-Id is required: the agent that owns it", field="X-Agent-Id")
        return self.scope.agent_id

    @contextmanager
    def begin_read(self, action: Action = Action.READ) -> Iterator[ScopedSession]:
        """Begin a transaction that only reads. All its statements see the same snapshot of the database.

        Args:
            action: What it is for.
        """
        self.grant.check(action, self.scope.project_id)
        is_sqlite = self.engine.dialect.name == "sqlite"  # where every transaction reads a snapshot
        reader = self.engine if is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        with ScopedSession(reader, self.scope) as session, session.begin():
            self._check_scope_exists(session)
            yield session

    @contextmanager
    def begin_write(
        self, action: Action = Action.WRITE, lock_timeout_s: float | None = None
    ) -> Iterator[ScopedSession]:
        """Begin a transaction that writes. It commits at the end of the block and rolls back if the block raises.

        Args:
            action: What it is for.
            lock_timeout_s: How long to wait for a lock, in seconds; by default as long as a client waits.
        """
        self.grant.check(action, self.scope.project_id)
        options = {} if lock_timeout_s is None else {LOCK_TIMEOUT_OPTION: lock_timeout_s}
        writer = self.engine.execution_options(**{WRITE_OPTION: True, **options})
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
            raise NotFoundError("unknown project", resource="project")
        if not row[1]:
            raise NotFoundError("unknown agent in this project", resource="agent")


def make_tenant(engine: Engine, account_id: str, grant: Grant, actor: Actor) -> Tenant:
    """Return the tenant of an account, without a project."""
    return Tenant(engine, Scope(account_id, only_project_id=grant.project_id, actor=actor), grant)


def find_project_tenant(engine: Engine, project_id: str) -> Tenant | None:
    """Return the tenant of a project, for work outside of requests; None if the project does not exist."""
    with Session(engine) as session:
        account_id = session.scalar(select(Project.account_id).where(Project.id == project_id))
    return None if account_id is None else Tenant(engine, Scope(account_id, project_id))
