"""A server for a speech model on loopback: the model calls the tool of its session, then answers.

It speaks OpenAI's Realtime protocol as far as tools need it.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from adapters.model_server import ANSWER, ARGUMENTS
from websockets.asyncio.server import ServerConnection, serve

_TOOL_KEYS = {"type", "name", "description", "parameters"}


@asynccontextmanager
async def serve_realtime_model() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Serve in the running event loop. Yield the URL and the events that clients have sent."""
    received: list[dict[str, Any]] = []

    async def converse(connection: ServerConnection) -> None:
        async for message in connection:
            event = json.loads(message)
            received.append(event)
            for reply in _replies(event, received):
                await connection.send(json.dumps({"event_id": f"event_{len(received)}", **reply}))

    async with serve(converse, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1", received


def _replies(event: dict[str, Any], received: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if event["type"] == "session.update":
        # OpenAI refuses the whole session for one key that it does not know.
        for position, tool in enumerate(event["session"]["tools"]):
            for key in set(tool) - _TOOL_KEYS:
                message = f"Unknown parameter: 'session.tools[{position}].{key}'."
                error = {"type": "invalid_request_error", "code": "unknown_parameter", "message": message}
                return [{"type": "error", "error": error}]
        return [{"type": "session.updated", "session": event["session"]}]
    if event["type"] == "response.create":
        ids = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0}
        if any(earlier["type"] == "conversation.item.create" for earlier in received):
            return [{"type": "response.output_text.done", **ids, "content_index": 0, "text": ANSWER}]
        name = received[0]["session"]["tools"][0]["name"]
        call = {"call_id": "call_1", "name": name, "arguments": json.dumps(ARGUMENTS)}
        return [{"type": "response.function_call_arguments.done", **ids, **call}]
    return []
