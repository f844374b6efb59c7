"""A language model with an OpenAI-compatible interface, which says what a test has scripted."""

import json
import threading
from collections.abc import Mapping
from typing import Any

from support.loopback_server import LoopbackHandler, LoopbackServer


def make_chunk(delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    """Return a part of a streamed answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def make_completion(text: str) -> dict[str, Any]:
    """Return an answer in one piece."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


class ScriptedModel(LoopbackServer):
    """A model on a port of its own.

    Attributes:
        requests: The requests that it has received, with their headers under ``headers``.
        words: What it says, a part for each word. `PAUSE` waits for ``goes_on``, `BREAK` cuts the connection.
        tool_calls: Deltas of tool calls, which it says after the words.
        status: The status of its replies.
        hung_up: Set once a client has left in the middle of an answer.
    """

    PAUSE, BREAK = "<pause>", "<break>"

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.words: list[str] = ["Yes."]
        self.tool_calls: list[dict[str, Any]] = []
        self.status = 200
        self.goes_on, self.hung_up = threading.Event(), threading.Event()
        super().__init__()

    @property
    def base_url(self) -> str:
        """The URL for clients of OpenAI."""
        return f"{self.url}/v1"

    def answer(self, handler: LoopbackHandler) -> None:
        """Say the words, in one piece or as a stream."""
        body = json.loads(handler.body)
        self.requests.append({"path": handler.path, "headers": dict(handler.headers), **body})
        if self.status != 200:
            handler.reply(b'{"error": {"message": "scripted", "type": "server_error"}}', self.status)
        elif body.get("stream"):
            self._stream(handler)
        else:
            if self.PAUSE in self.words:
                self._pause()
            said = " ".join(word for word in self.words if word not in (self.PAUSE, self.BREAK))
            handler.reply(json.dumps(make_completion(said)).encode(), Content_Type="application/json")

    def _stream(self, handler: LoopbackHandler) -> None:
        handler.close_connection = True
        handler.send_response_only(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Connection", "close")
        handler.end_headers()
        try:
            for word in list(self.words):
                if word == self.BREAK:
                    return
                if word == self.PAUSE:
                    self._pause()
                else:
                    self._send(handler, json.dumps(make_chunk({"content": word})))
            for tool_call in self.tool_calls:
                self._send(handler, json.dumps(make_chunk({"tool_calls": [tool_call]})))
            self._send(handler, json.dumps(make_chunk({}, "tool_calls" if self.tool_calls else "stop")))
            self._send(handler, "[DONE]")
        except OSError:
            self.hung_up.set()

    def _pause(self) -> None:
        while not self.goes_on.wait(0.05) and not self.closed.is_set():
            pass

    def _send(self, handler: LoopbackHandler, data: str) -> None:
        handler.wfile.write(f"data: {data}\n\n".encode())
        handler.wfile.flush()
