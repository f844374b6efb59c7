"""Real ``voice-runtime`` processes for tests."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import urllib3

from support.waiting import eventually

PROJECT, USER = "proj_test", "caller_42"

# Timeout of searches and other requests whose duration does not matter, so that a loaded machine can finish them. Just
# below the timeout of `RunningRuntime.http`.
PATIENT_MS = 9_000


class RawReply(NamedTuple):
    """A reply as it was read from a socket; the names in ``headers`` are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error in the envelope, which must have exactly the documented shape."""
        envelope = json.loads(self.body)
        assert list(envelope) == ["error"], envelope
        error = envelope["error"]
        assert {name: type(value) for name, value in error.items()} == {"code": str, "message": str, "details": dict}
        assert error["message"], "the message is empty"
        return dict(error)


class SocketQueues(NamedTuple):
    """How many bytes wait in each queue of a connection: sent by this side, unread and unsent on the other side, and
    received but unread on this side."""

    sent: int
    unread: int
    unsent: int
    received: int


class RawConnection:
    """A connection on which a test controls every byte."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._buffer = b""

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(b"".join(parts))

    def is_closed_by_peer(self) -> bool:
        """Wait for more bytes, and return whether the other side closed the connection instead."""
        try:
            more = self.socket.recv(1 << 16)
        except ConnectionError:
            more = b""
        self._buffer += more
        return not more

    def count_unread_bytes(self) -> int:
        """Count the bytes that were sent but not yet read by the process on the other side."""
        queues = self.read_queues()
        return queues.sent + queues.unread

    def read_queues(self) -> SocketQueues:
        """Return the sizes of the connection's queues; bytes in transit still count in their sender's queue."""
        sent, received = (
            int.from_bytes(fcntl.ioctl(self.socket, queue, bytes(4)), sys.byteorder)
            for queue in (termios.TIOCOUTQ, termios.FIONREAD)
        )
        ports = [self.socket.getpeername()[1], self.socket.getsockname()[1]]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if [int(field.split(":")[1], 16) for field in fields[1:3]] == ports:
                unsent, unread = (int(queue, 16) for queue in fields[4].split(":"))
                return SocketQueues(sent, unread, unsent, received)
        raise AssertionError("the other side has closed the connection")

    def read_reply(self, method: str = "GET") -> RawReply:
        """Read one reply to a request with this method; a reply to HEAD has no body."""
        while b"\r\n\r\n" not in self._buffer:
            assert not self.is_closed_by_peer(), f"closed after {self._buffer!r}"
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        self._buffer = rest
        while len(self._buffer) < length:
            assert not self.is_closed_by_peer(), "closed in the middle of a body"
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return RawReply(int(status_line.split()[1]), headers, body)


def freeze(pid: int | None) -> int:
    """Stop a process until it receives SIGCONT, and return its process id."""
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return pid


class RunningRuntime:
    """A ``voice-runtime`` process on a free port, with a plain HTTP client."""

    def __init__(self, storage_root: Path, **variables: str) -> None:
        self.storage_root = storage_root
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MEMOAIR_")}
        environ |= {
            "MEMOAIR_RUNTIME_BIND_ADDR": "127.0.0.1:0",
            "MEMOAIR_RUNTIME_PROJECT_ID": PROJECT,
            "MEMOAIR_RUNTIME_USER_ID": USER,
            "MEMOAIR_RUNTIME_STORAGE_ROOT": str(storage_root),
        }
        environ |= {f"MEMOAIR_RUNTIME_{name}": value for name, value in variables.items()}
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "memoair_runtime"],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._output,
        )
        assert self.process.stdout is not None
        listening = self.process.stdout.readline()
        assert listening, self.output()
        self.port = int(json.loads(listening)["port"])
        self.http = urllib3.HTTPConnectionPool("127.0.0.1", self.port, maxsize=4, timeout=10, retries=False)

    def output(self) -> str:
        """Return what the process has written to standard error."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request to /v1/runtime/``path`` and return the status and the parsed body."""
        response = self.http.request(method, f"/v1/runtime/{path}", body=body, headers=headers)
        return response.status, json.loads(response.data)

    @contextmanager
    def connect(self, timeout_s: float = 10.0) -> Iterator[RawConnection]:
        """Open a new connection."""
        with closing(RawConnection(self.port, timeout_s)) as connection:
            yield connection

    @contextmanager
    def reconnecting_client(self) -> Iterator[Callable[[bytes], RawReply]]:
        """Yield a function that sends requests over one connection, and over a new one after it was closed.

        On a busy machine a search may be answered by another thread, which closes its connection.
        """
        with ExitStack() as stack:
            connections: list[RawConnection] = []

            def ask(request: bytes) -> RawReply:
                if not connections:
                    connections.append(stack.enter_context(self.connect()))
                connections[-1].send(request)
                reply = connections[-1].read_reply()
                if reply.headers["connection"] == "close":
                    connections.pop().close()
                return reply

            yield ask

    def exchange(self, *parts: bytes) -> RawReply:
        """Send bytes over a new connection and return the first reply."""
        with self.connect() as connection:
            connection.send(*parts)
            return connection.read_reply()

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        """POST a JSON body; return the status and the parsed reply."""
        return self.request("POST", path, json.dumps(body).encode())

    def health(self) -> Any:
        """Return the reply of the health endpoint."""
        return self.request("GET", "health")[1]

    def start(self, session_id: str, name: str = "", **metadata: Any) -> Any:
        """Start a session and return the reply, which must be a 200."""
        metadata["user"] = {"id": USER, **({"name": name} if name else {}), **metadata.pop("user", {})}
        status, body = self.post(
            "session/start", sessionId=session_id, workspaceId=PROJECT, userId=USER, metadata=metadata
        )
        assert status == 200, body
        return body

    def save(self, session_id: str, turn_id: str, user: str, agent: str = "", **metadata: Any) -> str:
        """Save a turn and return its event id; the reply must be a 200."""
        status, body = self.post(
            "turn/after",
            sessionId=session_id,
            turnId=turn_id,
            userText=user,
            assistantText=agent,
            toolCalls=[],
            metadata=metadata,
        )
        assert status == 200, body
        return str(body["localEventId"])

    def search(self, session_id: str, query: str, **options: Any) -> Any:
        """Search with a long timeout and return the reply, which must be a 200."""
        options = {"timeoutMs": PATIENT_MS, **options}
        status, body = self.post("search_memory", sessionId=session_id, query=query, **options)
        assert status == 200, body
        return body

    def search_in_time(self, session_id: str, query: str, timeout_ms: float, tries: int = 5, **options: Any) -> Any:
        """Search until a reply within ``timeout_ms`` is not degraded, and return that reply or the last one.

        Other load on the machine degrades some of the replies; a defect degrades all of them.
        """
        for _ in range(tries):
            found = self.search(session_id, query, timeoutMs=timeout_ms, **options)
            if not found["trace"]["degraded"]:
                break
        return found

    def wait_until_loaded(self) -> None:
        """Wait until no lane is loading."""
        eventually(lambda: "loading" not in self.health()["lanes"].values())

    def log_lines(self, session_id: str) -> list[dict[str, Any]]:
        """Return the parsed lines of a session's log."""
        path = Path(self.start(session_id)["paths"]["sessionJsonl"])
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self.process.kill()
        self.process.wait()

    def terminate(self, within_s: float = 30.0) -> int:
        """Send SIGTERM and return the exit code. The time that this takes has its own tests."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def close(self) -> None:
        """End the process in whatever state the test left it, and close its files and connections."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # a test may have frozen it
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._output):
            if stream is not None:
                stream.close()
