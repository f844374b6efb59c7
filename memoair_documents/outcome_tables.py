"""Tables of outcomes: which column is what, and each row as the cloud takes it, or why it does not."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from memoair_documents.tables import CsvRow, CsvTable
from memoair_protocol.identifiers import identifier_problem
from memoair_protocol.outcomes import MAX_SCORE, is_outcome_name
from memoair_protocol.timestamps import format_utc, parse_timestamp

# How columns are called in exports of telephone platforms and of CRMs: lower case, letters and digits only.
_KNOWN_NAMES: Mapping[str, Sequence[str]] = {
    "session": ("sessionid", "session", "callid", "call", "callsid", "conversationid", "contactid", "interactionid"),
    "outcome": ("outcome", "result", "disposition", "resolution", "status", "outcomename"),
    "score": ("score", "rating", "csat", "nps", "stars", "grade"),
    "user": ("userid", "user", "callerid", "caller", "customerid"),
    "time": ("occurredat", "reportedat", "timestamp", "time", "date", "endedat"),
    "outcome_id": ("outcomeid",),
}
_SPACES = re.compile(r"\s+")


class UnknownColumnError(ValueError):
    """A table has no column of a name, or none that can be guessed. The message names the columns that there are."""


@attrs.frozen
class OutcomeColumns:
    """The names of a table's columns; None for what the table does not have.

    Attributes:
        session: The session ids.
        outcome: The names of the outcomes.
        score: The scores.
        user: The ids of the users.
        time: When the outcomes happened.
        outcome_id: The ids of the outcomes.
        fixed_outcome: The name of the outcome of every row, instead of a column.
    """

    session: str | None = None
    outcome: str | None = None
    score: str | None = None
    user: str | None = None
    time: str | None = None
    outcome_id: str | None = None
    fixed_outcome: str | None = None

    def check(self, names: Sequence[str]) -> None:
        """Raise `UnknownColumnError` unless a table with columns of these names can be read."""
        there_are = f"the columns are {', '.join(filter(None, names)) or 'empty'}"
        for field in _KNOWN_NAMES:
            name = getattr(self, field)
            if name is not None and name not in names:
                raise UnknownColumnError(f"no column {name}; {there_are}")
        if self.session is None:
            raise UnknownColumnError(f"name the column with the session ids; {there_are}")
        if self.outcome is None and self.fixed_outcome is None:
            raise UnknownColumnError(f"name the column with the outcomes, or one outcome for all rows; {there_are}")


@attrs.frozen
class OutcomeRow:
    """A row of a table.

    Attributes:
        line: The line at which it ends.
        content: The outcome as the cloud takes it; None if the row is rejected.
        problem: Why it is rejected: the column and what is wrong, without what is in it.
    """

    line: int
    content: Mapping[str, Any] | None
    problem: str = ""


def guess_columns(names: Sequence[str], given: OutcomeColumns = OutcomeColumns()) -> OutcomeColumns:
    """Return which column is what, by the names.

    Args:
        names: The names of the columns.
        given: What is known already; it stays. An empty text says that the table has no such column.
    """
    by_folded_name = {re.sub(r"[^a-z0-9]", "", name.casefold()): name for name in reversed(names)}
    taken = {getattr(given, field) for field in _KNOWN_NAMES}
    guessed: dict[str, str | None] = {}
    for field, known_names in _KNOWN_NAMES.items():
        if getattr(given, field) == "":
            guessed[field] = None
            continue
        found = (by_folded_name[name] for name in known_names if name in by_folded_name)
        guessed[field] = getattr(given, field) or next((name for name in found if name not in taken), None)
        taken.add(guessed[field])
    if given.fixed_outcome is not None:
        guessed["outcome"] = None
    return attrs.evolve(given, **guessed)


def read_outcomes(table: CsvTable, columns: OutcomeColumns) -> Iterator[OutcomeRow]:
    """Yield each row of a table.

    Args:
        table: The table.
        columns: Which column is what.

    Raises:
        UnknownColumnError: If the table has no such columns.
        ValueError: If the rest of the table cannot be read; the message has the line.
    """
    columns.check(table.columns)
    for row in table.read_rows():
        try:
            yield OutcomeRow(row.line, _parse_row(row, columns, has_decimal_comma=table.delimiter != ","))
        except _RowError as error:
            yield OutcomeRow(row.line, None, str(error))


class _RowError(ValueError):
    """A row is rejected; the message says why."""


def _parse_row(row: CsvRow, columns: OutcomeColumns, *, has_decimal_comma: bool) -> dict[str, Any]:
    if row.problem:
        raise _RowError(row.problem)
    content: dict[str, Any] = {"sessionId": _parse_id(row, columns.session or "")}
    name = columns.fixed_outcome or row.values.get(columns.outcome or "", "")
    content["outcome"] = normalize_outcome(name)
    if not name:
        raise _RowError(f"{columns.outcome}: empty")
    if not is_outcome_name(content["outcome"]):
        raise _RowError(f"{columns.outcome or 'outcome'}: use letters a to z, digits, dots and dashes, at most 64")
    if columns.score in row.values:
        content["score"] = _parse_score(row, columns.score or "", has_decimal_comma=has_decimal_comma)
    if columns.user in row.values:
        content["userId"] = _parse_id(row, columns.user or "")
    if columns.time in row.values:
        try:
            content["occurredAt"] = format_utc(parse_timestamp(row.values[columns.time or ""]))
        except (ValueError, OverflowError):
            raise _RowError(f"{columns.time}: use ISO 8601, such as 2026-03-02T09:30:00Z") from None
    if columns.outcome_id in row.values:
        content["outcomeId"] = _parse_id(row, columns.outcome_id or "")
    return content


def normalize_outcome(name: str) -> str:
    """Return a name as outcomes are named: in lower case, with dashes for spaces."""
    return _SPACES.sub("-", name.strip().lower())


def _parse_id(row: CsvRow, column: str) -> str:
    value = row.values.get(column, "")
    if not value:
        raise _RowError(f"{column}: empty")
    if problem := identifier_problem(value):
        raise _RowError(f"{column}: {problem}")
    return value


def _parse_score(row: CsvRow, column: str, *, has_decimal_comma: bool) -> float:
    text = row.values[column]
    try:
        score = float(text.replace(",", ".") if has_decimal_comma else text)
    except ValueError:
        score = math.nan
    if not abs(score) <= MAX_SCORE:
        raise _RowError(f"{column}: not a number")
    return score
