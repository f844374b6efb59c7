"""An ASGI application with a memory that it warms up at its start, for uvicorn."""

import json
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from memoair_voice import MemoAirVoiceClient
from memoair_voice_sync import _user_calls

logging.basicConfig()  # as in memory.py
_user_calls._SAVE_TIMEOUT_S = 20.0
client = MemoAirVoiceClient(**json.loads(os.environ["CLIENT_ARGUMENTS"]))


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await client.warm_up(timeout_s=60)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await client.aclose()
        await send({"type": "lifespan.shutdown.complete"})
        return
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    answer: Any = None
    if scope["path"] == "/say":
        answer = await client.save_response(
            user={"id": query["user"]}, user_text=query["text"], assistant_text="Noted."
        )
    elif scope["path"] == "/recall":
        found = await client.search_memory(query["text"], user={"id": query["user"]}, timeout_ms=20_000)
        answer = found.contextText
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps({"answer": answer}).encode()})
