"""The parent process: it receives events about this runtime, and the runtime does not outlive it."""

import json
import logging
import os
from collections.abc import Callable
from typing import Any

from memoair_protocol.threads import start_thread

log = logging.getLogger(__name__)


class ParentWatch:
    """The connection to the process that started this one.

    It consists of a descriptor that closes when the parent ends, and one to which events are written. Either may be
    missing: a runtime that was started by hand runs until it is asked to stop.
    """

    def __init__(self, watched_fd: int | None, event_fd: int | None) -> None:
        """Connect to the parent.

        Args:
            watched_fd: Descriptor that reaches its end when the parent ends, or None to ignore the parent's end.
            event_fd: Descriptor to which events are written, or None to discard them.
        """
        self._watched_fd = watched_fd
        self._event_fd = event_fd

    def emit(self, event: dict[str, Any]) -> None:
        """Write an event as one line of JSON. A parent that no longer reads is not an error."""
        if self._event_fd is None:
            return
        try:
            os.write(self._event_fd, json.dumps(event).encode() + b"\n")
        except OSError:
            log.debug("the parent does not read events: action=tell_failed event=%s", event["event"])

    def watch(self, on_end: Callable[[], None]) -> None:
        """Call ``on_end`` in a thread when the parent ends. The system closes the parent's descriptors however it ends.

        Raises:
            ThreadUnavailableError: If there is no thread for it. Without it, the process would outlive its parent.
        """
        if self._watched_fd is not None:
            start_thread(self._wait_for_parent, name="parent-watch", args=(self._watched_fd, on_end))

    def _wait_for_parent(self, watched_fd: int, on_end: Callable[[], None]) -> None:
        try:
            while os.read(watched_fd, 1 << 12):
                pass
        except OSError:
            log.debug("failed to watch the parent: action=owner_gone")
        on_end()
