"""What the SDK reports to the application: log lines, and warnings about deprecated use and unclosed objects."""

import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from memoair_protocol.threads import ThreadUnavailableError, start_thread

_SDK_PACKAGES = ("memoair_voice_sync", "memoair_voice")

# Silent unless the application configures it. It never logs what a caller said.
log = logging.getLogger("memoair_voice")
log.addHandler(logging.NullHandler())


class RejectionLog:
    """Why the cloud rejects a client, logged once for each reason.

    Each call of a client may be the first to learn it, from the reply of a runtime. Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def report(self, rejection: Mapping[str, Any] | None) -> None:
        """Log a rejection ``{"part", "message"}`` of a runtime's reply, if there is one and it is new."""
        message = None if rejection is None else rejection.get("message")
        if rejection is not None and isinstance(message, str) and message not in self._logged:
            self._logged.add(message)
            log.error(
                "%s. Nothing is sent to the cloud or comes from it, and turns stay on this machine: "
                "action=cloud_rejects part=%s",
                message,
                rejection.get("part"),
            )


def warn_deprecated(message: str) -> None:
    """Warn at the line of the application, above all frames of the SDK: the async class calls the sync one."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _SDK_PACKAGES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, DeprecationWarning, stacklevel=level)


def warn_unclosed(owner: object, close: Callable[[], None]) -> None:
    """Warn about an ``owner`` that is collected while it is open, and close its resources in a thread.

    A collection can happen in any thread, which must not wait. At the end of the interpreter nothing is done: the
    runtimes exit by themselves when this process ends.
    """
    if sys.is_finalizing():
        return
    warnings.warn(f"unclosed {owner!r}", ResourceWarning, source=owner, stacklevel=3)
    with suppress(ThreadUnavailableError):  # what it has opened ends with this process
        start_thread(close, name="memoair-close")
