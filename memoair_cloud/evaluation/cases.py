"""Cases of a suite: put, list and delete them. `memoair_cloud.evaluation.case_copying` copies them from calls."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec
from sqlalchemy import Select, delete, func, select

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.evaluation_models import EvaluationSuite, SuiteCase
from memoair_cloud.errors import BatchTooLargeError, InvalidRequestError, NotFoundError
from memoair_cloud.evaluation.suites import load_suite
from memoair_cloud.prompts.agents import describe_actor
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_evaluation.case import (
    MAX_SUITE_BYTES,
    InvalidCaseError,
    RecallCase,
    case_to_wire,
    hash_case,
    parse_case,
)
from memoair_protocol.timestamps import utc_now

MAX_SUITE_CASES = 10_000
_BY_POSITION = PageOrder[SuiteCase]((SuiteCase.position, SuiteCase.id), (int, str), lambda row: (row.position, row.id))
_UNSYNCHRONIZED = {"synchronize_session": False}


@attrs.frozen
class CaseChanges:
    """What putting cases has changed.

    Attributes:
        added: How many cases are new.
        replaced: How many were there with another content.
        kept: How many were there with the same content.
        removed: How many were removed, because they were not among those that replace all.
        version: The version of the suite after that.
    """

    added: int
    replaced: int
    kept: int
    removed: int
    version: int


def parse_cases(contents: Sequence[Mapping[str, Any]]) -> list[RecallCase]:
    """Return the cases that objects of JSON say.

    Raises:
        InvalidRequestError: If one is invalid, or two have the same id. It names the place and not the value.
    """
    cases = [parse_content(content, f"cases[{place}]") for place, content in enumerate(contents)]
    first_places: dict[str, int] = {}
    for place, case in enumerate(cases):
        if (first := first_places.setdefault(case.id, place)) != place:
            raise InvalidRequestError(f"cases[{place}].id: cases[{first}] has the same id", field=f"cases[{place}].id")
    return cases


def parse_content(content: Mapping[str, Any], place: str = "") -> RecallCase:
    """Return the case that an object of JSON says; raise `InvalidRequestError` with the place if it is invalid."""
    try:
        return parse_case(content)
    except InvalidCaseError as error:
        field = ".".join(filter(None, (place, error.field)))
        raise InvalidRequestError(f"{field}: {error.problem}" if field else error.problem, field=field) from None


def put_cases(tenant: Tenant, suite_id: str, cases: Sequence[RecallCase], *, replaces_all: bool = False) -> CaseChanges:
    """Add cases to a suite, or replace those with the same ids. A case that is the same already is kept.

    A case that was copied from a caller stays tied to them, whatever it says now.

    Args:
        tenant: The agent.
        suite_id: The suite.
        cases: The cases, with different ids.
        replaces_all: Whether to remove all other cases of the suite, and to order it as the cases are.

    Raises:
        NotFoundError: If the agent has no such suite.
        BatchTooLargeError: If the suite would be too large.
    """
    _check_count(len(cases))  # before a statement names all of them: databases limit its parameters
    with tenant.begin_write() as session:
        suite = load_suite(session, suite_id, lock=True)
        known = {row.id: row for row in session.scalars(_cases_of(suite_id, [case.id for case in cases]))}
        removed = _remove_others(session, suite_id, set(known)) if replaces_all else 0
        next_position = 0 if replaces_all else find_next_position(session, suite_id)
        added = replaced = 0
        for case in cases:
            content, row = case_to_wire(case), known.get(case.id)
            if row is None:
                session.add(make_case_row(session, suite_id, case, next_position))
                added += 1
            elif row.content != content:
                write_content(row, case)
                replaced += 1
            if row is not None and replaces_all:
                row.position = next_position
            next_position += replaces_all or row is None
        if added or replaced or removed:
            note_change(suite)
        session.flush()
        check_size(session, suite_id)
        return CaseChanges(added, replaced, len(cases) - added - replaced, removed, suite.version)


def list_cases(tenant: Tenant, suite_id: str, cursor: str | None, limit: int) -> ResultPage[SuiteCase]:
    """Return a page of the cases of a suite, in its order.

    Raises:
        NotFoundError: If the agent has no such suite.
        InvalidRequestError: If the cursor is invalid.
    """
    with tenant.begin_read() as session:
        load_suite(session, suite_id)
        return _BY_POSITION.fetch_page(session, select(SuiteCase).where(SuiteCase.suite_id == suite_id), cursor, limit)


def get_case(tenant: Tenant, suite_id: str, case_id: str) -> SuiteCase:
    """Return a case; raise `NotFoundError` if the agent has no such suite, or the suite no such case."""
    with tenant.begin_read() as session:
        load_suite(session, suite_id)
        return _load_case(session, suite_id, case_id)


def delete_case(tenant: Tenant, suite_id: str, case_id: str) -> SuiteCase:
    """Delete a case, and return what it was. Results of earlier runs stay.

    Raises:
        NotFoundError: If the agent has no such suite, or the suite no such case.
    """
    with tenant.begin_write() as session:
        suite = load_suite(session, suite_id, lock=True)
        row = _load_case(session, suite_id, case_id)
        session.delete(row)
        note_change(suite)
        return row


def make_case_row(session: ScopedSession, suite_id: str, case: RecallCase, position: int) -> SuiteCase:
    """Return a new row for a case, which belongs to no caller."""
    row = SuiteCase(project_id=session.scope.project_id, suite_id=suite_id, id=case.id, position=position)
    row.created_at, row.created_by = utc_now(), describe_actor(session.scope.actor)
    write_content(row, case)
    return row


def write_content(row: SuiteCase, case: RecallCase) -> None:
    """Write what a case says to its row."""
    row.content, row.sha256, row.updated_at = case_to_wire(case), hash_case(case), utc_now()
    row.size = measure_content(row.content)


def measure_content(content: Mapping[str, Any]) -> int:
    """Return the size of a case as JSON, in bytes."""
    return len(msgspec.json.encode(content))


def find_next_position(session: ScopedSession, suite_id: str) -> int:
    """Return the position after the last case of a suite."""
    last: int | None = session.scalar(select(func.max(SuiteCase.position)).where(SuiteCase.suite_id == suite_id))
    return 0 if last is None else last + 1


def note_change(suite: EvaluationSuite) -> None:
    """Increment the version of a suite, because its cases have changed. It must be locked."""
    suite.version += 1
    suite.updated_at = utc_now()


def check_size(session: ScopedSession, suite_id: str) -> None:
    """Raise `BatchTooLargeError` if a suite has become too large."""
    statement = select(func.count(), func.coalesce(func.sum(SuiteCase.size), 0))
    count, size = session.execute(statement.select_from(SuiteCase).where(SuiteCase.suite_id == suite_id)).one()
    _check_count(count)
    if size > MAX_SUITE_BYTES:
        raise BatchTooLargeError(
            f"the cases of a suite can have at most {MAX_SUITE_BYTES:,} bytes", limit=MAX_SUITE_BYTES
        )


def _check_count(count: int) -> None:
    if count > MAX_SUITE_CASES:
        raise BatchTooLargeError(f"a suite can have at most {MAX_SUITE_CASES:,} cases", limit=MAX_SUITE_CASES)


def _cases_of(suite_id: str, case_ids: Sequence[str]) -> Select[SuiteCase]:
    return select(SuiteCase).where(SuiteCase.suite_id == suite_id, SuiteCase.id.in_(case_ids))


def _load_case(session: ScopedSession, suite_id: str, case_id: str) -> SuiteCase:
    row = session.scalar(_cases_of(suite_id, [case_id]))
    if row is None:
        raise NotFoundError("unknown case of this suite", resource="case")
    return row


def _remove_others(session: ScopedSession, suite_id: str, case_ids: set[str]) -> int:
    statement = delete(SuiteCase).where(SuiteCase.suite_id == suite_id, SuiteCase.id.not_in(case_ids))
    result = session.execute(statement, execution_options=_UNSYNCHRONIZED)
    return int(result.rowcount)  # type: ignore[attr-defined]
