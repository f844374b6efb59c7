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

# How long a search may take that is not about time, and what else is waited for: as long as a loaded machine needs.
# Just below the time after which `RunningRuntime.http` gives up.
PATIENT_MS = 9_000


class RawReply(NamedTuple):
    """A reply as it came over a socket; ``headers`` are by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error of the envelope, which must have the documented shape and nothing more."""
        envelope = json.loads(self.body)
        assert list(envelope) == ["error"], envelope
        error = envelope["error"]
        assert {name: type(value) for name, value in error.items()} == {"code": str, "message": str, "details": dict}
        assert error["message"], "an error says what is wrong"
        return dict(error)


class Queues(NamedTuple):
    """How many bytes of a connection wait where: on their way there, there unread, there unsent, and here unread."""

    sent: int
    unread: int
    unsent: int
    received: int


class RawConnection:
    """A connection of which a test decides each byte."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._unread = b""

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(b"".join(parts))

    def ends(self) -> bool:
        """Wait for more bytes, and tell whether the other side hung up instead."""
        try:
            more = self.socket.recv(1 << 16)
        except ConnectionError:
            more = b""
        self._unread += more
        return not more

    def unread(self) -> int:
        """Count the bytes that were sent and that the process on the other side has not read yet."""
        queues = self.queues()
        return queues.sent + queues.unread

    def queues(self) -> Queues:
        """What waits, as the system tells: what is on its way still lies with its sender."""
        sent, received = (
            int.from_bytes(fcntl.ioctl(self.socket, queue, bytes(4)), sys.byteorder)
            for queue in (termios.TIOCOUTQ, termios.FIONREAD)
        )
        ends = [self.socket.getpeername()[1], self.socket.getsockname()[1]]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if [int(field.split(":")[1], 16) for field in fields[1:3]] == ends:
                unsent, unread = (int(queue, 16) for queue in fields[4].split(":"))
                return Queues(sent, unread, unsent, received)
        raise AssertionError("the other side has hung up")

    def reply(self, to: str = "GET") -> RawReply:
        """Read one reply; one to HEAD has no body."""
        while b"\r\n\r\n" not in self._unread:
            assert not self.ends(), f"hung up, having said {self._unread!r}"
        head, _, rest = self._unread.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = 0 if to == "HEAD" else int(headers.get("content-length", 0))
        self._unread = rest
        while len(self._unread) < length:
            assert not self.ends(), "hung up in the middle of a body"
        body, self._unread = self._unread[:length], self._unread[length:]
        return RawReply(int(status_line.split()[1]), headers, body)


def freeze(pid: int | None) -> int:
    """Let a process answer nothing until it is sent SIGCONT, and return its pid."""
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return pid


class RunningRuntime:
    """A ``voice-runtime`` process on a free port, spoken to over plain HTTP."""

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
        announced = self.process.stdout.readline()
        assert announced, self.output()
        self.port = int(json.loads(announced)["port"])
        self.http = urllib3.HTTPConnectionPool("127.0.0.1", self.port, maxsize=4, timeout=10, retries=False)

    def output(self) -> str:
        """What the process has written to its standard error."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request below /v1/runtime/ and return the status and the parsed body."""
        response = self.http.request(method, f"/v1/runtime/{path}", body=body, headers=headers)
        return response.status, json.loads(response.data)

    @contextmanager
    def connect(self, timeout_s: float = 10.0) -> Iterator[RawConnection]:
        """Open a connection of one's own."""
        with closing(RawConnection(self.port, timeout_s)) as connection:
            yield connection

    @contextmanager
    def conversation(self) -> Iterator[Callable[[bytes], RawReply]]:
        """Send requests over one connection, and over a new one where a reply says that it is closed.

        A search that a busy machine holds up for a moment is answered in another thread, and ends its connection.
        """
        with ExitStack() as stack:
            connections: list[RawConnection] = []

            def ask(request: bytes) -> RawReply:
                if not connections:
                    connections.append(stack.enter_context(self.connect()))
                connections[-1].send(request)
                reply = connections[-1].reply()
                if reply.headers["connection"] == "close":
                    connections.pop().close()
                return reply

            yield ask

    def exchange(self, *parts: bytes) -> RawReply:
        """Send bytes over a new connection, and read the first reply."""
        with self.connect() as connection:
            connection.send(*parts)
            return connection.reply()

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        """POST a JSON body."""
        return self.request("POST", path, json.dumps(body).encode())

    def health(self) -> Any:
        """The health report."""
        return self.request("GET", "health")[1]

    def start(self, session_id: str, name: str = "", **metadata: Any) -> Any:
        """Start a session, and return the reply, which must be a 200."""
        metadata["user"] = {"id": USER, **({"name": name} if name else {}), **metadata.pop("user", {})}
        status, body = self.post(
            "session/start", sessionId=session_id, workspaceId=PROJECT, userId=USER, metadata=metadata
        )
        assert status == 200, body
        return body

    def save(self, session_id: str, turn_id: str, user: str, agent: str = "", **metadata: Any) -> str:
        """Save a turn, and return its event id; the reply must be a 200."""
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
        """Search, with all the time that a loaded machine needs, and return the reply, which must be a 200."""
        options = {"timeoutMs": PATIENT_MS, **options}
        status, body = self.post("search_memory", sessionId=session_id, query=query, **options)
        assert status == 200, body
        return body

    def search_in_time(self, session_id: str, query: str, timeout_ms: float, tries: int = 5, **options: Any) -> Any:
        """Search until an answer within ``timeout_ms`` is whole, and return that, or the last one.

        Other work on the machine makes one answer or another late, a defect each.
        """
        for _ in range(tries):
            found = self.search(session_id, query, timeoutMs=timeout_ms, **options)
            if not found["trace"]["degraded"]:
                break
        return found

    def wait_until_loaded(self) -> None:
        """Wait until every lane has read what it needs."""
        eventually(lambda: "loading" not in self.health()["lanes"].values())

    def log_lines(self, session_id: str) -> list[dict[str, Any]]:
        """The session's log, parsed."""
        path = Path(self.start(session_id)["paths"]["sessionJsonl"])
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    def kill(self) -> None:
        """End the process as a crash would."""
        self.process.kill()
        self.process.wait()

    def terminate(self, within_s: float = 30.0) -> int:
        """Send SIGTERM and return the exit code. How soon a process ends is tested by itself."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def close(self) -> None:
        """End the process, whatever the test did to it, and close what belongs to it."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # a test may have stopped it
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._output):
            if stream is not None:
                stream.close()
