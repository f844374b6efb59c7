"""Clients whose runtime has to be pulled first: calls wait no longer than they may, and nothing is left of a pull."""

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
from support.registries import LocalRegistry, debian_registry, find_debian_registry, local_registry
from support.timing import fastest, least
from support.waiting import eventually

from memoair_voice_sync import (
    MemoAirVoiceClientSync,
    MemoAirVoiceMemoryError,
    MemoAirVoiceMemorySync,
    SearchResult,
)
from memoair_voice_sync.runtime_store import background

NewMemory = Callable[..., MemoAirVoiceMemorySync]

CONTENT = runtime_archive()
BLOB = f"/v2/acme/runtime/blobs/{digest_of(CONTENT)}"
MANIFEST = "/v2/acme/runtime/manifests/1"


@pytest.fixture(autouse=True)
def docker_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.fixture
def registry(nothing_left_behind: None) -> Iterator[LocalRegistry]:
    """A registry that has one runtime, which starts our real one."""
    with local_registry() as running:
        RegistryClient(running.host).push("1", (CONTENT, None))
        running.requests.clear()
        yield running


@pytest.fixture
def named(registry: LocalRegistry, tmp_path: Path) -> dict[str, str]:
    """The arguments that name it."""
    return {"runtime_repo": f"{registry.host}/acme/runtime:1", "runtime_cache_dir": str(tmp_path / "cache")}


def refusal(call: Callable[[], object]) -> MemoAirVoiceMemoryError:
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        call()
    return refused.value


def is_pulled(client: MemoAirVoiceClientSync, user_id: str) -> bool:
    """Whether the caller's runtime is what the program that is pulled here starts, and not forked by a host."""
    command = psutil.Process(runtime_of(client, user_id)["pid"]).cmdline()
    return command[1:] == ["-m", "memoair_runtime"]


def registry_listens(host: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(host.rpartition(":")[2]))) == 0


# From a registry to a remembered caller


def test_a_client_recalls_and_saves_with_a_runtime_of_a_registry(
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


def test_a_raw_memory_recalls_and_saves_with_a_pulled_runtime(
    new_memory: NewMemory, registry: LocalRegistry, named: dict[str, str]
) -> None:
    registry.requires_token = True
    memory = new_memory(**named)
    memory.start_session(timeout_s=30)
    assert memory.after_turn("The boots are red.", "Noted.", "t1")
    assert "red" in memory.search_memory("the boots", timeout_ms=PATIENT_MS).contextText
    assert registry.count_gets(BLOB) == 1

    new_memory(**named, user_id="bob").start_session(timeout_s=30)
    assert registry.count_gets() == 4, "of what is in the cache nobody is asked"


def test_the_environment_names_a_runtime(
    new_memory: NewMemory, named: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEMOAIR_RUNTIME_REPO", named["runtime_repo"].removesuffix(":1"))
    monkeypatch.setenv("MEMOAIR_RUNTIME_VERSION", "1")
    monkeypatch.setenv("MEMOAIR_RUNTIME_CACHE_DIR", str(tmp_path / "elsewhere"))
    new_memory().start_session(timeout_s=30)
    assert list((tmp_path / "elsewhere").glob("content/*/memoair-runtime/bin/voice-runtime"))


def test_what_the_environment_names_wrongly_is_no_runtime(
    new_memory: NewMemory, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMOAIR_RUNTIME_REPO", "acme/runtime")
    error = refusal(lambda: new_memory().start_session(timeout_s=5))
    assert (error.code, "MEMOAIR_RUNTIME_REPO must begin with a registry" in error.message) == (
        "runtime.not_found",
        True,
    )
    trace = new_client().search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS).trace
    assert trace["error"]["code"] == "runtime.not_found"


# Where nothing is to be pulled


def test_where_nothing_is_named_the_installed_runtime_runs_and_nothing_is_pulled(
    new_client: NewClient, registry: LocalRegistry, tmp_path: Path
) -> None:
    client = new_client(runtime_cache_dir=str(tmp_path / "cache"))
    client.load_index(user_id="ada")
    assert "memoair_runtime.fork_server" in psutil.Process(runtime_of(client, "ada")["pid"]).parent().cmdline()  # type: ignore[union-attr]
    same = new_client(runtime_version=version("memoair-voice"), runtime_cache_dir=str(tmp_path / "cache"))
    same.load_index(user_id="bob")
    assert "memoair_runtime.fork_server" in psutil.Process(runtime_of(same, "bob")["pid"]).parent().cmdline()  # type: ignore[union-attr]
    assert not (tmp_path / "cache").exists()


def test_a_program_that_is_named_comes_before_what_would_be_pulled(
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


def test_nothing_of_a_pull_is_imported_where_none_is_wanted() -> None:
    code = (
        "import sys; from memoair_voice_sync import MemoAirVoiceClientSync as Client\n"
        "Client(api_key='k', project_id='p', agent_id='a', cloud_base_url=None).close()\n"
        "heavy = ('requests', 'filelock', 'tarfile')\n"
        "print([name for name in sys.modules if 'runtime_store' in name or name in heavy])"
    )
    with os.popen(f'"{sys.executable}" -c "{code}"') as told:
        assert told.read().strip() == "[]"


# While it is being pulled


def test_a_search_waits_for_a_pull_as_long_as_it_may_and_the_pull_goes_on(
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
        assert max(took_s) < 10, "one of them waits for the pull"
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


def test_a_raw_memory_waits_as_long_as_it_may(
    new_memory: NewMemory, registry: LocalRegistry, named: dict[str, str]
) -> None:
    registry.responders[BLOB] = hang
    memory = new_memory(**named)

    def search() -> None:
        error = refusal(lambda: memory.search_memory("hello", timeout_ms=300))
        assert (error.code, "is being pulled (0.0 MB)" in error.message) == ("runtime.timeout", True)

    search()
    eventually(lambda: registry.count_gets(BLOB))
    assert fastest(search, 1.3) < 1.3
    assert registry.count_gets(BLOB) == 1
    memory.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("memoair")]


@pytest.mark.parametrize("hanging", [hang, stall(CONTENT, 100)])
def test_a_client_that_is_closed_calls_its_pull_off(
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


def test_the_other_client_goes_on_with_a_pull_that_was_called_off(
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


def test_a_child_of_a_fork_pulls_for_itself(
    registry: LocalRegistry, named: dict[str, str], storage_root: Path, nothing_left_behind: None
) -> None:
    registry.responders[BLOB] = first_then(hang, others=respond(CONTENT))
    application = Application(
        """
client.search_memory("hello", user_id="ada", timeout_ms=1)
sys.stdin.readline()
if (child := os.fork()) == 0:
    tell(event=say("ada", "t1", "The boots are red."))
    client.close()
    os._exit(0)
client.close()
tell(code=wait_for(child))
""",
        client_arguments(storage_root, **named),
    )
    try:
        eventually(lambda: registry.count_gets(BLOB))
        assert application.process.stdin is not None
        application.process.stdin.write("\n")
        application.process.stdin.flush()
        assert application.told()["event"]
        assert application.told()["code"] == 0
    finally:
        application.close()


# Pulls that fail


class Clock:
    """The time as a pull sees it, which a test lets pass."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.passed_s


def has_failed(found: SearchResult) -> SearchResult | None:
    """What was found, if the pull for it has failed and is not under way again."""
    return found if found.trace["error"]["code"] == "runtime.not_found" else None


def pause_s(found: SearchResult) -> int:
    """In how many seconds the pull is tried again."""
    told = re.search(r"retrying in (\d+) s", found.trace["error"]["message"])
    assert told is not None
    return int(told[1])


def test_a_pull_that_failed_is_told_at_once_and_tried_again_after_a_pause_that_grows(
    new_client: NewClient, registry: LocalRegistry, named: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(background, "time", clock)
    monkeypatch.setattr(background, "INITIAL_BACKOFF_S", 60.0)
    registry.responders[MANIFEST] = respond(b"gone", 404)
    client = new_client(**named)
    found = client.search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS)
    assert found.trace["error"]["code"] == "runtime.not_found"
    assert named["runtime_repo"] in found.trace["error"]["message"]
    assert 30 < pause_s(found) <= 66
    took_s = []
    for _ in range(5):
        began_at = time.monotonic()
        assert refusal(lambda: client.load_index(user_id="ada", timeout_s=60)).code == "runtime.not_found"
        took_s.append(time.monotonic() - began_at)
    assert min(took_s) < 0.5
    assert max(took_s) < 10, "one of them waits until it is tried again, which is in a minute"
    assert registry.count_gets(MANIFEST) == 1

    clock.passed_s += 67
    eventually(
        lambda: client.search_memory("hello", user_id="ada", timeout_ms=100) and registry.count_gets(MANIFEST) == 2
    )
    found = eventually(lambda: has_failed(client.search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS)))
    assert 66 < pause_s(found) <= 132
    assert registry.count_gets(MANIFEST) == 2
    del registry.responders[MANIFEST]
    clock.passed_s += 133
    eventually(
        lambda: not client.search_memory("hello", user_id="ada", timeout_ms=1_000).trace["degraded"], within_s=60.0
    )
    assert registry.count_gets(MANIFEST) == 3


def test_a_pull_that_fails_says_what_to_do(
    new_memory: NewMemory, registry: LocalRegistry, named: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    registry.responders[BLOB] = respond(CONTENT[:-1] + b"x")
    memory = new_memory(**named)
    error = refusal(lambda: memory.start_session(timeout_s=30))
    assert error.code == "runtime.start_failed"
    assert f"expected {digest_of(CONTENT)}" in error.message
    assert refusal(lambda: memory.search_memory("hello")).code == "runtime.start_failed"
    [told] = [each.getMessage() for each in caplog.records if "pull_failed" in each.getMessage()]
    assert digest_of(CONTENT) in told
    assert registry.count_gets(BLOB) == 1


def test_a_pulled_program_that_is_no_runtime_is_a_start_that_failed(
    new_memory: NewMemory, registry: LocalRegistry, named: dict[str, str]
) -> None:
    RegistryClient(registry.host).push("1", (b"#!/bin/sh\necho no licence >&2\nexit 7\n", None))
    error = refusal(lambda: new_memory(**named).start_session(timeout_s=30))
    assert (error.code, error.details["exitCode"]) == ("runtime.start_failed", 7)
    assert "no licence" in error.message


def test_a_cache_that_is_cleaned_under_a_client_is_filled_again(
    new_client: NewClient, registry: LocalRegistry, named: dict[str, str], tmp_path: Path
) -> None:
    client = new_client(**named)
    client.load_index(user_id="ada")
    for path in (tmp_path / "cache").glob("content/*/memoair-runtime/bin/voice-runtime"):
        path.unlink()
    client.load_index(user_id="bob")
    assert registry.count_gets(BLOB) == 2
