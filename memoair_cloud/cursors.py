"""Long lists by the page: where a page ended, as an opaque text that a client hands back."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import attrs
from sqlalchemy import Select, tuple_

from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.identifiers import check_identifier
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_cloud.timeutil import in_utc

RowT = TypeVar("RowT")


@attrs.frozen
class ResultPage(Generic[RowT]):
    """A part of a list, and the cursor of what follows; None at the end."""

    rows: Sequence[RowT]
    next: str | None


@attrs.frozen
class PageOrder(Generic[RowT]):
    """What a list is sorted by: columns that together are unique, and how they are read back from a cursor."""

    columns: Sequence[Any]
    kinds: Sequence[type]
    key: Callable[[RowT], Sequence[Any]]
    descending: bool = False

    def page(self, session: ScopedSession, statement: Select[Any], cursor: str | None, limit: int) -> ResultPage[RowT]:
        """The rows behind a cursor, the first ones without; raises `InvalidRequestError` for a cursor that is none of ours."""
        if cursor is not None:
            ours, theirs = tuple_(*self.columns), tuple_(*self._read(cursor))
            statement = statement.where(ours < theirs if self.descending else ours > theirs)
        order = [column.desc() if self.descending else column.asc() for column in self.columns]
        rows: Sequence[RowT] = session.scalars(statement.order_by(*order).limit(limit + 1)).all()
        more = len(rows) > limit
        return ResultPage(rows[:limit], self._write(rows[limit - 1]) if more else None)

    def _write(self, row: RowT) -> str:
        told = [part.isoformat() if isinstance(part, datetime) else part for part in self.key(row)]
        return base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")

    def _read(self, cursor: str) -> list[Any]:
        try:
            told = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
            if not isinstance(told, list) or len(told) != len(self.kinds):
                raise ValueError("of another shape")
            return [_part(part, kind) for part, kind in zip(told, self.kinds, strict=True)]
        except (ValueError, RecursionError, binascii.Error):
            raise InvalidRequestError("the cursor is none that this list has given", field="cursor") from None


def _part(part: Any, kind: type) -> Any:
    if kind is int and type(part) is int and abs(part) < 2**63:
        return part
    if isinstance(part, str) and kind is datetime:
        return in_utc(datetime.fromisoformat(part))
    if isinstance(part, str) and kind is str:
        return check_identifier(part)
    raise ValueError("of another type")
