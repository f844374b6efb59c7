"""Calls to a runtime that dies: what is repeated on its successor."""

import json
import time
from typing import Any

from memoair_voice_sync._loopback.runtime_client import RuntimeClient
from memoair_voice_sync._loopback.transport import ConnectionBrokenError
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync.errors import MemoAirVoiceMemoryError


class Runtimes:
    """A manager whose first runtimes break the connection, each with a session of its own."""

    pid = None

    def __init__(self, breaking: int) -> None:
        self.breaking = breaking
        self.session_id = "unknown"
        self.requests: list[dict[str, Any]] = []
        self.starts = 0
        self.is_running = False

    def ensure_running(self, deadline: float) -> Any:
        if not self.is_running:
            self.starts += 1
            self.session_id = f"call-{self.starts}"
            self.is_running = True
        return self

    def call(self, method: str, path: str, content: bytes, deadline: float) -> dict[str, Any]:
        self.requests.append(json.loads(content))
        if self.starts <= self.breaking:
            raise ConnectionBrokenError("the connection broke")
        return {"localEventId": "evt_1"}

    def mark_unreachable(self, transport: Any) -> None:
        self.is_running = False

    def mark_timed_out(self, transport: Any) -> None:
        raise AssertionError("it answers at once")

    def mark_responsive(self, transport: Any) -> None:
        assert self.is_running

    def stop(self, timeout_s: float) -> None:
        raise AssertionError("a call does not stop the runtime")


def test_a_turn_stays_in_its_session_if_its_runtime_dies() -> None:
    runtimes = Runtimes(breaking=2)
    client = RuntimeClient(runtimes, "proj", "ada", lambda: runtimes.session_id, org_only=False)
    event_id = client.after_turn(Turn("t1", "hello", "hi", [], {}), time.monotonic() + 5)

    assert event_id == "evt_1"
    assert runtimes.starts == 3
    assert [request["sessionId"] for request in runtimes.requests] == ["call-1"] * 3
    assert {(request["workspaceId"], request["userId"]) for request in runtimes.requests} == {("proj", "ada")}


class OldRuntime(Runtimes):
    """A runtime of a version that takes one turn at a time."""

    def call(self, method: str, path: str, content: bytes, deadline: float) -> dict[str, Any]:
        if path.endswith("turns/after"):
            raise MemoAirVoiceMemoryError("runtime.bad_request", "unknown endpoint", 404)
        super().call(method, path, content, deadline)
        return {"localEventId": f"evt_{json.loads(content)['turnId']}"}


def test_an_earlier_runtime_gets_one_turn_at_a_time() -> None:
    runtimes = OldRuntime(breaking=0)
    client = RuntimeClient(runtimes, "proj", "ada", lambda: runtimes.session_id, org_only=False)
    turns = [Turn(f"t{number}", "hello", "hi", [], {}) for number in range(3)]
    assert client.after_turns(turns, time.monotonic() + 5) == ["evt_t0", "evt_t1", "evt_t2"]
    assert [request["turnId"] for request in runtimes.requests] == ["t0", "t1", "t2"]
