"""Tenant isolation: a database session that reaches only the rows of one account and one project.

Request handlers have no other session, so no query can reach another tenant's rows by mistake. Selects, updates and
deletes are limited by a condition on the owner that is added here. Inserted rows are compared with the scope. What
cannot be limited (textual SQL, tables without an owner) is rejected as a programming error.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import attrs
from sqlalchemy import Engine, event, insert, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, ORMExecuteState, Session, UOWTransaction, with_loader_criteria

from memoair_cloud.database.base import AccountOwned, Base, ProjectOwned
from memoair_cloud.database.models import Project

# No project has this id, so that a session without a project reaches no project's rows.
_NO_PROJECT = ""

ModelT = TypeVar("ModelT", bound=Base)


@attrs.frozen
class Scope:
    """The owner of the rows that may be reached, and the agent and user that a request is about.

    Attributes:
        account_id: The account.
        project_id: The project; empty for what belongs to the whole account.
        agent_id: The agent that the request is about, if any.
        user_id: The user that the request is about, if any.
        only_project_id: The only project of the account that may be reached; None for all of them.
        actor: Who makes the request; None for work outside of requests.
    """

    account_id: str
    project_id: str = _NO_PROJECT
    agent_id: str | None = None
    user_id: str | None = None
    only_project_id: str | None = None
    actor: "Actor | None" = None


@attrs.frozen
class Actor:
    """Who makes a request.

    Attributes:
        kind: ``"key"``, or ``"proxy"`` for a person that a proxy authenticated.
        id: The id of the key, or the name that the proxy gave.
        name: The name of the key and its first characters; empty for a proxy's user.
    """

    kind: str
    id: str
    name: str = ""


class OutOfScopeError(Exception):
    """A programming error: a statement or a row reached beyond its scope and was rejected."""


class ScopedSession(Session):
    """A session that is limited to a scope. Like any SQLAlchemy session, it belongs to one thread."""

    def __init__(self, engine: Engine, scope: Scope) -> None:
        super().__init__(engine, expire_on_commit=False)
        self.scope = scope

    def insert_missing(self, model: type[ModelT], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows of the project; rows whose key exists already stay unchanged."""
        if not rows:
            return
        dialect_insert = (sqlite if self.get_bind().dialect.name == "sqlite" else postgresql).insert(model)
        owned_rows = [{**row, "project_id": self.scope.project_id} for row in rows]
        self.execute(dialect_insert.on_conflict_do_nothing(), owned_rows)

    def insert_or_replace(self, model: type[ModelT], rows: Sequence[Mapping[str, Any]], key: Sequence[str]) -> None:
        """Insert rows of the project; each replaces the row that has the same values in the columns of the key."""
        if not rows:
            return
        statement = (sqlite if self.get_bind().dialect.name == "sqlite" else postgresql).insert(model)
        changes = {name: statement.excluded[name] for name in rows[0] if name not in key}
        owned_rows = [{**row, "project_id": self.scope.project_id} for row in rows]
        self.execute(statement.on_conflict_do_update(index_elements=key, set_=changes), owned_rows)

    def bulk_insert(self, model: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert new rows of the project, given by attribute names, without creating an object for each."""
        if not issubclass(model, ProjectOwned):
            raise OutOfScopeError("only rows of a project can be inserted in bulk")
        owned_rows = [{**row, "project_id": self.scope.project_id} for row in rows]
        self.connection().execute(insert(model).values(), owned_rows)

    def copy_rows(self, source: type[Base], target: type[Base], values: Mapping[str, Any], *where: Any) -> None:
        """Insert a row for each of some rows of the project, without reading them.

        Args:
            source: Where the rows are.
            target: Where they are copied to.
            values: The columns of the new rows, but for the project: columns of the source, or values.
            *where: Which rows are copied.
        """
        if not issubclass(source, ProjectOwned) or not issubclass(target, ProjectOwned):
            raise OutOfScopeError("only rows of a project can be copied")
        selected = [value if isinstance(value, InstrumentedAttribute) else literal(value) for value in values.values()]
        rows = select(source.project_id, *selected).where(source.project_id == self.scope.project_id, *where)
        self.connection().execute(insert(target).from_select(["project_id", *values], rows))

    def check_owner(self, row: object) -> None:
        """Raise `OutOfScopeError` if a row belongs to another tenant."""
        if isinstance(row, AccountOwned) and row.account_id == self.scope.account_id:
            return
        if isinstance(row, ProjectOwned) and row.project_id == self.scope.project_id != _NO_PROJECT:
            return
        raise OutOfScopeError(f"a row of {type(row).__name__} is out of scope")


@event.listens_for(ScopedSession, "do_orm_execute")
def _limit_statement(state: ORMExecuteState) -> None:
    session = state.session
    assert isinstance(session, ScopedSession)  # noqa: S101 - guaranteed by the registration
    owners = (AccountOwned, ProjectOwned)
    if not state.is_orm_statement or not all(issubclass(mapper.class_, owners) for mapper in state.all_mappers):
        raise OutOfScopeError("only statements over models with an owner can be scoped")
    if state.is_insert:
        _check_inserted_rows(session.scope, state)
        return
    account_id, project_id = session.scope.account_id, session.scope.project_id
    state.statement = state.statement.options(
        with_loader_criteria(AccountOwned, lambda model: model.account_id == account_id, include_aliases=True),
        with_loader_criteria(ProjectOwned, lambda model: model.project_id == project_id, include_aliases=True),
    )
    if session.scope.only_project_id is not None:
        only_project = Project.id == session.scope.only_project_id
        state.statement = state.statement.options(with_loader_criteria(Project, only_project, include_aliases=True))


def _check_inserted_rows(scope: Scope, state: ORMExecuteState) -> None:
    rows = state.parameters if isinstance(state.parameters, Sequence) else [state.parameters or {}]
    are_owned = all(row.get("project_id") == scope.project_id != _NO_PROJECT for row in rows)
    if not are_owned or not all(issubclass(mapper.class_, ProjectOwned) for mapper in state.all_mappers):
        raise OutOfScopeError("an inserted row is out of scope")


@event.listens_for(ScopedSession, "before_flush")
def _check_flushed_rows(session: Session, _: UOWTransaction, __: Any) -> None:
    assert isinstance(session, ScopedSession)  # noqa: S101 - guaranteed by the registration
    for row in [*session.new, *session.dirty, *session.deleted]:
        session.check_owner(row)
