"""Track what became of each file's events, to report it and to continue an interrupted import."""

import threading
from collections.abc import Callable

import attrs

from memoair_cli.importing.events import ImportEvent
from memoair_protocol.enums import EventType
from memoair_transcripts import Rejection

# Events before the resume point that are sent again anyway. If they are new to the target, it has lost data, and the
# recorded progress is not valid.
PROBE_EVENTS = 500
# The rejections of the target that are recorded per file. More than these point to one common cause.
_MAX_REJECTIONS = 1_000


@attrs.frozen
class PendingEvent:
    """An event that is being sent. ``ordinal`` is its position among the events of its file, from 1."""

    event: ImportEvent
    progress: "FileProgress"
    ordinal: int


@attrs.define
class ImportCounts:
    """The counts of an import.

    Attributes:
        calls: Calls.
        kept: Turns that are new to the target.
        already_kept: Turns that the target had before.
        rejected: Lines and turns that were rejected.
    """

    calls: int = 0
    kept: int = 0
    already_kept: int = 0
    rejected: int = 0

    def plus(self, other: "ImportCounts") -> "ImportCounts":
        """Return the sum of both."""
        return ImportCounts(*(sum(pair) for pair in zip(attrs.astuple(self), attrs.astuple(other), strict=True)))


@attrs.frozen
class ImportRejection:
    """An event that the target rejected permanently."""

    ordinal: int
    line: int
    reason: str


class FileProgress:
    """The progress of one file. Safe to use from any thread.

    Args:
        name: The name of the file in rejections.
        on_rejection: Called once for each rejection.
        resume_at: How many events an earlier run has had acknowledged.
        rejected: Events that the target rejected in earlier runs.
    """

    def __init__(
        self,
        name: str,
        on_rejection: Callable[[Rejection], None],
        resume_at: int = 0,
        rejected: tuple[ImportRejection, ...] = (),
    ) -> None:
        self.name = name
        self.counts = ImportCounts()
        self.is_stale = False  # whether the target has lost events that it acknowledged in an earlier run
        self._on_rejection = on_rejection
        self._lock = threading.Lock()
        self._resume_at = resume_at
        self._skip_count = max(0, resume_at - PROBE_EVENTS)
        self._event_count = 0
        self._unacknowledged: dict[int, None] = {}  # in order of ordinals
        self._rejected: list[ImportRejection] = []
        self._reported: set[tuple[int, str]] = set()  # line and reason of reported rejections, up to a limit
        earlier = [rejection for rejection in rejected if rejection.ordinal <= self._skip_count]
        self._rejected_before = {rejection.ordinal for rejection in earlier}
        for rejection in earlier:
            self._record_rejection(rejection)

    def add_event(self, event: ImportEvent) -> PendingEvent | None:
        """Add the file's next event. Return None if it need not be sent."""
        with self._lock:
            self._event_count += 1
            if self._event_count <= self._skip_count:
                self.counts.already_kept += (
                    event.kind is EventType.TURN and self._event_count not in self._rejected_before
                )
                return None
            self._unacknowledged[self._event_count] = None
            return PendingEvent(event, self, self._event_count)

    def acknowledge(self, entry: PendingEvent, *, is_new: bool) -> None:
        """Record that the target has an event. It may have had it before."""
        with self._lock:
            self._unacknowledged.pop(entry.ordinal, None)
            self.is_stale |= is_new and entry.ordinal <= self._resume_at
            if entry.event.kind is EventType.TURN:
                self.counts.kept += is_new
                self.counts.already_kept += not is_new

    def reject(self, entry: PendingEvent, reason: str) -> None:
        """Record that the target permanently rejected an event."""
        with self._lock:
            self._unacknowledged.pop(entry.ordinal, None)
            self._record_rejection(ImportRejection(entry.ordinal, entry.event.line, reason))

    def reject_line(self, rejection: Rejection) -> None:
        """Record a line that is invalid."""
        with self._lock:
            self.counts.rejected += 1
        self._on_rejection(rejection)

    def resume_point(self) -> tuple[int, tuple[ImportRejection, ...]]:
        """Return how many events from the first on are done without a gap, and which of them were rejected."""
        with self._lock:
            if self.is_stale:
                return 0, ()
            # If this run was interrupted before the resume point of the one before, that one stays.
            acknowledged = max(next(iter(self._unacknowledged), self._event_count + 1) - 1, self._resume_at)
            return acknowledged, tuple(rejection for rejection in self._rejected if rejection.ordinal <= acknowledged)

    def _record_rejection(self, rejection: ImportRejection) -> None:
        if len(self._rejected) < _MAX_REJECTIONS:
            self._rejected.append(rejection)
        # The start of a call comes from the line of its first turn, and the end from that of its last. If the target
        # rejects both events of a line for the same reason, this counts as one rejection.
        if (rejection.line, rejection.reason) in self._reported:
            return
        if len(self._reported) < _MAX_REJECTIONS:
            self._reported.add((rejection.line, rejection.reason))
        self.counts.rejected += 1
        self._on_rejection(Rejection(self.name, rejection.line, rejection.reason))
