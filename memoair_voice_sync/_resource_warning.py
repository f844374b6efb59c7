"""ResourceWarnings for objects that are collected before they are closed."""

import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress


def warn_unclosed(owner: object, close: Callable[[], None]) -> None:
    """Warn about an ``owner`` that is collected while it is open, and close its resources in a thread.

    A collection can happen in any thread, which must not wait. At the end of the interpreter nothing is done: the
    runtimes exit by themselves when this process ends.
    """
    if sys.is_finalizing():
        return
    warnings.warn(f"unclosed {owner!r}", ResourceWarning, source=owner, stacklevel=3)
    with suppress(RuntimeError):  # no thread can be started
        threading.Thread(target=close, name="memoair-close", daemon=True).start()
