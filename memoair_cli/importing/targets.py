"""What an import brings events to, and how it bears with one that does not take them at once."""

import random
import threading
import time
from collections.abc import Sequence
from typing import Protocol

import attrs

from memoair_cli.importing.events import ImportEvent

_INITIAL_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 30.0


class TargetError(Exception):
    """The target can't be used, or not any more; the message says why and what to do."""


class ImportInterruptedError(Exception):
    """The import was told to end while it waited."""


@attrs.define
class SendResult:
    """What became of a batch. Each of its events is in one of the three."""

    accepted: set[str] = attrs.field(factory=set)
    duplicate: set[str] = attrs.field(factory=set)
    rejected: dict[str, str] = attrs.field(factory=dict)  # why, by event id

    def add(self, other: "SendResult") -> "SendResult":
        """Take in what became of another part of the batch."""
        self.accepted |= other.accepted
        self.duplicate |= other.duplicate
        self.rejected |= other.rejected
        return self


class ImportTarget(Protocol):
    """Takes events, each once, however often it is brought."""

    @property
    def name(self) -> str:
        """The target as one would tell it to a colleague."""

    def send(self, user_id: str, events: Sequence[ImportEvent]) -> SendResult:
        """Bring a caller's events; what is accepted is durable. Raises `TargetError` or `ImportInterruptedError`."""

    def close(self) -> None:
        """Let go of it."""


class RetryPolicy:
    """How long one batch is tried again, and when next: longer each time, never at the same moment as the others."""

    def __init__(self, timeout_s: float, stop_event: threading.Event) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._stop_event = stop_event
        self._backoff_s = _INITIAL_BACKOFF_S

    def wait(self, reason: str, retry_after_s: float | None = None) -> None:
        """Wait for the next try, as long as was asked for; raises `TargetError` where patience ends before."""
        pause_s = self._backoff_s * random.uniform(0.5, 1.0)
        if retry_after_s is not None:
            pause_s = retry_after_s + random.uniform(0, 0.25 * max(retry_after_s, _INITIAL_BACKOFF_S))
        self._backoff_s = min(2 * self._backoff_s, _MAX_BACKOFF_S)
        if time.monotonic() + pause_s > self._deadline:
            raise TargetError(reason)
        if self._stop_event.wait(pause_s):
            raise ImportInterruptedError
