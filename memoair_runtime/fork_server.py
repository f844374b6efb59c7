"""The fork server: a process with everything imported and mapped, from which runtimes are forked.

A client starts it as ``python -m memoair_runtime.fork_server`` with a Unix socket as standard input, the control
socket. Each request on that socket is one line, ``{"ports": [first, last]}``, and carries a descriptor: the channel, a
socket between the client and the future runtime. With ``{"ports": null}``, the child becomes the client's backlog
process (see `memoair_runtime.backlog_process`), which listens nowhere.

The fork server finds a free port, listens on it, and hands the listener and the channel to a child. The child reads its
settings from the channel (a JSON object with the environment of docs/runtime-http.md) and writes its address to the
channel. Secrets thus pass from the client to the runtime without going through the fork server. On the control socket
the fork server reports ``{"event": "ready"}`` when it has warmed up, and ``{"pid", "exitCode"}`` for each child that
exits. One spare child is always forked in advance, so that the next user does not wait for a fork.

The fork server has a single thread, because a fork copies only the calling thread. When the client ends, however it
does, its ends of all sockets close: the runtimes drain, and the fork server ends after them.
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
from contextlib import nullcontext, suppress
from typing import Any

import attrs

from memoair_protocol.private_files import UnsafePathError
from memoair_protocol.starvation import raise_if_starved
from memoair_protocol.threads import ThreadUnavailableError
from memoair_runtime.main import (
    EXIT_SETTINGS,
    EXIT_STORAGE,
    configure_logging,
    describe_start_error,
    open_listener,
    serve,
)
from memoair_runtime.parent_watch import ParentWatch
from memoair_runtime.settings import RuntimeSettings, SettingsError
from memoair_runtime.warmup import warm_up

# How long runtimes may take to drain once the client is gone. Those that remain hang, and are killed.
_MAX_SHUTDOWN_S = 8.0
log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
# When to try again to fork the spare child, if there are no resources for another process.
_SPARE_RETRY_S = 1.0
_MAX_LINE_BYTES = 1 << 16
# The only argument: the runtimes will sync with a cloud, so the warm-up includes that code.
WITH_CLOUD_OPTION = "--with-cloud"


def main() -> int:
    """Run the fork server until the client is gone; return the exit code."""
    if not hasattr(os, "fork"):
        print("memoair_runtime.fork_server: this platform has no fork()", file=sys.stderr)  # noqa: T201
        return EXIT_SETTINGS
    configure_logging()
    control = socket.socket(fileno=os.dup(0))
    has_cloud = WITH_CLOUD_OPTION in sys.argv[1:]
    try:
        warm_up(has_cloud=has_cloud)
    except Exception as error:  # noqa: BLE001 - it only saves time: runtimes start more slowly without it
        log.warning("the fork server is not warm: action=warmup_failed error=%s", type(error).__name__)
    if has_cloud:  # one of the children will send the backlog
        import memoair_runtime.backlog_process  # noqa: F401
    gc.collect()
    gc.freeze()  # the collector never visits the objects made so far, so their pages stay shared with the children
    _ForkServer(control).run()
    return 0


@attrs.frozen
class _SpareProcess:
    """A child that waits for the sockets that it will serve."""

    pid: int
    handoff: socket.socket

    def hand_over(self, listener: socket.socket | None, channel_fd: int) -> bool:
        """Send the channel and the listener, if any, to the child; return whether it was alive to receive them."""
        try:
            socket.send_fds(self.handoff, [b"\n"], [channel_fd, *([listener.fileno()] if listener else [])])
        except OSError:
            return False
        finally:
            self.handoff.close()
        return True


class _ForkServer:
    """The main loop. ``_children`` are the ids of the children that have not been reaped, including the spare."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()
        self._next_port = 0
        self._unparsed = b""
        self._pending_fds: list[int] = []  # received with requests whose lines are not parsed yet
        self._spare: _SpareProcess | None = None
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_writer.setblocking(False)
        self._wake_reader.setblocking(False)

    def run(self) -> None:
        """Fork a runtime for each request; when the client is gone, wait for the children."""
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the wakeup descriptor wakes the loop
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the application
        try:
            self._serve_requests()
        finally:
            self._stop_children()

    def _serve_requests(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            self._fork_spare()
            self._emit({"event": "ready"})
            while True:
                self._fork_spare()
                ready = {key.fileobj for key, _ in selector.select(_SPARE_RETRY_S if self._spare is None else None)}
                if self._wake_reader in ready:
                    with suppress(BlockingIOError):
                        self._wake_reader.recv(1 << 10)
                    self._reap_children()
                if self._control in ready and not self._read_requests():
                    return

    def _fork_spare(self) -> None:
        if self._spare is None:
            with suppress(OSError):  # no resources for another process at the moment
                self._spare = self._fork_child()

    def _read_requests(self) -> bool:
        """Read and handle the client's requests; return whether the client is still connected."""
        try:
            data, ancillary, flags, _ = self._control.recvmsg(_MAX_LINE_BYTES, socket.CMSG_SPACE(64 * 4))
        except InterruptedError:
            return True
        except OSError:
            return False
        for _, kind, fds_data in ancillary:
            if kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(fds_data[: len(fds_data) - len(fds_data) % fds.itemsize])
                self._pending_fds.extend(fds)
        if not data:
            return False
        *lines, self._unparsed = (self._unparsed + data).split(b"\n")
        if flags & socket.MSG_CTRUNC and len(self._pending_fds) < len(lines):
            # There was no descriptor for the channel of the last request, so the system has closed it. Its client sees
            # the end of the channel, and the runtime as one that did not start.
            log.error("no descriptor for another runtime: action=request_lost")
            del lines[len(self._pending_fds) :]
        for line in lines:
            self._start_runtime(line, self._pending_fds.pop(0))
        return True

    def _start_runtime(self, line: bytes, channel_fd: int) -> None:
        client = ParentWatch(channel_fd, channel_fd)
        try:
            ports = json.loads(line)["ports"]
            listener = self._listen_in_range(*ports) if ports else None
            if ports and listener is None:
                client.emit({"event": "failed", "code": "pool.port_exhausted"})
                return
            spare, self._spare = self._spare, None
            with listener or nullcontext():
                if spare is None or not spare.hand_over(listener, channel_fd):
                    self._fork_child().hand_over(listener, channel_fd)
        except OSError as error:  # no resources for another process
            client.emit({"event": "failed", "code": "runtime.start_failed", "message": str(error.strerror)})
        finally:
            os.close(channel_fd)

    def _fork_child(self) -> _SpareProcess:
        our_end, child_end = socket.socketpair()
        with child_end:
            try:
                pid = os.fork()
            except OSError:
                our_end.close()
                raise
            if pid == 0:
                our_end.close()
                self._run_child(child_end)
        self._children.add(pid)
        return _SpareProcess(pid, our_end)

    def _listen_in_range(self, first: int, last: int) -> socket.socket | None:
        """Listen on a free port of the range, or return None.

        The ports are used in rotation: a client may still hold a connection to a port that was just freed.
        """
        count = last - first + 1
        for offset in range(count):
            port = first + (self._next_port + offset) % count
            try:
                listener = open_listener(_HOST, port)
            except OSError as error:
                raise_if_starved(error)  # the port may be free
                continue
            self._next_port = (port - first + 1) % count
            return listener
        return None

    def _run_child(self, handoff: socket.socket) -> None:
        """Run in the child: wait for the sockets, serve, and exit. Never returns."""
        exit_code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (self._control, self._wake_reader, self._wake_writer):
                inherited.close()
            for pending_fd in self._pending_fds:
                os.close(pending_fd)
            devnull_fd = os.open(os.devnull, os.O_RDONLY)
            os.dup2(devnull_fd, 0)  # descriptor 0 was the control socket
            os.close(devnull_fd)
            _, received_fds, _, _ = socket.recv_fds(handoff, 1, 2)
            handoff.close()
            if received_fds:  # otherwise the fork server has ended
                channel_fd, *listener_fds = received_fds
                listeners = [socket.socket(fileno=listener_fd) for listener_fd in listener_fds]
                exit_code = _read_environment_and_serve(next(iter(listeners), None), channel_fd)
        except BaseException as error:  # noqa: BLE001 - must not return into the fork server's stack
            logging.getLogger(__name__).error("a runtime failed: action=runtime_failed error=%s", type(error).__name__)
        finally:
            logging.shutdown()
            os._exit(exit_code)

    def _reap_children(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._children.discard(pid)
            self._emit({"pid": pid, "exitCode": os.waitstatus_to_exitcode(status)})

    def _emit(self, event: dict[str, Any]) -> None:
        with suppress(OSError):  # the client is gone, or has not read for so long that the buffer is full
            self._control.send(json.dumps(event).encode() + b"\n", socket.MSG_DONTWAIT)

    def _stop_children(self) -> None:
        """Wait until the runtimes have drained, and kill those that hang. Each one notices the client's end itself."""
        deadline = time.monotonic() + _MAX_SHUTDOWN_S
        if self._spare is not None:
            self._spare.handoff.close()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            self._reap_children()
            while self._children and (remaining_s := deadline - time.monotonic()) > 0:
                selector.select(remaining_s)
                with suppress(BlockingIOError):
                    self._wake_reader.recv(1 << 10)
                self._reap_children()
        for pid in self._children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _read_environment_and_serve(listener: socket.socket | None, channel_fd: int) -> int:
    """Read the settings from the client and serve until a stop is requested; return the exit code.

    Without a listener, send the backlog until then. If there are no descriptors or threads for it, tell the client.
    """
    client = ParentWatch(channel_fd, channel_fd)
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(channel_fd, _MAX_LINE_BYTES)
        if not chunk:
            return 0  # the client no longer needs the runtime, or is gone
        line += chunk
    environment: dict[str, Any] = json.loads(line)
    try:
        settings = RuntimeSettings.from_environ(environment)
    except SettingsError as error:
        client.emit({"event": "failed", "code": "runtime.start_failed", "message": str(error)})
        return EXIT_SETTINGS
    try:
        if listener is None:
            from memoair_runtime.backlog_process import run

            run(settings, client)
        else:
            serve(settings, listener, client)
    except UnsafePathError:
        return EXIT_STORAGE
    except (OSError, ThreadUnavailableError) as error:
        client.emit({"event": "failed", "code": "runtime.start_failed", "message": describe_start_error(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
