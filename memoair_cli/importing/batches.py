"""Events put together to batches, each of one caller: the target takes no others."""

from collections import OrderedDict
from collections.abc import Iterator

import attrs

from memoair_cli.importing.ledger import PendingEvent

MOST_EVENTS = 500  # what a cloud takes at a time
# In characters; a batch is at most some 4 MB in UTF-8. A cloud takes 16 MB.
_MOST_SIZE = 1_000_000
# Of all batches that wait for more. A caller who was heard longest ago goes first.
_MOST_WAITING = 8_000
_MOST_WAITING_SIZE = 8_000_000


@attrs.frozen
class EventBatch:
    """Events of one caller, in their order."""

    user_id: str = attrs.field(repr=False)
    entries: list[PendingEvent]
    size: int


@attrs.define
class _Open:
    entries: list[PendingEvent] = attrs.field(factory=list)
    size: int = 0


class Batcher:
    """Collects the events of many callers, and gives them away in batches."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._waiting = self._waiting_size = 0

    def add(self, entry: PendingEvent) -> Iterator[EventBatch]:
        """Take in an event; gives the batches that are full by it."""
        user_id, size = entry.event.user_id, entry.event.size
        batch = self._open.setdefault(user_id, _Open())
        if batch.entries and batch.size + size > _MOST_SIZE:
            yield self._take(user_id)
            batch = self._open.setdefault(user_id, _Open())
        batch.entries.append(entry)
        batch.size += size
        self._waiting += 1
        self._waiting_size += size
        self._open.move_to_end(user_id)
        if len(batch.entries) == MOST_EVENTS:
            yield self._take(user_id)
        while self._waiting > _MOST_WAITING or self._waiting_size > _MOST_WAITING_SIZE:
            yield self._take(next(iter(self._open)))

    def rest(self) -> Iterator[EventBatch]:
        """What is left."""
        while self._open:
            yield self._take(next(iter(self._open)))

    def _take(self, user_id: str) -> EventBatch:
        batch = self._open.pop(user_id)
        self._waiting -= len(batch.entries)
        self._waiting_size -= batch.size
        return EventBatch(user_id, batch.entries, batch.size)
