"""A cloud for tests of the SDK that knows prompts and outcomes, and can hang, fail and come back."""

import hashlib
import json
import threading
from typing import Any
from urllib.parse import unquote

from support.loopback_server import LoopbackHandler, LoopbackServer

API = "/v1/voice-sdk"


class PromptServer(LoopbackServer):
    """Serves the prompts of several agents. Tests change it from their own thread.

    Attributes:
        requests: The requests so far: the agent, the path and the status of the reply.
        headers: The headers of the last request.
        outcomes: The outcomes that were reported.
        failure: The status and error code of every reply, None to answer.
        released: Cleared to let every request hang until it is set.
        arrived: Set by each request.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[str, list[str]] = {}
        self._labels: dict[tuple[str, str], int] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.headers: dict[str, str] = {}
        self.outcomes: list[dict[str, Any]] = []
        self.outcome_reply: dict[str, Any] = {"accepted": 1, "unknownSessions": 0, "rejected": []}
        self.failure: tuple[int, str] | None = None
        self.retry_after: str | None = None
        self.changes: dict[str, Any] = {}  # of what is served: a cloud that does not keep to the protocol
        self.released, self.arrived = threading.Event(), threading.Event()
        self.released.set()
        super().__init__()

    def push(self, text: str, *labels: str, agent: str = "agent_test") -> int:
        """Add a version, and move labels to it; return its number."""
        with self._lock:
            versions = self._versions.setdefault(agent, [])
            versions.append(text)
            self._labels |= {(agent, label): len(versions) for label in labels}
            return len(versions)

    def remove_label(self, label: str, agent: str = "agent_test") -> None:
        with self._lock:
            del self._labels[agent, label]

    def statuses(self) -> list[int]:
        """Return the status of each reply."""
        return [status for _, _, status in self.requests]

    def close(self) -> None:
        self.released.set()
        super().close()

    def answer(self, handler: LoopbackHandler) -> None:
        agent, path = handler.headers.get("X-Agent-Id", ""), handler.path.removeprefix(API)
        is_ours = path.startswith(("/prompt", "/outcomes"))  # a runtime asks for other things, too
        if is_ours:
            self.headers = dict(handler.headers)
            self.arrived.set()
            self.released.wait()
        status, body, headers = self._find(handler, agent, path)
        if is_ours:
            with self._lock:
                self.requests.append((agent, path, status))
        handler.reply(b"" if body is None else json.dumps(body).encode(), status, **headers)

    def _find(self, handler: LoopbackHandler, agent: str, path: str) -> tuple[int, Any, dict[str, str]]:
        if self.failure is not None:
            status, code = self.failure
            headers = {} if self.retry_after is None else {"Retry_After": self.retry_after}
            return status, {"error": {"code": code, "message": f"it is {code}", "details": {}}}, headers
        if path == "/outcomes":
            self.outcomes += json.loads(handler.body)["outcomes"]
            return 200, self.outcome_reply, {}
        collection, _, name = path[1:].partition("/")
        if collection not in ("prompts", "prompt-labels"):
            return 503, {"error": {"code": "cloud.unavailable", "message": "only prompts", "details": {}}}, {}
        with self._lock:
            label = unquote(name) if collection == "prompt-labels" else None
            number = self._labels.get((agent, label), 0) if label is not None else int(name)
            versions = self._versions.get(agent, [])
        if not 0 < number <= len(versions):
            return 404, {"error": {"code": "cloud.not_found", "message": "unknown prompt", "details": {}}}, {}
        etag = f'"{number}"'
        if handler.headers.get("If-None-Match") == etag:
            return 304, None, {"ETag": etag}
        text = versions[number - 1]
        prompt = {"agentId": agent, "version": number, "text": text, "label": label}
        prompt |= {"sha256": hashlib.sha256(text.encode()).hexdigest(), **self.changes}
        return 200, prompt, {"ETag": etag}
