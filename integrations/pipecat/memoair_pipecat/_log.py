"""The log of the integration. It never contains what callers and agents say."""

import logging

log = logging.getLogger("memoair_pipecat")


def error_code(error: BaseException) -> str:
    """Return the code of an error, or else its type. Its message may contain a caller's words."""
    return str(getattr(error, "code", "") or type(error).__name__)
