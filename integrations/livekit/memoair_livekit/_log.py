"""The logger, never told what a caller said; and how a failure of ours stays ours."""

import logging
from types import TracebackType

log = logging.getLogger("memoair_livekit")
log.addHandler(logging.NullHandler())


class log_failures:  # noqa: N801 - it reads as what a ``with`` block is
    """Let nothing that fails in the block reach the session; it is told in the log by its code, without its words."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):  # a cancellation is no failure
            return False
        log.warning("memory failed: action=%s code=%s", self._action, getattr(error, "code", type(error).__name__))
        return True
