"""Calls to one user's runtime, each repeated on its successor where the runtime has died."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from memoair_protocol.limits import MAX_TIMEOUT_MS
from memoair_protocol.starvation import is_starved
from memoair_voice_sync._diagnostics import RejectionLog, log
from memoair_voice_sync._loopback.search_options import SearchOptions
from memoair_voice_sync._loopback.transport import (
    ConnectionBrokenError,
    RuntimeTransport,
    RuntimeUnreachableError,
    encode_body,
)
from memoair_voice_sync._recall.observer import SearchTrace
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.results import SearchResult, parse_search_result

# The share of a call's time that is kept for the way back of the reply: a runtime composes at its own deadline what
# has arrived by then, and must not answer too late.
_RETURN_MARGIN = 0.1
_MAX_BROKEN_CONNECTIONS = 2
_UNKNOWN_ENDPOINT = "runtime.bad_request", 404


class RuntimeManager(Protocol):
    """What a memory needs of the object that starts its runtime. One can serve several memories of the same user."""

    def ensure_running(self, deadline: float) -> RuntimeTransport:
        """Return the transport to a running runtime by the deadline (monotonic seconds); start one if needed."""

    def mark_unreachable(self, transport: RuntimeTransport) -> None:
        """Record that the runtime of this transport refused a connection or is shutting down."""

    def mark_timed_out(self, transport: RuntimeTransport) -> None:
        """Record that the runtime accepted a call and did not answer in time."""

    def mark_responsive(self, transport: RuntimeTransport) -> None:
        """Record that the runtime answered a call."""

    @property
    def pid(self) -> int | None:
        """The process id of the runtime, or None if it was not started here or is not running."""

    def stop(self, timeout_s: float) -> None:
        """End the runtime if it was started here."""


class RuntimeClient:
    """Calls for one user and session to the runtime that a manager starts. Safe to use from any thread.

    Each call ends at its deadline (monotonic seconds) and asks the manager for a running runtime once, and once more
    for each runtime that has died. ``session_id`` is called when the first one runs: the session of a runtime that
    another client has started is known only then. A repeated call stays in the session of its first attempt, which may
    have saved its turn.
    """

    def __init__(
        self,
        manager: RuntimeManager,
        project_id: str,
        user_id: str,
        session_id: Callable[[], str],
        *,
        org_only: bool,
        satham: Mapping[str, Any] | None = None,
        rejections: RejectionLog | None = None,
    ) -> None:
        self._manager = manager
        # Every call names its user: since the last one, the port may have passed to another user's runtime.
        self._identity = {"workspaceId": project_id, "userId": user_id}
        self._session_id = session_id
        self._org_only = org_only
        self._satham = {"variant": "default"} if satham is None else satham
        self._rejections = RejectionLog() if rejections is None else rejections

    def start_session(
        self, metadata: Mapping[str, Any], deadline: float, *, reopens: bool = True, is_shared: bool = False
    ) -> dict[str, Any]:
        """Open the session and return the reply of the runtime.

        Without ``reopens``, a session that has ended stays so, and this raises ``runtime.session_not_found``. With
        ``is_shared``, its next turn may reach another machine.
        """
        body = {
            "satham": self._satham,
            "metadata": metadata,
            **({"mode": "org_only"} if self._org_only else {}),
            **({} if reopens else {"reopen": False}),
            **({"shared": True} if is_shared else {}),
        }
        reply = self._post("session/start", body, deadline, in_session=True)
        for part in ("storage", "org"):
            if part in reply:  # the session is open nevertheless
                log.warning("a session was opened without its %s: action=%s_missing why=%s", part, part, reply[part])
        return reply

    def end_session(self, reason: str, deadline: float) -> dict[str, Any]:
        """End the session and return the reply of the runtime."""
        return self._post("session/end", {"reason": reason}, deadline, in_session=True)

    def search(
        self, query: str, options: SearchOptions, deadline: float, trace: SearchTrace | None = None
    ) -> SearchResult:
        """Search the user's memory. The trace says how the search is recorded."""
        body = {
            "query": query,
            "intent": options.intent,
            "includeSources": True,
            "lanes": ["org"] if self._org_only and options.lanes is None else options.lanes,
            "topK": options.top_k,
            "filter": options.filter,
            **({} if options.min_confidence is None else {"minConfidence": options.min_confidence}),
            **({"sayNothingFound": True} if options.say_nothing_found else {}),
            **({"explain": True} if options.explain else {}),
            **({} if trace is None else {"recallTrace": trace.options}),
            **({} if trace is None or trace.turn_id is None else {"turnId": trace.turn_id}),
        }
        return parse_search_result(self._post("search_memory", body, deadline, in_session=True, sends_timeout=True))

    def amend_trace(self, body: Mapping[str, Any], deadline: float) -> None:
        """Tell the runtime more about a search that it has answered."""
        self._post("recall_trace", dict(body), deadline)

    def after_turn(self, turn: Turn, deadline: float) -> str | None:
        """Save a turn and return the id of its event; None if it is not saved.

        That is so with ``org_only``, and for a turn from before an erasure of the user.
        """
        reply = self._post("turn/after", _turn_fields(turn), deadline, in_session=True)
        event_id = reply.get("localEventId")
        if reply.get("forgotten"):
            _warn_forgotten()
        return None if event_id is None else str(event_id)

    def after_turns(self, turns: Sequence[Turn], deadline: float) -> list[str | None]:
        """Save turns with one request, in order, and return the ids of their events, see `after_turn`.

        A runtime of an earlier version takes one turn at a time. Those that it has taken when this raises count once.
        """
        if len(turns) > 1:
            try:
                reply = self._post("turns/after", {"turns": list(map(_turn_fields, turns))}, deadline, in_session=True)
            except MemoAirVoiceMemoryError as error:
                if (error.code, error.status_code) != _UNKNOWN_ENDPOINT:
                    raise
            else:
                if reply.get("forgotten"):
                    _warn_forgotten()
                event_ids = reply.get("localEventIds")
                if not isinstance(event_ids, list) or len(event_ids) != len(turns):
                    raise MemoAirVoiceMemoryError("runtime.internal", "the runtime's reply does not fit the request")
                return [None if event_id is None else str(event_id) for event_id in event_ids]
        return [self.after_turn(turn, deadline) for turn in turns]

    def flush(self, timeout_s: float) -> bool:
        """Wait until the runtime has nothing left to write or to send; return whether it has not."""
        body = {"deadlineMs": min(timeout_s * 1e3, MAX_TIMEOUT_MS)}
        return self._post("sync/flush", body, time.monotonic() + timeout_s + 1).get("status") == "ok"

    def pull(self, scopes: Sequence[str], deadline: float) -> bool:
        """Let the runtime pull from the cloud now; return whether what the cloud has can be searched."""
        body = {"scopes": list(scopes), "deadlineMs": _runtime_share_ms(deadline)}
        return self._post("sync/pull", body, deadline).get("status") == "ok"

    def erase(self, receipt: Mapping[str, Any], deadline: float) -> dict[str, int]:
        """Erase the user on this machine and return what was removed, by kind.

        ``receipt`` is that of the cloud, empty without one. Raises the error of the runtime if the disk fails.
        """
        known = {name: receipt[name] for name in ("forgottenAt", "erasure") if receipt.get(name)}
        body = {"deadlineMs": _runtime_share_ms(deadline), **known}
        removed: dict[str, int] = self._post("forget", body, deadline).get("removed", {})
        return removed

    def health(self, deadline: float) -> dict[str, Any]:
        """Return the health of the runtime: the state of its lanes and of its sync."""
        return self._call("health", lambda transport, call_deadline: transport.health(call_deadline), deadline)

    def _post(
        self, path: str, body: dict[str, Any], deadline: float, *, in_session: bool = False, sends_timeout: bool = False
    ) -> dict[str, Any]:
        """Send a request; with ``sends_timeout`` it tells the runtime how much of the time it may use itself."""
        content = encode_body(body | self._identity)  # before a runtime is started: JSON may not hold an argument
        late: dict[str, Any] = {}  # fields that are known only when a runtime runs

        def send(transport: RuntimeTransport, call_deadline: float) -> dict[str, Any]:
            if in_session and not late:
                late["sessionId"] = self._session_id()
            if sends_timeout:
                late["timeoutMs"] = _runtime_share_ms(call_deadline)
            request = content[:-1] + b", " + json.dumps(late).encode()[1:] if late else content
            return transport.call("POST", f"/v1/runtime/{path}", request, call_deadline)

        reply = self._call(path, send, deadline)
        trace = reply.get("trace")
        self._rejections.report((trace if isinstance(trace, dict) else reply).get("cloudRejection"))
        return reply

    def _call(
        self, name: str, send: Callable[[RuntimeTransport, float], dict[str, Any]], deadline: float
    ) -> dict[str, Any]:
        """Call the runtime and return its reply; start it, or another one where it has died, until the time is up."""
        began_at = time.monotonic()
        deadline = max(deadline, began_at + 1e-3)
        draining_error: MemoAirVoiceMemoryError | None = None  # why the last runtime did not answer
        broken_connections = 0
        while True:
            try:
                transport = self._manager.ensure_running(deadline)
            except MemoAirVoiceMemoryError as error:
                if error.code == "runtime.timeout" and draining_error is not None:
                    raise draining_error from error
                raise
            try:
                reply = send(transport, deadline)
            except ConnectionBrokenError as error:  # the runtime was killed, or it breaks at this very call
                broken_connections += 1
                if broken_connections > _MAX_BROKEN_CONNECTIONS:
                    raise MemoAirVoiceMemoryError("runtime.internal", str(error)) from error
            except RuntimeUnreachableError:
                draining_error = None
            except MemoAirVoiceMemoryError as error:
                if error.code == "runtime.timeout":
                    self._manager.mark_timed_out(transport)
                    message = f"the runtime did not answer {name} within {(deadline - began_at) * 1e3:.0f} ms"
                    raise MemoAirVoiceMemoryError(error.code, message) from error
                if is_starved(error.__cause__):
                    raise  # this process could not even ask
                if error.code != "runtime.draining":
                    self._manager.mark_responsive(transport)
                    raise
                draining_error = error
            else:
                self._manager.mark_responsive(transport)
                return reply
            self._manager.mark_unreachable(transport)


def _turn_fields(turn: Turn) -> dict[str, Any]:
    return {
        "turnId": turn.turn_id,
        "userText": turn.user_text,
        "assistantText": turn.assistant_text,
        "toolCalls": turn.tool_calls,
        "metadata": turn.metadata,
    }


def _warn_forgotten() -> None:
    log.warning("a turn is from before the erasure of its user and is not saved: action=turn_forgotten")


def _runtime_share_ms(deadline: float) -> float:
    """Return how many milliseconds until a deadline the runtime may use itself."""
    remaining_ms = (deadline - time.monotonic()) * 1e3
    return round(min(max(1.0, remaining_ms * (1 - _RETURN_MARGIN)), MAX_TIMEOUT_MS), 3)
