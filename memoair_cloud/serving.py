"""Run a server or a worker until the process is asked to stop."""

import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import cast

import uvicorn
from fastapi import FastAPI

from memoair_cloud.database.migrate import migrate
from memoair_cloud.http.app import create_app, make_services
from memoair_cloud.http.connection_gate import ConnectionGate
from memoair_cloud.http.dependencies import Services
from memoair_cloud.http.guarded_protocol import GuardedProtocol
from memoair_cloud.http.paced_acceptor import PacedAcceptor
from memoair_cloud.queue import Worker
from memoair_cloud.settings import CloudSettings
from memoair_cloud.starting import StartError, explaining_start_errors, prepare_database

log = logging.getLogger(__name__)

# While a worker thread builds an index, a request that reads many rows loses the interpreter lock at each of them and
# waits for a whole switch interval. With the default of 5 ms, such requests take twice as long.
_SWITCH_INTERVAL_S = 0.0005
_STOP_TIMEOUT_S = 30.0
# Longer than clients keep idle connections, so that the server never closes one while a request is being sent on it.
_KEEP_ALIVE_TIMEOUT_S = 75


@contextmanager
def open_services(settings: CloudSettings, stopping: threading.Event | None = None) -> Iterator[Services]:
    """Yield the services of a server over a migrated database, and close them at the end.

    A database that does not respond yet is waited for, as long as the settings say.

    Args:
        settings: The settings of the server.
        stopping: Ends the wait when it is set.

    Raises:
        StartError: If the database or the blob store cannot be used.
    """
    with explaining_start_errors():
        services = make_services(settings)
    try:
        prepare_database(
            lambda: _create_tables(services), settings.database_wait_s, _log_wait, stopping or threading.Event()
        )
        services.blobs.make_private()
        yield services
    finally:
        services.deferred.close()
        services.queue.close()
        services.engine.dispose()


def serve(
    settings: CloudSettings, *, with_worker: bool = True, on_started: Callable[[FastAPI, str], None] | None = None
) -> None:
    """Run the HTTP server until SIGINT or SIGTERM. Call it in the main thread: it installs signal handlers.

    Args:
        settings: The settings of the server.
        with_worker: Whether to run worker threads in this process, too.
        on_started: Called with the application and its URL once the server listens. It must not block.

    Raises:
        StartError: If the database or the blob store cannot be used.
    """
    # Uvicorn raises the signal again after its shutdown. By default that would end the process right there, while the
    # worker is in the middle of a task.
    stopping = threading.Event()
    _on_stop_signal(stopping.set)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    threads = settings.worker_threads if with_worker else 0
    with _open_unless_stopped(settings, stopping) as services:
        if services is not None:
            _serve(settings, services, threads, on_started)


def _serve(
    settings: CloudSettings, services: Services, threads: int, on_started: Callable[[FastAPI, str], None] | None
) -> None:
    with _running_worker(services, threads):
        app = create_app(services)
        gate = ConnectionGate.for_this_process()
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", partial(GuardedProtocol, gate=gate)),
            ws="none",  # it would take a connection over, and there is no route for it
            loop="asyncio",
            host=settings.host,
            port=settings.port,
            log_config=None,
            # The dashboard trusts the proxies of its settings. The server would trust every one on this machine.
            proxy_headers=False,
            access_log=False,  # it would contain paths, and these contain user ids
            timeout_keep_alive=_KEEP_ALIVE_TIMEOUT_S,
            timeout_graceful_shutdown=int(_STOP_TIMEOUT_S),
        )
        _Server(config, gate, None if on_started is None else partial(on_started, app)).run()


def run_worker(settings: CloudSettings) -> None:
    """Process queued tasks until SIGINT or SIGTERM. Call it in the main thread: it installs signal handlers.

    Args:
        settings: The settings of the server. Workers use the same ones.

    Raises:
        StartError: If the database or the blob store cannot be used.
    """
    stopping = threading.Event()
    _on_stop_signal(stopping.set)
    with _open_unless_stopped(settings, stopping) as services:
        if services is not None:
            with _running_worker(services, settings.worker_threads):
                log.info("worker started", extra={"action": "worker_started"})
                stopping.wait()


@contextmanager
def _open_unless_stopped(settings: CloudSettings, stopping: threading.Event) -> Iterator[Services | None]:
    """Yield the services, or None if the process is asked to stop while it waits for the database."""
    with ExitStack() as stack:
        try:
            services = stack.enter_context(open_services(settings, stopping))
        except StartError:
            if not stopping.is_set():
                raise
            services = None
        yield services if not stopping.is_set() else None


def _create_tables(services: Services) -> None:
    migrate(services.engine)
    services.queue.create_tables()


def _log_wait(reason: str) -> None:
    extra = {"action": "database_wait", "fields": {"reason": reason}}
    log.warning("waiting for the database", extra=extra)


class _Server(uvicorn.Server):
    """A server behind a gate, that reports its URL. With the port 0, it is not known before."""

    def __init__(self, config: uvicorn.Config, gate: ConnectionGate, on_started: Callable[[str], None] | None) -> None:
        super().__init__(config)
        self._gate = gate
        self._acceptors: list[PacedAcceptor] = []
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets=sockets)
        if self.started:
            with suppress(NotImplementedError):
                listeners = [listener for server in self.servers for listener in server.sockets]
                self._acceptors = [
                    PacedAcceptor(listener.fileno(), self._gate, self._make_protocol) for listener in listeners
                ]
        if self.started and self._on_started is not None:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_started(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, and finish the requests in progress."""
        for acceptor in self._acceptors:
            acceptor.close()
        await super().shutdown(sockets=sockets)

    def _make_protocol(self) -> asyncio.Protocol:
        return GuardedProtocol(
            gate=self._gate, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _on_stop_signal(callback: Callable[[], None]) -> None:
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: callback())


@contextmanager
def _running_worker(services: Services, threads: int) -> Iterator[None]:
    worker = Worker(services.queue, threads)
    worker.start()
    try:
        yield
    finally:
        worker.stop(_STOP_TIMEOUT_S)
