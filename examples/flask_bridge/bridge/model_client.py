"""The connection to the operator's language model, which has an OpenAI-compatible interface."""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import urllib3

from bridge.settings import ModelSettings

_CONNECT_TIMEOUT_S = 5.0
_MAX_CONNECTIONS = 64
_MAX_LINE_BYTES = 1024 * 1024
_MAX_REPLY_BYTES = 8 * 1024 * 1024


class ModelError(Exception):
    """The model has not answered, or stopped in the middle. ``code`` says why, without words of the call."""

    def __init__(self, code: str, status: int = 502) -> None:
        super().__init__(code)
        self.code = code
        self.status = status


class AnswerCollector:
    """Collects what a model says, from the pieces of a stream or from one reply.

    ``is_complete`` tells whether the model has come to its end.
    """

    def __init__(self) -> None:
        self.is_complete = False
        self._texts: list[str] = []
        self._tool_calls: dict[int, dict[str, Any]] = {}

    @property
    def text(self) -> str:
        """What the agent says."""
        return "".join(self._texts)

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tools that the agent calls."""
        return list(self._tool_calls.values())

    def add_line(self, line: bytes) -> None:
        """Add a line of a stream. Other lines than those with data are ignored."""
        if line.startswith(b"data:"):
            self.add_reply(line.removeprefix(b"data:").strip(), "delta")

    def add_reply(self, content: bytes, name: str = "message") -> None:
        """Add the JSON of a reply, or of a part of one. Anything else is ignored: it is passed on as it is."""
        try:
            choices = json.loads(content)["choices"]
            said = choices[0][name]
            self.is_complete |= choices[0].get("finish_reason") is not None
            text, tool_calls = said.get("content"), said.get("tool_calls") or []
            if isinstance(text, str):
                self._texts.append(text)
            for position, tool_call in enumerate(tool_calls):
                self._add_tool_call(tool_call.get("index", position), tool_call)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return

    def _add_tool_call(self, index: int, part: Mapping[str, Any]) -> None:
        call = self._tool_calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        function = part.get("function") or {}
        call["id"] += part.get("id") or ""
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""


class ModelReply:
    """A reply of the model, of which the head has arrived. Close it, also in the middle."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.headers.get("Content-Type", "application/json")
        self.is_stream = self.content_type.startswith("text/event-stream")

    def read(self) -> bytes:
        """Return the whole body. Raises `ModelError`."""
        try:
            content = self._response.read(_MAX_REPLY_BYTES + 1)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _to_model_error(error) from None
        if len(content) > _MAX_REPLY_BYTES:
            raise ModelError("reply_too_large")
        return content

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of a stream as they arrive, each with its end. Raises `ModelError`."""
        rest = b""
        try:
            while chunk := self._response.read1():
                rest += chunk
                *lines, rest = rest.split(b"\n")
                yield from (line + b"\n" for line in lines)
                if len(rest) > _MAX_LINE_BYTES:
                    raise ModelError("line_too_long")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _to_model_error(error) from None
        if rest:
            yield rest

    def close(self) -> None:
        """Close the connection, so that the model stops. A reply that was read to its end returns it for reuse."""
        self._response.close()
        self._response.release_conn()


class ModelClient:
    """Asks the model. Safe to use from any thread; each worker has connections of its own.

    Args:
        settings: The model.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._process_pool: tuple[int, urllib3.PoolManager] | None = None  # with the id of its process

    def ask(self, request: Mapping[str, Any]) -> ModelReply:
        """Send a request, and return when the head of the reply has arrived. Raises `ModelError`."""
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        if self.settings.key:
            headers["Authorization"] = f"Bearer {self.settings.key}"
        try:
            response = self._get_pool().request(
                "POST",
                f"{self.settings.url}/chat/completions",
                body=json.dumps(request).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=self.settings.timeout_ms / 1e3),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _to_model_error(error) from None
        return ModelReply(response)

    def _get_pool(self) -> urllib3.PoolManager:
        with self._lock:
            if self._process_pool is None or self._process_pool[0] != os.getpid():
                pool = urllib3.PoolManager(maxsize=_MAX_CONNECTIONS, cert_reqs="CERT_REQUIRED")
                self._process_pool = os.getpid(), pool
            return self._process_pool[1]

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            process_pool, self._process_pool = self._process_pool, None
        if process_pool is not None and process_pool[0] == os.getpid():
            process_pool[1].clear()


def _to_model_error(error: Exception) -> ModelError:
    if isinstance(error, urllib3.exceptions.NewConnectionError):  # a subclass of TimeoutError, but it is not one
        return ModelError("unreachable")
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return ModelError("timeout", 504)
    return ModelError("connection_lost")
