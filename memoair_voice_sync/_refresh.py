"""After a change in the cloud: the runtimes of this client see it at once, and not only when they next ask."""

import time
from collections.abc import Sequence

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._handle import RuntimeHandle
from memoair_voice_sync._log import log
from memoair_voice_sync._parallel import map_in_threads
from memoair_voice_sync._pool import RuntimePool
from memoair_voice_sync._spec import ORG_ONLY_USER
from memoair_voice_sync._user_runtime_client import UserRuntimeClient

_PULL_TIMEOUT_S = 2.0
# Where none runs, one is started first.
_START_TIMEOUT_S = 5.0


def refresh_documents(pool: RuntimePool, runtime_client: UserRuntimeClient) -> None:
    """Have the project's runtimes pull the organisation's documents; where none runs, one is started for it.

    What a runtime pulls lies on the disk for those that start later. A failure is logged: the change itself is done.
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
    """Have a caller's runtime, if he has one, pull what is known of him."""
    for handle in pool.handles():
        if handle.user_id == user_id and handle.runtime is not None:
            _pull(runtime_client, handle, ["profile", "permanent"], time.monotonic() + _PULL_TIMEOUT_S)


def _pull(runtime_client: UserRuntimeClient, handle: RuntimeHandle, scopes: Sequence[str], deadline: float) -> None:
    try:
        if not runtime_client.pull(handle, scopes, deadline):
            log.warning("a runtime has not seen a change yet: action=refresh_partial scopes=%s", ",".join(scopes))
    except MemoAirVoiceMemoryError as error:
        _log_failure(error)


def _log_failure(error: MemoAirVoiceMemoryError) -> None:
    log.warning("a runtime has not seen a change yet: action=refresh_failed code=%s", error.code)
