"""The logger, which never receives the words of callers, and a guard against errors in the session."""

import logging
from types import TracebackType

log = logging.getLogger("memoair_livekit")
log.addHandler(logging.NullHandler())


class log_failures:  # noqa: N801 - used like a function in ``with`` statements
    """Log any error in the ``with`` block by its code instead of raising it. Its message may quote a caller."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):  # a cancellation is not a failure
            return False
        log.warning("memory failed: action=%s code=%s", self._action, getattr(error, "code", type(error).__name__))
        return True
