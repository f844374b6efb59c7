"""Applications that fork, as preloading servers do: parent and children each go on with the client they have."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.clients import Application, client_arguments, lives, logged, turn_ids
from support.waiting import eventually

Start = Callable[..., Application]


@pytest.fixture
def application(storage_root: Path, nothing_left_behind: None) -> Iterator[Start]:
    """Start applications that have a ``client``; all are ended after the test."""
    started: list[Application] = []

    def start(script: str, **arguments: Any) -> Application:
        started.append(Application(script, client_arguments(storage_root, **arguments)))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_parent_and_child_both_go_on_and_the_childs_end_is_nothing_to_the_parent(
    application: Start, storage_root: Path
) -> None:
    app = application("""
say("ada", "t1", "The boots are red.")
before = pid("ada")
child = os.fork()
if child == 0:
    tell(event_id=say("ada", "t2", "The laces are blue."), knows=recall("ada", "the boots"))
    client.close()
    sys.exit(0)
code = wait_for(child)
tell(code=code, event_id=say("ada", "t3", "The soles are black."), same_runtime=pid("ada") == before,
     knows=recall("ada", "the laces"), lost=client.stats()["lost_saves"])
client.close()
""")
    child, parent = app.told(), app.told()
    assert child["event_id"]
    assert "boots are red" in child["knows"]
    assert (parent["code"], parent["lost"], parent["same_runtime"]) == (0, 0, True)
    assert parent["event_id"]
    assert "laces are blue" in parent["knows"]
    assert app.ends() == 0
    assert sorted(turn_ids(storage_root, "ada")) == ["t1", "t2", "t3"]


def test_a_child_that_just_exits_takes_nothing_with_it(application: Start, storage_root: Path) -> None:
    app = application("""
say("ada", "t1", "hello")
before = pid("ada")
for how in (lambda: sys.exit(0), lambda: os._exit(0), client.close, lambda: os.kill(os.getpid(), signal.SIGKILL)):
    child = os.fork()
    if child == 0:
        how()
        os._exit(0)
    wait_for(child)
tell(event_id=say("ada", "t2", "hello"), same_runtime=pid("ada") == before, restarts=client.stats()["restarts"])
client.close()
""")
    told = app.told()
    assert (told["same_runtime"], told["restarts"]) == (True, 0)
    assert told["event_id"]
    assert app.ends() == 0
    assert [event["type"] for event in logged(storage_root, "ada")] == ["session_start", "turn", "turn", "session_end"]


def test_a_client_that_was_made_before_the_workers_serves_in_each_of_them(
    application: Start, storage_root: Path
) -> None:
    app = application("""
workers = []
for number in range(3):
    worker = os.fork()
    if worker == 0:
        own = say(f"caller_{number}", "t0", f"My number is {number}.")
        shared = say("shared", f"t{number}", f"Worker {number} was here.")
        tell(own=own, shared=shared, knows=recall(f"caller_{number}", "my number"), pid=pid(f"caller_{number}"))
        sys.stdin.read()
        client.close()
        sys.exit(0)
    workers.append(worker)
if sys.stdin.read() == "":
    tell(codes=[wait_for(each) for each in workers], parents=len(client.stats()["runtimes"]))
client.close()
""")
    workers = [app.told() for _ in range(3)]
    assert all(each["own"] and each["shared"] for each in workers)
    assert all("My number is" in each["knows"] for each in workers)
    assert len({each["pid"] for each in workers}) == 3
    app.hang_up()

    assert app.told() == {"codes": [0, 0, 0], "parents": 0}
    assert app.ends() == 0
    assert not [each["pid"] for each in workers if lives(each["pid"])]
    assert sorted(turn_ids(storage_root, "shared")) == ["t0", "t1", "t2"]


def test_the_childs_runtimes_end_with_the_child_and_the_parents_with_the_parent(application: Start) -> None:
    app = application("""
client.load_index(user_id="ada")
child = os.fork()
if child == 0:
    client.load_index(user_id="bob")
    tell(bobs=pid("bob"), child=os.getpid())
    signal.pause()
tell(adas=pid("ada"))
signal.pause()
""")
    told = app.told() | app.told()
    app.process.kill()
    app.process.wait()
    eventually(lambda: not lives(told["adas"]))
    assert lives(told["child"])
    assert lives(told["bobs"])
    os.kill(told["child"], signal.SIGKILL)
    eventually(lambda: not lives(told["bobs"]))


def test_a_runtime_that_was_starting_at_the_fork_ends_with_the_parent_though_the_child_lives(
    application: Start,
) -> None:
    app = application("""
client.load_index(user_id="ada")
import psutil
host = psutil.Process(pid("ada")).ppid()
os.kill(host, signal.SIGSTOP)  # so that the start is still under way at the fork
found = client.search_memory("hello", user_id="bob", timeout_ms=100)
assert found.trace["error"]["code"] == "runtime.timeout", found.trace
child = os.fork()
if child == 0:
    signal.pause()
os.kill(host, signal.SIGCONT)
client.load_index(user_id="bob")
tell(bobs=pid("bob"), child=child, host=host)
signal.pause()
""")
    told = app.told()
    app.process.kill()
    app.process.wait()
    assert lives(told["child"])
    eventually(lambda: not lives(told["bobs"]))
    eventually(lambda: not lives(told["host"]))


def test_a_program_that_was_starting_at_the_fork_ends_with_the_parent_though_the_child_lives(
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
tell(bobs=pid("bob"), child=child)
signal.pause()
""",
        runtime_binary=program,
    )
    told = app.told()
    app.process.kill()
    app.process.wait()
    assert lives(told["child"])
    try:
        eventually(lambda: not lives(told["bobs"]))
    finally:
        if lives(told["bobs"]):
            os.kill(told["bobs"], signal.SIGKILL)


def test_turns_that_wait_at_the_fork_are_saved_once_by_the_parent(
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
    tell(pending=client.stats()["pending_saves"], event_id=say("bob", "t0", "hello"))
    client.close()
    sys.exit(0)
code = wait_for(child)
while client.stats()["pending_saves"]:
    time.sleep(0.01)
client.close()
tell(code=code, lost=client.stats()["lost_saves"])
""",
        runtime_binary=program,
    )
    child = app.told()
    assert child["pending"] == 0
    assert child["event_id"]
    assert app.told() == {"code": 0, "lost": 0}
    assert turn_ids(storage_root, "ada") == ["t0", "t1", "t2"]


def test_a_session_that_was_opened_before_the_fork_serves_the_child(application: Start, storage_root: Path) -> None:
    app = application("""
session = client.session(user_id="ada")
client.load_index(user_id="ada")
child = os.fork()
if child == 0:
    client.load_index(user_id="ada")
    event_id = session.save_response(user_text="said by the child", assistant_text="", turn_id="t1")
    session.close()
    tell(event_id=event_id, in_use=[each["in_use"] for each in client.stats()["runtimes"]])
    client.close()
    sys.exit(0)
code = wait_for(child)
event_id = session.save_response(user_text="said by the parent", assistant_text="", turn_id="t2")
tell(code=code, event_id=event_id, in_use=[each["in_use"] for each in client.stats()["runtimes"]])
session.close()
client.close()
""")
    child, parent = app.told(), app.told()
    assert child["event_id"]
    assert child["in_use"] == [0]
    assert parent["event_id"]
    assert (parent["code"], parent["in_use"]) == (0, [1])
    assert turn_ids(storage_root, "ada") == ["t1", "t2"]


def test_an_application_that_ends_without_closing_leaves_no_process(application: Start, storage_root: Path) -> None:
    app = application("""
say("ada", "t1", "the last words")
tell(runtime=pid("ada"), host=os.getpid())
""")
    told = app.told()
    assert app.ends() == 0
    eventually(lambda: not lives(told["runtime"]))
    eventually(lambda: not [each for each in psutil.process_iter() if _is_of(each, str(storage_root))])
    assert turn_ids(storage_root, "ada") == ["t1"]


def _is_of(process: psutil.Process, mark: str) -> bool:
    try:
        return mark in " ".join(process.cmdline())
    except psutil.Error:
        return False
