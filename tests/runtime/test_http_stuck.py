"""A lane that hangs behind a real socket: the answer comes in time, and the connection it hangs on is given up."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.timing import least
from support.waiting import eventually

from memoair_index.static_model import default_model
from memoair_runtime.http.routes import Routes
from memoair_runtime.http.server import LoopbackServer
from memoair_runtime.lifecycle import Lifecycle
from memoair_runtime.main import open_listener
from memoair_runtime.recall.lanes.permanent_lane import PermanentLane
from memoair_runtime.service import RuntimeService
from memoair_runtime.settings import RuntimeSettings

FAR_S = 30.0


@pytest.fixture
def released() -> threading.Event:
    return threading.Event()


@pytest.fixture(scope="module")
def model() -> None:
    """The embedding, which is mapped once for a process and stays."""
    default_model()


@pytest.fixture
def port(
    model: None, nothing_left_behind: None, tmp_path: Path, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Where a runtime listens whose permanent lane hangs until it is released."""
    monkeypatch.setattr(PermanentLane, "search", lambda *_: released.wait(FAR_S))
    lifecycle = Lifecycle()
    service = RuntimeService(RuntimeSettings("shop", "dana", tmp_path), lifecycle)
    service.start_loading()
    listener = open_listener("127.0.0.1", 0)
    server = LoopbackServer(listener, Routes(service), service.metrics, None)
    server.start()
    yield int(listener.getsockname()[1])
    released.set()
    server.drain(time.monotonic() + 5)
    service.close(time.monotonic() + 5)
    lifecycle.close()


def search(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    body = json.dumps({"sessionId": "call-1", "query": "boots", "timeoutMs": 100})
    connection.request("POST", "/v1/runtime/search_memory", body)
    return connection.getresponse()


def test_a_stuck_lane_is_left_out_in_time_and_its_connection_is_closed(
    port: int, released: threading.Event
) -> None:
    def seconds_to_an_answer_of_all_other_lanes() -> float:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=FAR_S)
        began_at = time.monotonic()
        with search(connection) as response:
            trace = json.loads(response.read())["trace"]
        took_s = time.monotonic() - began_at
        assert response.getheader("Connection") == "close"
        connection.close()
        statuses = {name: lane["status"] for name, lane in trace["lanes"].items()}
        assert statuses["permanent"] == "late"
        others = {statuses[name] for name in ("profile", "working", "org")}
        return took_s if others == {"ok"} else float("inf")

    assert least(seconds_to_an_answer_of_all_other_lanes, 1.0) < 1.0

    released.set()
    eventually(lambda: not connections())


def connections() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "connection"]


def test_stuck_searches_do_not_occupy_connection_slots(port: int) -> None:
    for _ in range(70):  # more than there are connections
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=FAR_S)
        with search(connection) as response:
            assert json.loads(response.read())["trace"]["lanes"]["permanent"]["status"] == "late"
        connection.close()
    eventually(lambda: len(connections()) <= 10)
