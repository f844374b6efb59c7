"""The log of the integration; what callers and agents say is never in it."""

import logging

log = logging.getLogger("memoair_pipecat")


def error_code(error: BaseException) -> str:
    """What is told of an error: its code, or its kind; its message may hold a caller's words."""
    return str(getattr(error, "code", "") or type(error).__name__)
