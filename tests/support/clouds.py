"""Clouds for tests: real servers with real databases, and clients that check every response."""

import gzip
import json
import socket
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import urllib3
import uvicorn
from sqlalchemy import make_url

from memoair_cloud.http.app import create_app
from memoair_cloud.http.dependencies import Services
from memoair_cloud.serving import open_services
from memoair_cloud.settings import CloudSettings
from memoair_cloud.tenancy.accounts import Accounts
from memoair_protocol.timestamps import utc_now
from support.waiting import eventually

OCCURRED_AT = "2026-03-02T09:30:00Z"


class Answer(NamedTuple):
    """A response of a server."""

    status: int
    body: Any
    headers: Any


class FilesBody(NamedTuple):
    """A body with files."""

    content: bytes
    content_type: str


def files_body(files: Mapping[str, bytes]) -> FilesBody:
    """Return the body of a request with files, by their names."""
    parts = [("files", (name, content, "application/octet-stream")) for name, content in files.items()]
    return FilesBody(*urllib3.encode_multipart_formdata(parts))


class Client:
    """A client of one account. It checks the envelope of every error."""

    def __init__(self, url: str, key: str | None = None, **identity: str) -> None:
        self.url, self.key, self.identity = url, key, identity
        self._http = urllib3.PoolManager(maxsize=8, timeout=30, retries=False)

    def close(self) -> None:
        self._http.clear()

    def with_identity(self, **identity: str) -> "Client":
        """Return the same client for another project, agent or user (``project=``, ``agent=``, ``user=``)."""
        return Client(self.url, self.key, **{**self.identity, **identity})

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        all_headers: dict[str, Any] = {f"X-{name.title()}-Id": value.encode() for name, value in self.identity.items()}
        if self.key is not None:
            all_headers["Authorization"] = f"Bearer {self.key}"
        content = body if body is None or isinstance(body, (bytes, FilesBody)) else json.dumps(body).encode()
        if content is not None:
            all_headers["Content-Type"] = "application/json"
        if isinstance(body, FilesBody):
            content, all_headers["Content-Type"] = body
        all_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            response = self._http.request(method, self.url + path, body=content, headers=all_headers)
        except urllib3.exceptions.ProtocolError:
            if method != "GET":  # nothing else may be sent twice
                raise
            # The server ended a connection that was idle for 5 s just as it was to be used again.
            response = self._http.request(method, self.url + path, body=content, headers=all_headers)
        is_json = response.headers.get("content-type", "").startswith("application/json")
        answer = Answer(response.status, json.loads(response.data) if is_json else response.data, response.headers)
        if answer.status >= 400 and answer.body.get("error") != "batch_too_large":
            assert list(answer.body) == ["error"], answer
            error = answer.body["error"]
            shape = {name: type(value) for name, value in error.items()}
            assert shape == {"code": str, "message": str, "details": dict}
            assert error["code"].startswith("cloud.")
            assert error["message"]
        assert answer.headers["x-request-id"]
        return answer

    def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request that must succeed; return its body."""
        answer = self.call(method, path, body, **headers)
        assert answer.status in (200, 201), answer
        return answer.body

    def error_of(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Send a request that must fail; return the status and the error code."""
        answer = self.call(method, path, body, **headers)
        return answer.status, answer.body["error"]["code"]

    def send(self, *events: dict[str, Any], compressed: bool = False) -> Any:
        """Ingest events and return the receipt. Single events may be rejected, but the request must succeed."""
        content = json.dumps({"events": events}).encode()
        if compressed:
            return self.ok("POST", "/v1/voice-sdk/events", gzip.compress(content), Content_Encoding="gzip")
        return self.ok("POST", "/v1/voice-sdk/events", content)

    def send_traces(self, *traces: dict[str, Any]) -> Any:
        """Ingest recall traces and return the receipt. Single traces may be rejected, but the request must succeed."""
        return self.ok("POST", "/v1/voice-sdk/recall-traces", {"traces": list(traces)})

    def send_call(self, session_id: str, *texts: str, day: str = OCCURRED_AT[:10]) -> None:
        """Send a call that has ended, with these texts of the caller."""
        start = session_start(f"{session_id}-start", session_id, 1, occurredAt=f"{day}T09:00:00Z")
        turns = [
            turn(f"{session_id}-{seq}", session_id, seq, text, occurredAt=f"{day}T09:{seq:02}:00Z")
            for seq, text in enumerate(texts, 2)
        ]
        end = session_end(f"{session_id}-end", session_id, len(texts) + 2, occurredAt=f"{day}T09:59:00Z")
        self.send(start, *turns, end)

    def memories(self, **query: str) -> list[dict[str, Any]]:
        """Return all memories of the user."""
        filters = "".join(f"&{name}={value}" for name, value in query.items())
        return self.pages(f"{self.path}/memories", "memories", limit=7, filters=filters)

    @property
    def path(self) -> str:
        """The path of the user."""
        return f"/v1/voice-sdk/users/{quote(self.identity['user'], safe='')}"

    def events(self, session_id: str) -> list[dict[str, Any]]:
        """Return all events of a session."""
        return self.pages(f"/v1/voice-sdk/sessions/{quote(session_id, safe='')}/events", "events", limit=7)

    def pages(self, path: str, name: str, limit: int, filters: str = "") -> list[dict[str, Any]]:
        """Return all items of a paginated list."""
        items, cursor = [], ""
        while True:
            page = self.ok("GET", f"{path}?limit={limit}{cursor and '&cursor=' + cursor}{filters}")
            items += page[name]
            assert len(page[name]) <= limit
            if page["next"] is None:
                return items
            cursor = page["next"]


class RunningCloud:
    """A server in a thread of this process, with its own database. No worker runs unless a test starts one."""

    def __init__(self, services: Services, url: str) -> None:
        self.services, self.url = services, url
        self.accounts = Accounts(services.engine)
        self._clients: list[Client] = []

    def account(self, name: str = "Fundamento") -> Client:
        """Return a client of a new account without a project."""
        self._clients.append(Client(self.url, self.accounts.create(name).key))
        return self._clients[-1]

    def close_connections(self) -> None:
        """Close the connections of its clients. Those that are used again open others."""
        while self._clients:
            self._clients.pop().close()

    def run_tasks(self) -> None:
        """Run all background tasks that are due."""
        self.services.queue.sweep()
        while self.services.queue.run_next_task():
            pass

    def tenant(self, slug: str = "acme") -> Client:
        """Return a client of a new account, in a project with an agent, for a user."""
        client = self.account()
        project = client.ok("POST", "/v1/projects", {"name": slug.title(), "slug": slug})
        agent = client.ok("POST", f"/v1/projects/{project['id']}/agents", {"name": "Returns", "agentType": "voice"})
        self._clients.append(client.with_identity(project=project["id"], agent=agent["id"], user="0xab12"))
        return self._clients[-1]


@contextmanager
def running(database_url: str, folder: Path, port: int = 0, **settings: Any) -> Iterator[RunningCloud]:
    """Run a server for as long as the block runs, on a free port or on a given one."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"wrong_keys_at_once": 10_000, **settings}  # tests come from one address
    cloud_settings = CloudSettings(database_url=database_url, blob_url=(folder / "blobs").as_uri(), **settings)
    with open_services(cloud_settings) as services, _open_listener(port) as listener:
        config = uvicorn.Config(
            create_app(services),
            log_config=None,
            access_log=False,
            ws="none",
            proxy_headers=False,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: server.started, 60)
            yield RunningCloud(services, f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(10)


def _open_listener(port: int) -> socket.socket:
    # The protocol must be given: only then does asyncio send the head and the body of a response without a delay in
    # between, as it does on sockets that it opens itself.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # As every server does: connections of an earlier test may still wait on a given port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def turn(event_id: str, session_id: str = "call-1", seq: int = 2, said: str = "My parcel is late.", **more: Any) -> Any:
    """Return a turn as a runtime sends it."""
    payload = {"turnId": f"t-{seq}", "userText": said, "assistantText": "", "toolCalls": [], "metadata": {}}
    return _event("turn", event_id, session_id, seq, payload, more)


def session_start(event_id: str, session_id: str = "call-1", seq: int = 1, name: str = "Ana", **more: Any) -> Any:
    """Return a session start as a runtime sends it."""
    payload = {"user": {"name": name, "metadata": {"tenant": "acme"}}, "metadata": {"line": "returns"}}
    return _event("session_start", event_id, session_id, seq, payload, more)


def session_end(event_id: str, session_id: str = "call-1", seq: int = 9, **more: Any) -> Any:
    """Return a session end as a runtime sends it."""
    return _event("session_end", event_id, session_id, seq, {"reason": "hangup"}, more)


def recall_trace(trace_id: str, session_id: str = "call-1", **more: Any) -> Any:
    """Return a recall trace as a runtime sends it, of a search a moment ago that found a document and a fact."""
    document = {
        "id": "faq/d#0",
        "kind": "document",
        "score": 3.5,
        "inContext": True,
        "terms": {"around": 2.0, "meaning": 1.5},
    }
    fact = {"id": "mem_1", "kind": "fact", "score": 1.25, "inContext": False, "terms": {"around": 1.25}}
    return {
        "traceId": trace_id,
        "sessionId": session_id,
        "occurredAt": utc_now().isoformat(),
        "mode": "ids",
        "origin": "hook",
        "totalMs": 1.25,
        "deadlineMs": 250,
        "contextChars": 40,
        "versions": {"org": 3, "memory": 7},
        "lanes": {
            "permanent": {"status": "ok", "ms": 0.25, "hits": 1, "chars": 0, "items": [fact]},
            "org": {
                "status": "ok",
                "ms": 0.5,
                "hits": 1,
                "chars": 40,
                "confidence": 0.75,
                "items": [{**document, "indexName": "faq", "documentId": "d"}],
            },
        },
        **more,
    }


def _event(type_: str, event_id: str, session_id: str, seq: int, payload: Any, more: Any) -> Any:
    event = {"eventId": event_id, "type": type_, "sessionId": session_id, "seq": seq, "occurredAt": OCCURRED_AT}
    return {**event, "payload": payload, **more}


@contextmanager
def locked_sqlite(url: str, kind: str) -> Iterator[None]:
    """Hold the lock of a SQLite database in the block, as another process would: ``IMMEDIATE`` or ``EXCLUSIVE``."""
    blocker = sqlite3.connect(str(make_url(url).database), isolation_level=None)
    blocker.execute(f"BEGIN {kind}")
    try:
        yield
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
