"""A pull behind the calls of an application: nobody waits longer for it than he wants to, and nobody asks too often."""

import random
import threading
import time
from pathlib import Path

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._log import log
from memoair_voice_sync.runtime_store.cache import CachedRuntime, find_cached
from memoair_voice_sync.runtime_store.cancel_token import CancelToken
from memoair_voice_sync.runtime_store.errors import PullCancelledError
from memoair_voice_sync.runtime_store.reference import Reference

# After a pull that came to nothing, calls are told so at once for as long as this; then it is tried again.
INITIAL_BACKOFF_S, MAX_BACKOFF_S = 2.0, 300.0
PULL_TIMEOUT_S = 1_800.0
_JOIN_TIMEOUT_S = 2.0
_MEGABYTE = 1_000_000


class BackgroundPull:
    """Pulls one reference, in a thread that lives as long as that takes. Safe to use from any thread."""

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
        """The program; None while it is being pulled, which begins with the first question.

        Raises what the last pull came to, for as long as it is not tried again.
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
                message = f"{error.message} (it is tried again in {remaining_s} s)"
                raise MemoAirVoiceMemoryError(error.code, message, details=dict(error.details))
            self._runtime = find_cached(self._reference, self._cache_dir)
            if self._runtime is not None:
                return self._runtime.program
            self._cancel_token = CancelToken(PULL_TIMEOUT_S)
            self._done_bytes, self._total_bytes = 0, None
            self._thread = threading.Thread(
                target=self._run, args=(self._cancel_token,), name="memoair-pull", daemon=True
            )
            self._thread.start()
            return None

    @property
    def is_running(self) -> bool:
        """Whether it is being pulled now."""
        return self._thread is not None

    def status(self) -> str:
        """How far it is, for who does not wait longer."""
        done_bytes, total_bytes = self._done_bytes, self._total_bytes
        progress = (
            f"{done_bytes / _MEGABYTE:.1f}" + (f" of {total_bytes / _MEGABYTE:.1f}" if total_bytes else "") + " MB"
        )
        return f"the runtime {self._reference.display_name} is being pulled ({progress}); `memoair runtime pull` does it beforehand"

    def close(self) -> None:
        """Call it off; another process that waits for the same goes on with it. Twice is no harm."""
        with self._lock:
            self._is_closed = True
            thread, cancel_token = self._thread, self._cancel_token
        if cancel_token is not None:
            cancel_token.cancel()
        if thread is not None:
            thread.join(_JOIN_TIMEOUT_S)

    def reset_after_fork(self) -> None:
        """After a fork, in the child: the thread is the parent's."""
        self._lock = threading.Lock()
        self._thread, self._cancel_token = None, None

    def _run(self, cancel_token: CancelToken) -> None:
        from memoair_voice_sync.runtime_store.pull import pull  # a tenth of a second, which no call is to wait for

        runtime: CachedRuntime | None = None
        failure: MemoAirVoiceMemoryError | None = None
        try:
            runtime = pull(self._reference, self._cache_dir, cancel_token, self._on_progress)
        except PullCancelledError:
            pass
        except MemoAirVoiceMemoryError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it was
            message = f"the runtime {self._reference.display_name} could not be pulled: {type(error).__name__}"
            failure = MemoAirVoiceMemoryError("runtime.start_failed", message)
        if failure is not None:
            log.warning("%s: action=pull_failed code=%s", failure.message, failure.code)
        with self._lock:
            self._runtime, self._error, self._thread, self._cancel_token = runtime, failure, None, None
            if failure is None:
                self._failure_count = 0
                return
            backoff_s = min(MAX_BACKOFF_S, INITIAL_BACKOFF_S * 2**self._failure_count)
            self._failure_count += 1
            self._retry_at = time.monotonic() + backoff_s * random.uniform(0.9, 1.1)

    def _on_progress(self, done_bytes: int, total_bytes: int | None) -> None:
        self._done_bytes, self._total_bytes = done_bytes, total_bytes
