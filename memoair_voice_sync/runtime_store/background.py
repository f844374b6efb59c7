"""A pull behind the calls of an application: nobody waits longer for it than he wants to, and nobody asks too often."""

import random
import threading
import time
from pathlib import Path

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._log import log
from memoair_voice_sync.runtime_store.cache import CachedRuntime, cached
from memoair_voice_sync.runtime_store.cancel_token import CancelToken
from memoair_voice_sync.runtime_store.errors import PullCancelledError
from memoair_voice_sync.runtime_store.reference import Reference

# After a pull that came to nothing, calls are told so at once for as long as this; then it is tried again.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 300.0
LONGEST_S = 1_800.0
_END_S = 2.0
_MEGABYTE = 1_000_000


class BackgroundPull:
    """Pulls one reference, in a thread that lives as long as that takes. Safe to use from any thread."""

    def __init__(self, reference: Reference, cache_dir: Path) -> None:
        self._reference = reference
        self._cache_dir = cache_dir
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop: CancelToken | None = None
        self._found: CachedRuntime | None = None
        self._failure: MemoAirVoiceMemoryError | None = None
        self._failures = 0
        self._paused_until = 0.0
        self._is_closed = False
        self._done = 0
        self._whole: int | None = None

    def program(self) -> Path | None:
        """The program; None while it is being pulled, which begins with the first question.

        Raises what the last pull came to, for as long as it is not tried again.
        """
        with self._lock:
            if self._found is not None and self._found.program.exists():
                return self._found.program
            self._found = None
            if self._thread is not None or self._is_closed:
                return None
            if self._failure is not None and time.monotonic() < self._paused_until:
                error = self._failure
                left = max(1, round(self._paused_until - time.monotonic()))
                message = f"{error.message} (it is tried again in {left} s)"
                raise MemoAirVoiceMemoryError(error.code, message, details=dict(error.details))
            self._found = cached(self._reference, self._cache_dir)
            if self._found is not None:
                return self._found.program
            self._stop = CancelToken(LONGEST_S)
            self._done, self._whole = 0, None
            self._thread = threading.Thread(target=self._run, args=(self._stop,), name="memoair-pull", daemon=True)
            self._thread.start()
            return None

    @property
    def is_under_way(self) -> bool:
        """Whether it is being pulled now."""
        return self._thread is not None

    def status(self) -> str:
        """How far it is, for who does not wait longer."""
        done, whole = self._done, self._whole
        far = f"{done / _MEGABYTE:.1f}" + (f" of {whole / _MEGABYTE:.1f}" if whole else "") + " MB"
        return f"the runtime {self._reference.shown} is being pulled ({far}); `memoair runtime pull` does it beforehand"

    def close(self) -> None:
        """Call it off; another process that waits for the same goes on with it. Twice is no harm."""
        with self._lock:
            self._is_closed = True
            thread, stop = self._thread, self._stop
        if stop is not None:
            stop.set()
        if thread is not None:
            thread.join(_END_S)

    def forget(self) -> None:
        """After a fork, in the child: the thread is the parent's."""
        self._lock = threading.Lock()
        self._thread, self._stop = None, None

    def _run(self, stop: CancelToken) -> None:
        from memoair_voice_sync.runtime_store.pull import pull  # a tenth of a second, which no call is to wait for

        found: CachedRuntime | None = None
        failure: MemoAirVoiceMemoryError | None = None
        try:
            found = pull(self._reference, self._cache_dir, stop, self._note)
        except PullCancelledError:
            pass
        except MemoAirVoiceMemoryError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it was
            message = f"the runtime {self._reference.shown} could not be pulled: {type(error).__name__}"
            failure = MemoAirVoiceMemoryError("runtime.start_failed", message)
        if failure is not None:
            log.warning("%s: action=pull_failed code=%s", failure.message, failure.code)
        with self._lock:
            self._found, self._failure, self._thread, self._stop = found, failure, None, None
            if failure is None:
                self._failures = 0
                return
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._failures)
            self._failures += 1
            self._paused_until = time.monotonic() + pause_s * random.uniform(0.9, 1.1)

    def _note(self, done: int, whole: int | None) -> None:
        self._done, self._whole = done, whole
