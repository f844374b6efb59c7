"""Clouds for tests: real servers over real databases, and clients that check what every answer must be."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import urllib3
import uvicorn

from memoair_cloud.http.app import create_app
from memoair_cloud.http.dependencies import Services
from memoair_cloud.serving import opened
from memoair_cloud.settings import CloudSettings
from memoair_cloud.tenancy.accounts import Accounts
from support.waiting import eventually

DAY = "2026-03-02T09:30:00Z"


class Answer(NamedTuple):
    """What a server said."""

    status: int
    body: Any
    headers: Any


class Client:
    """One account's client, which checks the envelope of every error."""

    def __init__(self, url: str, key: str | None = None, **identity: str) -> None:
        self.url, self.key, self.identity = url, key, identity
        self._http = urllib3.PoolManager(maxsize=8, timeout=30, retries=False)

    def close(self) -> None:
        self._http.clear()

    def with_(self, **identity: str) -> "Client":
        """The same for another project, agent or user (``project=``, ``agent=``, ``user=``)."""
        return Client(self.url, self.key, **{**self.identity, **identity})

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        sent: dict[str, Any] = {f"X-{name.title()}-Id": value.encode() for name, value in self.identity.items()}
        if self.key is not None:
            sent["Authorization"] = f"Bearer {self.key}"
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if content is not None:
            sent["Content-Type"] = "application/json"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        response = self._http.request(method, self.url + path, body=content, headers=sent)
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
        answer = self.call(method, path, body, **headers)
        assert answer.status in (200, 201), answer
        return answer.body

    def refused(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        answer = self.call(method, path, body, **headers)
        return answer.status, answer.body["error"]["code"]

    def send(self, *events: dict[str, Any], packed: bool = False) -> Any:
        """Ingest events; the answer must be a 200."""
        content = json.dumps({"events": events}).encode()
        if packed:
            return self.ok("POST", "/v1/voice-sdk/events", gzip.compress(content), Content_Encoding="gzip")
        return self.ok("POST", "/v1/voice-sdk/events", content)

    def call_of(self, session_id: str, *said: str, day: str = DAY[:10]) -> None:
        """Send a call that is over, in which the caller says this."""
        start = session_start(f"{session_id}-start", session_id, 1, occurredAt=f"{day}T09:00:00Z")
        turns = [
            turn(f"{session_id}-{seq}", session_id, seq, each, occurredAt=f"{day}T09:{seq:02}:00Z")
            for seq, each in enumerate(said, 2)
        ]
        end = session_end(f"{session_id}-end", session_id, len(said) + 2, occurredAt=f"{day}T09:59:00Z")
        self.send(start, *turns, end)

    def memories(self, **query: str) -> list[dict[str, Any]]:
        """All memories of the caller."""
        more = "".join(f"&{name}={value}" for name, value in query.items())
        return self.pages(f"{self.path}/memories", "memories", limit=7, more=more)

    @property
    def path(self) -> str:
        """The caller's path."""
        return f"/v1/voice-sdk/users/{quote(self.identity['user'], safe='')}"

    def events(self, session_id: str) -> list[dict[str, Any]]:
        """All events of a session, page by page."""
        return self.pages(f"/v1/voice-sdk/sessions/{quote(session_id, safe='')}/events", "events", limit=7)

    def pages(self, path: str, name: str, limit: int, more: str = "") -> list[dict[str, Any]]:
        found, cursor = [], ""
        while True:
            page = self.ok("GET", f"{path}?limit={limit}{cursor and '&cursor=' + cursor}{more}")
            found += page[name]
            assert len(page[name]) <= limit
            if page["next"] is None:
                return found
            cursor = page["next"]


class RunningCloud:
    """A server in a thread of this process, over a database of its own. Nobody works behind it unless a test does."""

    def __init__(self, services: Services, url: str) -> None:
        self.services, self.url = services, url
        self.accounts = Accounts(services.engine)
        self._clients: list[Client] = []

    def account(self, name: str = "Fundamento") -> Client:
        """A client of a new account, without a project."""
        self._clients.append(Client(self.url, self.accounts.create(name).key))
        return self._clients[-1]

    def work(self) -> None:
        """Do all that is to be done behind the requests."""
        self.services.queue.sweep()
        while self.services.queue.take():
            pass

    def tenant(self, slug: str = "acme") -> Client:
        """A client of a new account, in a project with an agent, for a caller."""
        client = self.account()
        project = client.ok("POST", "/v1/projects", {"name": slug.title(), "slug": slug})
        agent = client.ok("POST", f"/v1/projects/{project['id']}/agents", {"name": "Returns", "agentType": "voice"})
        self._clients.append(client.with_(project=project["id"], agent=agent["id"], user="0xab12"))
        return self._clients[-1]


@contextmanager
def running(database_url: str, folder: Path, **settings: Any) -> Iterator[RunningCloud]:
    """Serve for as long as the block lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    told = CloudSettings(database_url=database_url, blob_url=(folder / "blobs").as_uri(), **settings)
    with opened(told) as services, _listening() as listening:
        config = uvicorn.Config(create_app(services), log_config=None, access_log=False, ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            eventually(lambda: server.started, 60)
            yield RunningCloud(services, f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(10)


def _listening() -> socket.socket:
    # With its protocol named: only then asyncio sends an answer's head and body without waiting in between, as it does
    # on the sockets that it opens itself.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    return listening


def turn(event_id: str, session_id: str = "call-1", seq: int = 2, said: str = "My parcel is late.", **more: Any) -> Any:
    """A turn as a runtime sends it."""
    payload = {"turnId": f"t-{seq}", "userText": said, "assistantText": "", "toolCalls": [], "metadata": {}}
    return _event("turn", event_id, session_id, seq, payload, more)


def session_start(event_id: str, session_id: str = "call-1", seq: int = 1, name: str = "Ana", **more: Any) -> Any:
    """The start of a session."""
    payload = {"user": {"name": name, "metadata": {"tenant": "acme"}}, "metadata": {"line": "returns"}}
    return _event("session_start", event_id, session_id, seq, payload, more)


def session_end(event_id: str, session_id: str = "call-1", seq: int = 9, **more: Any) -> Any:
    """The end of a session."""
    return _event("session_end", event_id, session_id, seq, {"reason": "hangup"}, more)


def _event(type_: str, event_id: str, session_id: str, seq: int, payload: Any, more: Any) -> Any:
    event = {"eventId": event_id, "type": type_, "sessionId": session_id, "seq": seq, "occurredAt": DAY}
    return {**event, "payload": payload, **more}
