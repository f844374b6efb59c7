"""A cloud for tests of its devices: a real server in a thread, which keeps events and serves projections.

It behaves as the protocol says, until a test makes it behave otherwise.
"""

import copy
import gzip
import hashlib
import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from support.loopback_server import LoopbackHandler, LoopbackServer
from support.runtimes import PROJECT, USER
from support.waiting import eventually

KEY = "memoair_pk_of_the_scripted_cloud"
API = "/v1/voice-sdk"

_BACKED_UP = ("users", "documents", "org_version", "erasures")

# Receives the handler of a request whose body has been read; returns whether it has handled the request.
Behavior = Callable[["_Handler"], bool]


class Request(NamedTuple):
    """A request that was received; ``headers`` by lower-case name."""

    method: str
    path: str
    user: str | None
    headers: dict[str, str]
    body: Any


class _UserData:
    """The data of one user. Each change has a version."""

    def __init__(self) -> None:
        self.version = 0
        self.events: dict[str, tuple[int, dict[str, Any]]] = {}
        self.facts: dict[str, tuple[int, dict[str, Any] | None]] = {}
        self.profile: dict[str, Any] = {"summary": "", "attributes": {}, "name": None, "metadata": {}}
        self.profile_version = 0
        self.forgotten_at: str | None = None


class _Handler(LoopbackHandler):
    wbufsize = -1
    received: Request

    @property
    def cloud(self) -> "ScriptedCloud":
        assert isinstance(self.server.owner, ScriptedCloud)
        return self.server.owner

    def send(self, status: int, body: Any, headers: dict[str, str]) -> None:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if status != 304:
            self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()


class ScriptedCloud(LoopbackServer):
    """The cloud of one project. Behaves well unless `behave` says otherwise. Tests change it from their own thread."""

    handler_type = _Handler

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users: defaultdict[str, _UserData] = defaultdict(_UserData)
        self.documents: dict[tuple[str, str], tuple[int, dict[str, Any] | None]] = {}
        self.org_version = 0
        self.org_file: tuple[int, bytes] | None = None
        self.erasures: list[dict[str, str]] = []
        self.epoch: str | None = None  # a cloud of a version without epochs has none
        self.requests: list[Request] = []
        self.keeps_traces = False  # as a cloud that is older than recall traces
        self.trace_mode: str | None = None
        self.traces: list[dict[str, Any]] = []
        self.page_size = 1_000  # items in one response of a projection
        self._behaviors: dict[str, deque[Behavior]] = {}
        self._default_behaviors: dict[str, Behavior] = {}
        super().__init__()

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a runtime that uses this cloud; it pulls only once by itself."""
        return {"CLOUD_BASE_URL": self.url, "API_KEY": KEY, "PULL_INTERVAL_S": "1000"}

    # Behavior

    def behave(self, path: str, *behaviors: Behavior, always: Behavior | None = None) -> None:
        """Answer the next requests to a path, or to any (``*``), with ``behaviors``, and later ones with ``always``."""
        with self.lock:
            self._behaviors[path] = deque(behaviors)
            self._default_behaviors.pop(path, None)
            if always is not None:
                self._default_behaviors[path] = always

    def behave_well(self) -> None:
        with self.lock:
            self._behaviors.clear()
            self._default_behaviors.clear()

    def next_behavior(self, path: str) -> Behavior | None:
        with self.lock:
            for key in (path, "*"):
                if self._behaviors.get(key):
                    return self._behaviors[key].popleft()
                if key in self._default_behaviors:
                    return self._default_behaviors[key]
        return None

    # Received requests

    def requests_to(self, path: str) -> list[Request]:
        with self.lock:
            return [request for request in self.requests if request.path.partition("?")[0] == f"{API}/{path}"]

    def accepted_events(self, user: str = USER) -> list[dict[str, Any]]:
        """Return the events of a user, in the order in which they arrived."""
        with self.lock:
            return [event for _, event in self.users[user].events.values()]

    def turn_texts(self, user: str = USER) -> list[str]:
        """Return what the user said in the accepted turns."""
        return [event["payload"]["userText"] for event in self.accepted_events(user) if event["type"] == "turn"]

    def wait_for_turns(self, *texts: str, user: str = USER) -> None:
        eventually(lambda: sorted(self.turn_texts(user)) == sorted(texts))

    # Data

    def add_event(self, event: dict[str, Any], user: str = USER) -> None:
        """Add an event, as if another machine had sent it."""
        with self.lock:
            data = self.users[user]
            data.version += 1
            data.events[event["eventId"]] = data.version, event

    def add_fact(self, fact_id: str, text: str, user: str = USER, **more: Any) -> None:
        fact = {
            "id": fact_id,
            "kind": "preference",
            "text": text,
            "subject": "caller",
            "attribute": "liking",
            "value": text,
            "eventId": "e-1",
            "sessionId": "elsewhere",
            "saidAt": "2026-03-02T09:30:00Z",
            "holdsFrom": None,
            "holdsUntil": None,
        }
        with self.lock:
            data = self.users[user]
            data.version += 1
            data.facts[fact_id] = data.version, {**fact, **more}

    def remove_fact(self, fact_id: str, user: str = USER) -> None:
        with self.lock:
            data = self.users[user]
            data.version += 1
            data.facts[fact_id] = data.version, None

    def update_profile(self, user: str = USER, **profile: Any) -> None:
        with self.lock:
            data = self.users[user]
            data.profile_version += 1
            data.profile = {**data.profile, **profile}

    def erase_user(self, user: str = USER) -> str:
        """Erase a user, as DELETE does; return the time."""
        now = datetime.now(timezone.utc).isoformat()
        digest = hashlib.sha256(f"{PROJECT}\0{user}".encode()).hexdigest()
        with self.lock:
            data = self.users[user]
            data.events.clear()
            data.facts.clear()
            data.profile = {"summary": "", "attributes": {}, "name": None, "metadata": {}}
            data.version += 1
            data.profile_version += 1
            data.forgotten_at = now
            self.erasures.append({"digest": digest, "forgottenAt": now})
        return now

    def back_up(self) -> dict[str, Any]:
        """Return a backup of all data."""
        with self.lock:
            return copy.deepcopy({name: getattr(self, name) for name in _BACKED_UP})

    def restore(self, backup: dict[str, Any], epoch: str | None) -> None:
        """Restore a backup, and begin an epoch."""
        with self.lock:
            for name, data in copy.deepcopy(backup).items():
                setattr(self, name, data)
            self.epoch = epoch

    def put_documents(self, *documents: tuple[str, str], index: str = "faq", **metadata: Any) -> None:
        """Add documents of the project, given as id and text."""
        with self.lock:
            for document_id, text in documents:
                self.org_version += 1
                document = {"indexName": index, "id": document_id, "text": text, "metadata": metadata}
                self.documents[index, document_id] = self.org_version, document

    def delete_document(self, document_id: str, index: str = "faq") -> None:
        with self.lock:
            self.org_version += 1
            self.documents[index, document_id] = self.org_version, None

    def lose_all_data(self) -> None:
        """Return to the state at the beginning, as if restored from an old backup."""
        with self.lock:
            self.users.clear()
            self.documents.clear()
            self.org_version, self.org_file = 0, None

    # Responses

    def answer(self, handler: _Handler) -> None:
        """Record a request and respond as the protocol or the test says."""
        content, headers = handler.body, {name.lower(): value for name, value in handler.headers.items()}
        if headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        user = headers.get("x-user-id")
        user = user.encode("latin-1").decode() if user is not None else None
        body = json.loads(content) if content else None
        handler.received = Request(handler.command, handler.path, user, headers, body)
        with self.lock:
            self.requests.append(handler.received)
        behavior = self.next_behavior(urlsplit(handler.path).path.removeprefix(f"{API}/"))
        if behavior is None or not behavior(handler):
            handler.send(*self.respond(handler.received))

    def respond(self, request: Request) -> tuple[int, Any, dict[str, str]]:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return 401, error_body("cloud.unauthorized"), {}
        path, _, query = request.path.removeprefix(f"{API}/").partition("?")
        query_since = parse_qs(query).get("since")
        since = int(query_since[0]) if query_since else None
        with self.lock:
            if path == "bootstrap":
                return self._bootstrap(request)
            if path == "events":
                return 200, self._ingest(request), {}
            if path == "projections/profile":
                return self._profile(request.user or "", since)
            if path == "projections/permanent":
                return self._permanent(request.user or "", since)
            if path == "projections/org":
                return self._org(since)
            if path == "index/create":
                body = request.body
                for each in body["documents"]:
                    self.put_documents((each["id"], each["text"]), index=body["name"], **each.get("metadata", {}))
                count = len(body["documents"])
                return 200, {"indexName": body["name"], "chunkCount": count, "version": self.org_version}, {}
            if path.startswith("index/") and request.method == "DELETE":
                name, _, document_id = path.removeprefix("index/").partition("/documents/")
                for index, each in list(self.documents):
                    if index == name and document_id in ("", each):
                        self.delete_document(each, index)
                return 200, {"indexName": name}, {}
            if path.startswith("users/"):
                return self._user_request(
                    request.method, *path.removeprefix("users/").partition("/memories")[::2], request
                )
            if path == "erasures" and self.epoch is not None:
                for erasure in request.body["users"]:
                    self._replay_erasure(erasure)
                return 200, {"recorded": len(request.body["users"])}, {}
            if path == "recall-traces" and self.keeps_traces:
                known = {trace["traceId"] for trace in self.traces}
                new = [trace for trace in request.body["traces"] if trace["traceId"] not in known]
                self.traces += new
                ids = [trace["traceId"] for trace in new]
                duplicate = [trace["traceId"] for trace in request.body["traces"] if trace not in new]
                return 200, {"accepted": ids, "duplicate": duplicate, "rejected": []}, {}
            if path == "projections/forgotten":
                end = min(len(self.erasures), (since or 0) + self.page_size)
                more = end < len(self.erasures)
                return 200, {"version": end, "more": more, "users": self.erasures[since or 0 : end]}, {}
            file = self._org_file_info()
            if self.org_file is not None and file is not None and path == f"projections/org/file/{file['sha256']}":
                return 200, self.org_file[1], {}
        return 404, error_body("cloud.not_found"), {}

    def _replay_erasure(self, erasure: dict[str, str]) -> None:
        for user in list(self.users):
            if hashlib.sha256(f"{PROJECT}\0{user}".encode()).hexdigest() == erasure["digest"]:
                self.erase_user(user)
                self.users[user].forgotten_at = erasure["forgottenAt"]
                self.erasures.pop()
        self.erasures.append(erasure)

    def _user_request(self, method: str, user: str, rest: str, request: Request) -> tuple[int, Any, dict[str, str]]:
        user, memory_id = unquote(user), unquote(rest.strip("/").removesuffix("/history"))
        data = self.users[user]
        if not rest and method == "DELETE" and "/memories" not in request.path:
            removed = {"sessions": 1, "events": len(data.events), "memories": len(data.facts)}
            return 200, {"userId": user, "forgottenAt": self.erase_user(user), "removed": removed}, {}
        facts = {fact_id: fact for fact_id, (_, fact) in data.facts.items() if fact is not None}
        if not memory_id:
            query = parse_qs(urlsplit(request.path).query)
            begin = int(query.get("cursor", ["0"])[0])
            page = [{"memoryId": fact_id, "text": fact["text"]} for fact_id, fact in facts.items()][begin : begin + 2]
            return 200, {"memories": page, "next": str(begin + 2) if begin + 2 < len(facts) else None}, {}
        if memory_id not in facts:
            return 404, error_body("cloud.not_found"), {}
        if rest.endswith("/history"):
            return 200, {"changes": [{"action": "learned", "text": facts[memory_id]["text"]}]}, {}
        if method == "PATCH":
            self.add_fact(memory_id, request.body["text"], user)
            return 200, {"memoryId": memory_id, **request.body}, {}
        self.remove_fact(memory_id, user)
        return 200, {"memoryId": memory_id, "deletedAt": "2026-03-02T09:30:00Z"}, {}

    def _bootstrap(self, request: Request) -> tuple[int, Any, dict[str, str]]:
        data = self.users[request.user] if request.user else None
        versions = {
            "profileVersion": data.profile_version if data else None,
            "permanentManifestVersion": data.version if data else None,
            "orgManifestVersion": self.org_version,
            "forgottenVersion": len(self.erasures),
            "forgottenAt": data.forgotten_at if data else None,
            "orgFile": self._org_file_info(),
            "budgets": {},
            **({} if self.epoch is None else {"epoch": self.epoch}),
            **({} if self.trace_mode is None else {"recallTraces": self.trace_mode}),
        }
        token = hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:12]
        etag = f'"{token}"'
        if request.headers.get("if-none-match") == etag:
            return 304, None, {"ETag": etag}
        return 200, {**versions, "syncToken": token}, {"ETag": etag}

    def _org_file_info(self) -> dict[str, Any] | None:
        if self.org_file is None:
            return None
        version, content = self.org_file
        return {"version": version, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}

    def _ingest(self, request: Request) -> dict[str, Any]:
        data = self.users[request.user or ""]
        receipt: dict[str, list[Any]] = {"accepted": [], "duplicate": [], "rejected": []}
        for event in request.body["events"]:
            event_id, at = event["eventId"], datetime.fromisoformat(event["occurredAt"].replace("Z", "+00:00"))
            if data.forgotten_at is not None and at < datetime.fromisoformat(data.forgotten_at):
                rejection = {"eventId": event_id, "code": "cloud.forgotten", "message": "the user was erased"}
                receipt["rejected"].append(rejection)
            elif event_id in data.events:
                receipt["duplicate"].append(event_id)
            else:
                self.add_event(event, request.user or "")
                receipt["accepted"].append(event_id)
        return receipt

    def _profile(self, user: str, since: int | None) -> tuple[int, Any, dict[str, str]]:
        data = self.users[user]
        if since == data.profile_version:
            return 304, None, {}
        profile = data.profile
        hashed = [profile["summary"], profile["attributes"], profile["name"], profile["metadata"]]
        more = {"mode": "snapshot", "version": data.profile_version, "contentHash": content_hash(hashed)}
        return 200, {**profile, **more, "updatedAt": None}, {}

    def _permanent(self, user: str, since: int | None) -> tuple[int, Any, dict[str, str]]:
        data = self.users[user]
        if since == data.version:
            return 304, None, {}
        is_delta = since is not None and since < data.version
        changes = sorted(
            [(version, "event", event) for version, event in data.events.values()]
            + [(version, fact_id, fact) for fact_id, (version, fact) in data.facts.items()],
            key=lambda change: change[0],
        )
        changes = [change for change in changes if change[0] > (since or 0) or not is_delta]
        page, rest = changes[: self.page_size], changes[self.page_size :]
        events = [event for _, kind, event in page if kind == "event" and event]
        facts = [fact for _, kind, fact in page if kind != "event" and fact]
        removed = [fact_id for _, fact_id, fact in page if fact is None] if is_delta else []
        return (
            200,
            {
                "mode": "delta" if is_delta else "snapshot",
                "version": page[-1][0] if rest else data.version,
                "more": bool(rest),
                "contentHash": content_hash([events, facts, removed]),
                "events": events,
                "facts": facts,
                "removed": removed,
            },
            {},
        )

    def _org(self, since: int | None) -> tuple[int, Any, dict[str, str]]:
        if since == self.org_version:
            return 304, None, {}
        is_delta = since is not None and since < self.org_version
        changes = sorted(
            [(version, key, document) for key, (version, document) in self.documents.items()],
            key=lambda change: change[0],
        )
        changes = [change for change in changes if (change[0] > (since or 0) if is_delta else change[2] is not None)]
        page, rest = changes[: self.page_size], changes[self.page_size :]
        documents = [document for _, _, document in page if document is not None]
        removed = [{"indexName": key[0], "id": key[1]} for _, key, document in page if document is None]
        hashed = [
            [[each["indexName"], each["id"], each["text"], each["metadata"]] for each in documents],
            [[key["indexName"], key["id"]] for key in removed],
        ]
        return (
            200,
            {
                "mode": "delta" if is_delta else "snapshot",
                "version": page[-1][0] if rest else self.org_version,
                "more": bool(rest),
                "contentHash": content_hash(hashed),
                "documents": documents,
                "removed": removed,
                "file": self._org_file_info(),
            },
            {},
        )


def content_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def error_body(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": "scripted", "details": {}}}


# Behaviors


def responds_with(status: int, body: Any = None, **headers: str) -> Behavior:
    """Return a behavior that sends this response and accepts nothing."""

    def behave(handler: "_Handler") -> bool:
        header_values = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.send(status, error_body("cloud.internal") if body is None else body, header_values)
        return True

    return behave


def hangs(handler: "_Handler") -> bool:
    """Receive the request and send nothing."""
    handler.server.owner.closed.wait()
    handler.close_connection = True
    return True


def closes_connection(handler: "_Handler") -> bool:
    """Receive the request and close the connection."""
    handler.close_connection = True
    return True


def sends_half(handler: "_Handler") -> bool:
    """Process the request, and close the connection in the middle of the response."""
    content = json.dumps(handler.cloud.respond(handler.received)[1]).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    handler.wfile.write(head.encode() + content[: len(content) // 2])
    handler.close_connection = True
    return True


def accepts_and_closes_connection(handler: "_Handler") -> bool:
    """Process the request, and close the connection before the response."""
    handler.cloud.respond(handler.received)
    handler.close_connection = True
    return True


def changes_response(change: Callable[[dict[str, Any]], object]) -> Behavior:
    """Return a behavior that changes the body of the normal response."""

    def behave(handler: "_Handler") -> bool:
        status, body, headers = handler.cloud.respond(handler.received)
        if status == 200:
            body = json.loads(json.dumps(body))  # a copy, because it may share data with the cloud
            change(body)
        handler.send(status, body, headers)
        return True

    return behave


def sends_slowly(handler: "_Handler") -> bool:
    """Send a response one byte at a time, without end."""
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not handler.server.owner.closed.wait(0.02):
        handler.wfile.write(b" ")
    return True


def remote_turn(
    event_id: str, user_text: str, session_id: str = "elsewhere", seq: int = 2, assistant_text: str = ""
) -> dict[str, Any]:
    """Return a turn as another machine has logged it."""
    payload = {
        "turnId": event_id,
        "userText": user_text,
        "assistantText": assistant_text,
        "toolCalls": [],
        "metadata": {},
    }
    at = datetime.fromtimestamp(time.time() - 86_400, timezone.utc).isoformat()
    return {
        "eventId": event_id,
        "type": "turn",
        "sessionId": session_id,
        "seq": seq,
        "occurredAt": at,
        "payload": payload,
    }
