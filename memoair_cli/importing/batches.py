"""Events put together to batches, each of one caller: the target takes no others."""

from collections import OrderedDict
from collections.abc import Iterator

import attrs

from memoair_cli.importing.ledger import PendingEvent

MAX_BATCH_EVENTS = 500  # what a cloud takes at a time
# In characters; a batch is at most some 4 MB in UTF-8. A cloud takes 16 MB.
_MAX_BATCH_CHARS = 1_000_000
# Of all batches that wait for more. A caller who was heard longest ago goes first.
_MAX_BUFFERED_EVENTS = 8_000
_MAX_BUFFERED_CHARS = 8_000_000


@attrs.frozen
class EventBatch:
    """Events of one caller, in their order."""

    user_id: str = attrs.field(repr=False)
    entries: list[PendingEvent]
    size: int


@attrs.define
class _OpenBatch:
    entries: list[PendingEvent] = attrs.field(factory=list)
    size: int = 0


class Batcher:
    """Collects the events of many callers, and gives them away in batches."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _OpenBatch] = OrderedDict()
        self._buffered_events = self._buffered_chars = 0

    def add(self, entry: PendingEvent) -> Iterator[EventBatch]:
        """Take in an event; gives the batches that are full by it."""
        user_id, size = entry.event.user_id, entry.event.size
        batch = self._open.setdefault(user_id, _OpenBatch())
        if batch.entries and batch.size + size > _MAX_BATCH_CHARS:
            yield self._close_batch(user_id)
            batch = self._open.setdefault(user_id, _OpenBatch())
        batch.entries.append(entry)
        batch.size += size
        self._buffered_events += 1
        self._buffered_chars += size
        self._open.move_to_end(user_id)
        if len(batch.entries) == MAX_BATCH_EVENTS:
            yield self._close_batch(user_id)
        while self._buffered_events > _MAX_BUFFERED_EVENTS or self._buffered_chars > _MAX_BUFFERED_CHARS:
            yield self._close_batch(next(iter(self._open)))

    def flush(self) -> Iterator[EventBatch]:
        """What is left."""
        while self._open:
            yield self._close_batch(next(iter(self._open)))

    def _close_batch(self, user_id: str) -> EventBatch:
        batch = self._open.pop(user_id)
        self._buffered_events -= len(batch.entries)
        self._buffered_chars -= batch.size
        return EventBatch(user_id, batch.entries, batch.size)
