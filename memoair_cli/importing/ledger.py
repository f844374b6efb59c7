"""What has become of each file's events, so that an import can tell it, and go on where an earlier one stopped."""

import threading
from collections.abc import Callable

import attrs

from memoair_cli.importing.events import ImportEvent, ImportEventKind
from memoair_voice_sync.transcripts import Rejection

# Events before the place at which an earlier import stopped that are sent all the same. If the target does not know
# them, it has lost them, and the state is not worth its name.
PROBE_EVENTS = 500
# Refusals of the target that are kept for the next run; more than these point at one fault, not at many.
_MAX_REJECTIONS = 1_000


@attrs.frozen
class PendingEvent:
    """An event on its way. ``number`` is its place among the events of its file, from 1."""

    event: ImportEvent
    file: "FileProgress"
    ordinal: int


@attrs.define
class ImportCounts:
    """What has become of turns and other things."""

    calls: int = 0
    kept: int = 0  # turns that the target has now, and had not before
    already_kept: int = 0  # turns that it had already
    rejected: int = 0  # lines and turns that can't be kept

    def plus(self, other: "ImportCounts") -> "ImportCounts":
        """Both together."""
        return ImportCounts(*(sum(pair) for pair in zip(attrs.astuple(self), attrs.astuple(other), strict=True)))


@attrs.frozen
class ImportRejection:
    """An event that the target refused for good."""

    ordinal: int
    line: int
    reason: str


class FileProgress:
    """One file's events. Safe to use from any thread.

    ``resumes_at`` is how many of them an earlier run has had acknowledged, and ``refused`` what it was refused.
    ``on_refusal`` hears of every refusal once.
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
        self.is_stale = False  # whether the target has lost what an earlier run had acknowledged
        self._on_rejection = on_rejection
        self._lock = threading.Lock()
        self._resume_at = resume_at
        self._skip_count = max(0, resume_at - PROBE_EVENTS)
        self._event_count = 0
        self._unacknowledged: dict[int, None] = {}  # in the order of the numbers
        self._rejected: list[ImportRejection] = []
        self._reported: set[tuple[int, str]] = set()  # the refusals that were heard of, as far as they are remembered
        earlier = [rejection for rejection in rejected if rejection.ordinal <= self._skip_count]
        self._rejected_before = {rejection.ordinal for rejection in earlier}
        for rejection in earlier:
            self._record_rejection(rejection)

    def add_event(self, event: ImportEvent) -> PendingEvent | None:
        """Take in the file's next event; None for one that need not be sent."""
        with self._lock:
            self._event_count += 1
            if self._event_count <= self._skip_count:
                self.counts.already_kept += (
                    event.kind is ImportEventKind.TURN and self._event_count not in self._rejected_before
                )
                return None
            self._unacknowledged[self._event_count] = None
            return PendingEvent(event, self, self._event_count)

    def acknowledge(self, entry: PendingEvent, *, is_new: bool) -> None:
        """The target has the event; it may have had it before."""
        with self._lock:
            self._unacknowledged.pop(entry.ordinal, None)
            self.is_stale |= is_new and entry.ordinal <= self._resume_at
            if entry.event.kind is ImportEventKind.TURN:
                self.counts.kept += is_new
                self.counts.already_kept += not is_new

    def reject(self, entry: PendingEvent, reason: str) -> None:
        """The target will never take the event."""
        with self._lock:
            self._unacknowledged.pop(entry.ordinal, None)
            self._record_rejection(ImportRejection(entry.ordinal, entry.event.line, reason))

    def reject_line(self, rejection: Rejection) -> None:
        """A line that is no event."""
        with self._lock:
            self.counts.rejected += 1
        self._on_rejection(rejection)

    def resume_point(self) -> tuple[int, tuple[ImportRejection, ...]]:
        """How many events, from the first on, are settled without a gap, and what was refused of them."""
        with self._lock:
            if self.is_stale:
                return 0, ()
            # A run that was stopped before it came to where the one before it stood takes nothing back.
            acknowledged = max(next(iter(self._unacknowledged), self._event_count + 1) - 1, self._resume_at)
            return acknowledged, tuple(rejection for rejection in self._rejected if rejection.ordinal <= acknowledged)

    def _record_rejection(self, rejection: ImportRejection) -> None:
        if len(self._rejected) < _MAX_REJECTIONS:
            self._rejected.append(rejection)
        # The start of a call comes from the line of its first turn, the end from that of its last: whoever refuses one
        # for the same reason as the other has refused one line.
        if (rejection.line, rejection.reason) in self._reported:
            return
        if len(self._reported) < _MAX_REJECTIONS:
            self._reported.add((rejection.line, rejection.reason))
        self.counts.rejected += 1
        self._on_rejection(Rejection(self.name, rejection.line, rejection.reason))
