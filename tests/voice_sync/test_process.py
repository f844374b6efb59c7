"""The process of a runtime: what it is started with, and when it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.runtimes import PROJECT, USER, RunningRuntime, freeze
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync

NewMemory = Callable[..., MemoAirVoiceMemorySync]

_HEAD = """
import json, os, signal, sys
from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync

def report(**facts):
    print(json.dumps(facts), flush=True)

memory = MemoAirVoiceMemorySync(
    project_id={project!r}, user_id={user!r}, runtime_url="http://127.0.0.1:0", storage_root={storage_root!r}
)
"""


class Client:
    """An application in its own process, which reports what it sees as lines of JSON."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def read_report(self) -> dict[str, Any]:
        """Return the next report."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the application ended without a report; its stderr is above"
        return dict(json.loads(line))


@pytest.fixture
def client(storage_root: Path, nothing_left_behind: None) -> Iterator[Callable[[str], Client]]:
    """Start applications that have a ``memory``; end them after the test."""
    clients: list[Client] = []

    def start(script: str) -> Client:
        head = _HEAD.format(project=PROJECT, user=USER, storage_root=str(storage_root))
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", head + script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        clients.append(Client(process))
        return clients[-1]

    yield start
    for each in clients:
        each.process.kill()
        each.process.communicate()


def is_alive(pid: int) -> bool:
    """Return whether a process is running, and not a zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def turn_ids(storage_root: Path) -> list[str]:
    lines = [json.loads(line) for log in storage_root.rglob("session.jsonl") for line in log.read_bytes().splitlines()]
    return [line["payload"]["turnId"] for line in lines if line["type"] == "turn"]


# The end of the client


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_runtime_ends_when_its_client_is_killed(
    client: Callable[[str], Client], storage_root: Path, how: signal.Signals
) -> None:
    application = client("""
memory.start_session(timeout_s=30.0)
memory.after_turn("the last words", "", "t1", timeout_s=30.0)
report(runtime=memory.runtime_pid)
sys.stdin.read()
""")
    runtime = application.read_report()["runtime"]
    assert is_alive(runtime)
    application.process.send_signal(how)
    application.process.wait()

    eventually(lambda: not is_alive(runtime))
    assert turn_ids(storage_root) == ["t1"]


def test_the_runtime_ends_when_its_client_exits_without_close(client: Callable[[str], Client]) -> None:
    application = client("memory.start_session(timeout_s=30.0); report(runtime=memory.runtime_pid); os._exit(0)")
    runtime = application.read_report()["runtime"]
    eventually(lambda: not is_alive(runtime))


def test_the_runtime_ends_with_its_client_even_if_another_child_of_the_client_survives(
    client: Callable[[str], Client],
) -> None:
    application = client("""
import subprocess
memory.start_session(timeout_s=30.0)
forked = os.fork()
if forked == 0:
    signal.pause()
other = subprocess.Popen(["sleep", "600"], close_fds=False)
report(runtime=memory.runtime_pid, forked=forked, other=other.pid)
sys.stdin.read()
""")
    outcome = application.read_report()
    application.process.kill()
    application.process.wait()
    try:
        eventually(lambda: not is_alive(outcome["runtime"]))
        assert is_alive(outcome["forked"])
        assert is_alive(outcome["other"])
    finally:
        os.kill(outcome["forked"], signal.SIGKILL)
        os.kill(outcome["other"], signal.SIGKILL)


def test_ctrl_c_does_not_reach_the_runtime_and_the_application_can_still_save(
    client: Callable[[str], Client], storage_root: Path
) -> None:
    application = client("""
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background inherits that SIGINT is ignored
memory.start_session(timeout_s=30.0)
pid = memory.runtime_pid
try:
    report(runtime=pid)
    sys.stdin.read()
except KeyboardInterrupt:
    event_id = memory.after_turn("the last words", "", "t1", timeout_s=30.0)
    report(event_id=event_id, same_runtime=memory.runtime_pid == pid)
    memory.close()
    report(closed=True)
""")
    runtime = application.read_report()["runtime"]
    os.killpg(application.process.pid, signal.SIGINT)
    outcome = application.read_report()

    assert outcome["event_id"]
    assert outcome["same_runtime"] is True
    assert application.read_report() == {"closed": True}
    assert application.process.wait() == 0
    assert not is_alive(runtime)
    assert turn_ids(storage_root) == ["t1"]


# Forks of the client


def test_the_runtime_of_a_parent_survives_the_exit_of_a_forked_child(client: Callable[[str], Client]) -> None:
    application = client("""
memory.start_session(timeout_s=30.0)
pid = memory.runtime_pid
child = os.fork()
if child == 0:
    sys.exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
event_id = memory.after_turn("said by the parent", "", "t1", timeout_s=30.0)
report(code=code, event_id=event_id, same_runtime=memory.runtime_pid == pid)
memory.close()
""")
    outcome = application.read_report()
    assert outcome["code"] == 0
    assert outcome["event_id"]
    assert outcome["same_runtime"] is True


def test_close_in_a_forked_child_leaves_the_parents_runtime_and_session_alone(
    client: Callable[[str], Client],
) -> None:
    application = client("""
log = memory.start_session(timeout_s=30.0)["paths"]["sessionJsonl"]
pid = memory.runtime_pid
child = os.fork()
if child == 0:
    memory.close()
    os._exit(0)
os.waitpid(child, 0)
event_id = memory.after_turn("said by the parent", "", "t1", timeout_s=30.0)
report(same_runtime=memory.runtime_pid == pid, types=[json.loads(line)["type"] for line in open(log, "rb").readlines()])
memory.close()
""")
    assert application.read_report() == {"same_runtime": True, "types": ["session_start", "turn"]}


def test_a_forked_child_uses_the_memory_with_its_own_runtime(
    client: Callable[[str], Client], storage_root: Path
) -> None:
    application = client("""
memory.start_session(timeout_s=30.0)
parents = memory.runtime_pid
memory.after_turn("said by the parent", "", "t1", timeout_s=30.0)
child = os.fork()
if child == 0:
    event_id = memory.after_turn("said by the child", "", "t2", timeout_s=30.0)
    report(event_id=event_id, childs=memory.runtime_pid)
    os._exit(0)
os.waitpid(child, 0)
event_id = memory.after_turn("said by the parent again", "", "t3", timeout_s=30.0)
report(event_id=event_id, parents=parents, same_runtime=memory.runtime_pid == parents)
memory.close()
""")
    child, parent = application.read_report(), application.read_report()
    assert child["event_id"]
    assert parent["event_id"]
    assert parent["same_runtime"] is True
    assert child["childs"] not in (None, parent["parents"])
    eventually(lambda: not is_alive(child["childs"]))
    assert turn_ids(storage_root) == ["t1", "t2", "t3"]


# The environment of the runtime


def test_the_runtime_inherits_only_what_it_needs_of_the_environment(
    new_memory: NewMemory, executable: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "MEMOAIR_API_KEY", "MEMOAIR_RUNTIME_TOKEN"):
        monkeypatch.setenv(name, "a secret of the application")
    monkeypatch.setenv("MEMOAIR_RUNTIME_MODE", "org_only")
    dump_program = executable(
        f'#!/bin/sh\nenv > {tmp_path}/environment\nprintf \'%s\\n\' "$0" "$@" > {tmp_path}/arguments\nexit 1\n'
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org.jsonl").touch()
    monkeypatch.setenv("MEMOAIR_RUNTIME_STORAGE_ROOT", "memories")
    memory = new_memory(
        runtime_binary=dump_program,
        api_key="memoair_pk_1",
        internal_token="internal-1",
        org_file="org.jsonl",
        storage_root=None,
    )
    with pytest.raises(Exception, match="start_failed"):
        memory.start_session()

    environment = (tmp_path / "environment").read_text()
    inherited = dict(line.split("=", 1) for line in environment.splitlines())
    assert "a secret of the application" not in environment
    assert inherited["MEMOAIR_RUNTIME_API_KEY"] == "memoair_pk_1"
    assert inherited["MEMOAIR_RUNTIME_INTERNAL_TOKEN"] == "internal-1"
    assert inherited["MEMOAIR_RUNTIME_PROJECT_ID"] == inherited["MEMOAIR_RUNTIME_WORKSPACE_ID"] == PROJECT
    assert inherited["MEMOAIR_RUNTIME_USER_ID"] == USER
    assert inherited["MEMOAIR_RUNTIME_ORG_FILE"] == str(tmp_path / "org.jsonl")
    assert inherited["MEMOAIR_RUNTIME_STORAGE_ROOT"] == str(tmp_path / "memories")
    assert "MEMOAIR_RUNTIME_MODE" not in inherited
    assert (tmp_path / "arguments").read_text().splitlines() == [dump_program]


def test_org_only_is_passed_to_the_runtime_in_its_environment(
    new_memory: NewMemory, executable: Callable[[str], str], tmp_path: Path
) -> None:
    dump = executable(f"#!/bin/sh\nenv > {tmp_path}/environment\nexit 1\n")
    with pytest.raises(Exception, match="start_failed"):
        new_memory(runtime_binary=dump, org_only=True).start_session()

    lines = (tmp_path / "environment").read_text().splitlines()
    assert "MEMOAIR_RUNTIME_MODE=org_only" in lines
    assert "MEMOAIR_RUNTIME_USER_ID=__org__" in lines


def test_the_environment_can_name_the_binary(
    new_memory: NewMemory, executable: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = executable(f'#!/bin/sh\nexec {sys.executable} -m memoair_runtime "$@"\n')
    monkeypatch.setenv("MEMOAIR_RUNTIME_BINARY", binary)
    memory = new_memory()
    memory.start_session()

    monkeypatch.setenv("MEMOAIR_RUNTIME_BINARY", "/no/such/runtime")
    with pytest.raises(Exception, match="not_found"):
        new_memory().start_session()
    new_memory(runtime_binary=binary).start_session()  # arguments take precedence over the environment


def test_proxies_of_the_environment_are_not_used_for_loopback(
    new_memory: NewMemory, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    memory = new_memory()
    memory.start_session()

    assert memory.after_turn("hello", "", "t1")


def test_files_in_the_working_folder_are_not_imported_by_the_runtime(
    new_memory: NewMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "application"
    folder.mkdir()
    for name in ("json.py", "signal.py", "memoair_runtime.py"):
        (folder / name).write_text("raise SystemExit('the application has a file of this name')\n")
    monkeypatch.chdir(folder)

    new_memory().start_session()


def test_paths_are_relative_to_the_applications_working_folder(
    new_memory: NewMemory, org_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(org_file.parent)
    memory = new_memory(storage_root="kept", org_file=org_file.name)
    path = memory.start_session()["paths"]["sessionJsonl"]

    assert Path(path).is_relative_to(org_file.parent / "kept")
    assert len(memory.search_memory("returns", timeout_ms=10_000).org) == 3


# Several clients of one user


def test_a_second_memory_on_a_port_uses_the_running_runtime_and_leaves_it_running(
    new_memory: NewMemory, free_port: int
) -> None:
    first = new_memory(runtime_url=f"http://127.0.0.1:{free_port}")
    first.start_session()
    second = new_memory(runtime_url=f"http://127.0.0.1:{free_port}")
    second.start_session()
    assert second.runtime_pid is None
    assert second.after_turn("boots from the second", "", "t1")
    second.close()

    assert first.runtime_pid is not None
    assert "boots from the second" in first.search_memory("boots", timeout_ms=10_000).contextText


def test_a_memory_starts_its_own_runtime_after_the_shared_one_is_closed(
    new_memory: NewMemory, free_port: int, storage_root: Path
) -> None:
    first = new_memory(runtime_url=f"http://127.0.0.1:{free_port}")
    first.start_session()
    second = new_memory(runtime_url=f"http://127.0.0.1:{free_port}")
    second.start_session()
    assert second.after_turn("hello", "", "t1")
    first.close()

    assert second.after_turn("hello again", "", "t2")
    assert second.runtime_pid is not None
    assert turn_ids(storage_root) == ["t1", "t2"]


def test_memories_that_start_on_one_port_at_the_same_time_share_one_runtime(
    new_memory: NewMemory, free_port: int, storage_root: Path
) -> None:
    memories = [new_memory(runtime_url=f"http://127.0.0.1:{free_port}") for _ in range(3)]
    together = threading.Barrier(len(memories))
    failures: list[BaseException] = []

    def talk(number: int) -> None:
        try:
            together.wait()
            memories[number].start_session()
            assert memories[number].after_turn("hello", "", f"t{number}")
        except BaseException as error:  # noqa: BLE001 - asserted in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(len(memories))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert sorted(turn_ids(storage_root)) == ["t0", "t1", "t2"]
    eventually(lambda: len([child for child in psutil.Process().children() if is_alive(child.pid)]) == 1)


def test_a_memory_that_lost_the_race_for_the_port_leaves_the_winner_running(
    new_memory: NewMemory,
    start_runtime: Callable[..., RunningRuntime],
    executable: Callable[[str], str],
    free_port: int,
    storage_root: Path,
) -> None:
    # A start so slow that another process starts a runtime of the same user on the port before it is done.
    memory = new_memory(
        runtime_url=f"http://127.0.0.1:{free_port}", runtime_binary=executable("#!/bin/sh\nexec sleep 600\n")
    )
    with running(memory.start_session):
        eventually(lambda: memory.runtime_pid)
        winner = start_runtime(storage_root, BIND_ADDR=f"127.0.0.1:{free_port}")
    memory.close()

    assert winner.health()["status"] == "ok"


@contextmanager
def running(call: Callable[[], object]) -> Iterator[None]:
    """Run a call in a thread during the block, and wait for it at the end of the block."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised again by the test's own thread
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


# The client itself


def test_importing_the_sdk_loads_no_heavy_packages() -> None:
    script = "import json, sys, memoair_voice_sync; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.check_output([sys.executable, "-c", script]))
    loaded = {name.partition(".")[0] for name in modules}

    heavy = {"numpy", "requests", "httpx", "anyio", "asyncio", "livekit", "pipecat", "msgspec", "rich", "typer"}
    ours = {"memoair_runtime", "memoair_index", "memoair_cloud", "memoair_cli", "memoair_voice"}
    assert "memoair_voice_sync" in loaded
    assert loaded & (heavy | ours) == set()


def test_a_hanging_runtime_is_replaced(memory: MemoAirVoiceMemorySync, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.start_session()
    memory.after_turn("the boots are red", "", "t1")
    hung = freeze(memory.runtime_pid)
    monkeypatch.setattr("memoair_voice_sync._pool.handle.UNRESPONSIVE_AFTER_S", 0.3)

    def found() -> str:
        try:
            return memory.search_memory("which boots?", timeout_ms=200).contextText
        except MemoAirVoiceMemoryError:
            if memory.runtime_pid != hung:  # the new runtime may take long to start
                monkeypatch.setattr("memoair_voice_sync._pool.handle.UNRESPONSIVE_AFTER_S", 600.0)
            return ""

    assert "the boots are red" in eventually(found, within_s=60.0)
    assert memory.runtime_pid != hung
    assert not psutil.pid_exists(hung)


def test_warnings_of_the_runtime_are_in_the_log_of_the_application(
    new_memory: Callable[..., MemoAirVoiceMemorySync], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    org_file = tmp_path / "org.jsonl"
    org_file.write_text('{"id": "a", "text": "opening hours"}\n{"id": 1}\n')
    memory = new_memory(org_file=str(org_file))
    memory.start_session()
    memory.search_memory("hours", timeout_ms=10_000)
    memory.close()

    assert "output of the runtime: " in caplog.text
    problem = "skipped lines that are not documents: action=org_lines_skipped lines=1 such_as=2"
    assert f"{org_file}: {problem}" in caplog.text
