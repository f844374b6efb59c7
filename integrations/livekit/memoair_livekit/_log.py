"""The logger, never told what a caller said; and how a failure of ours stays ours."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("memoair_livekit")
log.addHandler(logging.NullHandler())


@contextmanager
def harmless(action: str) -> Iterator[None]:
    """Let nothing that fails in the block reach the session; it is told in the log by its code, without its words."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a call goes on without memory, whatever it was
        log.warning("memory failed: action=%s code=%s", action, getattr(error, "code", type(error).__name__))
