"""Arbitrary requests to one process: each gets a documented reply or error, and the process survives."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.runtimes import PROJECT, USER, RawReply, RunningRuntime

# The same examples in every run, so that failures are reproducible. To search for bugs, raise max_examples and drop
# derandomize.
fuzz_settings = settings(
    max_examples=80,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

# By path: a valid request, and the names in its reply.
ENDPOINTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "session/start": (
        {
            "sessionId": "call-1",
            "workspaceId": PROJECT,
            "userId": USER,
            "satham": {"variant": "small", "embedDim": 256},
            "metadata": {"user": {"id": USER, "name": "Dana", "metadata": {"tier": "gold"}}, "assistantName": "Robin"},
            "mode": None,
        },
        {"sessionId", "bootstrap", "paths"},
    ),
    "search_memory": (
        {
            "sessionId": "call-1",
            "query": "which boots?",
            "turnId": "t1",
            "intent": "fallback",
            "includeSources": True,
            "lanes": ["working", "permanent"],
            "topK": {"profile": 1, "working": 2, "permanent": 3, "org": 4},
            "timeoutMs": 2000,
            "filter": {"topic": {"$in": ["boots"]}},
        },
        {"contextText", "profile", "working", "permanent", "org", "sources", "trace"},
    ),
    "turn/after": (
        {
            "sessionId": "call-1",
            "turnId": "t1",
            "userText": "Boots, please.",
            "assistantText": "Which size?",
            "toolCalls": [{"name": "look_up"}],
            "metadata": {"occurredAt": "2024-05-06T07:08:09Z", "assistantName": "Robin", "topic": "boots"},
        },
        {"localEventId"},
    ),
    "session/end": ({"sessionId": "call-1", "reason": "completed"}, {"status", "flushed"}),
    "sync/flush": ({"deadlineMs": 100}, {"status", "pending"}),
    "sync/pull": ({"deadlineMs": 100, "scopes": ["profile", "org"]}, {"status", "versions"}),
    "forget": ({"deadlineMs": 100, "forgottenAt": "2026-03-02T09:30:00Z"}, {"status", "removed"}),
}
ERROR_CODES = {
    400: "runtime.bad_request",
    404: "runtime.session_not_found",
    409: "runtime.identity_mismatch",
    413: "runtime.payload_too_large",
}

texts = st.text(max_size=30) | st.sampled_from(
    ["", " ", ".", "..", "../../etc/passwd", "a/b", "A", "a", "con", "\x00", "%2e", "~", "-", "x" * 300, "\U0001f40d"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40, 1e308, 5e-324, -0.0])
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
# Values that JSON does not allow, but that Python writes and other clients send.
invalid_json_values = st.sampled_from([float("nan"), float("inf"), "\ud800", "a\udc00b", ["\ud83d"], {"\udfff": 1}])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
zones = st.integers(-1_439, 1_439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes().map(str) | st.datetimes(timezones=zones).map(lambda moment: moment.isoformat())
operators = st.sampled_from(["$eq", "$ne", "$in", "$nin", "$gt", "$lt", "$and", "$or", "$not", "topic", ""])
filters = st.recursive(
    st.dictionaries(operators | texts, values, max_size=3),
    lambda inner: st.dictionaries(operators | texts, inner | st.lists(inner, max_size=3), max_size=3),
    max_leaves=6,
)
# Nearly valid values find more defects than arbitrary ones.
NEARLY_VALID: dict[str, st.SearchStrategy[Any]] = {
    "sessionId": st.sampled_from(["call-1", "call-2", "call-3"]) | texts,
    "turnId": st.sampled_from(["t1", "t2", "t3"]) | texts,
    "workspaceId": st.sampled_from([PROJECT, PROJECT, PROJECT, None, "other", ""]),
    "userId": st.sampled_from([USER, USER, USER, None, "other", ""]),
    "query": texts,
    "userText": texts,
    "assistantText": texts,
    "intent": st.sampled_from(["summarise_recent", "earlier_in_call", "fallback", "x", ""]),
    "lanes": st.lists(st.sampled_from(["profile", "working", "permanent", "org", "Org", ""]), max_size=6),
    "topK": st.dictionaries(
        st.sampled_from(["profile", "working", "permanent", "org", "x"]), st.integers(-1, 1_001), max_size=4
    ),
    "timeoutMs": st.integers(-1, 300) | st.floats(0, 300),
    "deadlineMs": st.integers(-1, 300) | st.floats(0, 300),
    "scopes": st.lists(st.sampled_from(["profile", "permanent", "org", "working", ""]), max_size=4),
    "forgottenAt": moments,
    "filter": filters,
    "toolCalls": st.lists(st.dictionaries(texts, values, max_size=3), max_size=3),
    "metadata": st.fixed_dictionaries(
        {},
        optional={
            "user": st.fixed_dictionaries(
                {},
                optional={
                    "id": st.sampled_from([USER, None, "other"]),
                    "name": texts,
                    "metadata": st.dictionaries(texts, values, max_size=3),
                },
            ),
            "assistantName": texts,
            "occurredAt": moments,
            "topic": values,
        },
    )
    | st.dictionaries(texts, values, max_size=4),
}
identities: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.fixed_dictionaries(
    {}, optional={name: NEARLY_VALID[name] | values for name in ("workspaceId", "userId")}
)


@st.composite
def bodies(draw: st.DrawFn, path: str) -> dict[str, Any]:
    """Valid requests in which some fields are nearly valid, arbitrary, missing or unknown."""
    valid = ENDPOINTS[path][0]
    body: dict[str, Any] = {}
    for name, value in valid.items():
        chance = draw(st.integers(0, 39))
        if chance < 20:
            body[name] = value
        elif chance < 36:
            body[name] = draw(NEARLY_VALID.get(name, values))
        elif chance < 38:
            body[name] = draw(values)
        elif chance < 39:
            body[name] = draw(invalid_json_values)
    return draw(st.dictionaries(texts, values, max_size=2)) | body | draw(identities)


@pytest.fixture(scope="module")
def shared_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRuntime]:
    org_file = tmp_path_factory.mktemp("org") / "org.jsonl"
    org_file.write_text('{"id": "returns", "text": "Boots can be returned.", "metadata": {"topic": "boots"}}\n')
    with closing(RunningRuntime(tmp_path_factory.mktemp("fuzz"), ORG_FILE=str(org_file))) as runtime:
        runtime.wait_until_loaded()
        yield runtime


@pytest.fixture
def runtime(shared_runtime: RunningRuntime) -> Iterator[RunningRuntime]:
    """Return the module's process; after each test it must still serve, and must not have logged a defect."""
    yield shared_runtime
    assert shared_runtime.process.poll() is None
    assert shared_runtime.health()["status"] == "ok"
    found = shared_runtime.search("check-session", "boots", topK={"permanent": 1_000})
    assert {lane["status"] for lane in found["trace"]["lanes"].values()} == {"ok"}
    for text in ("Traceback", "request_failed", "lane_failed", "upkeep_failed", "load_failed"):
        assert text not in shared_runtime.output()


def assert_answered(reply: RawReply, path: str) -> None:
    """Check that the reply is the documented one, or an error with a documented code."""
    assert reply.headers["content-type"] == "application/json"
    if reply.status == 200:
        body = json.loads(reply.body)
        is_forgotten = path == "turn/after" and body.pop("forgotten", False)  # other examples have erased the user
        assert set(body) == ENDPOINTS[path][1]
        assert not is_forgotten or body["localEventId"] is None
    else:
        assert reply.status in ERROR_CODES, reply
        assert reply.error["code"] == ERROR_CODES[reply.status]


def post(path: str, body: bytes) -> bytes:
    head = f"POST /v1/runtime/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("path", ENDPOINTS)
def test_the_unmodified_request_is_valid(runtime: RunningRuntime, path: str) -> None:
    reply = runtime.exchange(post(path, json.dumps(ENDPOINTS[path][0]).encode()))

    assert reply.status == 200
    assert_answered(reply, path)


@pytest.mark.parametrize("path", ENDPOINTS)
def test_any_object_with_the_fields_of_an_endpoint_is_answered_or_rejected(runtime: RunningRuntime, path: str) -> None:
    with runtime.reconnecting_client() as ask:

        @fuzz_settings
        @given(bodies(path))
        def check(body: dict[str, Any]) -> None:
            reply = ask(post(path, json.dumps(body).encode()))
            assert_answered(reply, path)
            if path == "search_memory" and reply.status == 200:
                lanes = json.loads(reply.body)["trace"]["lanes"]
                assert "error" not in {lane["status"] for lane in lanes.values()}

        check()


def test_any_acknowledged_turn_is_known_to_the_next_process(tmp_path: Path) -> None:
    acknowledged: dict[str, bytes] = {}
    numbers = count()
    with closing(RunningRuntime(tmp_path)) as first, first.connect() as connection:

        @fuzz_settings
        @given(bodies("turn/after"))
        def save(body: dict[str, Any]) -> None:
            body["turnId"] = f"turn-{next(numbers)}"  # otherwise nearly all would be the same turn
            request = post("turn/after", json.dumps(body).encode())
            connection.send(request)
            reply = connection.read_reply()
            if reply.status == 200:
                acknowledged.setdefault(json.loads(reply.body)["localEventId"], request)

        save()
        first.kill()
    assert len(acknowledged) > 15, "too few bodies are valid"

    with closing(RunningRuntime(tmp_path)) as second, second.connect() as connection:
        for event_id, request in acknowledged.items():
            connection.send(request)
            reply = connection.read_reply()
            assert (reply.status, json.loads(reply.body)) == (200, {"localEventId": event_id})
        assert "lines_skipped" not in second.output()


@pytest.mark.parametrize("path", [*ENDPOINTS, "shutdown"])
def test_any_json_and_any_bytes_are_answered_or_rejected(runtime: RunningRuntime, path: str) -> None:
    # For these endpoints any object is valid, and a shutdown must not be requested here.
    is_lenient = path in ("sync/flush", "shutdown")
    valid = json.dumps(ENDPOINTS.get(path, ({"deadlineMs": 100}, set()))[0]).encode()
    truncated = st.integers(0, len(valid) - 1).map(lambda end: valid[:end] or b"{")
    flips = st.tuples(st.integers(0, len(valid) - 1), st.binary(min_size=1, max_size=3))
    flipped = flips.map(lambda flip: valid[: flip[0]] + flip[1] + valid[flip[0] + 1 :])
    encoded = values.map(lambda value: json.dumps(value).encode())
    non_objects = encoded.filter(lambda text: not is_lenient or text[:1] != b"{")
    raw = st.binary(min_size=1, max_size=200) | truncated | non_objects

    with runtime.reconnecting_client() as ask:

        @fuzz_settings
        @given(raw if path == "shutdown" else raw | flipped)
        def check(body: bytes) -> None:
            assert_answered(ask(post(path, body)), path)

        check()


def test_arbitrary_bytes_instead_of_a_request_are_rejected_or_disconnected(runtime: RunningRuntime) -> None:
    lines = [
        b"GET /v1/runtime/health HTTP/1.1\r\n",
        b"POST /v1/runtime/search_memory HTTP/1.1\r\n",
        b"Host: 127.0.0.1\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: keep-alive, Upgrade\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" folded\r\n",
        b"hello",
    ]
    pieces = st.lists(st.sampled_from(lines) | st.binary(max_size=20), max_size=8).map(b"".join)

    @fuzz_settings
    @given(pieces)
    def check(request: bytes) -> None:
        with runtime.connect() as connection:
            connection.send(request)
            connection.socket.shutdown(1)
            received = b""
            while chunk := connection.socket.recv(1 << 16):
                received += chunk
        assert not received or received.startswith(b"HTTP/1.1 ")
        assert b"HTTP/1.1 5" not in received

    check()
