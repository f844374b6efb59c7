"""Searches that failed: counted, logged, and answered with an empty result that says why."""

import threading
from collections.abc import Sequence

from memoair_voice_sync._diagnostics import log
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.results import SearchResult, degraded_result


class DegradedSearches:
    """The failed searches of one client. Safe to use from any thread."""

    def __init__(self) -> None:
        self.count = 0
        self._has_advised = False
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Replace the lock in the child of a fork: a thread of the parent may have held it."""
        self._lock = threading.Lock()

    def record(
        self,
        error: MemoAirVoiceMemoryError,
        lanes: Sequence[str] | None,
        timeout_ms: float,
        elapsed_ms: float,
        *,
        is_starting: bool,
    ) -> SearchResult:
        """Return the empty result of a search that failed with an error.

        With ``is_starting`` the runtime had not answered anything yet, which the application can avoid.
        """
        with self._lock:
            self.count += 1
            advises = is_starting and not self._has_advised
            self._has_advised |= advises
        if advises:
            log.warning(
                "a search returns an empty result because the runtime is still starting; call warm_up() when the "
                "process starts and load_index(user=...) when the phone rings: action=search_while_starting code=%s",
                error.code,
            )
        else:
            log.warning("a search failed and returns an empty result: action=search_degraded code=%s", error.code)
        return degraded_result(error, lanes, timeout_ms, elapsed_ms, is_starting=is_starting)
