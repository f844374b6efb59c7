"""A client in a process of its own, which tests kill: it does what lines of JSON on its standard input say.

``python client_process.py '{"storage_root": ...}'`` takes the arguments of the client. Each line is a request,
``{"do": "save" | "search" | "stats" | "save_on"}``, and is answered by a line.
"""

import json
import os
import sys
import threading
import time
from typing import Any

from memoair_voice_sync import MemoAirVoiceClientSync, _user_calls

# A single turn is kept at once, however slow the machine is: tests ask for it that are about something else.
PATIENT_SAVE_S = 30.0


def save_on(client: MemoAirVoiceClientSync, caller: str, thread: int, acknowledged: int) -> None:
    """Save one turn after the other, and write down each that was acknowledged before the next is begun."""
    number = 0
    while True:
        number += 1
        turn_id = f"{caller}-{thread}-{number}"
        event_id = client.save_response(
            user={"id": caller}, user_text=f"I say {turn_id}.", assistant_text="Noted.", turn_id=turn_id
        )
        if event_id is not None:
            os.write(acknowledged, f"{caller} {turn_id}\n".encode())
            continue
        while client.stats()["pending_saves"]:  # nobody speaks without end: what waits would never be less
            time.sleep(0.02)


def answer(client: MemoAirVoiceClientSync, request: dict[str, Any]) -> Any:
    """Do what is asked."""
    what = request.pop("do")
    if what == "save":
        save_s, _user_calls._SAVE_TIMEOUT_S = _user_calls._SAVE_TIMEOUT_S, PATIENT_SAVE_S
        try:
            return client.save_response(**request)
        finally:
            _user_calls._SAVE_TIMEOUT_S = save_s
    if what == "search":
        result = client.search_memory(**request)
        return {"text": result.contextText, "trace": result.trace}
    if what == "stats":
        return client.stats()
    acknowledged = os.open(request["acknowledged"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for thread, caller in enumerate(request["callers"]):
        threading.Thread(target=save_on, args=(client, caller, thread, acknowledged), daemon=True).start()
    return None


def main() -> None:
    """Answer until the input ends, then close the client."""
    with MemoAirVoiceClientSync(**json.loads(sys.argv[1])) as client:
        for line in sys.stdin:
            os.write(1, json.dumps(answer(client, json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    main()
