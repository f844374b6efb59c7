"""Clients over pools of real runtimes, on ports of their own, and what they leave on the disk."""

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
from memoair_voice_sync import MemoAirVoiceClientSync, SearchResult, _client
from support.ports import free_ports
from support.runtimes import PROJECT, freeze
from support.waiting import eventually

NewClient = Callable[..., MemoAirVoiceClientSync]

AGENT, API_KEY = "agent_test", "memoair_pk_secret_of_the_tests"

# Tests wait for an answer as long as a loaded machine needs; what a deadline does is tested by itself.
PATIENT_MS = 10_000
_SAVE_S = _client._SAVE_S


def client_arguments(root: Path, /, **arguments: Any) -> dict[str, Any]:
    """What a client is constructed with, unless a test says otherwise."""
    return {
        "api_key": API_KEY,
        "project_id": PROJECT,
        "agent_id": AGENT,
        "storage_root": str(root),
        "cloud_base_url": None,  # no test looks for the world's
        "runtime_port_range": free_ports(),
        **arguments,
    }


@contextmanager
def clients_over(storage_root: Path) -> Iterator[NewClient]:
    """Make clients over one storage root; all are closed at the end, whatever a test did to their processes."""
    made: list[MemoAirVoiceClientSync] = []

    def make(**arguments: Any) -> MemoAirVoiceClientSync:
        made.append(MemoAirVoiceClientSync(**client_arguments(storage_root, **arguments)))
        return made[-1]

    try:
        yield make
    finally:
        for each in reversed(made):
            each.close()


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """What the fixture ``nothing_left_behind`` demands, of more than a single test."""
    process = psutil.Process()
    descriptors, threads, children = process.num_fds(), set(threading.enumerate()), set(process.children())
    yield
    eventually(lambda: set(process.children()) <= children)
    eventually(lambda: not set(threading.enumerate()) - threads)
    eventually(lambda: process.num_fds() <= descriptors)


@contextmanager
def frozen(pid: int) -> Iterator[int]:
    """Let a process answer nothing for as long as the block lasts."""
    freeze(pid)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def lives(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


_patience = threading.Lock()
_patient = 0


@contextmanager
def patient_saves() -> Iterator[None]:
    """Let ``save_response`` wait for as long as a loaded machine needs, and not only for the second of the product.

    What becomes of a turn that is not kept within that second is tested by itself.
    """
    global _patient
    with _patience:
        _patient += 1
        _client._SAVE_S = PATIENT_MS / 1e3
    try:
        yield
    finally:
        with _patience:
            _patient -= 1
            if not _patient:
                _client._SAVE_S = _SAVE_S


def recall(client: MemoAirVoiceClientSync, user_id: str, query: str, **options: Any) -> SearchResult:
    """Search with all the patience that a loaded machine needs, and demand a whole answer."""
    found = client.search_memory(query, user={"id": user_id}, **{"timeout_ms": PATIENT_MS, **options})
    assert found.trace["degraded"] is False, found.trace
    return found


def say(client: MemoAirVoiceClientSync, user_id: str, text: str, turn_id: str | None = None) -> str:
    """Save a turn with a runtime that is warm, and demand that it is kept at once."""
    client.load_index(user={"id": user_id})
    with patient_saves():
        event_id = client.save_response(user={"id": user_id}, user_text=text, assistant_text="Noted.", turn_id=turn_id)
    assert event_id
    return event_id


def runtime_of(client: MemoAirVoiceClientSync, user_id: str) -> dict[str, Any]:
    """What the client tells of the caller's runtime, who must have one."""
    [told] = [each for each in client.stats()["runtimes"] if each["user_id"] == user_id]
    return dict(told)


def pid_of(client: MemoAirVoiceClientSync, user_id: str) -> int:
    """The process that serves a caller."""
    return int(runtime_of(client, user_id)["pid"])


def host_of(client: MemoAirVoiceClientSync, user_id: str) -> psutil.Process:
    """The process that a caller's runtime was forked from."""
    host = psutil.Process(pid_of(client, user_id)).parent()
    assert host is not None
    assert "memoair_runtime.host" in host.cmdline()
    return host


def logged(storage_root: Path, user_id: str, type_: str | None = None) -> list[dict[str, Any]]:
    """The events of a caller, of one type or all, call by call as they stand in the logs."""
    folder = UserFolder(storage_root, PROJECT, user_id)
    events = [
        json.loads(line)
        for session_id, _ in folder.session_logs()
        for line in folder.session(session_id).log.read_bytes().splitlines()
    ]
    return [event for event in events if type_ in (None, event["type"])]


def turn_ids(storage_root: Path, user_id: str) -> list[str]:
    """The ids of a caller's turns as they stand in the logs."""
    return [event["payload"]["turnId"] for event in logged(storage_root, user_id, "turn")]


_HEAD = """
import json, os, signal, sys, threading, time
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError, _client

_client._SAVE_S = {save_s}

def tell(**facts):
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
    """An application in a process of its own, which has a ``client`` and tells what it sees on lines of JSON."""

    def __init__(self, script: str, arguments: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _HEAD.format(save_s=PATIENT_MS / 1e3, arguments=arguments) + script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def told(self, within_s: float = 60.0) -> dict[str, Any]:
        """The next line; who says nothing for so long is ended."""
        assert self.process.stdout is not None
        watch = threading.Timer(within_s, self._kill)
        watch.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watch.cancel()
            watch.join()
        assert line, "the application ended without a word; what it wrote to stderr stands above"
        return dict(json.loads(line))

    def hang_up(self) -> None:
        """Let all who read its standard input see the end of it."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def ends(self, within_s: float = 60.0) -> int:
        """Wait until it has ended, and return its exit code."""
        return self.process.wait(within_s)

    def close(self) -> None:
        """End it with all that belongs to its session."""
        self._kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
