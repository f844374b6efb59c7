"""Threads and processes that save and search all the time, and checks of what is on the disk."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from support.runtimes import PROJECT
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

if TYPE_CHECKING:
    from typing_extensions import Self

# Timeouts for conditions that are met within seconds, even when other work takes most of the machine.
PATIENT_S, PATIENT_MS = 60.0, 30_000
MARK = "XDG_DATA_HOME"  # fork servers and runtimes inherit it, which identifies those of a test
_POLL_INTERVAL_S = 0.02


def user_folder(storage_root: Path, caller: str) -> Path:
    """Return the folder of a user whose id needs no encoding."""
    return storage_root / PROJECT / caller


def count_turns_on_disk(storage_root: Path, caller: str) -> Counter[str]:
    """Count each turn id in the logs of a user. Only the last line of a log may be torn."""
    found: Counter[str] = Counter()
    for log in user_folder(storage_root, caller).glob("*/session.jsonl"):
        events = [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), log
        found.update(event["payload"]["turnId"] for event in events if event["type"] == "turn")
    return found


def assert_saved_once(storage_root: Path, acknowledged: Mapping[str, Sequence[str]]) -> None:
    """Check that every acknowledged turn is in the logs of its user, and no turn is there twice."""
    for caller, turn_ids in acknowledged.items():
        found = count_turns_on_disk(storage_root, caller)
        assert not set(turn_ids) - set(found), f"{caller}: acknowledged and lost"
        assert not [turn_id for turn_id, times in found.items() if times != 1], f"{caller}: saved twice"


def find_marked_processes(mark: Path) -> list[psutil.Process]:
    """Return all living processes with this mark in their environment, whichever process started them."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_marked = process.pid != os.getpid() and process.environ().get(MARK) == str(mark)
            if is_marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def is_port_free(port: int) -> bool:
    """Return whether no process listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def runtime_pids(client: MemoAirVoiceClientSync) -> dict[str, int]:
    """Return the process ids of the running runtimes by user id."""
    return {
        runtime["user_id"]: runtime["pid"]
        for runtime in client.stats()["runtimes"]
        if runtime["pid"] and runtime["state"] == "running"
    }


def search(client: MemoAirVoiceClientSync, caller: str, query: str) -> str:
    """Search and return the context; the search must not be degraded."""
    result = client.search_memory(query, user={"id": caller}, timeout_ms=PATIENT_MS)
    assert result.trace["degraded"] is False, result.trace
    return result.contextText


def wait_for_increase(count: Callable[[], int], increase: int = 1) -> None:
    """Wait until a count has increased by this much."""
    wanted = count() + increase
    eventually(lambda: count() >= wanted, PATIENT_S)


class Savers:
    """Threads that save turn after turn, one thread for each entry of ``callers``, which may repeat a user id.

    After a deferred turn, a thread waits until no save is pending: real callers pause between turns.
    """

    def __init__(self, client: MemoAirVoiceClientSync, callers: Sequence[str]) -> None:
        self.acknowledged: dict[str, list[str]] = {caller: [] for caller in callers}
        self.deferred: dict[str, list[str]] = {caller: [] for caller in callers}
        self.errors: list[BaseException] = []
        self._client = client
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, caller)) for number, caller in enumerate(callers)
        ]

    def __enter__(self) -> "Self":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def acknowledged_count(self) -> int:
        """Number of turns that were acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    @property
    def promised(self) -> dict[str, list[str]]:
        """Turn ids by user id that were acknowledged or deferred, which promises a retry."""
        return {caller: turns + self.deferred[caller] for caller, turns in self.acknowledged.items()}

    def _run(self, thread: int, caller: str) -> None:
        try:
            number = 0
            while not self._stop.is_set():
                number += 1
                self._save(caller, f"{caller}-{thread}-{number}")
        except BaseException as error:  # noqa: BLE001 - the test checks it
            self.errors.append(error)

    def _save(self, caller: str, turn_id: str) -> None:
        event_id = self._client.save_response(
            user={"id": caller}, user_text=f"I say {turn_id}.", assistant_text="Noted.", turn_id=turn_id
        )
        if event_id is not None:
            self.acknowledged[caller].append(turn_id)
            return
        self.deferred[caller].append(turn_id)
        while self._client.stats()["pending_saves"] and not self._stop.is_set():
            time.sleep(_POLL_INTERVAL_S)


class ClientProcess:
    """A process that runs client_process.py: it executes commands, and can be killed."""

    def __init__(self, mark: Path, variables: Mapping[str, str] | None = None, **arguments: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("client_process.py")), json.dumps(arguments)],
            env={**os.environ, MARK: str(mark), **(variables or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """Execute a command and return its result."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def save(self, caller: str, turn_id: str, text: str) -> str | None:
        """Save a turn with a long timeout and return its event id, or None if it was deferred."""
        event_id: str | None = self.ask(
            "save", user={"id": caller}, user_text=text, assistant_text="Noted.", turn_id=turn_id
        )
        return event_id

    def search(self, caller: str, query: str) -> str:
        """Search and return the context; the search must not be degraded."""
        result = self.ask("search", user={"id": caller}, query=query, timeout_ms=PATIENT_MS)
        assert result["trace"]["degraded"] is False, result["trace"]
        return str(result["text"])

    def runtime(self, caller: str) -> dict[str, Any]:
        """Return the client's stats of the runtime that serves a user."""
        (found,) = [runtime for runtime in self.ask("stats")["runtimes"] if runtime["user_id"] == caller]
        return dict(found)

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Let the process end normally if it still runs, and close its pipes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(PATIENT_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


def resume_all(processes: Sequence[psutil.Process]) -> None:
    """Resume processes that a test has frozen."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)


class StallMeter:
    """Measures how long load or other threads keep a thread of this process from running.

    Attributes:
        max_stall_s: The longest delay of a thread that only waits, in seconds.
    """

    _TICK_S = 0.01

    def __init__(self) -> None:
        self.max_stall_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Self":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began_at = time.monotonic()
        while not self._stop.wait(self._TICK_S):
            now = time.monotonic()
            self.max_stall_s = max(self.max_stall_s, now - began_at - self._TICK_S)
            began_at = now


class CallerThreads:
    """Threads that make calls in a loop until the block ends or a call raises."""

    def __init__(self, calls: Sequence[Any]) -> None:
        """Create one thread for each function in ``calls``, which takes the number of its call."""
        self.errors: list[BaseException] = []
        self.durations: list[float] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(call,)) for call in calls]

    def __enter__(self) -> "Self":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self.join(PATIENT_S)

    def join(self, within_s: float) -> None:
        """Wait until all threads have ended; fail after ``within_s`` seconds."""
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not [thread for thread in self._threads if thread.is_alive()], "a call does not return"

    def _run(self, call: Any) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                began_at = time.monotonic()
                call(number)
                self.durations.append(time.monotonic() - began_at)
                number += 1
        except BaseException as error:  # noqa: BLE001 - the test checks it
            self.errors.append(error)


def error_codes(errors: Sequence[BaseException]) -> set[str]:
    """Return the codes of the client's errors, and the repr of all others."""
    return {error.code if isinstance(error, MemoAirVoiceMemoryError) else repr(error) for error in errors}
