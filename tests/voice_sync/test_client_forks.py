"""Applications that fork, as preloading servers do: parent and children go on using the client."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.clients import Application, client_arguments, is_alive, logged, turn_ids
from support.waiting import eventually

Start = Callable[..., Application]


@pytest.fixture
def application(storage_root: Path, nothing_left_behind: None) -> Iterator[Start]:
    """Start applications that have a ``client``; end them after the test."""
    started: list[Application] = []

    def start(script: str, **arguments: Any) -> Application:
        started.append(Application(script, client_arguments(storage_root, **arguments)))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_parent_and_child_both_continue_after_a_fork_and_the_child_can_end(
    application: Start, storage_root: Path
) -> None:
    app = application("""
say("ada", "t1", "The boots are red.")
before = pid("ada")
child = os.fork()
if child == 0:
    report(event_id=say("ada", "t2", "The laces are blue."), knows=recall("ada", "the boots"))
    client.close()
    sys.exit(0)
code = wait_for(child)
report(code=code, event_id=say("ada", "t3", "The soles are black."), same_runtime=pid("ada") == before,
     knows=recall("ada", "the laces"), lost=client.stats()["lost_saves"])
client.close()
""")
    child, parent = app.read_report(), app.read_report()
    assert child["event_id"]
    assert "boots are red" in child["knows"]
    assert (parent["code"], parent["lost"], parent["same_runtime"]) == (0, 0, True)
    assert parent["event_id"]
    assert "laces are blue" in parent["knows"]
    assert app.wait_for_exit() == 0
    assert sorted(turn_ids(storage_root, "ada")) == ["t1", "t2", "t3"]


def test_a_forked_child_that_exits_does_not_affect_the_parent(application: Start, storage_root: Path) -> None:
    app = application("""
say("ada", "t1", "hello")
before = pid("ada")
for how in (lambda: sys.exit(0), lambda: os._exit(0), client.close, lambda: os.kill(os.getpid(), signal.SIGKILL)):
    child = os.fork()
    if child == 0:
        how()
        os._exit(0)
    wait_for(child)
report(event_id=say("ada", "t2", "hello"), same_runtime=pid("ada") == before, restarts=client.stats()["restarts"])
client.close()
""")
    outcome = app.read_report()
    assert (outcome["same_runtime"], outcome["restarts"]) == (True, 0)
    assert outcome["event_id"]
    assert app.wait_for_exit() == 0
    assert [event["type"] for event in logged(storage_root, "ada")] == ["session_start", "turn", "turn", "session_end"]


def test_a_client_created_before_a_fork_works_in_every_worker(application: Start, storage_root: Path) -> None:
    app = application("""
workers = []
for number in range(3):
    worker = os.fork()
    if worker == 0:
        own = say(f"caller_{number}", "t0", f"My number is {number}.")
        shared = say("shared", f"t{number}", f"Worker {number} was here.")
        report(own=own, shared=shared, knows=recall(f"caller_{number}", "my number"), pid=pid(f"caller_{number}"))
        sys.stdin.read()
        client.close()
        sys.exit(0)
    workers.append(worker)
if sys.stdin.read() == "":
    report(codes=[wait_for(each) for each in workers], parents=len(client.stats()["runtimes"]))
client.close()
""")
    workers = [app.read_report() for _ in range(3)]
    assert all(each["own"] and each["shared"] for each in workers)
    assert all("My number is" in each["knows"] for each in workers)
    assert len({each["pid"] for each in workers}) == 3
    app.close_stdin()

    assert app.read_report() == {"codes": [0, 0, 0], "parents": 0}
    assert app.wait_for_exit() == 0
    assert not [each["pid"] for each in workers if is_alive(each["pid"])]
    assert sorted(turn_ids(storage_root, "shared")) == ["t0", "t1", "t2"]


def test_runtimes_of_the_child_end_with_the_child_and_those_of_the_parent_with_the_parent(application: Start) -> None:
    app = application("""
client.load_index(user_id="ada")
child = os.fork()
if child == 0:
    client.load_index(user_id="bob")
    report(bobs_runtime=pid("bob"), child=os.getpid())
    signal.pause()
report(adas_runtime=pid("ada"))
signal.pause()
""")
    outcome = app.read_report() | app.read_report()
    app.process.kill()
    app.process.wait()
    eventually(lambda: not is_alive(outcome["adas_runtime"]))
    assert is_alive(outcome["child"])
    assert is_alive(outcome["bobs_runtime"])
    os.kill(outcome["child"], signal.SIGKILL)
    eventually(lambda: not is_alive(outcome["bobs_runtime"]))


def test_a_runtime_that_starts_during_a_fork_ends_with_the_parent(
    application: Start,
) -> None:
    app = application("""
client.load_index(user_id="ada")
import psutil
fork_server = psutil.Process(pid("ada")).ppid()
os.kill(fork_server, signal.SIGSTOP)  # so that the start is still in progress at the fork
found = client.search_memory("hello", user_id="bob", timeout_ms=100)
assert found.trace["error"]["code"] == "runtime.timeout", found.trace
child = os.fork()
if child == 0:
    signal.pause()
os.kill(fork_server, signal.SIGCONT)
client.load_index(user_id="bob")
report(bobs_runtime=pid("bob"), child=child, fork_server=fork_server)
signal.pause()
""")
    outcome = app.read_report()
    app.process.kill()
    app.process.wait()
    assert is_alive(outcome["child"])
    eventually(lambda: not is_alive(outcome["bobs_runtime"]))
    eventually(lambda: not is_alive(outcome["fork_server"]))


def test_a_program_that_starts_during_a_fork_ends_with_the_parent(
    application: Start, executable: Callable[[str], str], tmp_path: Path
) -> None:
    switch = tmp_path / "on"
    program = executable(
        f"#!/bin/sh\nwhile ! [ -e {switch} ]; do sleep 0.01; done\nexec {sys.executable} -m memoair_runtime\n"
    )
    app = application(
        f"""
found = client.search_memory("hello", user_id="bob", timeout_ms=100)
assert found.trace["error"]["code"] == "runtime.timeout", found.trace
child = os.fork()
if child == 0:
    signal.pause()
open({str(switch)!r}, "w").close()
client.load_index(user_id="bob")
report(bobs_runtime=pid("bob"), child=child)
signal.pause()
""",
        runtime_binary=program,
    )
    outcome = app.read_report()
    app.process.kill()
    app.process.wait()
    assert is_alive(outcome["child"])
    try:
        eventually(lambda: not is_alive(outcome["bobs_runtime"]))
    finally:
        if is_alive(outcome["bobs_runtime"]):
            os.kill(outcome["bobs_runtime"], signal.SIGKILL)


def test_turns_pending_at_a_fork_are_saved_once_by_the_parent(
    application: Start, executable: Callable[[str], str], storage_root: Path, tmp_path: Path
) -> None:
    switch = tmp_path / "on"
    program = executable(f"#!/bin/sh\n[ -e {switch} ] || exit 1\nexec {sys.executable} -m memoair_runtime\n")
    app = application(
        f"""
for number in range(3):
    client.save_response(user_id="ada", turn_id=f"t{{number}}", user_text="hello", assistant_text="")
child = os.fork()
if child == 0:
    open({str(switch)!r}, "w").close()
    report(pending=client.stats()["pending_saves"], event_id=say("bob", "t0", "hello"))
    client.close()
    sys.exit(0)
code = wait_for(child)
while client.stats()["pending_saves"]:
    time.sleep(0.01)
client.close()
report(code=code, lost=client.stats()["lost_saves"])
""",
        runtime_binary=program,
    )
    child = app.read_report()
    assert child["pending"] == 0
    assert child["event_id"]
    assert app.read_report() == {"code": 0, "lost": 0}
    assert turn_ids(storage_root, "ada") == ["t0", "t1", "t2"]


def test_a_session_opened_before_a_fork_works_in_the_child(application: Start, storage_root: Path) -> None:
    app = application("""
session = client.session(user_id="ada")
client.load_index(user_id="ada")
child = os.fork()
if child == 0:
    client.load_index(user_id="ada")
    event_id = session.save_response(user_text="said by the child", assistant_text="", turn_id="t1")
    session.close()
    report(event_id=event_id, in_use=[each["in_use"] for each in client.stats()["runtimes"]])
    client.close()
    sys.exit(0)
code = wait_for(child)
event_id = session.save_response(user_text="said by the parent", assistant_text="", turn_id="t2")
report(code=code, event_id=event_id, in_use=[each["in_use"] for each in client.stats()["runtimes"]])
session.close()
client.close()
""")
    child, parent = app.read_report(), app.read_report()
    assert child["event_id"]
    assert child["in_use"] == [0]
    assert parent["event_id"]
    assert (parent["code"], parent["in_use"]) == (0, [1])
    assert turn_ids(storage_root, "ada") == ["t1", "t2"]


def test_a_fork_without_hooks_is_noticed_in_the_child(application: Start, storage_root: Path) -> None:
    # uWSGI forks its workers in C, and runs no hook of Python's.
    app = application("""
import ctypes
say("ada", "t1", "The boots are red.")
before = pid("ada")
child = ctypes.PyDLL(None).fork()
if child == 0:
    report(event_id=say("ada", "t2", "The laces are blue."), knows=recall("ada", "the boots"))
    client.close()
    os._exit(0)
code = wait_for(child)
child = ctypes.PyDLL(None).fork()
if child == 0:
    client.close()
    os._exit(0)
report(code=(code, wait_for(child)), same_runtime=pid("ada") == before, knows=recall("ada", "the laces"))
client.close()
""")
    child, parent = app.read_report(), app.read_report()
    assert child["event_id"]
    assert "boots are red" in child["knows"]
    assert (parent["code"], parent["same_runtime"]) == ([0, 0], True)
    assert "laces are blue" in parent["knows"]
    assert app.wait_for_exit() == 0
    assert sorted(turn_ids(storage_root, "ada")) == ["t1", "t2"]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_of_multiprocessing_have_clients_of_their_own(
    method: str, storage_root: Path, tmp_path: Path, nothing_left_behind: None
) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""
import multiprocessing, os
from memoair_voice_sync import MemoAirVoiceClientSync, _user_calls

_user_calls._SAVE_TIMEOUT_S = 20.0
client = MemoAirVoiceClientSync(**{client_arguments(storage_root)!r})

def work(number):
    user = {{"id": f"caller_{{number}}"}}
    event_id = client.save_response(user=user, user_text=f"My word is secret{{number}}.", assistant_text="Noted.")
    found = client.search_memory("my word", user=user, timeout_ms=20_000)
    return bool(event_id) and f"secret{{number}}" in found.contextText and os.getpid()

if __name__ == "__main__":
    early = work(9)
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        pids = pool.map(work, range(6), chunksize=3)
    assert all(pids) and early not in pids, pids
    client.close()
""")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [len(turn_ids(storage_root, f"caller_{number}")) for number in (0, 1, 2, 3, 4, 5, 9)] == [1] * 7


def test_an_application_that_exits_without_close_leaves_no_process(application: Start, storage_root: Path) -> None:
    app = application("""
say("ada", "t1", "the last words")
report(runtime=pid("ada"), host=os.getpid())
""")
    outcome = app.read_report()
    assert app.wait_for_exit() == 0
    eventually(lambda: not is_alive(outcome["runtime"]))
    eventually(lambda: not [each for each in psutil.process_iter() if _mentions(each, str(storage_root))])
    assert turn_ids(storage_root, "ada") == ["t1"]


def _mentions(process: psutil.Process, text: str) -> bool:
    try:
        return text in " ".join(process.cmdline())
    except psutil.Error:
        return False
