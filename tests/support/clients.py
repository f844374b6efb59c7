"""Clients over pools of real runtimes, on their own ports, and what they write to the disk."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync import MemoAirVoiceClientSync, SearchResult, _user_calls
from support.ports import free_ports
from support.runtimes import PROJECT, freeze
from support.waiting import eventually

NewClient = Callable[..., MemoAirVoiceClientSync]

AGENT, API_KEY = "agent_test", "memoair_pk_secret_of_the_tests"

# Long enough for a loaded machine. Other tests check deadlines.
PATIENT_MS = 10_000
_SAVE_TIMEOUT_S = _user_calls._SAVE_TIMEOUT_S


def client_arguments(root: Path, /, **arguments: Any) -> dict[str, Any]:
    """Return the arguments of a client; a test can override them."""
    return {
        "api_key": API_KEY,
        "project_id": PROJECT,
        "agent_id": AGENT,
        "storage_root": str(root),
        "cloud_base_url": None,  # no test calls the public cloud
        "runtime_port_range": free_ports(),
        **arguments,
    }


@contextmanager
def clients_over(storage_root: Path, kind: type[Any] = MemoAirVoiceClientSync) -> Iterator[Callable[..., Any]]:
    """Make sync or async clients over one storage root; close them at the end, even if a test has frozen runtimes."""
    made: list[Any] = []

    def make(**arguments: Any) -> Any:
        made.append(kind(**client_arguments(storage_root, **arguments)))
        return made[-1]

    try:
        yield make
    finally:
        for client in reversed(made):
            sync: MemoAirVoiceClientSync = getattr(client, "_sync", client)  # the event loop has ended by now
            for pid in (handle.pid for handle in sync._pool.handles()):
                with suppress(ProcessLookupError):
                    if pid is not None:
                        os.kill(pid, signal.SIGCONT)
            sync.close()


@contextmanager
def checking_for_leaks() -> Iterator[None]:
    """Check for more than a single test what the fixture ``nothing_left_behind`` checks for one."""
    process = psutil.Process()
    descriptors, threads, children = process.num_fds(), set(_threads()), set(process.children())
    yield
    eventually(lambda: set(process.children()) <= children)
    eventually(lambda: not set(_threads()) - threads)
    eventually(lambda: process.num_fds() <= descriptors)


def _threads() -> Iterator[threading.Thread]:
    """Yield all threads but those in which AnyIO runs functions for an event loop that still runs: that of a server."""
    for thread in threading.enumerate():
        loop: Any = getattr(thread, "loop", None)
        if loop is None or not loop.is_running():
            yield thread


@contextmanager
def frozen(pid: int) -> Iterator[int]:
    """Stop a process (SIGSTOP) during the block."""
    freeze(pid)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def is_alive(pid: int) -> bool:
    """Return whether a process is running, and not a zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


_patience = threading.Lock()
_patient = 0


@contextmanager
def patient_saves() -> Iterator[None]:
    """Let ``save_response`` wait as long as a loaded machine needs, and not only the second of the product.

    Other tests check what happens to a turn that is not saved within that second.
    """
    global _patient
    with _patience:
        _patient += 1
        _user_calls._SAVE_TIMEOUT_S = PATIENT_MS / 1e3
    try:
        yield
    finally:
        with _patience:
            _patient -= 1
            if not _patient:
                _user_calls._SAVE_TIMEOUT_S = _SAVE_TIMEOUT_S


def recall(client: MemoAirVoiceClientSync, user_id: str, query: str, **options: Any) -> SearchResult:
    """Search with a timeout that is long enough for a loaded machine, and require a complete result."""
    found = client.search_memory(query, user={"id": user_id}, **{"timeout_ms": PATIENT_MS, **options})
    assert found.trace["degraded"] is False, found.trace
    return found


def say(client: MemoAirVoiceClientSync, user_id: str, text: str, turn_id: str | None = None) -> str:
    """Save a turn with a runtime that is ready, and require that it is saved at once."""
    client.load_index(user={"id": user_id})
    with patient_saves():
        event_id = client.save_response(user={"id": user_id}, user_text=text, assistant_text="Noted.", turn_id=turn_id)
    assert event_id
    return event_id


def runtime_of(client: MemoAirVoiceClientSync, user_id: str) -> dict[str, Any]:
    """Return the statistics of a user's runtime, which must exist."""
    [runtime] = [each for each in client.stats()["runtimes"] if each["user_id"] == user_id]
    return dict(runtime)


def pid_of(client: MemoAirVoiceClientSync, user_id: str) -> int:
    """Return the id of the process that serves a user."""
    return int(runtime_of(client, user_id)["pid"])


def fork_server_of(client: MemoAirVoiceClientSync, user_id: str) -> psutil.Process:
    """Return the fork server of a user's runtime."""
    fork_server = psutil.Process(pid_of(client, user_id)).parent()
    assert fork_server is not None
    assert "memoair_runtime.fork_server" in fork_server.cmdline()
    return fork_server


def logged(storage_root: Path, user_id: str, type_: str | None = None) -> list[dict[str, Any]]:
    """Return the logged events of a user, of one type or all: session by session, in the order of their beginnings."""
    folder = UserFolder(storage_root, PROJECT, user_id)
    logs = [folder.session(session_id).log for session_id, _ in folder.list_session_logs()]
    sessions = [[json.loads(line) for line in log.read_bytes().splitlines()] for log in logs]
    sessions.sort(key=lambda events: events[0]["occurredAt"] if events else "")
    return [event for events in sessions for event in events if type_ in (None, event["type"])]


def turn_ids(storage_root: Path, user_id: str) -> list[str]:
    """Return the ids of a user's turns in the order of the logs."""
    return [event["payload"]["turnId"] for event in logged(storage_root, user_id, "turn")]


_HEAD = """
import json, os, signal, sys, threading, time
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError, _user_calls

_user_calls._SAVE_TIMEOUT_S = {save_s}

def report(**facts):
    os.write(1, json.dumps(facts).encode() + b"\\n")

def pid(user_id):
    return [each["pid"] for each in client.stats()["runtimes"] if each["user_id"] == user_id][0]

def say(user_id, turn_id, text):
    client.load_index(user={{"id": user_id}})
    return client.save_response(user={{"id": user_id}}, turn_id=turn_id, user_text=text, assistant_text="Noted.")

def recall(user_id, query):
    return client.search_memory(query, user={{"id": user_id}}, timeout_ms=10_000).contextText

def wait_for(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

client = MemoAirVoiceClientSync(**{arguments!r})
"""


class Application:
    """An application in its own process, which has a ``client`` and reports what it sees as lines of JSON."""

    def __init__(self, script: str, arguments: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _HEAD.format(save_s=PATIENT_MS / 1e3, arguments=arguments) + script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def read_report(self, within_s: float = 60.0) -> dict[str, Any]:
        """Return the next report; kill the application if it does not come in time."""
        assert self.process.stdout is not None
        watch = threading.Timer(within_s, self._kill)
        watch.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watch.cancel()
            watch.join()
        assert line, "the application ended without a report; its stderr is above"
        return dict(json.loads(line))

    def close_stdin(self) -> None:
        """Close its standard input, which it may be reading."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait_for_exit(self, within_s: float = 60.0) -> int:
        """Wait until it has exited, and return its exit code."""
        return self.process.wait(within_s)

    def close(self) -> None:
        """Kill it with all processes of its session."""
        self._kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
