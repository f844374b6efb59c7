"""Cases in several processes: the same results in the same order, and no process that outlives its purpose."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.waiting import eventually

from memoair_evaluation.forked_run import count_processes

_CODE = """
import os, signal, psutil
from memoair_evaluation.candidate import RecallSettings
from memoair_evaluation.case import parse_case
from memoair_evaluation.engine import EngineDocuments, open_engine
from memoair_evaluation.forked_run import CaseProcessError, open_results

def make_cases(count):
    return [
        parse_case({"id": f"c{n}", "question": f"What costs thing {n}?", "must": [{"document": f"d{n % 40}"}]})
        for n in range(count)
    ]

documents = [
    {"indexName": None, "id": f"d{n}", "text": f"The thing {n} costs {n} francs.", "metadata": {}} for n in range(40)
]
"""


def run_code(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CODE + code], capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_several_processes_give_the_results_of_one_in_the_same_order() -> None:
    output = run_code(
        """
with open_engine(EngineDocuments(documents=documents)) as engine:
    runs = []
    for count in (1, 2, 3):
        with open_results(engine, make_cases(50), RecallSettings(), count) as results:
            runs.append([(r.case_id, r.case_sha256, r.scores.without_times(), r.context) for r in results])
    print(runs[0] == runs[1] == runs[2], len(runs[0]), sum(scores.passed for _, _, scores, _ in runs[0]))
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("none left")
"""
    )
    assert output == "True 50 40\nnone left\n"


def test_no_process_is_started_where_a_fork_is_not_safe() -> None:
    output = run_code(
        """
import sys
sys.platform = "darwin"
os.fork = None
with open_engine(EngineDocuments(documents=documents)) as engine:
    with open_results(engine, make_cases(4), RecallSettings(), 2) as results:
        print(len(list(results)))
"""
    )
    assert output == "4\n"


def test_a_process_that_is_killed_is_an_error_and_the_others_end() -> None:
    output = run_code(
        """
with open_engine(EngineDocuments(documents=documents)) as engine:
    try:
        with open_results(engine, make_cases(4_000), RecallSettings(), 2) as results:
            next(results)
            pids = [child.pid for child in psutil.Process().children()]
            os.kill(pids[1], signal.SIGKILL)
            list(results)
    except CaseProcessError as error:
        print(len(pids), str(error).startswith("a process has ended before case "))
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("none left")
"""
    )
    assert output == "2 True\nnone left\n"


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_the_processes_end_with_the_one_that_started_them(signal_number: int, tmp_path: Path) -> None:
    code = """
with open_engine(EngineDocuments(documents=documents)) as engine:
    with open_results(engine, make_cases(4_000), RecallSettings(), 2) as results:
        next(results)
        print("started", flush=True)
        signal.pause()
"""
    with subprocess.Popen(
        [sys.executable, "-c", _CODE + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            children = psutil.Process(process.pid).children()
            assert len(children) == 2
        finally:
            os.kill(process.pid, signal_number)
            process.wait(10)
        eventually(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 30)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_process_is_started_only_for_many_cases() -> None:
    assert [count_processes(count) for count in (0, 1, 99)] == [1, 1, 1]
    assert 1 <= count_processes(10_000) <= (os.cpu_count() or 1)
