"""Pages of what has changed: each holds all of some versions, so that a device which stops in between knows where."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, func

from memoair_cloud.tenancy.scoped import ScopedSession

# A page is about a megabyte of turns. A version that is larger by itself still comes whole: no batch of events is
# over 16 MB.
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
    """The rows of versions after ``since``, as many as a page holds, in their order; and up to which version that is.

    ``statement`` selects one model, ``version`` and ``words`` are columns of it: by the one the rows are sorted first,
    the other is what makes them large. ``latest`` is the version of the whole, which is returned where nothing is left
    behind the page.
    """
    up_to = _find_page_end(session, statement, version_column, text_column, since, max_rows)
    rows = session.scalars(
        statement.where(version_column > since, version_column <= (latest if up_to is None else up_to))
    ).all()
    return rows, latest if up_to is None else up_to


def _find_page_end(
    session: ScopedSession, statement: Select[Any], version_column: Any, text_column: Any, since: int, max_rows: int
) -> int | None:
    """The last version that a page has room for, the first one in any case; None where there is room for all."""
    sizes = (
        statement.with_only_columns(version_column, func.length(text_column))
        .where(version_column > since)
        .limit(max_rows + 1)
    )
    last_complete: int | None = None  # the last version all of whose rows have been seen
    previous: int | None = None
    chars = 0
    for row_count, (version, size) in enumerate(session.execute(sizes)):
        last_complete = previous if previous is not None and version != previous else last_complete
        previous = version
        chars += size
        if row_count >= max_rows or chars > MAX_PAGE_CHARS:
            return version if last_complete is None else last_complete
    return None
