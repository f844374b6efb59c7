"""Import into the memory on this machine: the runtime of each user saves the calls, as if they took place here."""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import attrs

from memoair_cli.importing.events import ImportEvent
from memoair_cli.importing.targets import RetryPolicy, SendResult, TargetError
from memoair_protocol.enums import EventType
from memoair_protocol.interruption import truncate_to_heard
from memoair_protocol.private_files import open_private_reader
from memoair_runtime.storage.turn_words import TurnWords, VersionKey
from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

_IMPORT_TIMEOUT_S = 60.0
# How many calls' turns are cached. When an evicted call returns, its log is read again.
_MAX_CACHED_CALLS = 1_024
_ERASED_REASON = "the user was erased after this turn"
# The turns are too large, or something in them is invalid. They are split and sent again, so that only the invalid
# ones are rejected.
_SPLIT_CODES = frozenset(["runtime.bad_request", "runtime.payload_too_large"])
_FINAL_CODES = frozenset(
    ["runtime.unauthorized", "runtime.identity_mismatch", "runtime.not_found", "runtime.start_failed", "pool.closed"]
)


_TurnKey = tuple[str, VersionKey]  # the turn's id, and what tells its words from others


@attrs.define
class _LocalCall:
    """A call that is being imported."""

    turns: set[_TurnKey]  # the turns in its log, in all their versions
    user: dict[str, Any]
    metadata: dict[str, Any] = attrs.field(factory=dict)


class LocalTarget:
    """The runtimes of one storage root. Safe to use from any thread.

    Args:
        client: The client that starts the runtimes. `close` closes it.
        project_id: The project to import into.
        root: The storage root.
        retry_timeout_s: How long to retry a batch, in seconds.
        stop_event: Interrupts the retries when it is set.
    """

    def __init__(
        self,
        client: MemoAirVoiceClientSync,
        project_id: str,
        root: Path,
        retry_timeout_s: float,
        stop_event: threading.Event,
    ) -> None:
        self._client = client
        self._project_id = project_id
        self._root = root
        self._retry_timeout_s = retry_timeout_s
        self._stop_event = stop_event
        self._lock = threading.Lock()
        self._calls: OrderedDict[tuple[str, str], _LocalCall] = OrderedDict()

    @property
    def name(self) -> str:
        """The project and the storage root."""
        return f"{self._project_id} in {self._root}"

    def send(self, user_id: str, events: Sequence[ImportEvent]) -> SendResult:
        """Save events of a user, call by call. See `ImportTarget.send`."""
        result = SendResult()
        for session_id, call_events in groupby(events, key=lambda event: event.session_id):
            result.add(self._send_call(user_id, session_id, list(call_events)))
        return result

    def close(self) -> None:
        """Stop the runtimes, each after its current work."""
        self._client.close()

    def _send_call(self, user_id: str, session_id: str, events: list[ImportEvent]) -> SendResult:
        call = self._get_call(user_id, session_id)
        result = SendResult(duplicate={event.id for event in events})
        new_turns: list[ImportEvent] = []
        for event in events:
            if event.kind is EventType.SESSION_START:
                call.user, call.metadata = dict(event.payload["user"]), dict(event.payload["metadata"])
            elif event.kind is EventType.TURN and _turn_key(event.payload) not in call.turns:
                new_turns.append(event)
        # Without new turns, send nothing: each start and end of the call would add events to its log.
        if new_turns:
            result.rejected = self._save_turns(call, session_id, new_turns)
            result.accepted = {event.id for event in new_turns} - set(result.rejected)
            result.duplicate -= {event.id for event in new_turns}
            call.turns |= {_turn_key(event.payload) for event in new_turns if event.id in result.accepted}
        return result

    def _save_turns(self, call: _LocalCall, session_id: str, events: list[ImportEvent]) -> dict[str, str]:
        """Save turns. Return the reasons of rejected ones by event id."""
        retry_policy = RetryPolicy(self._retry_timeout_s, self._stop_event)
        while True:
            try:
                saved = self._client.import_call(
                    session_id,
                    list(map(_turn_from_event, events)),
                    user=call.user,
                    metadata=call.metadata,
                    timeout_s=_IMPORT_TIMEOUT_S,
                )
            except MemoAirVoiceMemoryError as error:
                if error.code in _FINAL_CODES:
                    raise TargetError(f"{self.name}: {error}") from error
                if error.code in _SPLIT_CODES and len(events) == 1:
                    return {events[0].id: str(error)}
                if error.code in _SPLIT_CODES:
                    half = len(events) // 2
                    return self._save_turns(call, session_id, events[:half]) | self._save_turns(
                        call, session_id, events[half:]
                    )
                retry_policy.wait(f"{self.name} accepts no turns: {error}")
            else:
                if not saved:
                    return {event.id: _ERASED_REASON for event in events}
                if len(saved) == len(events):
                    return {}
                half = len(events) // 2  # which of them are missing?
                return self._save_turns(call, session_id, events[:half]) | self._save_turns(
                    call, session_id, events[half:]
                )

    def _get_call(self, user_id: str, session_id: str) -> _LocalCall:
        with self._lock:
            call = self._calls.get((user_id, session_id))
            if call is not None:
                self._calls.move_to_end((user_id, session_id))
                return call
        log = UserFolder(self._root, self._project_id, user_id).session(session_id).log
        call = _LocalCall(_read_turns(log), {"id": user_id})
        with self._lock:  # a user's batches are sent one at a time, so no other thread reads this log
            self._calls[user_id, session_id] = call
            if len(self._calls) > _MAX_CACHED_CALLS:
                self._calls.popitem(last=False)
        return call


def _turn_from_event(event: ImportEvent) -> dict[str, Any]:
    payload = event.payload
    return {
        "turn_id": payload["turnId"],
        "user_text": payload["userText"],
        "assistant_text": payload["assistantText"],
        "metadata": {**payload["metadata"], "occurredAt": event.occurred_at.isoformat()},
    }


def _turn_key(payload: Mapping[str, Any]) -> _TurnKey:
    return str(payload["turnId"]), TurnWords.of(truncate_to_heard(payload)).version_key()


def _read_turns(log: Path) -> set[_TurnKey]:
    """Return the turns in a call's log. Skip lines that are not valid events."""
    turns = set()
    with suppress(OSError), open_private_reader(log) as lines:
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                if event["type"] == "turn":
                    turns.add(_turn_key(event["payload"]))
    return turns
