"""A cloud for tests of its devices: a real server in a thread, which keeps what it is sent and tells what it has.

It behaves as the wire says until a test has it behave otherwise.
"""

import gzip
import hashlib
import json
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from support.runtimes import PROJECT, USER
from support.waiting import eventually

KEY = "memoair_pk_of_the_scripted_cloud"
API = "/v1/voice-sdk"

# Takes the handler of a request whose body was read, and answers it or not; returns whether it did.
Behaviour = Callable[["_Handler"], bool]


class Request(NamedTuple):
    """What came: ``headers`` by lower-case name."""

    method: str
    path: str
    user: str | None
    headers: dict[str, str]
    body: Any


class _Caller:
    """What is known of one caller. Each change has a version."""

    def __init__(self) -> None:
        self.version = 0
        self.events: dict[str, tuple[int, dict[str, Any]]] = {}
        self.facts: dict[str, tuple[int, dict[str, Any] | None]] = {}
        self.profile: dict[str, Any] = {"summary": "", "attributes": {}, "name": None, "metadata": {}}
        self.profile_version = 0
        self.forgotten_at: str | None = None


class ScriptedCloud:
    """One project's cloud. Behaves as `behave` says, else well. Tests change it from their own thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.callers: defaultdict[str, _Caller] = defaultdict(_Caller)
        self.documents: dict[tuple[str, str], tuple[int, dict[str, Any] | None]] = {}
        self.org_version = 0
        self.file: tuple[int, bytes] | None = None
        self.forgotten: list[dict[str, str]] = []
        self.requests: list[Request] = []
        self.page = 1_000  # how much a projection tells at once
        self.closed = threading.Event()
        self._behaviours: dict[str, deque[Behaviour]] = {}
        self._always: dict[str, Behaviour] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.cloud = self
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """What a runtime is started with to use this cloud; it pulls by itself only once."""
        return {"CLOUD_BASE_URL": self.url, "API_KEY": KEY, "PULL_INTERVAL_S": "1000"}

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()
        self._thread.join()

    # What it does

    def behave(self, path: str, *behaviours: Behaviour, always: Behaviour | None = None) -> None:
        """Let the next requests to a path, or to all (``*``), be answered so; and every later one ``always`` so."""
        with self.lock:
            self._behaviours[path] = deque(behaviours)
            self._always.pop(path, None)
            if always is not None:
                self._always[path] = always

    def behave_well(self) -> None:
        with self.lock:
            self._behaviours.clear()
            self._always.clear()

    def behaviour(self, path: str) -> Behaviour | None:
        with self.lock:
            for key in (path, "*"):
                if self._behaviours.get(key):
                    return self._behaviours[key].popleft()
                if key in self._always:
                    return self._always[key]
        return None

    # What was asked

    def asked(self, path: str) -> list[Request]:
        with self.lock:
            return [each for each in self.requests if each.path.partition("?")[0] == f"{API}/{path}"]

    def pushed(self, user: str = USER) -> list[dict[str, Any]]:
        """The events that are kept of a caller, in the order in which they came."""
        with self.lock:
            return [event for _, event in self.callers[user].events.values()]

    def turns(self, user: str = USER) -> list[str]:
        """What the caller said, as far as it is known here."""
        return [event["payload"]["userText"] for event in self.pushed(user) if event["type"] == "turn"]

    def waits_for_turns(self, *said: str, user: str = USER) -> None:
        eventually(lambda: sorted(self.turns(user)) == sorted(said))

    # What it is told by others

    def tell(self, event: dict[str, Any], user: str = USER) -> None:
        """Another machine sends an event."""
        with self.lock:
            caller = self.callers[user]
            caller.version += 1
            caller.events[event["eventId"]] = caller.version, event

    def learn(self, fact_id: str, text: str, user: str = USER, **more: Any) -> None:
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
            caller = self.callers[user]
            caller.version += 1
            caller.facts[fact_id] = caller.version, {**fact, **more}

    def unlearn(self, fact_id: str, user: str = USER) -> None:
        with self.lock:
            caller = self.callers[user]
            caller.version += 1
            caller.facts[fact_id] = caller.version, None

    def describe(self, user: str = USER, **profile: Any) -> None:
        with self.lock:
            caller = self.callers[user]
            caller.profile_version += 1
            caller.profile = {**caller.profile, **profile}

    def forget(self, user: str = USER) -> str:
        """Forget a caller, as DELETE does; return the moment."""
        now = datetime.now(timezone.utc).isoformat()
        digest = hashlib.sha256(f"{PROJECT}\0{user}".encode()).hexdigest()
        with self.lock:
            caller = self.callers[user]
            caller.events.clear()
            caller.facts.clear()
            caller.profile = {"summary": "", "attributes": {}, "name": None, "metadata": {}}
            caller.version += 1
            caller.profile_version += 1
            caller.forgotten_at = now
            self.forgotten.append({"digest": digest, "forgottenAt": now})
        return now

    def put(self, *documents: tuple[str, str], index: str = "faq", **metadata: Any) -> None:
        """Put documents of the organisation, id and text each."""
        with self.lock:
            for document_id, text in documents:
                self.org_version += 1
                told = {"indexName": index, "id": document_id, "text": text, "metadata": metadata}
                self.documents[index, document_id] = self.org_version, told

    def drop(self, document_id: str, index: str = "faq") -> None:
        with self.lock:
            self.org_version += 1
            self.documents[index, document_id] = self.org_version, None

    def restore(self) -> None:
        """Be put back to where nothing was known yet."""
        with self.lock:
            self.callers.clear()
            self.documents.clear()
            self.org_version, self.file = 0, None

    # How it answers

    def answer(self, request: Request) -> tuple[int, Any, dict[str, str]]:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return 401, fault("cloud.unauthorized"), {}
        path, _, query = request.path.removeprefix(f"{API}/").partition("?")
        asked = parse_qs(query).get("since")
        since = int(asked[0]) if asked else None
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
                told = request.body
                for each in told["documents"]:
                    self.put((each["id"], each["text"]), index=told["name"], **each.get("metadata", {}))
                count = len(told["documents"])
                return 200, {"indexName": told["name"], "chunkCount": count, "version": self.org_version}, {}
            if path.startswith("index/") and request.method == "DELETE":
                name, _, document_id = path.removeprefix("index/").partition("/documents/")
                for index, each in list(self.documents):
                    if index == name and document_id in ("", each):
                        self.drop(each, index)
                return 200, {"indexName": name}, {}
            if path.startswith("users/"):
                return self._of_user(request.method, *path.removeprefix("users/").partition("/memories")[::2], request)
            if path == "projections/forgotten":
                upto = min(len(self.forgotten), (since or 0) + self.page)
                more = upto < len(self.forgotten)
                return 200, {"version": upto, "more": more, "users": self.forgotten[since or 0 : upto]}, {}
            file = self._file()
            if self.file is not None and file is not None and path == f"projections/org/file/{file['sha256']}":
                return 200, self.file[1], {}
        return 404, fault("cloud.not_found"), {}

    def _of_user(self, method: str, user: str, rest: str, request: Request) -> tuple[int, Any, dict[str, str]]:
        user, memory_id = unquote(user), unquote(rest.strip("/").removesuffix("/history"))
        caller = self.callers[user]
        if not rest and method == "DELETE" and "/memories" not in request.path:
            removed = {"sessions": 1, "events": len(caller.events), "memories": len(caller.facts)}
            return 200, {"userId": user, "forgottenAt": self.forget(user), "removed": removed}, {}
        known = {fact_id: fact for fact_id, (_, fact) in caller.facts.items() if fact is not None}
        if not memory_id:
            asked = parse_qs(urlsplit(request.path).query)
            begin = int(asked.get("cursor", ["0"])[0])
            page = [{"memoryId": fact_id, "text": fact["text"]} for fact_id, fact in known.items()][begin : begin + 2]
            return 200, {"memories": page, "next": str(begin + 2) if begin + 2 < len(known) else None}, {}
        if memory_id not in known:
            return 404, fault("cloud.not_found"), {}
        if rest.endswith("/history"):
            return 200, {"changes": [{"action": "learned", "text": known[memory_id]["text"]}]}, {}
        if method == "PATCH":
            self.learn(memory_id, request.body["text"], user)
            return 200, {"memoryId": memory_id, **request.body}, {}
        self.unlearn(memory_id, user)
        return 200, {"memoryId": memory_id, "deletedAt": "2026-03-02T09:30:00Z"}, {}

    def _bootstrap(self, request: Request) -> tuple[int, Any, dict[str, str]]:
        caller = self.callers[request.user] if request.user else None
        told = {
            "profileVersion": caller.profile_version if caller else None,
            "permanentManifestVersion": caller.version if caller else None,
            "orgManifestVersion": self.org_version,
            "forgottenVersion": len(self.forgotten),
            "forgottenAt": caller.forgotten_at if caller else None,
            "orgFile": self._file(),
            "budgets": {},
        }
        token = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
        etag = f'"{token}"'
        if request.headers.get("if-none-match") == etag:
            return 304, None, {"ETag": etag}
        return 200, {**told, "syncToken": token}, {"ETag": etag}

    def _file(self) -> dict[str, Any] | None:
        if self.file is None:
            return None
        version, content = self.file
        return {"version": version, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}

    def _ingest(self, request: Request) -> dict[str, Any]:
        caller = self.callers[request.user or ""]
        receipt: dict[str, list[Any]] = {"accepted": [], "duplicate": [], "rejected": []}
        for event in request.body["events"]:
            event_id, at = event["eventId"], datetime.fromisoformat(event["occurredAt"].replace("Z", "+00:00"))
            if caller.forgotten_at is not None and at < datetime.fromisoformat(caller.forgotten_at):
                refused = {"eventId": event_id, "code": "cloud.forgotten", "message": "its caller was forgotten"}
                receipt["rejected"].append(refused)
            elif event_id in caller.events:
                receipt["duplicate"].append(event_id)
            else:
                self.tell(event, request.user or "")
                receipt["accepted"].append(event_id)
        return receipt

    def _profile(self, user: str, since: int | None) -> tuple[int, Any, dict[str, str]]:
        caller = self.callers[user]
        if since == caller.profile_version:
            return 304, None, {}
        told = caller.profile
        hashed = [told["summary"], told["attributes"], told["name"], told["metadata"]]
        more = {"mode": "snapshot", "version": caller.profile_version, "contentHash": content_hash(hashed)}
        return 200, {**told, **more, "updatedAt": None}, {}

    def _permanent(self, user: str, since: int | None) -> tuple[int, Any, dict[str, str]]:
        caller = self.callers[user]
        if since == caller.version:
            return 304, None, {}
        is_delta = since is not None and since < caller.version
        changes = sorted(
            [(version, "event", event) for version, event in caller.events.values()]
            + [(version, fact_id, fact) for fact_id, (version, fact) in caller.facts.items()],
            key=lambda each: each[0],
        )
        changes = [each for each in changes if each[0] > (since or 0) or not is_delta]
        told, rest = changes[: self.page], changes[self.page :]
        events = [each for _, what, each in told if what == "event" and each]
        facts = [each for _, what, each in told if what != "event" and each]
        removed = [what for _, what, each in told if each is None] if is_delta else []
        return (
            200,
            {
                "mode": "delta" if is_delta else "snapshot",
                "version": told[-1][0] if rest else caller.version,
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
            [(version, key, document) for key, (version, document) in self.documents.items()], key=lambda each: each[0]
        )
        changes = [each for each in changes if (each[0] > (since or 0) if is_delta else each[2] is not None)]
        told, rest = changes[: self.page], changes[self.page :]
        documents = [document for _, _, document in told if document is not None]
        removed = [{"indexName": key[0], "id": key[1]} for _, key, document in told if document is None]
        hashed = [
            [[each["indexName"], each["id"], each["text"], each["metadata"]] for each in documents],
            [[each["indexName"], each["id"]] for each in removed],
        ]
        return (
            200,
            {
                "mode": "delta" if is_delta else "snapshot",
                "version": told[-1][0] if rest else self.org_version,
                "more": bool(rest),
                "contentHash": content_hash(hashed),
                "documents": documents,
                "removed": removed,
                "file": self._file(),
            },
            {},
        )


def content_hash(told: Any) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def fault(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": "it is scripted", "details": {}}}


# Behaviours


def answers(status: int, body: Any = None, **headers: str) -> Behaviour:
    """Answer so, and keep nothing."""

    def behave(handler: "_Handler") -> bool:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.send(status, fault("cloud.internal") if body is None else body, told)
        return True

    return behave


def hangs(handler: "_Handler") -> bool:
    """Take the request and say nothing."""
    handler.server.cloud.closed.wait()
    handler.close_connection = True
    return True


def cuts_off(handler: "_Handler") -> bool:
    """Take the request and hang up."""
    handler.close_connection = True
    return True


def answers_half(handler: "_Handler") -> bool:
    """Do what is asked, and hang up in the middle of the answer."""
    content = json.dumps(handler.server.cloud.answer(handler.request_made)[1]).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    handler.wfile.write(head.encode() + content[: len(content) // 2])
    handler.close_connection = True
    return True


def keeps_and_cuts_off(handler: "_Handler") -> bool:
    """Do what is asked, and hang up before the answer."""
    handler.server.cloud.answer(handler.request_made)
    handler.close_connection = True
    return True


def changes_answer(change: Callable[[dict[str, Any]], object]) -> Behaviour:
    """Answer as usual, but for what the test changes in the body."""

    def behave(handler: "_Handler") -> bool:
        status, body, headers = handler.server.cloud.answer(handler.request_made)
        if status == 200:
            body = json.loads(json.dumps(body))  # it may hold what the cloud keeps
            change(body)
        handler.send(status, body, headers)
        return True

    return behave


def dribbles(handler: "_Handler") -> bool:
    """Send an answer a byte at a time, without end."""
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not handler.server.cloud.closed.wait(0.02):
        handler.wfile.write(b" ")
    return True


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    cloud: ScriptedCloud

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def close_connections(self) -> None:
        for each in self._connections:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is none of our troubles."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    request_made: Request

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

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

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        headers = {name.lower(): value for name, value in self.headers.items()}
        user = headers.get("x-user-id")
        user = user.encode("latin-1").decode() if user is not None else None
        self.request_made = Request(self.command, self.path, user, headers, json.loads(content) if content else None)
        cloud = self.server.cloud
        with cloud.lock:
            cloud.requests.append(self.request_made)
        behave = cloud.behaviour(urlsplit(self.path).path.removeprefix(f"{API}/"))
        with suppress(ConnectionError):
            if behave is None or not behave(self):
                self.send(*cloud.answer(self.request_made))


@contextmanager
def scripted_cloud() -> Iterator[ScriptedCloud]:
    """A cloud for as long as the block lasts."""
    cloud = ScriptedCloud()
    try:
        yield cloud
    finally:
        cloud.close()


def elsewhere(
    event_id: str, said: str, session_id: str = "elsewhere", seq: int = 2, answer: str = ""
) -> dict[str, Any]:
    """A turn as another machine logged it."""
    payload = {"turnId": event_id, "userText": said, "assistantText": answer, "toolCalls": [], "metadata": {}}
    at = datetime.fromtimestamp(time.time() - 86_400, timezone.utc).isoformat()
    return {
        "eventId": event_id,
        "type": "turn",
        "sessionId": session_id,
        "seq": seq,
        "occurredAt": at,
        "payload": payload,
    }
