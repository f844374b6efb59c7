"""Keeps failures of the memory out of the session, and the words of callers out of the log.

Below 40 lines, but every integration and every module beside this one uses it.
"""

import logging
from contextlib import ContextDecorator
from types import TracebackType


def error_code(error: BaseException) -> str:
    """Return the code of an error, or else its type. Its message may contain a caller's words."""
    return str(getattr(error, "code", "") or type(error).__name__)


class log_failures(ContextDecorator):  # noqa: N801 - used like a function, in ``with`` statements and as a decorator
    """Log any error of a ``with`` block or a plain function by its code, instead of raising it into the session.

    A coroutine function needs the ``with`` statement inside it. A cancellation is not a failure and passes.
    """

    def __init__(
        self, log: logging.Logger, action: str, message: str = "memory failed", level: int = logging.WARNING
    ) -> None:
        """Log to ``log`` with the code ``action`` and with ``message``, which must be constant."""
        self._log = log
        self._action = action
        self._message = message
        self._level = level

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._log.log(self._level, "%s: action=%s code=%s", self._message, self._action, error_code(error))
        return True
