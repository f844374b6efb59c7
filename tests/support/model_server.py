"""A language model with an OpenAI-compatible interface, which says what a test has scripted."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def make_chunk(delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    """Return a part of a streamed answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def make_completion(text: str) -> dict[str, Any]:
    """Return an answer in one piece."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


class ScriptedModel:
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
        self.goes_on, self.is_paused, self.hung_up = threading.Event(), threading.Event(), threading.Event()
        self.paused = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            model = self

            def do_POST(self) -> None:
                self.model._reply(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.goes_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _reply(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.requests.append({"path": handler.path, "headers": dict(handler.headers), **body})
        if self.status != 200 or not body.get("stream"):
            error = {"error": {"message": "scripted", "type": "server_error"}}
            words = [word for word in self.words if word not in (self.PAUSE, self.BREAK)]
            content = json.dumps(error if self.status != 200 else make_completion(" ".join(words))).encode()
            if self.PAUSE in self.words:
                self._pause()
            handler.send_response(self.status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
            return
        handler.close_connection = True
        handler.send_response(200)
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
        self.paused += 1
        self.is_paused.set()
        assert self.goes_on.wait(60)

    def _send(self, handler: BaseHTTPRequestHandler, data: str) -> None:
        handler.wfile.write(f"data: {data}\n\n".encode())
        handler.wfile.flush()


@contextmanager
def scripted_model() -> Iterator[ScriptedModel]:
    """Run a model during the block."""
    model = ScriptedModel()
    try:
        yield model
    finally:
        model.close()
