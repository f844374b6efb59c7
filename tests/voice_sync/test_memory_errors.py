"""Errors of a memory: invalid arguments, no runtime, a foreign server on the port, a runtime that misbehaves."""

import copy
import dataclasses
import json
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.runtimes import PROJECT, USER, RunningRuntime, freeze
from support.timing import fastest, least
from support.waiting import eventually
from voice_sync.scripted import Answer, ScriptedServer, cuts_off, dribbles, hangs, says, says_http, says_json

from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync, SearchResult
from memoair_voice_sync.errors import ERROR_CODES

NewMemory = Callable[..., MemoAirVoiceMemorySync]
Scripted = Callable[[Mapping[str, Answer]], ScriptedServer]

# Long enough for a loaded machine, except in tests of deadlines.
PATIENT_MS = 10_000

# A search may end this much after its deadline: the time that the machine takes to wake a thread.
GRACE_S = 0.1


def error_of(call: Callable[[], object]) -> MemoAirVoiceMemoryError:
    with pytest.raises(MemoAirVoiceMemoryError) as caught:
        call()
    return caught.value


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"project_id": ""}, ValueError),
        ({"project_id": None}, TypeError),
        ({"project_id": b"proj"}, TypeError),
        ({"project_id": "a\0b"}, ValueError),
        ({"project_id": "half \ud83d a character"}, ValueError),
        ({"user_id": ""}, ValueError),
        ({"user_id": 42}, TypeError),
        ({"user_id": "a\0b"}, ValueError),
        ({"user_id": "half \ud83d a character"}, ValueError),
        ({"session_id": ""}, ValueError),
        ({"session_id": 42}, TypeError),
        ({"satham": "default"}, (TypeError, ValueError)),
        ({"api_key": 42}, TypeError),
        ({"internal_token": 42}, TypeError),
        ({"runtime_token": 42}, TypeError),
        ({"runtime_token": "two\nlines"}, ValueError),
        ({"storage_root": 42}, TypeError),
        ({"runtime_url": ""}, ValueError),
        ({"runtime_url": "127.0.0.1:7878"}, ValueError),
        ({"runtime_url": "http://127.0.0.1"}, ValueError),
        ({"runtime_url": "http://127.0.0.1:99999"}, ValueError),
        ({"runtime_url": "https://127.0.0.1:7878"}, ValueError),
        ({"runtime_url": "http://0.0.0.0:7878"}, ValueError),
        ({"runtime_url": "http://192.168.1.5:7878"}, ValueError),
        ({"runtime_url": "http://example.com:7878"}, ValueError),
        ({"runtime_url": "http://localhost.example.com:7878"}, ValueError),
        ({"runtime_url": "http://127.0.0.1@example.com:7878"}, ValueError),
        ({"runtime_url": None}, (TypeError, ValueError)),
        ({"auto_start_runtime": False}, ValueError),  # port 0 is not an address
    ],
    ids=str,
)
def test_invalid_constructor_arguments_are_rejected(
    new_memory: NewMemory, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        new_memory(**arguments)


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("start_session", {"metadata": "Dana"}, TypeError),
        ("start_session", {"metadata": {"tags": {"a set"}}}, TypeError),
        ("start_session", {"timeout_s": 0}, ValueError),
        ("start_session", {"timeout_s": -1}, ValueError),
        ("start_session", {"timeout_s": "5"}, TypeError),
        ("start_session", {"timeout_s": None}, TypeError),
        ("end_session", {"timeout_s": 0}, ValueError),
        ("search_memory", {"query": None}, TypeError),
        ("search_memory", {"query": b"boots"}, TypeError),
        ("search_memory", {"query": "boots", "timeout_ms": 0}, ValueError),
        ("search_memory", {"query": "boots", "timeout_ms": -250}, ValueError),
        ("search_memory", {"query": "boots", "timeout_ms": float("nan")}, ValueError),
        ("search_memory", {"query": "boots", "timeout_ms": "250"}, TypeError),
        ("search_memory", {"query": "boots", "lanes": 42}, TypeError),
        ("search_memory", {"query": "boots", "top_k": 4}, TypeError),
        ("search_memory", {"query": "boots", "filter": 4}, TypeError),
        ("after_turn", {"user_text": None}, TypeError),
        ("after_turn", {"assistant_text": 42}, TypeError),
        ("after_turn", {"turn_id": ""}, ValueError),
        ("after_turn", {"turn_id": 42}, TypeError),
        ("after_turn", {"tool_calls": 42}, TypeError),
        ("after_turn", {"metadata": ["a"]}, TypeError),
        ("after_turn", {"metadata": {"confidence": float("nan")}}, ValueError),
        ("after_turn", {"timeout_s": 0}, ValueError),
        ("start_session", {"timeout_s": float("inf")}, ValueError),
        ("search_memory", {"query": "boots", "timeout_ms": float("inf")}, ValueError),
        ("flush", {"timeout_s": -1}, ValueError),
        ("flush", {"timeout_s": 0}, ValueError),
    ],
    ids=str,
)
def test_invalid_arguments_are_rejected_before_a_runtime_starts(
    new_memory: NewMemory, method: str, arguments: dict[str, Any], error: type[Exception]
) -> None:
    memory = new_memory()
    if method == "after_turn":
        arguments = {"user_text": "hello", "assistant_text": "", "turn_id": "t1"} | arguments

    with pytest.raises(error):
        getattr(memory, method)(**arguments)
    assert memory.runtime_pid is None


def test_timeouts_can_be_minutes(new_memory: NewMemory) -> None:
    memory = new_memory()
    memory.start_session(timeout_s=3_600)
    assert memory.search_memory("hello", timeout_ms=120_000).trace["degraded"] is False
    assert memory.flush(timeout_s=120) is True


def test_requests_that_the_runtime_rejects_raise_bad_request(new_memory: NewMemory) -> None:
    memory = new_memory()
    memory.start_session()
    impossible: list[dict[str, Any]] = [
        {"top_k": {"org": -1}},
        {"top_k": {"org": 10**9}},
        {"top_k": {"dreams": 1}},
        {"filter": {"topic": {"$near": "returns"}}},
        {"query": "boots " * 20_000},
    ]
    for options in impossible:
        arguments: dict[str, Any] = {"query": "boots", "timeout_ms": 5_000, **options}
        error = error_of(partial(memory.search_memory, **arguments))
        assert (error.code, error.status_code) == ("runtime.bad_request", 400), options
        assert "boots" not in str(error), "messages must not contain what a caller said"

    assert memory.search_memory("boots", timeout_ms=PATIENT_MS).trace["degraded"] is False


def test_a_turn_that_is_too_large_is_rejected_and_the_next_one_is_saved(new_memory: NewMemory) -> None:
    memory = new_memory()
    memory.start_session()
    error = error_of(lambda: memory.after_turn("x" * 2_000_000, "", "t1"))

    assert (error.code, error.status_code) == ("runtime.payload_too_large", 413)
    assert memory.after_turn("hello", "", "t2")


# A program that is not a runtime


def test_the_error_names_a_missing_binary(new_memory: NewMemory, tmp_path: Path) -> None:
    missing = str(tmp_path / "no-such-runtime")
    error = error_of(new_memory(runtime_binary=missing).start_session)

    assert error.code == "runtime.not_found"
    assert missing in error.message


def test_the_error_names_a_binary_that_is_not_executable(new_memory: NewMemory, tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("not a program")
    memory = new_memory(runtime_binary=str(plain))
    for _ in range(2):
        error = error_of(memory.start_session)
        assert error.code == "runtime.not_found"
        assert str(plain) in error.message


def test_a_script_without_its_interpreter_raises_start_failed(
    new_memory: NewMemory, executable: Callable[[str], str]
) -> None:
    broken = executable("#!/no/such/interpreter\n")
    error = error_of(new_memory(runtime_binary=broken).start_session)

    assert error.code == "runtime.start_failed"
    assert broken in error.message


def test_a_binary_that_exits_at_once_fails_fast_with_its_output(
    new_memory: NewMemory, executable: Callable[[str], str]
) -> None:
    binary = executable('#!/bin/sh\necho "starting"\necho "no licence for Tuesdays" >&2\nexit 7\n')
    memory = new_memory(runtime_binary=binary)
    took_s = []
    for _ in range(3):  # the error is not sticky: the next call tries again, and fails the same way
        began_at = time.monotonic()
        error = error_of(memory.start_session)
        took_s.append(time.monotonic() - began_at)
        assert error.code == "runtime.start_failed"
        assert "no licence for Tuesdays" in error.message
        assert error.details["exitCode"] == 7
        assert "starting" in error.details["output"]
    assert min(took_s) < 1
    assert max(took_s) < 10, "a call waits as long as a start may take"


def test_the_error_of_a_binary_without_output_has_its_exit_code(
    new_memory: NewMemory, executable: Callable[[str], str]
) -> None:
    error = error_of(new_memory(runtime_binary=executable("#!/bin/sh\nexit 1\n")).start_session)

    assert error.code == "runtime.start_failed"
    assert "code 1" in error.message


def test_a_binary_that_never_answers_times_out_and_is_ended_by_close(
    new_memory: NewMemory, executable: Callable[[str], str]
) -> None:
    memory = new_memory(runtime_binary=executable("#!/bin/sh\nexec sleep 600\n"))

    def search() -> None:
        assert error_of(lambda: memory.search_memory("hello", timeout_ms=150)).code == "runtime.timeout"

    search()
    pid = memory.runtime_pid
    assert pid is not None
    assert fastest(search, 0.15 + GRACE_S) < 0.15 + GRACE_S
    assert memory.runtime_pid == pid, "no second process is started"
    memory.close()
    assert not psutil.Process().children()


def test_a_runtime_wrapped_in_a_script_is_ended_with_the_script(
    new_memory: NewMemory, executable: Callable[[str], str]
) -> None:
    wrapper = executable(f"#!/bin/sh\n{sys.executable} -m memoair_runtime\n")
    memory = new_memory(runtime_binary=wrapper)
    memory.start_session()
    family = psutil.Process().children(recursive=True)
    assert len(family) == 2
    memory.close()

    assert not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def test_processes_that_a_binary_started_are_ended_with_it(
    new_memory: NewMemory, executable: Callable[[str], str]
) -> None:
    memory = new_memory(runtime_binary=executable("#!/bin/sh\nsleep 600\nexit 0\n"))
    assert error_of(lambda: memory.search_memory("hello", timeout_ms=300)).code == "runtime.timeout"
    eventually(lambda: len(psutil.Process().children(recursive=True)) == 2)
    family = psutil.Process().children(recursive=True)
    try:
        memory.close()
        eventually(lambda: not [each for each in family if each.is_running()])
    finally:
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()


def test_the_port_is_found_even_after_much_output(new_memory: NewMemory, executable: Callable[[str], str]) -> None:
    # Like a runtime that reports its port and then warns about a thousand damaged logs.
    talkative = executable(
        f"#!{sys.executable}\n"
        "import http.server, json, os, sys\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        f"        body = json.dumps({{'workspaceId': {PROJECT!r}, 'userId': {USER!r}}}).encode()\n"
        "        self.send_response(200)\n"
        "        self.send_header('Content-Length', str(len(body)))\n"
        "        self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), Handler)\n"
        "told = json.dumps({'event': 'listening', 'port': server.server_address[1]})\n"
        "os.write(1, (told + '\\n' + 'a warning\\n' * 2_000).encode())\n"
        "server.serve_forever()\n"
    )
    assert new_memory(runtime_binary=talkative).runtime_url().startswith("http://127.0.0.1:")


def test_an_unusable_storage_root_fails_saves_but_not_searches(
    new_memory: NewMemory, tmp_path: Path, org_file: Path
) -> None:
    in_the_way = tmp_path / "a-file"
    in_the_way.write_text("not a folder")
    memory = new_memory(storage_root=str(in_the_way), org_file=str(org_file))
    memory.start_session()
    error = error_of(lambda: memory.after_turn("hello", "", "t1"))

    assert (error.code, error.status_code) == ("runtime.storage_unavailable", 503)
    assert "30 days" in memory.search_memory("returns", timeout_ms=PATIENT_MS).contextText


# Ports and identities


def test_the_error_names_a_taken_port_and_its_owner(new_memory: NewMemory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        memory = new_memory(runtime_url=f"http://127.0.0.1:{port}")
        error = error_of(memory.start_session)

    assert error.code == "runtime.start_failed"
    assert f"port {port}" in error.message
    assert f"pid {os.getpid()}" in error.message
    assert error.details["port"] == port


def test_the_error_names_a_port_that_another_server_owns(new_memory: NewMemory, scripted: Scripted) -> None:
    server = scripted({"health": says_http(b"<html>a web page</html>")})
    error = error_of(new_memory(runtime_url=server.url).start_session)

    assert error.code == "runtime.start_failed"
    assert f"port {server.port}" in error.message
    assert f"pid {os.getpid()}" in error.message
    assert set(server.asked) == {"health"}


@pytest.mark.parametrize("auto_start", [True, False])
@pytest.mark.parametrize("other", [{"USER_ID": "caller_7"}, {"PROJECT_ID": "proj_other"}], ids=str)
def test_a_runtime_of_another_user_is_never_used(
    new_memory: NewMemory,
    start_runtime: Callable[..., RunningRuntime],
    tmp_path: Path,
    auto_start: bool,
    other: dict[str, str],
) -> None:
    stranger = start_runtime(tmp_path / "theirs", **other)
    memory = new_memory(auto_start_runtime=auto_start, runtime_url=f"http://127.0.0.1:{stranger.port}")
    for _ in range(2):
        assert error_of(memory.start_session).code == "runtime.identity_mismatch"
    assert error_of(lambda: memory.after_turn("a secret", "", "t1")).code == "runtime.identity_mismatch"
    assert error_of(lambda: memory.search_memory("a secret", timeout_ms=PATIENT_MS)).code == "runtime.identity_mismatch"
    memory.close()

    assert not list((tmp_path / "theirs").rglob("session.jsonl"))
    assert stranger.health()["active_sessions"] == 0


def test_a_port_that_passes_to_another_users_runtime_raises_identity_mismatch(
    new_memory: NewMemory, start_runtime: Callable[..., RunningRuntime], tmp_path: Path, storage_root: Path
) -> None:
    ours = start_runtime(storage_root)
    address = f"127.0.0.1:{ours.port}"
    memory = new_memory(auto_start_runtime=False, runtime_url=f"http://{address}")
    memory.start_session()
    ours.kill()
    ours.http.close()
    start_runtime(tmp_path / "theirs", BIND_ADDR=address, USER_ID="caller_7")

    error = error_of(lambda: memory.after_turn("a secret", "", "t1", timeout_s=30.0))
    assert error.code == "runtime.identity_mismatch"
    assert not list((tmp_path / "theirs").rglob("session.jsonl"))


def test_without_auto_start_the_error_names_the_address_of_a_missing_runtime(
    new_memory: NewMemory, free_port: int
) -> None:
    memory = new_memory(auto_start_runtime=False, runtime_url=f"http://127.0.0.1:{free_port}")
    error = error_of(memory.start_session)

    assert error.code == "runtime.start_failed"
    assert str(free_port) in error.message
    assert not psutil.Process().children()


@pytest.mark.parametrize("token", [None, "wrong"])
@pytest.mark.parametrize("auto_start", [True, False])
def test_a_wrong_token_is_unauthorized(
    new_memory: NewMemory,
    start_runtime: Callable[..., RunningRuntime],
    storage_root: Path,
    token: str | None,
    auto_start: bool,
) -> None:
    runtime = start_runtime(storage_root, TOKEN="right")
    url = f"http://127.0.0.1:{runtime.port}"
    memory = new_memory(auto_start_runtime=auto_start, runtime_url=url, runtime_token=token)
    error = error_of(memory.start_session)

    assert (error.code, error.status_code) == ("runtime.unauthorized", 401)
    assert "right" not in str(error)


def test_a_runtime_on_a_random_port_requires_its_token(new_memory: NewMemory) -> None:
    memory = new_memory()
    url = memory.runtime_url()
    stranger = new_memory(auto_start_runtime=False, runtime_url=url)

    assert error_of(stranger.start_session).code == "runtime.unauthorized"


# A runtime that misbehaves


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), None),
        (says(b"\0\xff" * 500 + b"\r\n\r\n"), None),
        (says_http(b"not JSON"), 200),
        (says_http(b"\xff\xfe"), 200),
        (says_http(b""), 200),
        (says_http(b"[" * 200_000), 200),
        (says_http(b"not gzip", headers="Content-Encoding: gzip\r\n"), None),
        (says_json([]), 200),
        (says_json({"contextText": "half of it"}), 200),
        (says_json(dict.fromkeys(("contextText", "profile", "working", "permanent", "org", "sources", "trace"))), 200),
        (says_http(b"<html>oh</html>", 502), 502),
        (says_json({"error": "not an envelope"}, 500), 500),
        (says_http(b'{"contextText": "cut o', promised=500), None),
        (cuts_off, None),
    ],
    ids=[
        "another protocol",
        "bytes",
        "no JSON",
        "no UTF-8",
        "nothing",
        "nested without end",
        "not as encoded",
        "a list",
        "a part",
        "nulls",
        "a web page",
        "no envelope",
        "cut off in the body",
        "cut off before it",
    ],
)
def test_an_invalid_reply_raises_an_internal_error(
    new_memory: NewMemory, scripted: Scripted, answer: Answer, status: int | None
) -> None:
    server = scripted({"search_memory": answer})
    memory = new_memory(auto_start_runtime=False, runtime_url=server.url)
    began_at = time.monotonic()
    error = error_of(lambda: memory.search_memory("hello", timeout_ms=PATIENT_MS))

    assert error.code == "runtime.internal"
    assert time.monotonic() - began_at < PATIENT_MS / 1e3 + GRACE_S
    if status is not None:
        assert error.status_code == status


@pytest.mark.parametrize("where", ["health", "search_memory"])
@pytest.mark.parametrize("answer", [hangs, dribbles], ids=["says nothing", "a byte at a time"])
def test_a_slow_server_is_abandoned_at_the_deadline(
    new_memory: NewMemory, scripted: Scripted, answer: Answer, where: str
) -> None:
    server = scripted({where: answer})
    memory = new_memory(auto_start_runtime=False, runtime_url=server.url)
    # So that a client that waits without end fails this test instead of hanging in it.
    rescue = threading.Timer(30.0, server.hang_up)
    rescue.start()

    def search() -> None:
        assert error_of(lambda: memory.search_memory("hello", timeout_ms=200)).code == "runtime.timeout"

    try:
        assert fastest(search, 0.2 + GRACE_S) < 0.2 + GRACE_S
    finally:
        rescue.cancel()
        rescue.join()


def test_a_stopped_runtime_delays_a_search_only_to_its_timeout(
    new_memory: NewMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "memoair_voice_sync._pool.handle.UNRESPONSIVE_AFTER_S", 600.0
    )  # it must not be replaced during the test
    memory = new_memory()
    memory.start_session()
    memory.search_memory("hello", timeout_ms=PATIENT_MS)
    pid = freeze(memory.runtime_pid)

    def search(timeout_ms: float) -> None:
        error = error_of(partial(memory.search_memory, "hello", timeout_ms=timeout_ms))
        assert error.code == "runtime.timeout"

    for timeout_ms in (50, 250):
        most_s = timeout_ms / 1e3 + GRACE_S
        assert fastest(partial(search, timeout_ms), most_s) < most_s

    os.kill(pid, signal.SIGCONT)
    assert memory.search_memory("hello", timeout_ms=PATIENT_MS).trace["degraded"] is False


def test_close_ends_a_stopped_runtime(new_memory: NewMemory) -> None:
    def closes_s() -> float:
        memory = new_memory()
        memory.runtime_url()
        pid = freeze(memory.runtime_pid)
        began_at = time.monotonic()
        memory.close()
        took_s = time.monotonic() - began_at
        assert not psutil.pid_exists(pid)
        return took_s

    assert least(closes_s, 8) < 8


def test_a_turn_that_timed_out_is_stored_once_when_it_is_saved_again(new_memory: NewMemory) -> None:
    memory = new_memory()
    log = Path(memory.start_session()["paths"]["sessionJsonl"])
    pid = freeze(memory.runtime_pid)
    assert error_of(lambda: memory.after_turn("hello", "", "t1", timeout_s=0.1)).code == "runtime.timeout"
    os.kill(pid, signal.SIGCONT)
    event_id = memory.after_turn("hello", "", "t1")

    turns = [line for line in map(json.loads, log.read_bytes().splitlines()) if line["type"] == "turn"]
    assert [turn["eventId"] for turn in turns] == [event_id]


# The error and the results themselves


def test_the_envelope_of_the_runtime_becomes_the_attributes_of_the_error(
    new_memory: NewMemory, scripted: Scripted
) -> None:
    envelope = {"error": {"code": "runtime.storage_unavailable", "message": "full", "details": {"errno": 28}}}
    server = scripted({"turn/after": says_json(envelope, 503)})
    memory = new_memory(auto_start_runtime=False, runtime_url=server.url)
    error = error_of(lambda: memory.after_turn("hello", "", "t1"))

    assert (error.code, error.message) == ("runtime.storage_unavailable", "full")
    assert (error.status_code, error.details) == (503, {"errno": 28})
    assert str(error) == "runtime.storage_unavailable: full"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_can_be_copied_and_pickled(
    again: Callable[[MemoAirVoiceMemoryError], MemoAirVoiceMemoryError],
) -> None:
    error = MemoAirVoiceMemoryError("runtime.timeout", "too late", 504, {"port": 7878})
    same = again(error)

    assert (same.code, same.message, same.status_code, same.details) == (
        "runtime.timeout",
        "too late",
        504,
        {"port": 7878},
    )
    assert str(same) == str(error)


def test_an_error_has_its_defaults() -> None:
    error = MemoAirVoiceMemoryError("pool.closed", "the client is closed")
    assert (error.status_code, error.details) == (None, {})
    assert isinstance(error, Exception)


def test_a_result_can_be_pickled() -> None:
    result = SearchResult("## org", None, [], [], [{"id": "returns"}], [], {"degraded": False})
    assert pickle.loads(pickle.dumps(result)) == result
    assert SearchResult(**dataclasses.asdict(result)) == result


def test_every_documented_code_is_in_the_table_with_its_status() -> None:
    documented = {
        "runtime.bad_request": HTTPStatus.BAD_REQUEST,
        "runtime.unauthorized": HTTPStatus.UNAUTHORIZED,
        "runtime.session_not_found": HTTPStatus.NOT_FOUND,
        "runtime.identity_mismatch": HTTPStatus.CONFLICT,
        "runtime.payload_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "runtime.draining": HTTPStatus.SERVICE_UNAVAILABLE,
        "runtime.projection_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
        "runtime.internal": HTTPStatus.INTERNAL_SERVER_ERROR,
        "runtime.bootstrap_failed": None,
        "runtime.timeout": None,
        "runtime.not_found": None,
        "runtime.start_failed": None,
        "pool.exhausted": None,
        "pool.port_exhausted": None,
        "pool.closed": None,
    }
    table = {code: entry.status for code, entry in ERROR_CODES.items() if code in documented}
    assert table == documented
    assert all(entry.meaning for entry in ERROR_CODES.values())


def test_every_code_that_is_raised_is_in_the_table() -> None:
    packages = [Path(__file__).parents[2] / name for name in ("memoair_voice_sync", "memoair_voice", "memoair_runtime")]
    sources = [path.read_text() for package in packages for path in package.rglob("*.py")]
    named = {code for text in sources for code in re.findall(r'"((?:runtime|pool)\.[a-z_]+)"', text)}

    assert named - set(ERROR_CODES) == set()
    assert len(named) > 10


def test_the_error_names_another_process_that_owns_the_port(
    new_memory: NewMemory,
    start_runtime: Callable[..., RunningRuntime],
    executable: Callable[[str], str],
    tmp_path: Path,
) -> None:
    announced = tmp_path / "port"
    script = executable(
        f"#!{sys.executable}\n"
        "import pathlib, socket, sys\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        f"pathlib.Path({str(announced)!r}).write_text(str(listener.getsockname()[1]))\n"
        "sys.stdin.read()\n"
    )
    with psutil.Popen([script], stdin=-1) as stranger:
        port = eventually(lambda: announced.exists() and announced.read_text())
        error = error_of(new_memory(runtime_url=f"http://127.0.0.1:{port}").start_session)
        assert f"(pid {stranger.pid})" in error.message


def test_a_missing_org_file_is_rejected_with_its_path(tmp_path: Path) -> None:
    missing = tmp_path / "org.jsonl"
    with pytest.raises(ValueError, match=f"org_file is not a file: {missing}"):
        MemoAirVoiceMemorySync(project_id="p", user_id="u", org_file=str(missing))


@pytest.mark.parametrize("lanes", ["org", ["permanant"], ["org", ""]])
def test_the_error_for_an_unknown_lane_lists_the_lanes(memory: MemoAirVoiceMemorySync, lanes: list[str]) -> None:
    with pytest.raises(ValueError, match="profile, working, permanent, org"):
        memory.search_memory("hello", lanes=lanes)


@pytest.mark.parametrize("name", ["top_k", "filter"])
def test_the_error_names_an_argument_that_must_be_a_dict(memory: MemoAirVoiceMemorySync, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a dict"):
        memory.search_memory("hello", **{name: 5})  # type: ignore[arg-type]
