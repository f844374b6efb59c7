"""Count what becomes of the lines and events of an import, and report what is rejected."""

import threading
from collections import Counter
from collections.abc import Callable

import attrs

from memoair_cli.importing.batches import EventBatch
from memoair_cli.importing.targets import SendResult
from memoair_protocol.enums import EventType
from memoair_transcripts import Rejection, SkippedItem

# More rejections than these point to one common cause; beyond them, two of one line may count as two.
_MAX_REPORTED = 10_000


@attrs.define
class ImportCounts:
    """The counts of an import.

    Attributes:
        calls: Calls.
        kept: Turns that are new to the target.
        already_kept: Turns that the target had before.
        rejected: Lines and turns that were rejected.
        skipped: How often something was passed over that neither the caller nor the agent said, by reason.
    """

    calls: int = 0
    kept: int = 0
    already_kept: int = 0
    rejected: int = 0
    skipped: Counter[str] = attrs.field(factory=Counter)


class ImportTally:
    """The counts of an import so far. Safe to use from any thread.

    Args:
        on_rejection: Called once for each rejection.
    """

    def __init__(self, on_rejection: Callable[[Rejection], None]) -> None:
        self.counts = ImportCounts()
        self._on_rejection = on_rejection
        self._lock = threading.Lock()
        self._reported: set[Rejection] = set()  # rejections by the target, up to a limit

    def reject_line(self, rejection: Rejection) -> None:
        """Record a line that is invalid."""
        with self._lock:
            self.counts.rejected += 1
        self._on_rejection(rejection)

    def skip(self, item: SkippedItem) -> None:
        """Record something that is passed over."""
        with self._lock:
            self.counts.skipped[item.reason] += 1

    def record_known(self, batch: EventBatch) -> None:
        """Record that a batch need not be sent, because the target has it."""
        with self._lock:
            self.counts.already_kept += sum(event.kind is EventType.TURN for event in batch.events)

    def record_result(self, batch: EventBatch, result: SendResult) -> None:
        """Record the result of sending a batch."""
        with self._lock:
            new = set(result.accepted)
            for event in batch.events:
                if event.id in result.rejected:
                    self._reject(Rejection(event.file, event.line, result.rejected[event.id]))
                elif event.kind is EventType.TURN:
                    self.counts.kept += event.id in new
                    self.counts.already_kept += event.id not in new
                new.discard(event.id)  # an event that is in a batch twice is new only once

    def _reject(self, rejection: Rejection) -> None:
        # The start of a call comes from the line of its first turn, and the end from that of its last. If the target
        # rejects both events of a line for the same reason, this counts as one rejection.
        if rejection in self._reported:
            return
        if len(self._reported) < _MAX_REPORTED:
            self._reported.add(rejection)
        self.counts.rejected += 1
        self._on_rejection(rejection)
