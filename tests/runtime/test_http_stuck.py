"""A lane that hangs behind a real socket: the reply comes in time, and the connection of the stuck thread is closed."""

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

LONG_TIMEOUT_S = 30.0


@pytest.fixture
def released() -> threading.Event:
    return threading.Event()


@pytest.fixture(scope="module")
def model() -> None:
    """Map the embedding, which stays mapped for the whole process."""
    default_model()


@pytest.fixture
def port(
    model: None, nothing_left_behind: None, tmp_path: Path, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Start a runtime whose permanent lane hangs until it is released; yield its port."""
    monkeypatch.setattr(PermanentLane, "search", lambda *_: released.wait(LONG_TIMEOUT_S))
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


def test_a_stuck_lane_is_left_out_in_time_and_its_connection_is_closed(port: int, released: threading.Event) -> None:
    def seconds_until_all_other_lanes_answer() -> float:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_TIMEOUT_S)
        began_at = time.monotonic()
        with search(connection) as response:
            trace = json.loads(response.read())["trace"]
        took_s = time.monotonic() - began_at
        assert response.getheader("Connection") == "close"
        connection.close()
        statuses = {name: lane["status"] for name, lane in trace["lanes"].items()}
        assert statuses["permanent"] == "late"
        other_statuses = {statuses[name] for name in ("profile", "working", "org")}
        return took_s if other_statuses == {"ok"} else float("inf")

    assert least(seconds_until_all_other_lanes_answer, 1.0) < 1.0

    released.set()
    eventually(lambda: not connection_threads())


def connection_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "connection"]


def test_stuck_searches_do_not_occupy_connection_slots(port: int) -> None:
    for _ in range(70):  # more than the maximum number of connections
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_TIMEOUT_S)
        with search(connection) as response:
            assert json.loads(response.read())["trace"]["lanes"]["permanent"]["status"] == "late"
        connection.close()
    eventually(lambda: len(connection_threads()) <= 10)
