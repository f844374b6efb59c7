"""The owner: whoever started this runtime is told what became of it, and is not outlived."""

import json
import logging
import os
import threading
from typing import Any

from memoair_runtime.lifecycle import Lifecycle

log = logging.getLogger(__name__)


class ParentWatch:
    """The way to whoever started this process: a descriptor that closes when he ends, and one that he reads.

    Either may be missing: a runtime that was started by hand runs until it is told to end.
    """

    def __init__(self, watched_fd: int | None, event_fd: int | None) -> None:
        self._watched_fd = watched_fd
        self._event_fd = event_fd

    def emit(self, event: dict[str, Any]) -> None:
        """Tell of an event, as one line of JSON."""
        if self._event_fd is None:
            return
        try:
            os.write(self._event_fd, json.dumps(event).encode() + b"\n")
        except OSError:
            log.debug("nobody hears what we tell: action=tell_failed event=%s", event["event"])

    def watch(self, lifecycle: Lifecycle) -> None:
        """Ask for the end when the owner ends, however he does: the system closes his end then."""
        if self._watched_fd is not None:
            thread = threading.Thread(
                target=self._wait_for_parent, args=(self._watched_fd, lifecycle), name="owner", daemon=True
            )
            thread.start()

    def _wait_for_parent(self, watched_fd: int, lifecycle: Lifecycle) -> None:
        try:
            while os.read(watched_fd, 1 << 12):
                pass
        except OSError:
            log.debug("the owner can't be watched: action=owner_gone")
        lifecycle.request_stop()
