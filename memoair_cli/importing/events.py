"""From the turns of a file to the events of its calls: the same ones, with the same ids, whenever the file is read."""

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

import attrs
import msgspec

from memoair_voice_sync.transcripts import TranscriptTurn

# Ids are made in this name space; another one would give every turn that was imported before a second place.
_NAMESPACE = uuid.UUID("5f0c6f6e-2f0d-4c55-9d3b-6a1f7f0f8f31")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
# A call is taken as over once so many others were heard after it. Files in which more calls than that are mixed show
# themselves by calls that come again, and for them the number is doubled.
_INITIAL_MAX_OPEN_CALLS, _MAX_OPEN_CALLS = 32, 4_096
_MAX_CLOSED_CALLS = 20_000
_ENVELOPE_BYTES = 400  # bytes of an event beside what was said


class ImportEventKind(Enum):
    """What an event tells."""

    START = "session_start"
    TURN = "turn"
    END = "session_end"


@attrs.frozen
class ImportEvent:
    """One event of a call, as the cloud takes it. ``line`` is where it comes from, ``size`` about how long it is."""

    kind: ImportEventKind
    id: str
    user_id: str = attrs.field(repr=False)
    session_id: str = attrs.field(repr=False)
    seq: int
    occurred_at: datetime
    payload: Mapping[str, Any] = attrs.field(repr=False)
    line: int
    size: int

    def encode(self) -> bytes:
        """The event as JSON."""
        body = {
            "eventId": self.id,
            "type": self.kind.value,
            "sessionId": self.session_id,
            "seq": self.seq,
            "occurredAt": self.occurred_at,
            "payload": self.payload,
        }
        return msgspec.json.encode(body)


@attrs.define
class _CallState:
    """A call that may go on."""

    last_seq: int = 0
    last_at: datetime | None = None
    last_turn: str = ""
    last_line: int = 0
    is_started: bool = False
    name: str | None = None  # the caller's
    assistant: str | None = None


class CallEvents:
    """The events of one file's calls, as its turns come: a start before the first turn, an end after the last.

    A turn's ``seq`` is its time in half milliseconds, or the next even number, whichever is more. So what one file
    tells of a call stands behind what another told of its beginning, and in the order in which it was said; starts and
    ends have the odd numbers between. ``otherwise`` is when that was said of which the file does not tell it.
    """

    def __init__(self, project_id: str, default_time: datetime) -> None:
        self._project_id = project_id
        self._default_time = default_time
        self._open: OrderedDict[tuple[str, str], _CallState] = OrderedDict()  # the one heard longest ago first
        self._closed: OrderedDict[tuple[str, str], _CallState] = OrderedDict()
        self._max_open_calls = _INITIAL_MAX_OPEN_CALLS
        self.calls = 0

    def for_turn(self, turn: TranscriptTurn) -> Iterator[ImportEvent]:
        """The events that a turn brings about."""
        key = (turn.user_id, turn.session_id)
        call = self._open.get(key) or self._open_call(key)
        self._open.move_to_end(key)
        at = turn.occurred_at or call.last_at or self._default_time
        seq = max(call.last_seq + 2, _half_milliseconds(turn.occurred_at))
        if not call.is_started or turn.user_name not in (None, call.name):
            yield self._start_event(turn, call, seq - 1, at)
        yield self._turn_event(turn, call, seq, at)
        call.last_seq, call.last_at = seq, at
        call.last_turn, call.last_line = turn.turn_id, turn.line
        if len(self._open) > self._max_open_calls:
            yield self._end_event(*self._open.popitem(last=False))

    def finish(self) -> Iterator[ImportEvent]:
        """The ends of all calls that are still open, once the file has been read."""
        while self._open:
            yield self._end_event(*self._open.popitem(last=False))

    def _open_call(self, key: tuple[str, str]) -> _CallState:
        call = self._closed.pop(key, None)
        if call is None:
            call = _CallState()
            self.calls += 1
        else:
            self._max_open_calls = min(2 * self._max_open_calls, _MAX_OPEN_CALLS)
        self._open[key] = call
        return call

    def _start_event(self, turn: TranscriptTurn, call: _CallState, seq: int, at: datetime) -> ImportEvent:
        call.is_started, call.name = True, turn.user_name or call.name
        call.assistant = call.assistant or turn.assistant_name
        user = {"id": turn.user_id, **({"name": call.name} if call.name else {})}
        assistant = {"assistantName": call.assistant} if call.assistant else {}
        payload = {"user": user, "metadata": {**turn.metadata, **assistant}}
        # With the turn in its id: of two files that tell of one call, each gives it a start of its own.
        id_ = self._event_id_of(turn, ImportEventKind.START, f"{turn.turn_id}\0{call.name or ''}")
        size = _ENVELOPE_BYTES + _encoded_size(turn.metadata)
        return ImportEvent(ImportEventKind.START, id_, turn.user_id, turn.session_id, seq, at, payload, turn.line, size)

    def _turn_event(self, turn: TranscriptTurn, call: _CallState, seq: int, at: datetime) -> ImportEvent:
        has_other_assistant = turn.assistant_name not in (None, call.assistant)
        payload = {
            "turnId": turn.turn_id,
            "userText": turn.user_text,
            "assistantText": turn.assistant_text,
            "toolCalls": [],
            "metadata": {**turn.metadata, **({"assistantName": turn.assistant_name} if has_other_assistant else {})},
        }
        id_ = self._event_id_of(turn, ImportEventKind.TURN, turn.turn_id)
        size = _ENVELOPE_BYTES + len(turn.user_text) + len(turn.assistant_text) + _encoded_size(turn.metadata)
        return ImportEvent(ImportEventKind.TURN, id_, turn.user_id, turn.session_id, seq, at, payload, turn.line, size)

    def _end_event(self, key: tuple[str, str], call: _CallState) -> ImportEvent:
        self._closed[key] = call
        if len(self._closed) > _MAX_CLOSED_CALLS:
            self._closed.popitem(last=False)
        # With the last turn in its id: a file that tells more of the call ends it anew, and later.
        id_ = _event_id(self._project_id, *key, ImportEventKind.END, call.last_turn)
        at = call.last_at or self._default_time
        payload = {"reason": "imported"}
        return ImportEvent(
            ImportEventKind.END, id_, *key, call.last_seq + 1, at, payload, call.last_line, _ENVELOPE_BYTES
        )

    def _event_id_of(self, turn: TranscriptTurn, kind: ImportEventKind, discriminator: str) -> str:
        return _event_id(self._project_id, turn.user_id, turn.session_id, kind, discriminator)


def _event_id(project_id: str, user_id: str, session_id: str, kind: ImportEventKind, discriminator: str) -> str:
    # No id holds a null character, so two lists of parts never make one name.
    name = "\0".join((project_id, user_id, session_id, kind.value, discriminator))
    # As `uuid.uuid5` does it, in a fifth of the time.
    digest = bytearray(hashlib.sha1(_NAMESPACE.bytes + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6], digest[8] = digest[6] & 0x0F | 0x50, digest[8] & 0x3F | 0x80
    return digest.hex()


def _half_milliseconds(at: datetime | None) -> int:
    return 0 if at is None else max(0, (at - _EPOCH) // _MILLISECOND) * 2


def _encoded_size(metadata: Mapping[str, Any]) -> int:
    return len(msgspec.json.encode(metadata)) if metadata else 0
