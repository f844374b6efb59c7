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
from memoair_cloud.timeutil import to_utc

RowT = TypeVar("RowT")


@attrs.frozen
class ResultPage(Generic[RowT]):
    """A part of a list, and the cursor of what follows; None at the end."""

    rows: Sequence[RowT]
    next_cursor: str | None


@attrs.frozen
class PageOrder(Generic[RowT]):
    """What a list is sorted by: columns that together are unique, and how they are read back from a cursor."""

    columns: Sequence[Any]
    types: Sequence[type]
    key_of: Callable[[RowT], Sequence[Any]]
    descending: bool = False

    def fetch_page(
        self, session: ScopedSession, statement: Select[Any], cursor: str | None, limit: int
    ) -> ResultPage[RowT]:
        """The rows behind a cursor, the first ones without; raises `InvalidRequestError` for a cursor that is none of ours."""
        if cursor is not None:
            row_key, last_key = tuple_(*self.columns), tuple_(*self._decode_cursor(cursor))
            statement = statement.where(row_key < last_key if self.descending else row_key > last_key)
        order = [column.desc() if self.descending else column.asc() for column in self.columns]
        rows: Sequence[RowT] = session.scalars(statement.order_by(*order).limit(limit + 1)).all()
        has_more = len(rows) > limit
        return ResultPage(rows[:limit], self._encode_cursor(rows[limit - 1]) if has_more else None)

    def _encode_cursor(self, row: RowT) -> str:
        parts = [part.isoformat() if isinstance(part, datetime) else part for part in self.key_of(row)]
        return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")

    def _decode_cursor(self, cursor: str) -> list[Any]:
        try:
            parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
            if not isinstance(parts, list) or len(parts) != len(self.types):
                raise ValueError("of another shape")
            return [_decode_part(part, kind) for part, kind in zip(parts, self.types, strict=True)]
        except (ValueError, RecursionError, binascii.Error):
            raise InvalidRequestError("the cursor is none that this list has given", field="cursor") from None


def _decode_part(part: Any, expected_type: type) -> Any:
    if expected_type is int and type(part) is int and abs(part) < 2**63:
        return part
    if isinstance(part, str) and expected_type is datetime:
        return to_utc(datetime.fromisoformat(part))
    if isinstance(part, str) and expected_type is str:
        return check_identifier(part)
    raise ValueError("of another type")
