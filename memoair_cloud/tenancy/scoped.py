"""The one place where tenants are kept apart: a database session that reaches the rows of one account and one project.

Nothing that serves a request has another session, so no query can forget whose rows it may see. What is selected,
updated or deleted is limited by a condition on the owner that is added here; what is written is compared with the
scope; what can't be limited (SQL as text, tables without an owner) is refused as a defect.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import attrs
from sqlalchemy import Engine, event, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction, with_loader_criteria

from memoair_cloud.database.models import AccountOwned, Base, ProjectOwned

# No project has this id, so that a session without a project reaches none.
_NO_PROJECT = ""

ModelT = TypeVar("ModelT", bound=Base)


@attrs.frozen
class Scope:
    """Whose rows may be reached, and on whose behalf."""

    account_id: str
    project_id: str = _NO_PROJECT
    agent_id: str | None = None
    user_id: str | None = None


class OutOfScopeError(Exception):
    """A defect of ours: a statement or a row that reaches beyond its scope, and was stopped."""


class ScopedSession(Session):
    """A session within a scope."""

    def __init__(self, engine: Engine, scope: Scope) -> None:
        super().__init__(engine, expire_on_commit=False)
        self.scope = scope

    def insert_missing(self, model: type[ModelT], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert the rows of a project that are not there yet; those that are stay as they are."""
        if not rows:
            return
        dialect_insert = (sqlite if self.get_bind().dialect.name == "sqlite" else postgresql).insert(model)
        owned_rows = [{**row, "project_id": self.scope.project_id} for row in rows]
        self.execute(dialect_insert.on_conflict_do_nothing(), owned_rows)

    def bulk_insert(self, model: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows of a project, of which none is there, by the names of columns: without an object for each."""
        if not issubclass(model, ProjectOwned):
            raise OutOfScopeError("only what belongs to a project is written this way")
        owned_rows = [{**row, "project_id": self.scope.project_id} for row in rows]
        self.connection().execute(insert(model).values(), owned_rows)

    def check_owner(self, row: object) -> None:
        """Raise `OutOfScopeError` for a row of somebody else."""
        if isinstance(row, AccountOwned) and row.account_id == self.scope.account_id:
            return
        if isinstance(row, ProjectOwned) and row.project_id == self.scope.project_id != _NO_PROJECT:
            return
        raise OutOfScopeError(f"a row of {type(row).__name__} is not of this scope")


@event.listens_for(ScopedSession, "do_orm_execute")
def _limit_statement(state: ORMExecuteState) -> None:
    session = state.session
    assert isinstance(session, ScopedSession)  # noqa: S101 - what the listener is registered for
    owners = (AccountOwned, ProjectOwned)
    if not state.is_orm_statement or not all(issubclass(mapper.class_, owners) for mapper in state.all_mappers):
        raise OutOfScopeError("only statements over models that have an owner can be kept within a scope")
    if state.is_insert:
        _check_inserted_rows(session.scope, state)
        return
    account_id, project_id = session.scope.account_id, session.scope.project_id
    state.statement = state.statement.options(
        with_loader_criteria(AccountOwned, lambda model: model.account_id == account_id, include_aliases=True),
        with_loader_criteria(ProjectOwned, lambda model: model.project_id == project_id, include_aliases=True),
    )


def _check_inserted_rows(scope: Scope, state: ORMExecuteState) -> None:
    rows = state.parameters if isinstance(state.parameters, Sequence) else [state.parameters or {}]
    are_owned = all(row.get("project_id") == scope.project_id != _NO_PROJECT for row in rows)
    if not are_owned or not all(issubclass(mapper.class_, ProjectOwned) for mapper in state.all_mappers):
        raise OutOfScopeError("what is inserted is not of this scope")


@event.listens_for(ScopedSession, "before_flush")
def _check_flushed_rows(session: Session, _: UOWTransaction, __: Any) -> None:
    assert isinstance(session, ScopedSession)  # noqa: S101 - what the listener is registered for
    for row in [*session.new, *session.dirty, *session.deleted]:
        session.check_owner(row)
