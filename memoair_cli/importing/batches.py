"""Batch events. A batch has the events of one user, since targets accept no others."""

from collections import OrderedDict
from collections.abc import Iterator

import attrs

from memoair_cli.importing.events import ImportEvent

MAX_BATCH_EVENTS = 500  # the limit of a cloud
# In characters, so a batch has at most some 4 MB in UTF-8. A cloud accepts 16 MB.
_MAX_BATCH_CHARS = 1_000_000
# The limits of all batches that are not full yet. Beyond them, the least recently active user's batch is sent.
_MAX_BUFFERED_EVENTS = 8_000
_MAX_BUFFERED_CHARS = 8_000_000


@attrs.frozen
class EventBatch:
    """Events of one user, in order."""

    user_id: str = attrs.field(repr=False)
    events: list[ImportEvent]


@attrs.define
class _OpenBatch:
    events: list[ImportEvent] = attrs.field(factory=list)
    size: int = 0


class Batcher:
    """Collects the events of many users into batches. Not thread-safe."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _OpenBatch] = OrderedDict()
        self._buffered_events = self._buffered_chars = 0

    def add(self, event: ImportEvent) -> Iterator[EventBatch]:
        """Add an event and yield the batches that are full."""
        user_id, size = event.user_id, event.size
        batch = self._open.setdefault(user_id, _OpenBatch())
        if batch.events and batch.size + size > _MAX_BATCH_CHARS:
            yield self._close_batch(user_id)
            batch = self._open.setdefault(user_id, _OpenBatch())
        batch.events.append(event)
        batch.size += size
        self._buffered_events += 1
        self._buffered_chars += size
        self._open.move_to_end(user_id)
        if len(batch.events) == MAX_BATCH_EVENTS:
            yield self._close_batch(user_id)
        while self._buffered_events > _MAX_BUFFERED_EVENTS or self._buffered_chars > _MAX_BUFFERED_CHARS:
            yield self._close_batch(next(iter(self._open)))

    def flush(self) -> Iterator[EventBatch]:
        """Yield all batches that are left."""
        while self._open:
            yield self._close_batch(next(iter(self._open)))

    def _close_batch(self, user_id: str) -> EventBatch:
        batch = self._open.pop(user_id)
        self._buffered_events -= len(batch.events)
        self._buffered_chars -= batch.size
        return EventBatch(user_id, batch.events)
