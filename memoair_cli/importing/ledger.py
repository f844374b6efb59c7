"""What has become of each file's events, so that an import can tell it, and go on where an earlier one stopped."""

import threading
from collections.abc import Callable

import attrs

from memoair_cli.importing.events import ImportEvent, ImportEventKind
from memoair_voice_sync.transcripts import Rejection

# Events before the place at which an earlier import stopped that are sent all the same. If the target does not know
# them, it has lost them, and the state is not worth its name.
PROBED = 500
# Refusals of the target that are kept for the next run; more than these point at one fault, not at many.
_MOST_REFUSALS = 1_000


@attrs.frozen
class PendingEvent:
    """An event on its way. ``number`` is its place among the events of its file, from 1."""

    event: ImportEvent
    file: "FileProgress"
    number: int


@attrs.define
class ImportCounts:
    """What has become of turns and other things."""

    calls: int = 0
    kept: int = 0  # turns that the target has now, and had not before
    known: int = 0  # turns that it had already
    refused: int = 0  # lines and turns that can't be kept

    def plus(self, other: "ImportCounts") -> "ImportCounts":
        """Both together."""
        return ImportCounts(*(sum(pair) for pair in zip(attrs.astuple(self), attrs.astuple(other), strict=True)))


@attrs.frozen
class RefusedEvent:
    """An event that the target refused for good."""

    number: int
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
        on_refusal: Callable[[Rejection], None],
        resumes_at: int = 0,
        refused: tuple[RefusedEvent, ...] = (),
    ) -> None:
        self.name = name
        self.counts = ImportCounts()
        self.is_stale = False  # whether the target has lost what an earlier run had acknowledged
        self._on_refusal = on_refusal
        self._lock = threading.Lock()
        self._resumes_at = resumes_at
        self._skipped = max(0, resumes_at - PROBED)
        self._produced = 0
        self._unsettled: dict[int, None] = {}  # in the order of the numbers
        self._refused: list[RefusedEvent] = []
        self._told: set[tuple[int, str]] = set()  # the refusals that were heard of, as far as they are remembered
        before = [each for each in refused if each.number <= self._skipped]
        self._refused_before = {each.number for each in before}
        for each in before:
            self._note(each)

    def enter(self, event: ImportEvent) -> PendingEvent | None:
        """Take in the file's next event; None for one that need not be sent."""
        with self._lock:
            self._produced += 1
            if self._produced <= self._skipped:
                self.counts.known += event.kind is ImportEventKind.TURN and self._produced not in self._refused_before
                return None
            self._unsettled[self._produced] = None
            return PendingEvent(event, self, self._produced)

    def settle(self, entry: PendingEvent, *, is_new: bool) -> None:
        """The target has the event; it may have had it before."""
        with self._lock:
            self._unsettled.pop(entry.number, None)
            self.is_stale |= is_new and entry.number <= self._resumes_at
            if entry.event.kind is ImportEventKind.TURN:
                self.counts.kept += is_new
                self.counts.known += not is_new

    def refuse(self, entry: PendingEvent, reason: str) -> None:
        """The target will never take the event."""
        with self._lock:
            self._unsettled.pop(entry.number, None)
            self._note(RefusedEvent(entry.number, entry.event.line, reason))

    def refuse_line(self, refusal: Rejection) -> None:
        """A line that is no event."""
        with self._lock:
            self.counts.refused += 1
        self._on_refusal(refusal)

    def state(self) -> tuple[int, tuple[RefusedEvent, ...]]:
        """How many events, from the first on, are settled without a gap, and what was refused of them."""
        with self._lock:
            if self.is_stale:
                return 0, ()
            # A run that was stopped before it came to where the one before it stood takes nothing back.
            acknowledged = max(next(iter(self._unsettled), self._produced + 1) - 1, self._resumes_at)
            return acknowledged, tuple(each for each in self._refused if each.number <= acknowledged)

    def _note(self, refused: RefusedEvent) -> None:
        if len(self._refused) < _MOST_REFUSALS:
            self._refused.append(refused)
        # The start of a call comes from the line of its first turn, the end from that of its last: whoever refuses one
        # for the same reason as the other has refused one line.
        if (refused.line, refused.reason) in self._told:
            return
        if len(self._told) < _MOST_REFUSALS:
            self._told.add((refused.line, refused.reason))
        self.counts.refused += 1
        self._on_refusal(Rejection(self.name, refused.line, refused.reason))
