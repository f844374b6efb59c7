"""The ``voice-runtime`` process: from the environment to a serving socket, and to an orderly stop."""

import logging
import os
import signal
import socket
import sys
import time

from memoair_protocol.log_lines import OneLineFormatter
from memoair_protocol.private_files import UnsafePathError
from memoair_protocol.threads import ThreadUnavailableError
from memoair_runtime.http.routes import Routes
from memoair_runtime.http.server import LoopbackServer
from memoair_runtime.lifecycle import Lifecycle, LifecycleState
from memoair_runtime.parent_watch import ParentWatch
from memoair_runtime.service import RuntimeService
from memoair_runtime.settings import RuntimeSettings, SettingsError
from memoair_runtime.storage.lease import Lease, lease_event
from memoair_runtime.storage.user_folder import UserFolder

log = logging.getLogger("memoair_runtime")

# Exit codes: they tell the process that started this one whether a retry makes sense.
EXIT_SETTINGS = 2
EXIT_ADDRESS = 3
EXIT_STORAGE = 4

DEFAULT_DRAIN_S = 1.5  # clients send SIGKILL 2 s after SIGTERM
MAX_DRAIN_S = 30.0
_LISTEN_BACKLOG = 128
# How often the main thread looks for work that could not be started for want of threads.
_RETRY_INTERVAL_S = 1.0
_USAGE = """voice-runtime takes no arguments. Configure it with environment variables:

MEMOAIR_RUNTIME_PROJECT_ID    project to serve (required)
MEMOAIR_RUNTIME_USER_ID       user to serve (required)
MEMOAIR_RUNTIME_BIND_ADDR     address to listen on (default 127.0.0.1:7878)
MEMOAIR_RUNTIME_STORAGE_ROOT  folder of the stored memory

docs/runtime-http.md describes all variables."""


def main() -> int:
    """Run a runtime that is configured by the environment until it is asked to stop; return the exit code."""
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
        print(  # noqa: T201
            f"voice-runtime: failed to listen on {settings.host}:{settings.port}: {error.strerror}", file=sys.stderr
        )
        return EXIT_ADDRESS
    exit_code = 0
    try:
        serve(settings, listener, ParentWatch(0 if settings.stops_with_stdin else None, 1))
    except UnsafePathError as error:
        exit_code = EXIT_STORAGE
        if not settings.stops_with_stdin:  # a client logs what is written here, and the path may name a user
            print(f"voice-runtime: {error}", file=sys.stderr)  # noqa: T201
    except (OSError, ThreadUnavailableError) as error:
        exit_code = 1
        print(f"voice-runtime: {describe_start_error(error)}", file=sys.stderr)  # noqa: T201
    logging.shutdown()
    # Everything is written. The interpreter's own shutdown would wait for a lane that hangs, and would fail if standard
    # output has no reader anymore.
    os._exit(exit_code)


def describe_start_error(error: Exception) -> str:
    """Return why a runtime could not start, without a path, which has the user's id in it."""
    return f"the runtime cannot start: {getattr(error, 'strerror', None) or error}"


def configure_logging() -> None:
    """Log warnings and errors to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    # What the cloud says of a failure is in some messages: it must not look like a line of this process.
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def open_listener(host: str, port: int) -> socket.socket:
    """Open a listening socket on a loopback address.

    Args:
        host: IPv4 or IPv6 address.
        port: Port, or 0 for any free one.

    Raises:
        OSError: If the address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # The port may have been in use a moment ago, which takes SO_REUSEADDR. On Windows that option would let two
        # processes share the port; SO_EXCLUSIVEADDRUSE does not.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((host, port))
        listener.listen(_LISTEN_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def serve(settings: RuntimeSettings, listener: socket.socket, parent: ParentWatch) -> None:
    """Serve until a stop is requested, then drain. Must be called from the main thread.

    With ``settings.is_shared``, and if another runtime holds the user's lease, emit who holds it to the parent and
    return without serving. Do not serve either if another user of the machine could have prepared the user's folder.

    Args:
        settings: What to serve.
        listener: Listening socket; it is closed before this returns.
        parent: Receives the events, and stops the runtime when it ends.

    Raises:
        OSError, ThreadUnavailableError: If there are no descriptors or threads for it. The lease is free again.
        UnsafePathError: Another user of the machine could have prepared the user's folder. The parent has the message.
    """
    host, port = listener.getsockname()[:2]
    folder = UserFolder(settings.storage_root, settings.project_id, settings.user_id)
    lease = Lease(folder, settings.cloud_id)
    try:
        folder.check()
        is_shared = settings.is_shared
        holder = lease.acquire(host, port, settings.token, settings.session_id) if is_shared else None
    except UnsafePathError as error:
        listener.close()
        parent.emit({"event": "failed", "code": "runtime.start_failed", "message": str(error)})
        raise
    if holder is not None:
        listener.close()
        parent.emit(lease_event(holder))
        return
    try:
        lifecycle = Lifecycle()
        lifecycle.stop_on_signals(signal.SIGTERM, signal.SIGINT)
        # The system accepts connections already; a client that connects before the server starts waits a moment.
        parent.emit({"event": "listening", "host": host, "port": port, "pid": os.getpid()})
        service = RuntimeService(settings, lifecycle)
        server = LoopbackServer(listener, Routes(service), service.metrics, settings.token)
        parent.watch(lifecycle.request_stop)
        lifecycle.transition_to(LifecycleState.SERVING)
        server.start()
    except (OSError, ThreadUnavailableError):
        lease.release()
        listener.close()
        raise
    service.start_loading()
    while not lifecycle.wait_for_stop_request(_RETRY_INTERVAL_S):
        for retry in service.retries:
            retry()
    deadline = time.monotonic() + min(lifecycle.drain_timeout_s or DEFAULT_DRAIN_S, MAX_DRAIN_S)
    lifecycle.transition_to(LifecycleState.DRAINING)
    lease.release()  # from now on, clients that look for a runtime find or start another one
    server.drain(deadline)
    service.close(deadline)
    lifecycle.transition_to(LifecycleState.STOPPED)
    lifecycle.close()
