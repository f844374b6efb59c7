"""Pages of what has changed: each holds all of some versions, so that a device which stops in between knows where."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, func

from memoair_cloud.tenancy.scoped import ScopedSession

# A page is about a megabyte of turns. A version that is larger by itself still comes whole: no batch of events is
# over 16 MB.
PAGE_ROWS = 2_000
PAGE_CHARS = 8 << 20

RowT = TypeVar("RowT")


def changed(
    session: ScopedSession,
    statement: Select[RowT],
    version: Any,
    words: Any,
    since: int,
    latest: int,
    most: int = PAGE_ROWS,
) -> tuple[Sequence[RowT], int]:
    """The rows of versions after ``since``, as many as a page holds, in their order; and up to which version that is.

    ``statement`` selects one model, ``version`` and ``words`` are columns of it: by the one the rows are sorted first,
    the other is what makes them large. ``latest`` is the version of the whole, which is returned where nothing is left
    behind the page.
    """
    upto = _page_end(session, statement, version, words, since, most)
    rows = session.scalars(statement.where(version > since, version <= (latest if upto is None else upto))).all()
    return rows, latest if upto is None else upto


def _page_end(
    session: ScopedSession, statement: Select[Any], version: Any, words: Any, since: int, most: int
) -> int | None:
    """The last version that a page has room for, the first one in any case; None where there is room for all."""
    sizes = statement.with_only_columns(version, func.length(words)).where(version > since).limit(most + 1)
    whole: int | None = None  # the last version all of whose rows have been seen
    last: int | None = None
    chars = 0
    for number, (of_row, size) in enumerate(session.execute(sizes)):
        whole = last if last is not None and of_row != last else whole
        last = of_row
        chars += size
        if number >= most or chars > PAGE_CHARS:
            return of_row if whole is None else whole
    return None
