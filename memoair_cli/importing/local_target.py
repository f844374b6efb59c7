"""This machine as a target: each caller's runtime keeps his calls, as if they had been held here."""

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import attrs

from memoair_cli.importing.events import ImportEvent, ImportEventKind
from memoair_cli.importing.targets import RetryPolicy, SendResult, TargetError
from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

_IMPORT_S = 60.0
# Calls whose turns are known from their logs. One that comes again after so many others is read once more.
_MOST_CALLS = 1_024
# Something in the turns is wrong, or they are too large: in two halves, one of them may be taken.
_IN_HALVES = frozenset(["runtime.bad_request", "runtime.payload_too_large"])
_FINAL = frozenset(
    ["runtime.unauthorized", "runtime.identity_mismatch", "runtime.not_found", "runtime.start_failed", "pool.closed"]
)


@attrs.define
class _LocalCall:
    """A call as far as it is imported."""

    known: set[str]  # the turns that its log holds
    user: dict[str, Any]
    metadata: dict[str, Any] = attrs.field(factory=dict)


class LocalTarget:
    """The runtimes of one storage root. Safe to use from any thread."""

    def __init__(
        self, client: MemoAirVoiceClientSync, project_id: str, root: Path, patience_s: float, stopping: threading.Event
    ) -> None:
        self._client = client
        self._project_id = project_id
        self._root = root
        self._patience_s = patience_s
        self._stopping = stopping
        self._lock = threading.Lock()
        self._calls: OrderedDict[tuple[str, str], _LocalCall] = OrderedDict()

    @property
    def name(self) -> str:
        """The project and where it is."""
        return f"{self._project_id} in {self._root}"

    def send(self, user_id: str, events: Sequence[ImportEvent]) -> SendResult:
        """Bring a caller's events, call by call."""
        receipt = SendResult()
        for session_id, run in groupby(events, key=lambda event: event.session_id):
            receipt.add(self._send_call(user_id, session_id, list(run)))
        return receipt

    def close(self) -> None:
        """End the runtimes, each after what it was doing."""
        self._client.close()

    def _send_call(self, user_id: str, session_id: str, events: list[ImportEvent]) -> SendResult:
        call = self._call(user_id, session_id)
        receipt = SendResult(duplicate={event.id for event in events})
        fresh: list[ImportEvent] = []
        for event in events:
            if event.kind is ImportEventKind.START:
                call.user, call.metadata = dict(event.payload["user"]), dict(event.payload["metadata"])
            elif event.kind is ImportEventKind.TURN and event.payload["turnId"] not in call.known:
                fresh.append(event)
        # Nothing new, nothing told: starting and ending a call again would leave a mark in its log each time.
        if fresh:
            receipt.refused = self._keep(call, session_id, fresh)
            receipt.accepted = {event.id for event in fresh} - set(receipt.refused)
            receipt.duplicate -= {event.id for event in fresh}
            call.known |= {event.payload["turnId"] for event in fresh if event.id in receipt.accepted}
        return receipt

    def _keep(self, call: _LocalCall, session_id: str, events: list[ImportEvent]) -> dict[str, str]:
        """Keep turns, and tell which of them were refused, and why."""
        patience = RetryPolicy(self._patience_s, self._stopping)
        while True:
            try:
                self._client.import_call(
                    session_id, list(map(_turn, events)), user=call.user, metadata=call.metadata, timeout_s=_IMPORT_S
                )
            except MemoAirVoiceMemoryError as error:
                if error.code in _FINAL:
                    raise TargetError(f"{self.name}: {error}") from error
                if error.code in _IN_HALVES and len(events) == 1:
                    return {events[0].id: str(error)}
                if error.code in _IN_HALVES:
                    half = len(events) // 2
                    return self._keep(call, session_id, events[:half]) | self._keep(call, session_id, events[half:])
                patience.wait(f"{self.name} takes nothing: {error}")
            else:
                return {}

    def _call(self, user_id: str, session_id: str) -> _LocalCall:
        with self._lock:
            call = self._calls.get((user_id, session_id))
            if call is not None:
                self._calls.move_to_end((user_id, session_id))
                return call
        log = UserFolder(self._root, self._project_id, user_id).session(session_id).log
        call = _LocalCall(_turn_ids(log), {"id": user_id})
        with self._lock:  # a caller's batches come one after another, so nobody else has looked for this call
            self._calls[user_id, session_id] = call
            if len(self._calls) > _MOST_CALLS:
                self._calls.popitem(last=False)
        return call


def _turn(event: ImportEvent) -> dict[str, Any]:
    payload = event.payload
    return {
        "turn_id": payload["turnId"],
        "user_text": payload["userText"],
        "assistant_text": payload["assistantText"],
        "metadata": {**payload["metadata"], "occurredAt": event.occurred_at.isoformat()},
    }


def _turn_ids(log: Path) -> set[str]:
    """The turns that a call's log holds; a line that can't be read holds none."""
    found = set()
    try:
        with log.open("rb") as lines:
            for line in lines:
                if b'"turn"' in line:
                    found |= _turn_id(line)
    except OSError:
        pass
    return found


def _turn_id(line: bytes) -> set[str]:
    try:
        event = json.loads(line)
        return {str(event["payload"]["turnId"])} if event["type"] == "turn" else set()
    except (ValueError, KeyError, TypeError):
        return set()
