"""Warm-up: one complete session before the first fork, so that no runtime pays for first-time work again.

The fork server runs it before it forks: whatever is imported, compiled and cached by then is shared by all runtimes.
"""

import gzip
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import attrs
import msgspec

from memoair_protocol.threads import start_thread
from memoair_runtime.http.routes import PREFIX, Routes
from memoair_runtime.lifecycle import Lifecycle
from memoair_runtime.service import RuntimeService
from memoair_runtime.settings import RuntimeSettings
from memoair_runtime.storage.lease import Lease
from memoair_runtime.storage.user_folder import UserFolder

_TIMEOUT_S = 5.0
_USER = {"id": "up", "name": "Dana"}
_REQUESTS: tuple[tuple[str, dict[str, object]], ...] = (
    ("session/start", {"workspaceId": "warm", "userId": "up", "metadata": {"user": _USER}}),
    ("turn/after", {"turnId": "1", "userText": "When do you open on Monday?", "assistantText": "We open at nine."}),
    ("turn/after", {"turnId": "2", "userText": "No, I said Tuesday.", "assistantText": "At ten."}),
    ("search_memory", {"query": "When did I say that you open?"}),
    ("sync/pull", {"deadlineMs": 1_000, "scopes": ["profile", "permanent"]}),
    ("session/end", {"reason": "warm"}),
    ("sync/flush", {"deadlineMs": 1_000}),
)


def warm_up(*, has_cloud: bool) -> None:
    """Run one session in a temporary folder. Leaves no thread and no file behind.

    Args:
        has_cloud: Whether the runtimes will sync with a cloud, so that the session syncs with a local stand-in.
    """
    threads_before = threading.active_count()
    try:
        _warm_up(has_cloud=has_cloud)
    finally:  # a fork copies one thread, and what the others hold stays held
        deadline = time.monotonic() + _TIMEOUT_S
        while threading.active_count() > threads_before and time.monotonic() < deadline:
            time.sleep(0.001)


def _warm_up(*, has_cloud: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="memoair-host-") as folder:
        settings = RuntimeSettings("warm", "up", Path(folder), cloud_base_url=None)
        if not has_cloud:
            _run_session(settings)
        else:
            from memoair_protocol.cloud_http import ssl_context

            with suppress(OSError):  # a runtime that needs the certificates reports the error
                ssl_context()
            with _run_warmup_cloud() as url:
                _run_session(attrs.evolve(settings, cloud_base_url=url, cloud_key="warm"))


def _run_session(settings: RuntimeSettings) -> None:
    lease = Lease(UserFolder(settings.storage_root, settings.project_id, settings.user_id))
    lease.acquire("", 0, None, None)
    lifecycle = Lifecycle()
    service = RuntimeService(settings, lifecycle)
    service.start_loading()
    routes = Routes(service)
    replies: list[object] = []
    try:
        for path, body in _REQUESTS:
            content = msgspec.json.encode({"sessionId": "1", **body})
            routes.find("POST", f"{PREFIX}{path}").handle(content, replies.append)
    finally:
        service.close(time.monotonic() + _TIMEOUT_S)
        lifecycle.close()
        lease.release()


class _WarmupCloud(BaseHTTPRequestHandler):
    """A stand-in for the cloud with a few data of one user.

    It speaks HTTP: a transport that answers from memory would leave each runtime with 0.7 MB more memory of its own.
    """

    protocol_version = "HTTP/1.1"
    timeout = 1.0  # a client that never closes its connection must not block the fork server

    def do_GET(self) -> None:
        """Answer with a projection."""
        self._send_json(_projection(self.path.partition("?")[0].rpartition("/")[2]))

    def do_POST(self) -> None:
        """Accept all events and recall traces."""
        batch = json.loads(gzip.decompress(self.rfile.read(int(self.headers["Content-Length"]))))
        accepted = [event["eventId"] for event in batch.get("events", ())]
        accepted += [trace["traceId"] for trace in batch.get("traces", ())]
        self._send_json({"accepted": accepted, "duplicate": [], "rejected": []})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing."""

    def _send_json(self, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def _run_warmup_cloud() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _WarmupCloud) as server:
        thread = start_thread(server.serve_forever, name="warmup-cloud", args=(0.001,), daemon=False)
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _projection(name: str) -> dict[str, Any]:
    from memoair_protocol.hashes import hash_content

    if name == "bootstrap":
        versions = {"profileVersion": 1, "permanentManifestVersion": 1, "orgManifestVersion": 0, "forgottenVersion": 0}
        return {**versions, "syncToken": "warm"}
    if name == "profile":
        hash_ = hash_content(["", {}, "Dana", {}])
        return {"version": 1, "contentHash": hash_, "summary": "", "attributes": {}, "name": "Dana", "metadata": {}}
    occurred_at = "2026-03-02T09:30:00Z"
    payload = {"turnId": "0", "userText": "Do you open on Sunday?", "assistantText": "We do not."}
    event = {"eventId": "0", "type": "turn", "sessionId": "0", "seq": 1, "occurredAt": occurred_at, "payload": payload}
    fact = {"id": "1", "kind": "preference", "text": "Likes to come on Tuesday.", "saidAt": occurred_at}
    changes = {"events": [event], "facts": [fact], "removed": []}
    return {
        "mode": "snapshot",
        "version": 1,
        "more": False,
        "contentHash": hash_content(list(changes.values())),
        **changes,
    }
