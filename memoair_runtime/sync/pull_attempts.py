"""Pulls that fail alone: what the cloud answers to one of them says nothing about the others, or about pushes."""

import logging
import time
from collections.abc import Callable

from memoair_protocol.backoff import Backoff
from memoair_runtime.sync.errors import CloudError, FailureKind

log = logging.getLogger(__name__)

BACKOFF = Backoff(5.0, 600.0)


class PullAttempts:
    """Runs the pulls of a process, and repeats one that the cloud rejects less and less often. For one thread."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._paused_until: dict[str, float] = {}

    def run(self, name: str, pull: Callable[[], bool], reset: Callable[[], None] = lambda: None) -> bool:
        """Run a pull, unless it was rejected a short while ago.

        Args:
            name: What is pulled.
            pull: Pulls; returns whether that is complete.
            reset: Called if the cloud rejects the request, so that the next one asks for everything: the version that
                this machine has may be the reason.

        Returns:
            What ``pull`` returned; False if it was rejected, or is not due yet.

        Raises:
            CloudError: The request failed for a reason that concerns every request.
        """
        if time.monotonic() < self._paused_until.get(name, 0.0):
            return False
        try:
            is_complete = pull()
        except CloudError as error:
            if error.kind is not FailureKind.ONE_REQUEST:
                raise
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            self._paused_until[name] = time.monotonic() + BACKOFF.pause_s(failures)
            if failures == 1:
                log.warning("the cloud rejects a pull: action=pull_rejected pull=%s why=%s", name, error.message)
            reset()
            return False
        if self._failures.pop(name, 0):
            self._paused_until.pop(name)
            log.warning("a pull works again: action=pull_ok pull=%s", name)
        return is_complete

    def retry_in_s(self) -> float:
        """Return the seconds until a rejected pull is due again; 0 if none was rejected."""
        return max(0.0, min(self._paused_until.values(), default=0.0) - time.monotonic())
