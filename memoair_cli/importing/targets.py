"""The interface of import targets, and the policy by which they retry."""

import threading
import time
from collections.abc import Sequence
from typing import Protocol

import attrs

from memoair_cli.importing.events import ImportEvent
from memoair_protocol.backoff import Backoff

_BACKOFF = Backoff(0.5, 30.0, jitter=0.5)


class TargetError(Exception):
    """The target cannot be used. The message says why, and what to do."""


class ImportInterruptedError(Exception):
    """The import was interrupted while it waited for a retry."""


@attrs.define
class SendResult:
    """The result of sending a batch. Each event of the batch is in exactly one of the attributes.

    Attributes:
        accepted: Ids of events that are new to the target.
        duplicate: Ids of events that the target had before.
        rejected: The reasons of rejections, by event id.
    """

    accepted: set[str] = attrs.field(factory=set)
    duplicate: set[str] = attrs.field(factory=set)
    rejected: dict[str, str] = attrs.field(factory=dict)

    def add(self, other: "SendResult") -> "SendResult":
        """Add the result of another part of the batch, and return this one."""
        self.accepted |= other.accepted
        self.duplicate |= other.duplicate
        self.rejected |= other.rejected
        return self


class ImportTarget(Protocol):
    """A target of imports. It saves each event once, however often it is sent."""

    @property
    def name(self) -> str:
        """The name of the target for people."""

    def send(self, user_id: str, events: Sequence[ImportEvent]) -> SendResult:
        """Send events of one user. Accepted events are durable.

        Raises:
            TargetError: The target cannot be used.
            ImportInterruptedError: The import was interrupted during a retry.
        """

    def close(self) -> None:
        """Release the resources of the target."""


class RetryPolicy:
    """The retries of one batch: exponential backoff with jitter, until a timeout.

    Args:
        timeout_s: How long to retry, in seconds.
        stop_event: Interrupts the wait when it is set.
    """

    def __init__(self, timeout_s: float, stop_event: threading.Event) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._stop_event = stop_event
        self._failures = 0

    def wait(self, reason: str, retry_after_s: float | None = None) -> None:
        """Wait before the next retry.

        Args:
            reason: Why the last attempt failed.
            retry_after_s: Seconds to wait, if the target asked for it.

        Raises:
            TargetError: The timeout would expire before the next retry. Its message is ``reason``.
            ImportInterruptedError: The stop event is set.
        """
        self._failures += 1
        pause_s = _BACKOFF.pause_s(self._failures, retry_after_s=retry_after_s or 0.0)
        if time.monotonic() + pause_s > self._deadline:
            raise TargetError(reason)
        if self._stop_event.wait(pause_s):
            raise ImportInterruptedError
