"""Refresh after a change in the cloud: this client's runtimes pull it immediately, not at their next interval."""

import time
from collections.abc import Sequence

from memoair_protocol.defaults import ORG_ONLY_USER
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._loopback.user_runtime_client import UserRuntimeClient
from memoair_voice_sync._pool.handle import RuntimeHandle
from memoair_voice_sync._pool.parallel import map_in_threads
from memoair_voice_sync._pool.pool import RuntimePool
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

_PULL_TIMEOUT_S = 2.0
# The time to start a runtime if none is running.
_START_TIMEOUT_S = 5.0


def refresh_documents(pool: RuntimePool, runtime_client: UserRuntimeClient) -> None:
    """Let all runtimes pull the organization's documents; start one if none is running.

    What a runtime pulls is on the disk for those that start later. A failure is only logged: the change itself is
    made.
    """
    deadline = time.monotonic() + _PULL_TIMEOUT_S
    running = [handle for handle in pool.handles() if handle.runtime is not None]
    if running:
        map_in_threads(lambda handle: _pull(runtime_client, handle, ["org"], deadline), running)
        return
    try:
        handle = pool.acquire(ORG_ONLY_USER)
    except MemoAirVoiceMemoryError as error:
        _log_failure(error)
        return
    try:
        handle.ensure_running(time.monotonic() + _START_TIMEOUT_S)
        _pull(runtime_client, handle, ["org"], time.monotonic() + _PULL_TIMEOUT_S)
    except MemoAirVoiceMemoryError as error:
        _log_failure(error)
    finally:
        pool.release(handle)


def refresh_user(pool: RuntimePool, runtime_client: UserRuntimeClient, user_id: str) -> None:
    """Let a user's runtime, if there is one, pull the user's memories."""
    for handle in pool.handles():
        if handle.user_id == user_id and handle.runtime is not None:
            _pull(runtime_client, handle, ["profile", "permanent"], time.monotonic() + _PULL_TIMEOUT_S)


def _pull(runtime_client: UserRuntimeClient, handle: RuntimeHandle, scopes: Sequence[str], deadline: float) -> None:
    try:
        if not runtime_client.pull(handle, scopes, deadline):
            log.warning("a runtime has not pulled a change yet: action=refresh_partial scopes=%s", ",".join(scopes))
    except MemoAirVoiceMemoryError as error:
        _log_failure(error)


def _log_failure(error: MemoAirVoiceMemoryError) -> None:
    log.warning("a runtime has not pulled a change yet: action=refresh_failed code=%s", error.code)
