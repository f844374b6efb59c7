"""The process: from the environment to a served socket, and in order to its end."""

import json
import logging
import os
import signal
import socket
import sys
import threading
import time

from memoair_runtime.http.routes import Routes
from memoair_runtime.http.server import LoopbackServer
from memoair_runtime.lifecycle import Lifecycle, ProcessState
from memoair_runtime.service import RuntimeService
from memoair_runtime.settings import Settings, SettingsError

log = logging.getLogger("memoair_runtime")

# Exit codes: whoever started us can tell what is worth trying again.
EXIT_SETTINGS = 2
EXIT_ADDRESS = 3

# SIGTERM is followed by SIGKILL after 2 s.
DEFAULT_DRAIN_S = 1.5
LONGEST_DRAIN_S = 30.0
_BACKLOG = 128
_USAGE = """voice-runtime takes no arguments; it is configured by its environment:

MEMOAIR_RUNTIME_PROJECT_ID and MEMOAIR_RUNTIME_USER_ID say whom it serves, MEMOAIR_RUNTIME_BIND_ADDR where it listens
(127.0.0.1:7878), MEMOAIR_RUNTIME_STORAGE_ROOT where its memory lies. docs/runtime-http.md tells of all variables."""


def main() -> int:
    """Run a runtime as the environment says, until it is told to end; return the exit code."""
    if len(sys.argv) > 1:
        print(_USAGE)  # noqa: T201
        return 0 if sys.argv[1] in ("-h", "--help") else EXIT_SETTINGS
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    try:
        settings = Settings.from_environ(os.environ)
    except SettingsError as error:
        print(f"voice-runtime: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_SETTINGS
    try:
        listener = bind(settings.host, settings.port)
    except OSError as error:
        print(f"voice-runtime: can't listen on {settings.host}:{settings.port}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return EXIT_ADDRESS
    serve(settings, listener)
    logging.shutdown()
    # Everything is written. The interpreter's own end would wait for a lane that hangs, and fail for an output that
    # nobody reads any more.
    os._exit(0)


def bind(host: str, port: int) -> socket.socket:
    """Listen on a loopback address; port 0 is any that is free. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # The port was in use a moment ago. On Windows the same option would let two processes share it.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve on a listening socket until the end is asked for, then drain."""
    lifecycle = Lifecycle()
    service = RuntimeService(settings, lifecycle)
    server = LoopbackServer(listener, Routes(service), service.metrics, settings.token)
    lifecycle.end_on(signal.SIGTERM, signal.SIGINT)
    if settings.ends_with_stdin:
        threading.Thread(target=_watch_owner, args=(lifecycle,), name="owner", daemon=True).start()
    lifecycle.move(ProcessState.SERVING)
    server.start()
    service.load()
    _announce(listener)
    lifecycle.wait_for_end()
    deadline = time.monotonic() + min(lifecycle.drain_deadline_s or DEFAULT_DRAIN_S, LONGEST_DRAIN_S)
    lifecycle.move(ProcessState.DRAINING)
    server.drain(deadline)
    service.close(deadline)
    lifecycle.move(ProcessState.STOPPED)


def _announce(listener: socket.socket) -> None:
    """Tell whoever started us where we listen, on one line of standard output."""
    host, port = listener.getsockname()[:2]
    try:
        print(json.dumps({"event": "listening", "host": host, "port": port, "pid": os.getpid()}), flush=True)  # noqa: T201
    except OSError:
        log.debug("nobody reads our standard output: action=announce_failed")


def _watch_owner(lifecycle: Lifecycle) -> None:
    """End when the process that started us does, however it does: its end of our standard input closes then."""
    try:
        while os.read(0, 1 << 12):
            pass
    except OSError:
        log.debug("standard input can't be read: action=owner_gone")
    lifecycle.ask_to_end()
