"""When recall traces are sent: behind the events, soon after they were written, and later after a failure."""

import logging
import math
import time
from typing import TYPE_CHECKING

from memoair_runtime.sync.errors import CloudError

if TYPE_CHECKING:
    from memoair_runtime.sync.push_traces import TracePusher

log = logging.getLogger(__name__)

# How long to collect the traces of some searches into one push, and when to try again after a failure.
LINGER_S, RETRY_S = 1.0, 30.0


class TraceSchedule:
    """The next push of recall traces. Guarded by the lock of its scheduler, except `push`.

    Attributes:
        due_at: When to push, in monotonic seconds.
    """

    def __init__(self) -> None:
        self.due_at = 0.0  # earlier processes may have left some

    def on_written(self) -> bool:
        """Schedule a push; return whether it is the first to be scheduled."""
        if self.due_at != math.inf:
            return False
        self.due_at = time.monotonic() + LINGER_S
        return True

    def push(self, pusher: "TracePusher", deadline: float) -> None:
        """Push in the sync thread, after ``due_at`` was reset. A failure changes nothing for the events.

        Args:
            pusher: Sends the traces.
            deadline: When to stop, in monotonic seconds.
        """
        try:
            pusher.push(deadline)
        except (CloudError, OSError):
            self.due_at = min(self.due_at, time.monotonic() + RETRY_S)
        except Exception as error:  # noqa: BLE001 - no trace is worth the thread
            log.error("recall traces were not sent: action=traces_failed error=%s", type(error).__name__)
