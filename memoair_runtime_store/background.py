"""Pull a runtime in the background, so that callers wait no longer than their timeout and failures are not hammered."""

import logging
import threading
import time
from pathlib import Path

from memoair_protocol.backoff import Backoff
from memoair_protocol.errors import MemoAirVoiceMemoryError
from memoair_protocol.threads import ThreadUnavailableError, start_thread
from memoair_runtime_store.cache import CachedRuntime, find_cached
from memoair_runtime_store.cancel_token import CancelToken
from memoair_runtime_store.errors import PullCancelledError
from memoair_runtime_store.reference import Reference

log = logging.getLogger("memoair_voice")
# After a failed pull, requests fail immediately for this long; then the pull is retried. The delay doubles per failure.
BACKOFF = Backoff(2.0, 300.0, jitter=0.2)
PULL_TIMEOUT_S = 1_800.0
_JOIN_TIMEOUT_S = 2.0
_MEGABYTE = 1_000_000


class BackgroundPull:
    """A pull of one reference, in a thread that ends with the pull. Safe to use from any thread.

    Args:
        reference: The runtime to pull.
        cache_dir: The folder of the cache that receives it.
    """

    def __init__(self, reference: Reference, cache_dir: Path) -> None:
        self._reference = reference
        self._cache_dir = cache_dir
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._cancel_token: CancelToken | None = None
        self._runtime: CachedRuntime | None = None
        self._error: MemoAirVoiceMemoryError | None = None
        self._failure_count = 0
        self._retry_at = 0.0
        self._is_closed = False
        self._done_bytes = 0
        self._total_bytes: int | None = None

    def program_or_start(self) -> Path | None:
        """Return the path of the program, or None while it is being pulled. The first call starts the pull.

        Raises:
            MemoAirVoiceMemoryError: The last pull failed, and it is not yet time to retry; the message says when that
                is. Or there is no thread to pull it in. Codes: ``runtime.not_found``, ``runtime.start_failed``.
        """
        with self._lock:
            if self._runtime is not None and self._runtime.program.exists():
                return self._runtime.program
            self._runtime = None
            if self._thread is not None or self._is_closed:
                return None
            if self._error is not None and time.monotonic() < self._retry_at:
                error = self._error
                remaining_s = max(1, round(self._retry_at - time.monotonic()))
                message = f"{error.message} (retrying in {remaining_s} s)"
                raise MemoAirVoiceMemoryError(error.code, message, details=dict(error.details))
            self._runtime = find_cached(self._reference, self._cache_dir)
            if self._runtime is not None:
                return self._runtime.program
            cancel_token = CancelToken(PULL_TIMEOUT_S)
            try:
                thread = start_thread(self._run, name="memoair-pull", args=(cancel_token,))  # it waits for the lock
            except ThreadUnavailableError as error:
                message = f"the runtime {self._reference.display_name} cannot be pulled now: {error}"
                raise MemoAirVoiceMemoryError("runtime.start_failed", message) from error
            self._thread, self._cancel_token = thread, cancel_token
            self._done_bytes, self._total_bytes = 0, None
            return None

    @property
    def is_running(self) -> bool:
        """Whether the runtime is being pulled now."""
        return self._thread is not None

    def status(self) -> str:
        """Return how far the pull is, for the message of a caller that stops waiting."""
        done_bytes, total_bytes = self._done_bytes, self._total_bytes
        progress = (
            f"{done_bytes / _MEGABYTE:.1f}" + (f" of {total_bytes / _MEGABYTE:.1f}" if total_bytes else "") + " MB"
        )
        return (
            f"the runtime {self._reference.display_name} is being pulled ({progress});"
            " run `memoair runtime pull` to pull it in advance"
        )

    def close(self) -> None:
        """Cancel the pull. Safe to call twice. Another process that waits for the same runtime takes over the pull."""
        with self._lock:
            self._is_closed = True
            thread, cancel_token = self._thread, self._cancel_token
        if cancel_token is not None:
            cancel_token.cancel()
        if thread is not None:
            thread.join(_JOIN_TIMEOUT_S)

    def reset_after_fork(self) -> None:
        """Discard the thread in a forked child: threads do not survive a fork."""
        self._lock = threading.Lock()
        self._thread, self._cancel_token = None, None

    def _run(self, cancel_token: CancelToken) -> None:
        from memoair_runtime_store.pull import pull  # takes 0.1 s, too long for the calling thread

        runtime: CachedRuntime | None = None
        failure: MemoAirVoiceMemoryError | None = None
        try:
            runtime = pull(self._reference, self._cache_dir, cancel_token, self._on_progress)
        except PullCancelledError:
            pass  # only this object cancels a pull, as it closes: neither a result nor a failure
        except MemoAirVoiceMemoryError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - callers that wait need to learn of any failure
            message = f"the runtime {self._reference.display_name} could not be pulled: {type(error).__name__}"
            failure = MemoAirVoiceMemoryError("runtime.start_failed", message)
        if failure is not None:
            log.warning("%s: action=pull_failed code=%s", failure.message, failure.code)
        with self._lock:
            self._runtime, self._error, self._thread, self._cancel_token = runtime, failure, None, None
            if failure is None:
                self._failure_count = 0
                return
            self._failure_count += 1
            self._retry_at = time.monotonic() + BACKOFF.pause_s(self._failure_count)

    def _on_progress(self, done_bytes: int, total_bytes: int | None) -> None:
        self._done_bytes, self._total_bytes = done_bytes, total_bytes
