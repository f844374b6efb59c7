"""Starvation: the process or the machine is out of descriptors, memory or threads for the moment.

What cannot be opened in such a moment is neither missing nor damaged. It must not be thrown away, counted as empty or
noted as failed for good, but tried again.
"""

import errno

from memoair_protocol.threads import ThreadUnavailableError

_STARVED_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


def is_starved(error: BaseException | None) -> bool:
    """Return whether an error, or the one that it was raised from, is for want of descriptors, memory or threads."""
    while error is not None:
        if isinstance(error, MemoryError | ThreadUnavailableError) or (
            isinstance(error, OSError) and error.errno in _STARVED_ERRNOS
        ):
            return True
        error = error.__cause__
    return False


def raise_if_starved(error: BaseException) -> None:
    """Raise an error again if it is for want of descriptors, memory or threads; return if it is not."""
    if is_starved(error):
        raise error
