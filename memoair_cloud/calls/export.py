"""Export everything that is kept of a caller, as one JSON document.

The document is written to a file first, in one snapshot of the database: a reader that takes its time holds no
transaction open, and a failure is an error and not half a document. Memory is bounded, however many turns there are.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import IO, Any

from sqlalchemy import Select, select

from memoair_cloud.database.base import ProjectOwned
from memoair_cloud.database.caller_tables import CALLER_TABLES
from memoair_cloud.database.models import (
    CallerProfile,
    CallEvent,
    CallSession,
    EndUser,
    LegalHold,
    Memory,
    MemoryChange,
)
from memoair_cloud.errors import NotFoundError
from memoair_cloud.retention.holds import is_held
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.timestamps import format_utc, utc_now

FORMAT = "memoair.user-export"
SCHEMA_VERSION = 1
_ROWS_AT_ONCE = 500
# Up to this size, an export needs no space on the disk.
_MAX_MEMORY_BYTES = 1 << 20
# The tables that the document has in a form of their own, and not row by row.
_WRITTEN_APART: frozenset[type[ProjectOwned]] = frozenset(
    {LegalHold, CallSession, CallEvent, Memory, MemoryChange, CallerProfile}
)
# What the document leaves out: keys that are the same in every row, and bookkeeping of the server.
_LEFT_OUT = frozenset(
    {"project_id", "user_id", "user_digest", "barred", "version", "claimed_until", "retry_at", "failures", "failure"}
)


def write_export(tenant: Tenant, user_id: str) -> IO[bytes]:
    """Return an open, unnamed file with everything that is kept of a user, positioned at its end.

    Args:
        tenant: The project.
        user_id: The user.

    Raises:
        NotFoundError: If the user is unknown.
    """
    file = tempfile.SpooledTemporaryFile(_MAX_MEMORY_BYTES)  # noqa: SIM115 - the caller closes it
    try:
        with tenant.begin_read() as session:
            user = session.scalar(select(EndUser).where(EndUser.id == user_id))
            if user is None:
                raise NotFoundError("unknown user")
            for part in _encode(session, user):
                file.write(part.encode())
    except BaseException:
        file.close()
        raise
    return file


def _encode(session: ScopedSession, user: EndUser) -> Iterator[str]:
    profile = session.scalar(select(CallerProfile).where(CallerProfile.user_id == user.id))
    head = {
        "format": FORMAT,
        "schemaVersion": SCHEMA_VERSION,
        "exportedAt": format_utc(utc_now()),
        "projectId": session.scope.project_id,
        "user": _row_to_json(user),
        "held": is_held(session, user.id),
        "profile": None if profile is None else _row_to_json(profile),
    }
    yield json.dumps(head)[:-1]
    yield from _encode_list("holds", _stream(session, select(LegalHold).where(LegalHold.user_id == user.id)))
    calls = select(CallSession).where(CallSession.user_id == user.id)
    yield from _encode_list("sessions", _stream(session, calls.order_by(CallSession.started_at, CallSession.id)))
    events = select(CallEvent).where(CallEvent.user_id == user.id)
    in_order = events.order_by(CallEvent.session_id, CallEvent.seq, CallEvent.id)
    yield from _encode_list("events", _stream(session, in_order))
    yield from _encode_list("facts", _facts(session, user.id))
    for table in CALLER_TABLES:
        if table.model not in _WRITTEN_APART:
            rows: Select[Any] = select(table.model).where(table.belongs_to(user.id))
            yield from _encode_list(table.name, _stream(session, rows))
    yield "}\n"


def _encode_list(name: str, items: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield f',\n"{name}": ['
    for number, item in enumerate(items):
        yield (",\n" if number else "\n") + json.dumps(item)
    yield "]"


def _stream(session: ScopedSession, statement: Select[Any]) -> Iterator[dict[str, Any]]:
    for row in session.scalars(statement.execution_options(yield_per=_ROWS_AT_ONCE)):
        yield _row_to_json(row)
        session.expunge(row)


def _facts(session: ScopedSession, user_id: str) -> Iterator[dict[str, Any]]:
    """Yield all facts, also those that no longer hold or lost their words, each with its earlier versions."""
    last_id = ""
    while True:
        statement = select(Memory).where(Memory.user_id == user_id, Memory.id > last_id)
        memories = session.scalars(statement.order_by(Memory.id).limit(_ROWS_AT_ONCE)).all()
        if not memories:
            return
        last_id = memories[-1].id
        changes = select(MemoryChange).where(
            MemoryChange.user_id == user_id, MemoryChange.memory_id >= memories[0].id, MemoryChange.memory_id <= last_id
        )
        history: dict[str, list[dict[str, Any]]] = {}
        for change in session.scalars(changes.order_by(MemoryChange.memory_id, MemoryChange.number)):
            history.setdefault(change.memory_id, []).append(_row_to_json(change))
        yield from ({**_row_to_json(memory), "history": history.get(memory.id, [])} for memory in memories)
        session.expunge_all()


def _row_to_json(row: Any) -> dict[str, Any]:
    """Return all columns of a row that say something about the user, in camel case."""
    found = {}
    for attribute in row.__mapper__.column_attrs:
        name = attribute.columns[0].name
        if name not in _LEFT_OUT:
            first, *others = name.split("_")
            found[first + "".join(map(str.title, others))] = _to_json(getattr(row, attribute.key))
    return found


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_utc(value)
    return value.isoformat() if isinstance(value, date) else value
