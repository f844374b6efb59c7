"""The state of the runtimes' sync with the cloud, for `MemoAirVoiceClientSync.stats`."""

import time
from collections.abc import Sequence
from typing import Any

from memoair_voice_sync._loopback.transport import RuntimeUnreachableError
from memoair_voice_sync._pool.handle import RuntimeHandle
from memoair_voice_sync._pool.parallel import map_in_threads
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# The time for all runtimes together. The state of one that hangs is unknown.
_TIMEOUT_S = 0.5

UNKNOWN: dict[str, Any] = {
    "sync": None,
    "cloud_rejection": None,
    "unsynced_events": None,
    "oldest_unsynced_s": None,
    "refused_events": None,
}
_OFF: dict[str, Any] = {**UNKNOWN, "sync": "off", "unsynced_events": 0, "refused_events": 0}


def query_sync_stats(handles: Sequence[RuntimeHandle], *, has_cloud: bool) -> dict[RuntimeHandle, dict[str, Any]]:
    """Return the sync state of each handle that has a runtime; unknown if it does not answer in time.

    A runtime of this client without a cloud is not queried.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    known = {handle: _OFF for handle in handles if not has_cloud and _has_own_runtime(handle)}
    queried = [handle for handle in handles if handle.runtime and handle not in known]
    statuses = map_in_threads(lambda handle: _query_sync(handle, deadline), queried)
    return {**known, **dict(zip(queried, statuses, strict=True))}


def _has_own_runtime(handle: RuntimeHandle) -> bool:
    runtime = handle.runtime  # read once: another thread may drop it at any moment
    return runtime is not None and runtime.is_ours


def _query_sync(handle: RuntimeHandle, deadline: float) -> dict[str, Any]:
    runtime = handle.runtime
    if runtime is None:
        return UNKNOWN
    try:
        sync = runtime.transport.health(deadline)["sync"]
        oldest_ms = sync["oldestUnsyncedMs"]
        return {
            "sync": sync["state"],
            "cloud_rejection": (sync.get("rejection") or {}).get("message"),
            "unsynced_events": sync["unsynced"],
            "oldest_unsynced_s": None if oldest_ms is None else oldest_ms / 1e3,
            "refused_events": sync["refused"],
        }
    except (RuntimeUnreachableError, MemoAirVoiceMemoryError, KeyError, TypeError):
        return UNKNOWN
