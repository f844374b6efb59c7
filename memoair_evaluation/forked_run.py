"""Run cases in several processes: forked from the one that has the documents open, so that only results are sent.

Process n of N runs the cases n, n + N, n + 2N and so on, and writes their results to a pipe of its own, from which they
are read in turn: so they arrive in the order of the cases. A process ends when it has run its cases, or when its pipe
has no reader any more, whatever has become of the one that started it.
"""

import gc
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

import attrs

from memoair_evaluation.candidate import RecallSettings
from memoair_evaluation.case_records import RecallCase
from memoair_evaluation.engine import Engine
from memoair_evaluation.scoring import CaseResult
from memoair_protocol.interrupts import deferred_interrupt

try:
    import fcntl
except ImportError:  # Windows, where no process is forked
    fcntl = None  # type: ignore[assignment]

# With fewer cases for each, starting a process takes longer than it saves.
_MIN_CASES_PER_PROCESS = 50
_PIPE_BYTES = 1 << 20  # a result has some 10 kB


class CaseProcessError(Exception):
    """A process that ran cases has ended before its time, as if it was killed for want of memory."""


@attrs.frozen
class _CaseProcess:
    """A process that runs cases.

    Attributes:
        pid: Its id.
        results: The results, pickled one after another.
    """

    pid: int
    results: IO[bytes]


def count_processes(case_count: int) -> int:
    """Return how many processes are worth starting for so many cases on this machine; 1 to start none."""
    if not _can_fork():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, case_count // _MIN_CASES_PER_PROCESS))


def _can_fork() -> bool:
    return hasattr(os, "fork") and sys.platform != "darwin"  # there, system libraries do not survive a fork


@contextmanager
def open_results(
    engine: Engine, cases: Sequence[RecallCase], settings: RecallSettings, process_count: int | None = None
) -> Iterator[Iterator[CaseResult]]:
    """Yield the results of cases, in the order of the cases. At the end of the block, all processes have ended.

    To be called while this process has no other thread of Python: a lock that another one holds would stay locked in
    the new processes.

    Args:
        engine: The engine.
        cases: The cases.
        settings: The settings of the searches.
        process_count: In how many processes to run them; 1 for this one; None for what `count_processes` says.
            Always this one where a process cannot be forked safely (Windows, macOS).

    Raises:
        CaseProcessError: While iterating, if a process was killed, or has failed.
    """
    count = count_processes(len(cases)) if process_count is None else process_count
    if count <= 1 or not _can_fork():
        yield (engine.run_case(case, settings) for case in cases)
        return
    gc.collect()
    gc.freeze()  # a collection in a process would copy the pages of all documents
    processes: list[_CaseProcess] = []
    with ExitStack() as stack:
        stack.callback(gc.unfreeze)
        with deferred_interrupt():  # a process that was started is known, and so ends with the block
            for number in range(count):
                process = _start_process(engine, cases[number::count], settings, processes)
                stack.callback(_end_process, process)
                processes.append(process)
        yield _read_results(processes, len(cases))


def _start_process(
    engine: Engine, cases: Sequence[RecallCase], settings: RecallSettings, others: Sequence[_CaseProcess]
) -> _CaseProcess:
    reader, writer = os.pipe()
    _enlarge(writer)
    with warnings.catch_warnings():
        # Python 3.12 warns of threads, also of those of NumPy's library, which survive a fork.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            pid = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
    if pid == 0:
        _run_child(engine, cases, settings, writer, [reader, *(other.results.fileno() for other in others)])
    os.close(writer)
    return _CaseProcess(pid, os.fdopen(reader, "rb"))


def _enlarge(pipe: int) -> None:
    """Let a process go on with some dozen cases while the results of another one are read."""
    set_size = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux
    if set_size is not None:
        with suppress(OSError):  # the user has too many pipes of that size
            fcntl.fcntl(pipe, set_size, _PIPE_BYTES)


def _run_child(
    engine: Engine, cases: Sequence[RecallCase], settings: RecallSettings, writer: int, inherited: Sequence[int]
) -> None:
    """Run in the new process: write the results and exit. Never returns."""
    exit_code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them, and the first one ends the others
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in inherited:  # so that a pipe has no reader left once the first process has ended
            os.close(descriptor)
        with os.fdopen(writer, "wb") as results:
            for case in cases:
                pickle.dump(engine.run_case(case, settings), results, pickle.HIGHEST_PROTOCOL)
        exit_code = 0
    except BaseException as error:  # noqa: BLE001 - must not return into the stack of the process that was forked
        with suppress(OSError):
            if not isinstance(error, BrokenPipeError):  # not a fault: the first process has ended
                os.write(2, f"a process that runs cases failed: {type(error).__name__}\n".encode())
    finally:
        os._exit(exit_code)


def _read_results(processes: Sequence[_CaseProcess], case_count: int) -> Iterator[CaseResult]:
    for position in range(case_count):
        try:
            result: CaseResult = pickle.load(processes[position % len(processes)].results)  # noqa: S301 - our own
        except (EOFError, pickle.UnpicklingError):
            raise CaseProcessError(f"a process has ended before case {position + 1:,} of {case_count:,}") from None
        yield result


def _end_process(process: _CaseProcess) -> None:
    process.results.close()
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)  # it holds nothing; one that has ended stays there until it is waited for
    with suppress(ChildProcessError):
        os.waitpid(process.pid, 0)
