"""Pages of what has changed: each holds all of some versions, so that a device which stops in between knows where."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select

from memoair_cloud.tenancy.scoped import ScopedSession

# About a megabyte of turns. A version that is larger by itself still comes whole.
PAGE_ROWS = 2_000

RowT = TypeVar("RowT")


def changed(
    session: ScopedSession, statement: "Select[RowT]", version: Any, since: int, latest: int, most: int = PAGE_ROWS
) -> tuple[Sequence[RowT], int]:
    """The rows of versions after ``since``, as many as a page holds, in their order; and up to which version that is.

    ``version`` is the column, by which the rows are sorted first; ``statement`` says by what then. ``latest`` is
    the version of the whole, which is returned where nothing is left behind the page.
    """
    behind = statement.where(version > since)
    rows = session.scalars(behind.limit(most + 1)).all()
    if len(rows) <= most:
        return rows, latest
    name = version.key
    upto = getattr(rows[-1], name) - 1
    if upto > since and getattr(rows[0], name) <= upto:
        return [row for row in rows if getattr(row, name) <= upto], upto
    whole = getattr(rows[0], name)
    return session.scalars(statement.where(version == whole)).all(), whole
