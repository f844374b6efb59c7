"""The process: from the environment to a served socket, and in order to its end."""

import logging
import os
import signal
import socket
import sys
import time

from memoair_runtime.http.routes import Routes
from memoair_runtime.http.server import LoopbackServer
from memoair_runtime.lifecycle import Lifecycle, LifecycleState
from memoair_runtime.parent_watch import ParentWatch
from memoair_runtime.service import RuntimeService
from memoair_runtime.settings import RuntimeSettings, SettingsError
from memoair_runtime.storage.lease import Lease, told
from memoair_runtime.storage.user_folder import UserFolder

log = logging.getLogger("memoair_runtime")

# Exit codes: whoever started us can tell what is worth trying again.
EXIT_SETTINGS = 2
EXIT_ADDRESS = 3

# SIGTERM is followed by SIGKILL after 2 s.
DEFAULT_DRAIN_S = 1.5
MAX_DRAIN_S = 30.0
_LISTEN_BACKLOG = 128
_USAGE = """voice-runtime takes no arguments; it is configured by its environment:

MEMOAIR_RUNTIME_PROJECT_ID and MEMOAIR_RUNTIME_USER_ID say whom it serves, MEMOAIR_RUNTIME_BIND_ADDR where it listens
(127.0.0.1:7878), MEMOAIR_RUNTIME_STORAGE_ROOT where its memory lies. docs/runtime-http.md tells of all variables."""


def main() -> int:
    """Run a runtime as the environment says, until it is told to end; return the exit code."""
    if len(sys.argv) > 1:
        print(_USAGE)  # noqa: T201
        return 0 if sys.argv[1] in ("-h", "--help") else EXIT_SETTINGS
    configure_logging()
    try:
        settings = RuntimeSettings.from_environ(os.environ)
    except SettingsError as error:
        print(f"voice-runtime: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_SETTINGS
    try:
        listener = open_listener(settings.host, settings.port)
    except OSError as error:
        print(f"voice-runtime: can't listen on {settings.host}:{settings.port}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return EXIT_ADDRESS
    serve(settings, listener, ParentWatch(0 if settings.stops_with_stdin else None, 1))
    logging.shutdown()
    # Everything is written. The interpreter's own end would wait for a lane that hangs, and fail for an output that
    # nobody reads any more.
    os._exit(0)


def configure_logging() -> None:
    """Log to standard error what an operator should see."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )


def open_listener(host: str, port: int) -> socket.socket:
    """Listen on a loopback address; port 0 is any that is free. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # The port was in use a moment ago. On Windows the same option would let two processes share it.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((host, port))
        listener.listen(_LISTEN_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def serve(settings: RuntimeSettings, listener: socket.socket, parent: ParentWatch) -> None:
    """Serve on a listening socket until the end is asked for, then drain.

    Where another runtime holds the caller's lease, the owner is told of it, and nothing is served.
    """
    host, port = listener.getsockname()[:2]
    lease = Lease(UserFolder(settings.storage_root, settings.project_id, settings.user_id))
    if settings.is_shared and (holder := lease.take(host, port, settings.token, settings.session_id)):
        listener.close()
        parent.emit(told(holder))
        return
    lifecycle = Lifecycle()
    lifecycle.stop_on_signals(signal.SIGTERM, signal.SIGINT)
    # The system takes connections already; whoever comes before we serve waits a moment.
    parent.emit({"event": "listening", "host": host, "port": port, "pid": os.getpid()})
    service = RuntimeService(settings, lifecycle)
    server = LoopbackServer(listener, Routes(service), service.metrics, settings.token)
    parent.watch(lifecycle)
    lifecycle.transition_to(LifecycleState.SERVING)
    server.start()
    service.start_loading()
    lifecycle.wait_for_stop_request()
    deadline = time.monotonic() + min(lifecycle.drain_timeout_s or DEFAULT_DRAIN_S, MAX_DRAIN_S)
    lifecycle.transition_to(LifecycleState.DRAINING)
    lease.leave()  # who asks from now on shall find another
    server.drain(deadline)
    service.close(deadline)
    lifecycle.transition_to(LifecycleState.STOPPED)
    lifecycle.close()
