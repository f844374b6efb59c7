"""A client in its own process, which tests kill. It executes commands from its standard input.

``python client_process.py '{"storage_root": ...}'`` takes the arguments of the client. Each line of input is a command,
``{"do": "save", ...}``, and is answered by a line of output; see `handle`.
"""

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError, _user_calls

# Timeout of a single save, for tests in which its duration does not matter.
PATIENT_SAVE_S = 30.0


def save_continuously(client: MemoAirVoiceClientSync, caller: str, thread: int, acknowledged_fd: int) -> None:
    """Save one turn after another, and write each acknowledged one to the descriptor before the next begins."""
    number = 0
    while True:
        number += 1
        turn_id = f"{caller}-{thread}-{number}"
        event_id = client.save_response(
            user={"id": caller}, user_text=f"I say {turn_id}.", assistant_text="Noted.", turn_id=turn_id
        )
        if event_id is not None:
            os.write(acknowledged_fd, f"{caller} {turn_id}\n".encode())
            continue
        while client.stats()["pending_saves"]:  # real callers pause; without a pause the backlog would never shrink
            time.sleep(0.02)


class Calls:
    """Threads that save and search in turns, and write down what became of each call, until they are stopped."""

    def __init__(self, client: MemoAirVoiceClientSync, callers: list[str], newcomers: list[str], outcomes: str) -> None:
        self._client = client
        self._outcomes_fd = os.open(outcomes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._stop = threading.Event()
        self._newcomers = set(newcomers)
        self._are_newcomers_there = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(caller,), daemon=True) for caller in callers + newcomers
        ]
        for thread in self._threads:
            thread.start()

    def let_newcomers_call(self) -> None:
        """Let those call who have waited until now. Their threads exist: there may be none to be had."""
        self._are_newcomers_there.set()

    def stop(self) -> bool:
        """Stop the threads after their calls; return whether they have ended in time."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENT_SAVE_S)
        os.close(self._outcomes_fd)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, caller: str) -> None:
        number = 0
        if caller in self._newcomers:
            self._are_newcomers_there.wait()
        while not self._stop.is_set():
            number += 1
            turn_id = f"{caller}-{number}"
            self._note(caller, turn_id, lambda turn_id=turn_id: self._save(caller, turn_id))  # type: ignore[misc]
            self._note(caller, None, lambda: self._search(caller))
            self._stop.wait(0.05)

    def _note(self, caller: str, turn_id: str | None, call: Callable[[], str]) -> None:
        try:
            outcome = call()
        except MemoAirVoiceMemoryError as error:
            outcome = error.code
        except BaseException as error:  # noqa: BLE001 - the test checks it
            outcome = repr(error)
        line = json.dumps({"caller": caller, "turn": turn_id, "outcome": outcome})
        os.write(self._outcomes_fd, line.encode() + b"\n")

    def _save(self, caller: str, turn_id: str) -> str:
        event_id = self._client.save_response(
            user={"id": caller}, user_text=f"I say {turn_id}.", assistant_text="Noted.", turn_id=turn_id
        )
        return "deferred" if event_id is None else "saved"

    def _search(self, caller: str) -> str:
        result = self._client.search_memory("What do I say?", user={"id": caller})
        return "degraded" if result.trace["degraded"] else "found"


def promise_continuously(client: MemoAirVoiceClientSync, caller: str, promised_fd: int) -> None:
    """Save one turn after another, without waiting for those that are saved later, and write each to the descriptor."""
    for number in itertools.count():
        turn_id = f"{caller}-{number}"
        client.save_response(
            user={"id": caller}, user_text=f"I say {turn_id}.", assistant_text="Noted.", turn_id=turn_id
        )
        os.write(promised_fd, f"{caller} {turn_id}\n".encode())


_calls: list[Calls] = []


def handle(client: MemoAirVoiceClientSync, request: dict[str, Any]) -> Any:
    """Execute a command (save, search, stats, save_continuously, promise_continuously) and return its result."""
    command = request.pop("do")
    if command == "save":
        save_s, _user_calls._SAVE_TIMEOUT_S = _user_calls._SAVE_TIMEOUT_S, PATIENT_SAVE_S
        try:
            return client.save_response(**request)
        finally:
            _user_calls._SAVE_TIMEOUT_S = save_s
    if command == "search":
        result = client.search_memory(**request)
        return {"text": result.contextText, "trace": result.trace}
    if command == "stats":
        return client.stats()
    if command == "call_continuously":
        _calls.append(Calls(client, **request))
        return None
    if command == "let_newcomers_call":
        return _calls[-1].let_newcomers_call()
    if command == "stop_calls":
        return _calls.pop().stop()
    acknowledged = os.open(request["acknowledged"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if command == "promise_continuously":
        for caller in request["callers"]:
            threading.Thread(target=promise_continuously, args=(client, caller, acknowledged), daemon=True).start()
        return None
    for thread, caller in enumerate(request["callers"]):
        threading.Thread(target=save_continuously, args=(client, caller, thread, acknowledged), daemon=True).start()
    return None


def main() -> None:
    """Execute commands until the input ends, then close the client."""
    with MemoAirVoiceClientSync(**json.loads(sys.argv[1])) as client:
        for line in sys.stdin:
            os.write(1, json.dumps(handle(client, json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    main()
