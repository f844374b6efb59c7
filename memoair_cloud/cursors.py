"""Cursor pagination: the position where a page ended, as an opaque string that the client sends back."""

import base64
import binascii
import json
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import attrs
from sqlalchemy import Select, tuple_

from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.identifiers import check_identifier
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.timestamps import to_utc

RowT = TypeVar("RowT")


@attrs.frozen
class ResultPage(Generic[RowT]):
    """One page of a list.

    Attributes:
        rows: The rows of this page.
        next_cursor: The cursor of the next page; None on the last page.
    """

    rows: Sequence[RowT]
    next_cursor: str | None


@attrs.frozen
class PageOrder(Generic[RowT]):
    """The sort order of a list, and how a row becomes a cursor and back.

    Attributes:
        columns: The columns to sort by. Together they are unique.
        types: The type of each column: str, int, float or datetime.
        key_of: Returns the values of these columns for a row.
        descending: Whether the list is sorted in descending order.
    """

    columns: Sequence[Any]
    types: Sequence[type]
    key_of: Callable[[RowT], Sequence[Any]]
    descending: bool = False

    def fetch_page(
        self, session: ScopedSession, statement: Select[Any], cursor: str | None, limit: int
    ) -> ResultPage[RowT]:
        """Return the rows after a cursor, or the first rows without one.

        Args:
            session: The session to read with.
            statement: The rows of the whole list, not yet sorted.
            cursor: The cursor of the previous page, or None.
            limit: The maximum number of rows.

        Raises:
            InvalidRequestError: If this list did not issue the cursor.
        """
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
                raise ValueError("wrong number of parts")
            return [_decode_part(part, expected) for part, expected in zip(parts, self.types, strict=True)]
        except (ValueError, RecursionError, binascii.Error):
            raise InvalidRequestError(
                "invalid cursor: pass `next` of the previous page of this list unchanged", field="cursor"
            ) from None


def _decode_part(part: Any, expected_type: type) -> Any:
    if expected_type is int and type(part) is int and abs(part) < 2**63:
        return part
    if expected_type is float and type(part) is float and math.isfinite(part):
        return part
    if isinstance(part, str) and expected_type is datetime:
        return to_utc(datetime.fromisoformat(part))
    if isinstance(part, str) and expected_type is str:
        return check_identifier(part)
    raise ValueError("wrong type")
