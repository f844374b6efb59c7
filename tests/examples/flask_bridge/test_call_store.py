"""Answers and turns that the workers share: each answer is made once, whichever process is asked."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bridge.call_store import CallStore, KnownCall
from support.waiting import eventually

EXAMPLE = Path(__file__).parents[3] / "examples" / "flask_bridge"
CALL = "twilio:CA1"


def test_concurrent_requests_get_the_same_answer(tmp_path: Path) -> None:
    stores = [CallStore(tmp_path / "state") for _ in range(8)]  # also the file is created once
    made: list[str] = []

    def make() -> str:
        made.append(f"answer {len(made) + 1}")
        time.sleep(0.05)
        return made[-1]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda store: store.answer_once(CALL, 1, "hello", make, timeout_s=30), stores))
    assert made == ["answer 1"]
    assert {answer.text for answer in answers} == {"answer 1"}
    assert [answer.is_new for answer in answers].count(True) == 1
    assert len({answer.at for answer in answers}) == 1


def test_turns_calls_and_words_have_answers_of_their_own(tmp_path: Path) -> None:
    store = CallStore(tmp_path)
    keys = [(CALL, 1, "hello"), (CALL, 2, "hello"), ("twilio:CA2", 1, "hello"), (CALL, 1, "goodbye")]
    for number, key in enumerate(keys):
        assert store.answer_once(*key, lambda of=number: f"answer {of}", timeout_s=9).text == f"answer {number}"
    for number, key in enumerate(keys):
        answer = CallStore(tmp_path).answer_once(*key, lambda: "another", timeout_s=9)
        assert (answer.text, answer.is_new) == (f"answer {number}", False)


def test_an_answer_that_fails_is_made_by_the_next_request(tmp_path: Path) -> None:
    store = CallStore(tmp_path)

    def fail() -> str:
        raise RuntimeError("the model is away")

    with pytest.raises(RuntimeError):
        store.answer_once(CALL, 1, "hello", fail, timeout_s=9)
    assert store.answer_once(CALL, 1, "hello", lambda: "here", timeout_s=9).text == "here"


def test_a_request_that_takes_too_long_is_not_waited_for(tmp_path: Path) -> None:
    store, is_late, goes_on = CallStore(tmp_path), threading.Event(), threading.Event()

    def make_late() -> str:
        is_late.set()
        assert goes_on.wait(30)
        return "late"

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(store.answer_once, CALL, 1, "hello", make_late, timeout_s=30)
        assert is_late.wait(30)
        second = store.answer_once(CALL, 1, "hello", lambda: "in time", timeout_s=0.2)
        goes_on.set()
        assert (second.text, first.result().text) == ("in time", "in time")


_WORKER = """
import sys, time
from pathlib import Path
from bridge.call_store import CallStore, KnownCall

def make():
    print("making", flush=True)
    time.sleep(600)

CallStore(Path(sys.argv[1])).answer_once("twilio:CA1", 1, "hello", make, timeout_s=600)
"""


def test_the_answer_of_a_killed_worker_is_made_by_another(tmp_path: Path, nothing_left_behind: None) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WORKER, tmp_path], cwd=EXAMPLE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "making\n"
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(
                CallStore(tmp_path).answer_once, CALL, 1, "hello", lambda: "from another", timeout_s=600
            )
            assert not waiting.done()
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
            assert waiting.result(30).text == "from another"


def test_calls_go_on_without_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("not a folder")
    store = CallStore(tmp_path / "state")
    assert store.answer_once(CALL, 1, "hello", lambda: "here", timeout_s=9).text == "here"
    store.mark_call(CALL, caller="caller_1")
    store.mark_saved(CALL, [(1, "here")])
    assert (store.find_call(CALL).caller, store.list_saved(CALL), store.is_latest(CALL, 1, 1)) == (None, {}, True)
    assert "without the state that workers share" in caplog.text


def test_a_later_attempt_replaces_an_earlier_one(tmp_path: Path) -> None:
    store = CallStore(tmp_path)
    first, second = store.begin_turn(CALL, 1), store.begin_turn(CALL, 1)
    assert (store.is_latest(CALL, 1, first), store.is_latest(CALL, 1, second)) == (False, True)
    store.mark_saved(CALL, [(1, "here")])
    assert store.is_latest(CALL, 1, second)
    assert store.list_saved(CALL) == {1: "here"}


def test_what_is_known_of_a_call_stays(tmp_path: Path) -> None:
    store = CallStore(tmp_path)
    store.mark_call(CALL, caller="caller_1")
    store.mark_call(CALL, caller="caller_2", is_machine=True)
    assert store.mark_call(CALL) == store.find_call(CALL) == KnownCall("caller_1", is_machine=True)


def test_what_is_older_than_an_hour_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CallStore(tmp_path)
    store.answer_once(CALL, 1, "hello", lambda: "red", timeout_s=9)
    store.mark_call(CALL, caller="caller_1")
    store.mark_saved(CALL, [(1, "red")])
    monkeypatch.setattr("bridge.call_store._KEEP_S", -1.0)
    CallStore(tmp_path).find_call("twilio:CA2")  # each worker looks once in a while
    eventually(lambda: not store.list_saved(CALL))
    assert (store.list_answers(CALL), store.find_call(CALL).caller) == ([], None)


def test_the_file_is_private_and_has_no_words_of_callers(tmp_path: Path) -> None:
    store = CallStore(tmp_path / "state")
    store.answer_once(CALL, 1, "My secret is red.", lambda: "I see.", timeout_s=9)
    path = tmp_path / "state" / "calls.sqlite3"
    assert path.stat().st_mode & 0o77 == 0
    assert path.parent.stat().st_mode & 0o77 == 0
    with sqlite3.connect(path) as db:
        dump = "\n".join(db.iterdump())
    db.close()
    assert "I see." in dump
    assert "secret" not in dump
