"""A server and a worker, from their settings to their end."""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from memoair_cloud.database.migrate import migrate
from memoair_cloud.http.app import create_app, make_services
from memoair_cloud.http.dependencies import Services
from memoair_cloud.queue import Worker
from memoair_cloud.settings import CloudSettings

log = logging.getLogger(__name__)

# A request that reads many rows lets the interpreter go at each of them, and a worker that builds an index has it then
# for so long. At the usual 5 ms, requests beside it take twice as long.
_SWITCH_INTERVAL_S = 0.0005
_STOP_TIMEOUT_S = 30.0
# Longer than clients keep idle connections, so that none is closed under a request that is just being sent.
_KEEP_ALIVE_TIMEOUT_S = 75


@contextmanager
def open_services(settings: CloudSettings) -> Iterator[Services]:
    """The services over a database that was brought up to date; closed at the end."""
    services = make_services(settings)
    try:
        migrate(services.engine)
        services.queue.create_tables()
        yield services
    finally:
        services.queue.close()
        services.engine.dispose()


def serve(settings: CloudSettings, *, with_worker: bool = True) -> None:
    """Serve until the process is told to end; with a worker in a thread, unless told otherwise.

    To be called in the main thread: it takes the signals.
    """
    # The server raises a signal again when it has shut down; by default that would end the process there, with the
    # worker in the middle of its work.
    _on_stop_signal(lambda: None)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with open_services(settings) as services, _running_worker(services, settings.worker_threads if with_worker else 0):
        config = uvicorn.Config(
            create_app(services),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,  # it would hold paths, and so callers' ids
            timeout_keep_alive=_KEEP_ALIVE_TIMEOUT_S,
            timeout_graceful_shutdown=int(_STOP_TIMEOUT_S),
        )
        uvicorn.Server(config).run()


def run_worker(settings: CloudSettings) -> None:
    """Do what is in the queue until the process is told to end."""
    stop_requested = threading.Event()
    _on_stop_signal(stop_requested.set)
    with open_services(settings) as services, _running_worker(services, settings.worker_threads):
        log.info("working", extra={"action": "worker_started"})
        stop_requested.wait()


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
