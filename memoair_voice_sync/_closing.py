"""What the client, its sessions and the raw memory share: a ``with`` block closes them, and calls then fail."""

import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from memoair_protocol.threads import ThreadUnavailableError, start_thread
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

if TYPE_CHECKING:
    from typing_extensions import Self


# Closing takes some seconds if runtimes are busy. What takes longer than this hangs.
_STUCK_AFTER_S = 30.0
_WATCH_TIMEOUT_S = 1.0  # for the thread that reports it to end


class Closeable:
    """A mixin that makes an object with a method ``close`` a context manager."""

    close: Callable[..., None]

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def closed_error(what: str = "client") -> MemoAirVoiceMemoryError:
    """Return the error of a call to a client, or whatever ``what`` is, that has been closed."""
    return MemoAirVoiceMemoryError("pool.closed", f"the {what} is closed")


def close_all(*steps: Callable[[], object]) -> None:
    """Do all steps of a ``close``, each also if one before it fails. Log where each thread stands if that hangs.

    A failure is logged and not raised: the application is about to end, and has nothing to do about it.
    """
    is_done, watch = threading.Event(), None
    with suppress(ThreadUnavailableError):
        watch = start_thread(_report_if_stuck, args=[is_done], name="memoair-close-watch")
    try:
        for step in steps:
            try:
                step()
            except Exception as error:  # noqa: BLE001 - the next step ends processes that must not be left behind
                log.error(
                    "a part of the client could not be closed: action=close_failed error=%s", type(error).__name__
                )
    finally:
        is_done.set()
        if watch is not None:
            watch.join(_WATCH_TIMEOUT_S)


def _report_if_stuck(is_done: threading.Event) -> None:
    if is_done.wait(_STUCK_AFTER_S):
        return
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = [
        f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - documented in the standard library
    ]
    log.error(
        "close() has not ended after %.0f s: action=close_stuck\n%s", _STUCK_AFTER_S, "\n".join(stacks)
    )  # lines of code, and no values
