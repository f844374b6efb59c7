"""The client of the applications that the servers run, as an application makes it: in a module."""

import json
import logging
import os

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError, _user_calls

logging.basicConfig()  # warnings of the SDK go to the log of the server, which the tests read

# Other tests check what happens to a turn that is not saved within the second of the product.
_user_calls._SAVE_TIMEOUT_S = 20.0

client = MemoAirVoiceClientSync(**json.loads(os.environ["CLIENT_ARGUMENTS"]))
if os.environ.get("CALLS_BEFORE_FORK"):
    client.load_index(user={"id": "early"}, timeout_s=60)


def say(user_id: str, text: str) -> str | None:
    return client.save_response(user={"id": user_id}, user_text=text, assistant_text="Noted.")


def recall(user_id: str, query: str) -> str:
    """Return what is recalled, or raise what went wrong."""
    found = client.search_memory(query, user={"id": user_id}, timeout_ms=20_000)
    if found.trace["degraded"]:
        raise MemoAirVoiceMemoryError("runtime.internal", str(found.trace))
    return found.contextText
