"""What was let go of without being closed: told, and closed all the same."""

import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress


def warn_unclosed(owner: object, close: Callable[[], None]) -> None:
    """Warn of an ``owner`` that is collected while it is open, and close what it held, behind whoever runs just now.

    At the end of the interpreter nothing is done: the runtimes end with their process by themselves.
    """
    if sys.is_finalizing():
        return
    warnings.warn(f"unclosed {owner!r}", ResourceWarning, source=owner, stacklevel=3)
    with suppress(RuntimeError):  # there are no threads to be had
        threading.Thread(target=close, name="memoair-close", daemon=True).start()
