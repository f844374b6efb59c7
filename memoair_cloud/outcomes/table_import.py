"""Save the outcomes of a table, or find out what would become of them."""

import base64
import binascii
import gzip
import zlib
from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any

import attrs

from memoair_cloud.errors import BatchTooLargeError, InvalidRequestError
from memoair_cloud.outcomes.reporting import ReportedOutcome, report_outcomes
from memoair_cloud.tenancy.access import Tenant
from memoair_documents.outcome_tables import OutcomeColumns, OutcomeRow, read_outcomes
from memoair_documents.tables import CsvTable
from memoair_protocol.timestamps import parse_timestamp

MAX_TABLE_BYTES = 32 << 20
MAX_TABLE_ROWS = 100_000
_MAX_SHOWN = 200
_ROWS_AT_ONCE = 1_000


@attrs.frozen
class RejectedRow:
    """A row of a table that is not saved: its line, and why."""

    line: int
    reason: str


@attrs.define
class TableReceipt:
    """What became of a table.

    Attributes:
        accepted: The number of outcomes that were saved, or would be.
        unknown_sessions: How many of them are of calls that have not arrived.
        rejected_count: The number of rows that are not saved.
        rejected: The first of these rows.
        began_at: When the known calls began.
    """

    accepted: int = 0
    unknown_sessions: int = 0
    rejected_count: int = 0
    rejected: list[RejectedRow] = attrs.field(factory=list)
    began_at: set[datetime] = attrs.field(factory=set)

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return self.accepted + self.rejected_count

    def reject(self, line: int, reason: str) -> None:
        """Record a row that is not saved."""
        self.rejected_count += 1
        if len(self.rejected) < _MAX_SHOWN:
            self.rejected.append(RejectedRow(line, reason))


def import_table(tenant: Tenant, text: str, columns: OutcomeColumns, *, is_dry_run: bool) -> TableReceipt:
    """Save the outcomes of a table. It is read as a whole before the first is saved.

    Args:
        tenant: The project.
        text: The table in CSV.
        columns: Which column is what.
        is_dry_run: Save nothing, and return what would become of each row.

    Raises:
        InvalidRequestError: If the table cannot be read, or has no such columns.
        BatchTooLargeError: If it has more than `MAX_TABLE_ROWS` rows.
    """
    try:
        rows = list(islice(read_outcomes(CsvTable(text), columns), MAX_TABLE_ROWS + 1))
    except ValueError as error:
        raise InvalidRequestError(f"the table: {error}", field="file") from None
    if len(rows) > MAX_TABLE_ROWS:
        raise BatchTooLargeError(f"the table has more than {MAX_TABLE_ROWS:,} rows: split it", limit=MAX_TABLE_ROWS)
    receipt = TableReceipt()
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        _save(tenant, rows[start : start + _ROWS_AT_ONCE], receipt, is_dry_run=is_dry_run)
    receipt.rejected.sort(key=lambda row: row.line)
    return receipt


def _save(tenant: Tenant, rows: list[OutcomeRow], receipt: TableReceipt, *, is_dry_run: bool) -> None:
    valid = [row for row in rows if row.content is not None]
    for row in rows:
        if row.content is None:
            receipt.reject(row.line, row.problem)
    outcomes = [_make_outcome(row.content) for row in valid if row.content is not None]
    found = report_outcomes(tenant, outcomes, is_dry_run=is_dry_run)
    receipt.accepted += found.accepted
    receipt.began_at |= found.began_at
    receipt.unknown_sessions += found.unknown_sessions
    for rejection in found.rejected:
        receipt.reject(valid[rejection.index].line, rejection.reason)


def _make_outcome(content: Mapping[str, Any]) -> ReportedOutcome:
    occurred_at = content.get("occurredAt")
    return ReportedOutcome(
        session_id=content["sessionId"],
        outcome=content["outcome"],
        user_id=content.get("userId"),
        score=content.get("score"),
        occurred_at=None if occurred_at is None else parse_timestamp(occurred_at),
        outcome_id=content.get("outcomeId"),
    )


def pack_table(text: str) -> str:
    """Return a table as a short text, for a form that carries it until it is confirmed: the server keeps nothing."""
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=3, mtime=0)).decode()


def unpack_table(packed: str) -> str:
    """Return the table that `pack_table` has packed.

    Raises:
        InvalidRequestError: If it is something else.
        BatchTooLargeError: If it is larger than a file may be.
    """
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        content = decompressor.decompress(base64.b64decode(packed, validate=True), MAX_TABLE_BYTES + 1)
        if len(content) > MAX_TABLE_BYTES:
            raise BatchTooLargeError(f"the file exceeds {MAX_TABLE_BYTES >> 20} MB", limit=MAX_TABLE_BYTES)
        if not decompressor.eof:
            raise ValueError("incomplete")
        return content.decode()
    except (ValueError, binascii.Error, zlib.error):
        raise InvalidRequestError("choose the file again", field="file") from None
