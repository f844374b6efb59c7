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
from typing import Any

from memoair_voice_sync import MemoAirVoiceClientSync, _user_calls

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


def promise_continuously(client: MemoAirVoiceClientSync, caller: str, promised_fd: int) -> None:
    """Save one turn after another, without waiting for those that are saved later, and write each to the descriptor."""
    for number in itertools.count():
        turn_id = f"{caller}-{number}"
        client.save_response(
            user={"id": caller}, user_text=f"I say {turn_id}.", assistant_text="Noted.", turn_id=turn_id
        )
        os.write(promised_fd, f"{caller} {turn_id}\n".encode())


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
