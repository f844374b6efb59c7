"""A server for a language model on loopback: the model calls the tool that it is offered, then answers."""

import json
from collections.abc import Iterator
from typing import Any

from support.loopback_server import LoopbackHandler, LoopbackServer

ARGUMENTS = {"query": "what colour are the boots?", "intent": "answer_current_user"}
ANSWER = "Your boots are red."


class ModelServer(LoopbackServer):
    """Serve ``/v1/chat/completions`` (whole or as a stream) and ``/v1/responses``; record the requests."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        super().__init__()

    def answer(self, handler: LoopbackHandler) -> None:
        """Call the tool, or answer with its result."""
        body = json.loads(handler.body)
        self.requests.append(body)
        answers = {"/v1/chat/completions": _make_chat_completion, "/v1/responses": _make_response}
        answer = answers[handler.path](body)
        if body.get("stream"):
            handler.reply(b"".join(_stream_chunks(answer)), Content_Type="text/event-stream")
        else:
            handler.reply(json.dumps(answer).encode(), Content_Type="application/json")


def _make_chat_completion(body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": ANSWER}
    has_tool_result = any(message["role"] == "tool" for message in body["messages"])
    if not has_tool_result:
        function = {"name": body["tools"][0]["function"]["name"], "arguments": json.dumps(ARGUMENTS)}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        }
    return {
        "id": "chat_1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop" if has_tool_result else "tool_calls"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def _stream_chunks(answer: dict[str, Any]) -> Iterator[bytes]:
    choice = answer["choices"][0]
    delta = dict(choice["message"])
    if "tool_calls" in delta:
        delta["tool_calls"] = [{"index": 0, **delta["tool_calls"][0]}]
    for part, reason in ((delta, None), ({}, choice["finish_reason"])):
        chunk = {"index": 0, "delta": part, "finish_reason": reason}
        yield f"data: {json.dumps({**answer, 'object': 'chat.completion.chunk', 'choices': [chunk]})}\n\n".encode()
    yield b"data: [DONE]\n\n"


def _make_response(body: dict[str, Any]) -> dict[str, Any]:
    has_tool_result = any(item.get("type") == "function_call_output" for item in body["input"])
    output: dict[str, Any] = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": ANSWER, "annotations": []}],
    }
    if not has_tool_result:
        output = {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": body["tools"][0]["name"],
            "arguments": json.dumps(ARGUMENTS),
            "status": "completed",
        }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "output": [output],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body["tools"],
        "status": "completed",
    }
