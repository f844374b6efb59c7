"""Pages of changes. A page contains only complete versions, so that a machine can resume after any page."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, func

from memoair_cloud.tenancy.scoped import ScopedSession

# A page has about a megabyte of turns. A single version that is larger still comes as one page: no batch of events
# exceeds 16 MB.
MAX_PAGE_ROWS = 2_000
MAX_PAGE_CHARS = 8 << 20

RowT = TypeVar("RowT")


def fetch_changes(
    session: ScopedSession,
    statement: Select[RowT],
    version_column: Any,
    text_column: Any,
    since: int,
    latest: int,
    max_rows: int = MAX_PAGE_ROWS,
) -> tuple[Sequence[RowT], int]:
    """Return the rows that changed after a version, as many as fit on a page, in the order of the statement.

    Args:
        session: The session to read with.
        statement: Selects one model, sorted by ``version_column`` first.
        version_column: The version of a row.
        text_column: The column that determines the size of a row.
        since: Return only versions after this one.
        latest: The latest version of the whole.
        max_rows: The maximum number of rows on a page.

    Returns:
        The rows, and the version up to which they are complete: ``latest`` if no rows remain.
    """
    up_to = _find_page_end(session, statement, version_column, text_column, since, max_rows)
    rows = session.scalars(
        statement.where(version_column > since, version_column <= (latest if up_to is None else up_to))
    ).all()
    return rows, latest if up_to is None else up_to


def _find_page_end(
    session: ScopedSession, statement: Select[Any], version_column: Any, text_column: Any, since: int, max_rows: int
) -> int | None:
    """Return the last version that fits on a page, but at least the first; None if all fit."""
    sizes = (
        statement.with_only_columns(version_column, func.length(text_column))
        .where(version_column > since)
        .limit(max_rows + 1)
    )
    last_complete: int | None = None  # the last version whose rows have all been counted
    previous: int | None = None
    chars = 0
    for row_count, (version, size) in enumerate(session.execute(sizes)):
        last_complete = previous if previous is not None and version != previous else last_complete
        previous = version
        chars += size
        if row_count >= max_rows or chars > MAX_PAGE_CHARS:
            return version if last_complete is None else last_complete
    return None
