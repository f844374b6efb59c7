"""Convert the turns of a file to events of its calls: the same events, with the same ids, whenever it is read."""

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import attrs
import msgspec

from memoair_protocol.enums import EventType
from memoair_transcripts import TranscriptTurn

# The namespace of event ids. With another one, turns that were imported before would be imported again.
_NAMESPACE = uuid.UUID("5f0c6f6e-2f0d-4c55-9d3b-6a1f7f0f8f31")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
# A call counts as ended after this many more recent ones. If a call comes back, the file mixes more calls than that,
# and the number is doubled.
_INITIAL_MAX_OPEN_CALLS, _MAX_OPEN_CALLS = 32, 4_096
_MAX_CLOSED_CALLS = 20_000
_ENVELOPE_BYTES = 400  # the size of an event without its text and metadata


@attrs.frozen
class ImportEvent:
    """An event of a call, as a cloud accepts it.

    Attributes:
        kind: Its type.
        id: Its id, the same whenever the file is read.
        user_id: The caller's id.
        session_id: The id of the call.
        seq: Its position in the call. Positions increase, but are not consecutive.
        occurred_at: When it took place, in UTC.
        payload: Its content.
        file: The name of the file that it comes from, for messages.
        line: The line of the file.
        size: Its approximate size in bytes.
    """

    kind: EventType
    id: str
    user_id: str = attrs.field(repr=False)
    session_id: str = attrs.field(repr=False)
    seq: int
    occurred_at: datetime
    payload: Mapping[str, Any] = attrs.field(repr=False)
    file: str
    line: int
    size: int

    def encode(self) -> bytes:
        """Return the event as JSON."""
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
    """A call that may continue."""

    last_seq: int = 0
    last_at: datetime | None = None
    last_turn: str = ""
    last_line: int = 0
    is_started: bool = False
    name: str | None = None  # the user's name
    assistant: str | None = None


class CallEvents:
    """The events of one file's calls: a start before the first turn of a call, an end after its last one.

    A turn's ``seq`` is its time in half milliseconds, or the next even number if that is larger. So the turns of a call
    are in order, also if several files have parts of it. Starts and ends have the odd numbers in between.

    Args:
        project_id: The project, which is part of event ids.
        file: The name of the file, for messages.
        default_time: The time of turns without one.
    """

    def __init__(self, project_id: str, file: str, default_time: datetime) -> None:
        self._project_id = project_id
        self._file = file
        self._default_time = default_time
        self._open: OrderedDict[tuple[str, str], _CallState] = OrderedDict()  # least recently active first
        self._closed: OrderedDict[tuple[str, str], _CallState] = OrderedDict()
        self._max_open_calls = _INITIAL_MAX_OPEN_CALLS
        self.calls = 0

    def for_turn(self, turn: TranscriptTurn) -> Iterator[ImportEvent]:
        """Yield the events of a turn, and the ends of calls that are taken as ended."""
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
        """Yield the ends of all open calls, at the end of the file."""
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
        # The id includes the turn: if two files have parts of a call, each gives it a start of its own.
        id_ = self._event_id_of(turn, EventType.SESSION_START, f"{turn.turn_id}\0{call.name or ''}")
        size = _ENVELOPE_BYTES + _encoded_size(turn.metadata)
        return ImportEvent(
            EventType.SESSION_START, id_, turn.user_id, turn.session_id, seq, at, payload, self._file, turn.line, size
        )

    def _turn_event(self, turn: TranscriptTurn, call: _CallState, seq: int, at: datetime) -> ImportEvent:
        has_other_assistant = turn.assistant_name not in (None, call.assistant)
        payload = {
            "turnId": turn.turn_id,
            "userText": turn.user_text,
            "assistantText": turn.assistant_text,
            "toolCalls": [],
            "metadata": {**turn.metadata, **({"assistantName": turn.assistant_name} if has_other_assistant else {})},
        }
        id_ = self._event_id_of(turn, EventType.TURN, turn.turn_id)
        size = _ENVELOPE_BYTES + len(turn.user_text) + len(turn.assistant_text) + _encoded_size(turn.metadata)
        return ImportEvent(
            EventType.TURN, id_, turn.user_id, turn.session_id, seq, at, payload, self._file, turn.line, size
        )

    def _end_event(self, key: tuple[str, str], call: _CallState) -> ImportEvent:
        self._closed[key] = call
        if len(self._closed) > _MAX_CLOSED_CALLS:
            self._closed.popitem(last=False)
        # The id includes the last turn: a file with more of the call ends it again, later.
        id_ = _event_id(self._project_id, *key, EventType.SESSION_END, call.last_turn)
        at = call.last_at or self._default_time
        payload = {"reason": "imported"}
        return ImportEvent(
            EventType.SESSION_END,
            id_,
            *key,
            call.last_seq + 1,
            at,
            payload,
            self._file,
            call.last_line,
            _ENVELOPE_BYTES,
        )

    def _event_id_of(self, turn: TranscriptTurn, kind: EventType, discriminator: str) -> str:
        return _event_id(self._project_id, turn.user_id, turn.session_id, kind, discriminator)


def _event_id(project_id: str, user_id: str, session_id: str, kind: EventType, discriminator: str) -> str:
    # Ids have no null characters, so different parts never form the same name.
    name = "\0".join((project_id, user_id, session_id, kind.value, discriminator))
    # The same as `uuid.uuid5`, in a fifth of the time.
    digest = bytearray(hashlib.sha1(_NAMESPACE.bytes + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6], digest[8] = digest[6] & 0x0F | 0x50, digest[8] & 0x3F | 0x80
    return digest.hex()


def _half_milliseconds(at: datetime | None) -> int:
    return 0 if at is None else max(0, (at - _EPOCH) // _MILLISECOND) * 2


def _encoded_size(metadata: Mapping[str, Any]) -> int:
    return len(msgspec.json.encode(metadata)) if metadata else 0
