"""A stand-in for a cloud: it keeps events in memory, and sends scripted replies first."""

import gzip
import json
import threading
import time
from collections import deque
from typing import Any, NamedTuple

from support.loopback_server import LoopbackHandler, LoopbackServer


class ScriptedReply(NamedTuple):
    """A reply that is sent before any other. Status 0 closes the connection."""

    status: int
    body: Any = None
    headers: dict[str, str] = {}


class ReceivedBatch(NamedTuple):
    """A request that was received."""

    at: float  # monotonic seconds
    headers: dict[str, str]
    events: list[dict[str, Any]]


def error_reply(status: int, code: str, message: str = "no", **details: Any) -> ScriptedReply:
    """Return an error in the envelope of the API."""
    headers = {"Retry_After": str(details["retryAfterS"])} if "retryAfterS" in details else {}
    return ScriptedReply(status, {"error": {"code": code, "message": message, "details": details}}, headers)


class EventServer(LoopbackServer):
    """The received events, by id, and all requests. ``rejection_reason`` returns why an event is rejected, or None."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.script: deque[ScriptedReply] = deque()
        self.max_events = 500
        self.events_by_id: dict[str, dict[str, Any]] = {}
        self.batches: list[ReceivedBatch] = []
        self.rejection_reason = lambda event: None  # noqa: ARG005 - tests replace it
        super().__init__()

    def answer(self, handler: LoopbackHandler) -> None:
        """Receive a batch."""
        assert (handler.command, handler.path) == ("POST", "/v1/voice-sdk/events"), handler.requestline
        assert handler.headers["Content-Encoding"] == "gzip"
        headers = {name.lower(): value.encode("latin-1").decode() for name, value in handler.headers.items()}
        reply = self.reply_to(headers, json.loads(gzip.decompress(handler.body))["events"])
        if reply.status == 0:
            handler.close_connection = True
            return
        handler.reply(b"" if reply.body is None else json.dumps(reply.body).encode(), reply.status, **reply.headers)

    def reply_to(self, headers: dict[str, str], events: list[dict[str, Any]]) -> ScriptedReply:
        """Return the reply to a batch."""
        with self.lock:
            self.batches.append(ReceivedBatch(time.monotonic(), headers, events))
            if self.script:
                return self.script.popleft()
            if len(events) > self.max_events:
                return error_reply(413, "cloud.batch_too_large")
            result: dict[str, Any] = {"accepted": [], "duplicate": [], "rejected": []}
            for event in events:
                id_, reason = event["eventId"], self.rejection_reason(event)
                if reason is not None:
                    result["rejected"].append({"eventId": id_, "code": "cloud.invalid", "message": reason})
                else:
                    result["duplicate" if id_ in self.events_by_id else "accepted"].append(id_)
                    self.events_by_id.setdefault(id_, {**event, "userId": headers["x-user-id"]})
            return ScriptedReply(200, result)

    def turn_ids(self) -> list[str]:
        """Return the ids of the turns, in the order in which they were received first."""
        return [event["payload"]["turnId"] for event in self.events_by_id.values() if event["type"] == "turn"]
