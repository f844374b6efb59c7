"""The runtime host: a process that has everything imported and mapped, and forks a runtime whenever it is asked to.

A client starts it as ``python -m memoair_runtime.fork_server`` with a Unix socket as standard input. Each request on that
socket is one line, ``{"ports": [first, last]}``, that comes with a descriptor: the runtime's own socket to the client.
The host finds a port, listens on it, and hands both to a child, which reads from its socket for whom it is (the
environment of docs/runtime-http.md as a JSON object), and writes to it where it listens. So secrets pass from the
client to the runtime and never through the host. What becomes of a child is told on the host's socket:
``{"pid", "exitCode"}``. One child is always forked ahead: the next caller need not wait for it.

It has one thread only, since a fork copies no other. When the client ends, however it does, its ends of all sockets
close: the runtimes drain, and the host ends after them.
"""

import array
import gc
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

import attrs

from memoair_runtime.main import EXIT_SETTINGS, bind, serve, set_up_logging
from memoair_runtime.parent_watch import ParentWatch
from memoair_runtime.settings import RuntimeSettings, SettingsError
from memoair_runtime.warmup import rehearse

# How long runtimes may take to drain once the client is gone; what is still there then hangs.
_LONGEST_END_S = 8.0
_HOST = "127.0.0.1"
_LONGEST_LINE = 1 << 16
# Its one argument: whether runtimes will talk with a cloud, and the way of that is to be gone as well.
WITH_CLOUD = "--with-cloud"


def main() -> int:
    """Serve as a host until the client is gone; return the exit code."""
    if not hasattr(os, "fork"):
        print("memoair_runtime.fork_server: this system can't fork", file=sys.stderr)  # noqa: T201
        return EXIT_SETTINGS
    set_up_logging()
    control = socket.socket(fileno=os.dup(0))
    rehearse(has_cloud=WITH_CLOUD in sys.argv[1:])
    gc.collect()
    gc.freeze()  # what was made so far is never looked at again, so its pages stay shared
    _ForkServer(control).run()
    return 0


@attrs.frozen
class _SpareProcess:
    """A child that waits to be told what to serve."""

    pid: int
    line: socket.socket

    def serve(self, listener: socket.socket, channel: int) -> bool:
        """Hand it what it is to serve; tell whether it was there to take it."""
        try:
            socket.send_fds(self.line, [b"\n"], [listener.fileno(), channel])
        except OSError:
            return False
        finally:
            self.line.close()
        return True


class _ForkServer:
    """The loop. ``_children`` are the runtimes that have not ended, the spare one among them."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()
        self._next_port = 0
        self._unread = b""
        self._descriptors: list[int] = []  # that came and belong to requests whose lines have not been read
        self._spare: _SpareProcess | None = None
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)

    def run(self) -> None:
        """Fork whenever the client asks; when it is gone, wait for what was forked."""
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only wakes the loop
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the application
        try:
            self._serve()
        finally:
            self._end_children()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                if self._spare is None:
                    with suppress(OSError):  # there is no room for another process now
                        self._spare = self._fork()
                ready = {key.fileobj for key, _ in selector.select()}
                if self._woken in ready:
                    with suppress(BlockingIOError):
                        self._woken.recv(1 << 10)
                    self._reap()
                if self._control in ready and not self._read():
                    return

    def _read(self) -> bool:
        """Read what the client asks and do it; tell whether the client is still there."""
        try:
            content, ancillary, _, _ = self._control.recvmsg(_LONGEST_LINE, socket.CMSG_SPACE(64 * 4))
        except InterruptedError:
            return True
        except OSError:
            return False
        for _, kind, data in ancillary:
            if kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
                self._descriptors.extend(descriptors)
        if not content:
            return False
        *lines, self._unread = (self._unread + content).split(b"\n")
        for line in lines:
            self._start(line, self._descriptors.pop(0))
        return True

    def _start(self, line: bytes, channel: int) -> None:
        owner = ParentWatch(channel, channel)
        try:
            first, last = json.loads(line)["ports"]
            listener = self._listen(first, last)
            if listener is None:
                owner.tell({"event": "failed", "code": "pool.port_exhausted"})
                return
            spare, self._spare = self._spare, None
            with listener:
                if spare is None or not spare.serve(listener, channel):
                    self._fork().serve(listener, channel)
        except OSError as error:  # there is no room for another process
            owner.tell({"event": "failed", "code": "runtime.start_failed", "message": str(error.strerror)})
        finally:
            os.close(channel)

    def _fork(self) -> _SpareProcess:
        ours, theirs = socket.socketpair()
        with theirs:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._become_runtime(theirs)
        self._children.add(pid)
        return _SpareProcess(pid, ours)

    def _listen(self, first: int, last: int) -> socket.socket | None:
        """Listen on a port of the range, each in its turn: one that was just given back may still be remembered."""
        count = last - first + 1
        for number in range(count):
            port = first + (self._next_port + number) % count
            try:
                listener = bind(_HOST, port)
            except OSError:
                continue
            self._next_port = (port - first + 1) % count
            return listener
        return None

    def _become_runtime(self, line: socket.socket) -> None:
        """In the child: wait to be told what to serve, do so, and never come back."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (self._control, self._woken, self._wake):
                each.close()
            for descriptor in self._descriptors:
                os.close(descriptor)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)  # it was the host's socket
            os.close(nothing)
            _, descriptors, _, _ = socket.recv_fds(line, 1, 2)
            line.close()
            if descriptors:  # else the host has ended
                listener, channel = descriptors
                code = _serve_as_told(socket.socket(fileno=listener), channel)
        except BaseException as error:  # noqa: BLE001 - the host's stack lies above, and must not be come back to
            logging.getLogger(__name__).error("a runtime failed: action=runtime_failed error=%s", type(error).__name__)
        finally:
            logging.shutdown()
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._children.discard(pid)
            event = {"pid": pid, "exitCode": os.waitstatus_to_exitcode(status)}
            with suppress(OSError):  # the client is gone, or has not asked for a very long time
                self._control.send(json.dumps(event).encode() + b"\n", socket.MSG_DONTWAIT)

    def _end_children(self) -> None:
        """Wait until the runtimes have drained: each has seen the client end. Who hangs is made to end."""
        deadline = time.monotonic() + _LONGEST_END_S
        if self._spare is not None:
            self._spare.line.close()
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            self._reap()
            while self._children and (left := deadline - time.monotonic()) > 0:
                selector.select(left)
                with suppress(BlockingIOError):
                    self._woken.recv(1 << 10)
                self._reap()
        for pid in self._children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _serve_as_told(listener: socket.socket, channel: int) -> int:
    """Read from the client what to serve, and do so until the end is asked for; return the exit code."""
    owner = ParentWatch(channel, channel)
    told = b""
    while not told.endswith(b"\n"):
        content = os.read(channel, _LONGEST_LINE)
        if not content:
            return 0  # the client changed its mind, or is gone
        told += content
    environment: dict[str, Any] = json.loads(told)
    try:
        settings = RuntimeSettings.from_environ(environment)
    except SettingsError as error:
        owner.tell({"event": "failed", "code": "runtime.start_failed", "message": str(error)})
        return EXIT_SETTINGS
    serve(settings, listener, owner)
    return 0


if __name__ == "__main__":
    sys.exit(main())
