"""Callers who save and search all the time, and what of it is on the disk."""

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

# What must come true does so within seconds, also where other work takes most of the machine.
PATIENT_S, PATIENT_MS = 60.0, 30_000
MARK = "XDG_DATA_HOME"  # hosts and runtimes inherit it, so that those of a test are told from all others
_LOOK_S = 0.02


def caller_folder(storage_root: Path, caller: str) -> Path:
    """Where the memory of a caller lies, whose name needs no encoding."""
    return storage_root / PROJECT / caller


def turns_on_disk(storage_root: Path, caller: str) -> Counter[str]:
    """How often each turn id stands in the logs of a caller. Only the last line of a log may be torn."""
    found: Counter[str] = Counter()
    for log in caller_folder(storage_root, caller).glob("*/session.jsonl"):
        events = [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), log
        found.update(event["payload"]["turnId"] for event in events if event["type"] == "turn")
    return found


def assert_kept_once(storage_root: Path, acknowledged: Mapping[str, Sequence[str]]) -> None:
    """Every turn that was acknowledged to a caller is in his logs, and none is there twice."""
    for caller, turn_ids in acknowledged.items():
        found = turns_on_disk(storage_root, caller)
        assert not set(turn_ids) - set(found), f"{caller}: acknowledged and lost"
        assert not [turn_id for turn_id, times in found.items() if times != 1], f"{caller}: kept twice"


def marked(mark: Path) -> list[psutil.Process]:
    """All living processes that were started, by whomever, with this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_marked = process.pid != os.getpid() and process.environ().get(MARK) == str(mark)
            if is_marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def can_listen(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def running(client: MemoAirVoiceClientSync) -> dict[str, int]:
    """The process ids of the runtimes that serve, by caller."""
    return {
        each["user_id"]: each["pid"]
        for each in client.stats()["runtimes"]
        if each["pid"] and each["state"] == "running"
    }


def search(client: MemoAirVoiceClientSync, caller: str, query: str) -> str:
    """Search, and return the composed text; the search must not be degraded."""
    result = client.search_memory(query, user={"id": caller}, timeout_ms=PATIENT_MS)
    assert result.trace["degraded"] is False, result.trace
    return result.contextText


def wait_for_more(count: Callable[[], int], more: int = 1) -> None:
    """Wait until there is so much more of something than there is now."""
    wanted = count() + more
    eventually(lambda: count() >= wanted, PATIENT_S)


class Savers:
    """Threads that save turn after turn, one thread for each name in ``callers``, which may name one caller twice.

    One whose turn was deferred goes on when nothing is deferred any more: callers pause between what they say.
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
    def count(self) -> int:
        """How many turns have been acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    @property
    def all(self) -> dict[str, list[str]]:
        """What was acknowledged, or promised to be tried again."""
        return {caller: turns + self.deferred[caller] for caller, turns in self.acknowledged.items()}

    def _run(self, thread: int, caller: str) -> None:
        try:
            number = 0
            while not self._stop.is_set():
                number += 1
                self._save(caller, f"{caller}-{thread}-{number}")
        except BaseException as error:  # noqa: BLE001 - the test shall see it
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
            time.sleep(_LOOK_S)


class ClientProcess:
    """`client_process` as a process: it is asked, and killed."""

    def __init__(self, mark: Path, variables: Mapping[str, str] | None = None, **arguments: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("client_process.py")), json.dumps(arguments)],
            env={**os.environ, MARK: str(mark), **(variables or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have something done, and return what came of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def save(self, caller: str, turn_id: str, text: str) -> str | None:
        """Save a turn, with all the time that a loaded machine needs."""
        event_id: str | None = self.ask(
            "save", user={"id": caller}, user_text=text, assistant_text="Noted.", turn_id=turn_id
        )
        return event_id

    def search(self, caller: str, query: str) -> str:
        """Search, and return the composed text; the search must not be degraded."""
        result = self.ask("search", user={"id": caller}, query=query, timeout_ms=PATIENT_MS)
        assert result["trace"]["degraded"] is False, result["trace"]
        return str(result["text"])

    def runtime(self, caller: str) -> dict[str, Any]:
        """What it tells of the runtime that serves a caller."""
        (found,) = [each for each in self.ask("stats")["runtimes"] if each["user_id"] == caller]
        return dict(found)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Let it end in order, where it has not ended, and close what belongs to it."""
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


def wake_all(processes: Sequence[psutil.Process]) -> None:
    """Let processes go on that a test has stopped."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)


class Stalls:
    """How long the machine, or another thread, keeps threads of this process from running: as one sees that waits."""

    _TICK_S = 0.01

    def __init__(self) -> None:
        self.longest_s = 0.0
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
            self.longest_s = max(self.longest_s, now - began_at - self._TICK_S)
            began_at = now


class CallerThreads:
    """Threads that make calls in a loop until they are told to stop, or a call raises."""

    def __init__(self, calls: Sequence[Any]) -> None:
        """Each of ``calls`` takes the number of the call, and is made by a thread of its own."""
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
        """Wait until all threads have ended."""
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not [thread for thread in self._threads if thread.is_alive()], "a call does not come back"

    def _run(self, call: Any) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                began_at = time.monotonic()
                call(number)
                self.durations.append(time.monotonic() - began_at)
                number += 1
        except BaseException as error:  # noqa: BLE001 - the test shall see it
            self.errors.append(error)


def codes(errors: Sequence[BaseException]) -> set[str]:
    """What errors are, all of them: the codes of ours, and the words of others."""
    return {error.code if isinstance(error, MemoAirVoiceMemoryError) else repr(error) for error in errors}
