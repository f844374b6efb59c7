"""Clients whose runtime must be pulled first: calls keep their timeouts, and a pull leaves nothing behind."""

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from support.artifacts import PROGRAM, RegistryClient, digest_of, runtime_archive
from support.clients import PATIENT_MS, Application, NewClient, client_arguments, recall, runtime_of, say, turn_ids
from support.file_server import first_then, hang, respond, stall
from support.registries import LocalRegistry, debian_registry, find_debian_registry
from support.timing import fastest, least
from support.waiting import eventually

from memoair_protocol.backoff import Backoff
from memoair_runtime_store import background
from memoair_voice_sync import (
    MemoAirVoiceClientSync,
    MemoAirVoiceMemoryError,
    MemoAirVoiceMemorySync,
    SearchResult,
)

NewMemory = Callable[..., MemoAirVoiceMemorySync]

CONTENT = runtime_archive()
BLOB = f"/v2/acme/runtime/blobs/{digest_of(CONTENT)}"
MANIFEST = "/v2/acme/runtime/manifests/1"


@pytest.fixture(autouse=True)
def docker_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.fixture
def registry(nothing_left_behind: None) -> Iterator[LocalRegistry]:
    """Run a registry with one runtime, which starts our real one."""
    with LocalRegistry() as running:
        RegistryClient(running.host).push("1", (CONTENT, None))
        running.requests.clear()
        yield running


@pytest.fixture
def named(registry: LocalRegistry, tmp_path: Path) -> dict[str, str]:
    """Return the arguments that select the runtime of the registry."""
    return {"runtime_repo": f"{registry.host}/acme/runtime:1", "runtime_cache_dir": str(tmp_path / "cache")}


def error_of(call: Callable[[], object]) -> MemoAirVoiceMemoryError:
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        call()
    return refused.value


def is_pulled(client: MemoAirVoiceClientSync, user_id: str) -> bool:
    """Return whether the user's runtime was started by the pulled program, and not by the fork server."""
    command = psutil.Process(runtime_of(client, user_id)["pid"]).cmdline()
    return command[1:] == ["-m", "memoair_runtime"]


def registry_listens(host: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(host.rpartition(":")[2]))) == 0


# A runtime from a registry


def test_a_client_searches_and_saves_with_a_runtime_from_a_registry(
    new_client: NewClient, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, storage_root: Path
) -> None:
    program = find_debian_registry(tmp_path_factory.mktemp("debian"))
    if isinstance(program, str):
        pytest.skip(f"{program}; the same is tried with our own registry below")
    with debian_registry(program, tmp_path / "registry") as host:
        RegistryClient(host).push("1", (CONTENT, None))
        client = new_client(runtime_repo=f"{host}/acme/runtime", runtime_version="1", runtime_cache_dir=str(tmp_path))
        say(client, "ada", "The boots are red.", "t1")
        assert "red" in recall(client, "ada", "the boots").contextText
        assert is_pulled(client, "ada")
        client.close()
    assert not registry_listens(host)
    offline = new_client(runtime_repo=f"{host}/acme/runtime", runtime_version="1", runtime_cache_dir=str(tmp_path))
    assert "red" in recall(offline, "ada", "the boots").contextText
    assert turn_ids(storage_root, "ada") == ["t1"]


def test_a_memory_searches_and_saves_with_a_pulled_runtime(
    new_memory: NewMemory, registry: LocalRegistry, named: dict[str, str]
) -> None:
    registry.requires_token = True
    memory = new_memory(**named)
    memory.start_session(timeout_s=30)
    assert memory.after_turn("The boots are red.", "Noted.", "t1")
    assert "red" in memory.search_memory("the boots", timeout_ms=PATIENT_MS).contextText
    assert registry.count_gets(BLOB) == 1

    new_memory(**named, user_id="bob").start_session(timeout_s=30)
    assert registry.count_gets() == 4, "a cached runtime needs no request"


def test_the_environment_can_select_a_runtime_to_pull(
    new_memory: NewMemory, named: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEMOAIR_RUNTIME_REPO", named["runtime_repo"].removesuffix(":1"))
    monkeypatch.setenv("MEMOAIR_RUNTIME_VERSION", "1")
    monkeypatch.setenv("MEMOAIR_RUNTIME_CACHE_DIR", str(tmp_path / "elsewhere"))
    new_memory().start_session(timeout_s=30)
    assert list((tmp_path / "elsewhere").glob("content/*/memoair-runtime/bin/voice-runtime"))


def test_an_invalid_runtime_in_the_environment_raises_not_found(
    new_memory: NewMemory, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMOAIR_RUNTIME_REPO", "acme/runtime")
    error = error_of(lambda: new_memory().start_session(timeout_s=5))
    assert (error.code, "MEMOAIR_RUNTIME_REPO must begin with a registry" in error.message) == (
        "runtime.not_found",
        True,
    )
    trace = new_client().search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS).trace
    assert trace["error"]["code"] == "runtime.not_found"


# Nothing to pull


def test_by_default_the_installed_runtime_runs_and_nothing_is_pulled(
    new_client: NewClient, registry: LocalRegistry, tmp_path: Path
) -> None:
    client = new_client(runtime_cache_dir=str(tmp_path / "cache"))
    client.load_index(user_id="ada")
    assert "memoair_runtime.fork_server" in psutil.Process(runtime_of(client, "ada")["pid"]).parent().cmdline()  # type: ignore[union-attr]
    same = new_client(runtime_version=version("memoair-voice"), runtime_cache_dir=str(tmp_path / "cache"))
    same.load_index(user_id="bob")
    assert "memoair_runtime.fork_server" in psutil.Process(runtime_of(same, "bob")["pid"]).parent().cmdline()  # type: ignore[union-attr]
    assert not (tmp_path / "cache").exists()


def test_runtime_binary_takes_precedence_over_a_pulled_runtime(
    new_memory: NewMemory,
    executable: Callable[[str], str],
    registry: LocalRegistry,
    named: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = executable(PROGRAM.decode())
    new_memory(runtime_binary=program, **named).start_session(timeout_s=30)
    monkeypatch.setenv("MEMOAIR_RUNTIME_BINARY", program)
    new_memory(**named, user_id="bob").start_session(timeout_s=30)
    assert not registry.requests


def test_the_pull_code_is_not_imported_without_a_pull() -> None:
    code = (
        "import sys; from memoair_voice_sync import MemoAirVoiceClientSync as Client\n"
        "Client(api_key='k', project_id='p', agent_id='a', cloud_base_url=None).close()\n"
        "modules = ('requests', 'filelock', 'tarfile')\n"
        "print([name for name in sys.modules if 'runtime_store' in name or name in modules])"
    )
    with os.popen(f'"{sys.executable}" -c "{code}"') as output:
        assert output.read().strip() == "[]"


# During a pull


def test_a_search_waits_for_a_pull_until_its_timeout_and_the_pull_goes_on(
    new_client: NewClient, registry: LocalRegistry, named: dict[str, str], storage_root: Path
) -> None:
    may_go_on = threading.Event()

    def slowly(handler: object) -> None:
        may_go_on.wait(60)
        respond(CONTENT)(handler)  # type: ignore[arg-type]

    registry.responders[BLOB] = slowly
    client = new_client(**named)
    took_s = []
    try:
        for _ in range(3):
            began_at = time.monotonic()
            found = client.search_memory("the boots", user_id="ada", timeout_ms=250)
            took_s.append(time.monotonic() - began_at)
            assert (found.contextText, found.trace["degraded"]) == ("", True)
            assert found.trace["error"]["code"] == "runtime.timeout"
        assert min(took_s) < 1.25
        assert max(took_s) < 10, "a search waits for the pull"
        eventually(lambda: registry.count_gets(BLOB))
        found = client.search_memory("the boots", user_id="ada", timeout_ms=250)
        assert "is being pulled" in found.trace["error"]["message"]
        assert "memoair runtime pull" in found.trace["error"]["message"]
        event_id = client.save_response(
            user_id="ada", user_text="The boots are red.", assistant_text="Noted.", turn_id="t1"
        )
        assert event_id is None
    finally:
        may_go_on.set()
    client.load_index(user_id="ada", timeout_s=60)
    eventually(lambda: client.stats()["pending_saves"] == 0, within_s=60.0)
    assert "red" in recall(client, "ada", "the boots").contextText
    assert is_pulled(client, "ada")
    assert turn_ids(storage_root, "ada") == ["t1"]
    assert registry.count_gets(BLOB) == 1


def test_a_memory_waits_for_a_pull_until_its_timeout(
    new_memory: NewMemory, registry: LocalRegistry, named: dict[str, str]
) -> None:
    registry.responders[BLOB] = hang
    memory = new_memory(**named)

    def search() -> None:
        error = error_of(lambda: memory.search_memory("hello", timeout_ms=300))
        assert (error.code, "is being pulled (0.0 MB)" in error.message) == ("runtime.timeout", True)

    search()
    eventually(lambda: registry.count_gets(BLOB))
    assert fastest(search, 1.3) < 1.3
    assert registry.count_gets(BLOB) == 1
    memory.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("memoair")]


@pytest.mark.parametrize("hanging", [hang, stall(CONTENT, 100)])
def test_closing_a_client_cancels_its_pull(
    new_client: NewClient, registry: LocalRegistry, named: dict[str, str], tmp_path: Path, hanging: object
) -> None:
    registry.responders[BLOB] = hanging  # type: ignore[assignment]

    def closes_s() -> float:
        client, before = new_client(**named), registry.count_gets(BLOB)
        client.search_memory("hello", user_id="ada", timeout_ms=50)
        client.search_memory("hello", user_id="bob", timeout_ms=50)
        eventually(lambda: registry.count_gets(BLOB) > before)
        began_at = time.monotonic()
        client.close()
        took_s = time.monotonic() - began_at
        eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("memoair")])
        assert {each.name for each in (tmp_path / "cache").iterdir()} == {"named", "content"}
        return took_s

    assert least(closes_s, 3) < 3


def test_two_clients_of_one_process_pull_once(
    new_client: NewClient, registry: LocalRegistry, named: dict[str, str]
) -> None:
    first, second = new_client(**named), new_client(**named)
    for client in (first, second):
        client.search_memory("hello", user_id="ada", timeout_ms=1)
    first.load_index(user_id="ada")
    second.load_index(user_id="bob")
    assert registry.count_gets(BLOB) == 1


def test_another_client_continues_a_cancelled_pull(
    new_client: NewClient, registry: LocalRegistry, named: dict[str, str]
) -> None:
    registry.responders[BLOB] = first_then(hang, others=respond(CONTENT))
    first, second = new_client(**named), new_client(**named)
    first.search_memory("hello", user_id="ada", timeout_ms=1)
    eventually(lambda: registry.count_gets(BLOB))
    second.search_memory("hello", user_id="ada", timeout_ms=1)
    first.close()
    second.load_index(user_id="ada")
    assert registry.count_gets(BLOB) == 2


def test_a_forked_child_pulls_by_itself(
    registry: LocalRegistry, named: dict[str, str], storage_root: Path, nothing_left_behind: None
) -> None:
    registry.responders[BLOB] = first_then(hang, others=respond(CONTENT))
    application = Application(
        """
client.search_memory("hello", user_id="ada", timeout_ms=1)
sys.stdin.readline()
if (child := os.fork()) == 0:
    report(event=say("ada", "t1", "The boots are red."))
    client.close()
    os._exit(0)
client.close()
report(code=wait_for(child))
""",
        client_arguments(storage_root, **named),
    )
    try:
        eventually(lambda: registry.count_gets(BLOB))
        assert application.process.stdin is not None
        application.process.stdin.write("\n")
        application.process.stdin.flush()
        assert application.read_report()["event"]
        assert application.read_report()["code"] == 0
    finally:
        application.close()


# Pulls that fail


class Clock:
    """The clock of a pull, which a test moves."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.passed_s


def failed_result(found: SearchResult) -> SearchResult | None:
    """Return the result if the pull has failed and is not being retried."""
    return found if found.trace["error"]["code"] == "runtime.not_found" else None


def pause_s(found: SearchResult) -> int:
    """Return the seconds until the pull is retried."""
    message = re.search(r"retrying in (\d+) s", found.trace["error"]["message"])
    assert message is not None
    return int(message[1])


def test_a_failed_pull_raises_at_once_and_is_retried_with_growing_pauses(
    new_client: NewClient, registry: LocalRegistry, named: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(background, "time", clock)
    monkeypatch.setattr(background, "BACKOFF", Backoff(60.0, 300.0, jitter=0.2))
    registry.responders[MANIFEST] = respond(b"gone", 404)
    client = new_client(**named)
    found = client.search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS)
    assert found.trace["error"]["code"] == "runtime.not_found"
    assert named["runtime_repo"] in found.trace["error"]["message"]
    assert 30 < pause_s(found) <= 66
    took_s = []
    for _ in range(5):
        began_at = time.monotonic()
        assert error_of(lambda: client.load_index(user_id="ada", timeout_s=60)).code == "runtime.not_found"
        took_s.append(time.monotonic() - began_at)
    assert min(took_s) < 0.5
    assert max(took_s) < 10, "a search waits for the retry, which is due in a minute"
    assert registry.count_gets(MANIFEST) == 1

    clock.passed_s += 67
    eventually(
        lambda: client.search_memory("hello", user_id="ada", timeout_ms=100) and registry.count_gets(MANIFEST) == 2
    )
    found = eventually(lambda: failed_result(client.search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS)))
    assert 66 < pause_s(found) <= 132
    assert registry.count_gets(MANIFEST) == 2
    del registry.responders[MANIFEST]
    clock.passed_s += 133
    eventually(
        lambda: not client.search_memory("hello", user_id="ada", timeout_ms=1_000).trace["degraded"], within_s=60.0
    )
    assert registry.count_gets(MANIFEST) == 3


def test_a_failed_pull_reports_the_cause(
    new_memory: NewMemory, registry: LocalRegistry, named: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    registry.responders[BLOB] = respond(CONTENT[:-1] + b"x")
    memory = new_memory(**named)
    error = error_of(lambda: memory.start_session(timeout_s=30))
    assert error.code == "runtime.start_failed"
    assert f"expected {digest_of(CONTENT)}" in error.message
    assert error_of(lambda: memory.search_memory("hello")).code == "runtime.start_failed"
    [message] = [each.getMessage() for each in caplog.records if "pull_failed" in each.getMessage()]
    assert digest_of(CONTENT) in message
    assert registry.count_gets(BLOB) == 1


def test_a_pulled_program_that_is_not_a_runtime_raises_start_failed(
    new_memory: NewMemory, registry: LocalRegistry, named: dict[str, str]
) -> None:
    RegistryClient(registry.host).push("1", (b"#!/bin/sh\necho no licence >&2\nexit 7\n", None))
    error = error_of(lambda: new_memory(**named).start_session(timeout_s=30))
    assert (error.code, error.details["exitCode"]) == ("runtime.start_failed", 7)
    assert "no licence" in error.message


def test_a_cache_that_is_deleted_while_a_client_runs_is_filled_again(
    new_client: NewClient, registry: LocalRegistry, named: dict[str, str], tmp_path: Path
) -> None:
    client = new_client(**named)
    client.load_index(user_id="ada")
    for path in (tmp_path / "cache").glob("content/*/memoair-runtime/bin/voice-runtime"):
        path.unlink()
    client.load_index(user_id="bob")
    assert registry.count_gets(BLOB) == 2
