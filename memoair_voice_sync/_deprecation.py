"""What still works, and will not for ever."""

import inspect
import warnings

_SDK_PACKAGES = ("memoair_voice_sync", "memoair_voice")


def warn_deprecated(message: str) -> None:
    """Warn at the line of the application, however many of ours stand between: the async class asks the sync one."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _SDK_PACKAGES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, DeprecationWarning, stacklevel=level)
