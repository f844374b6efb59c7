"""Warnings about deprecated use."""

import inspect
import warnings

_SDK_PACKAGES = ("memoair_voice_sync", "memoair_voice")


def warn_deprecated(message: str) -> None:
    """Warn at the line of the application, above all frames of the SDK: the async class calls the sync one."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _SDK_PACKAGES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, DeprecationWarning, stacklevel=level)
