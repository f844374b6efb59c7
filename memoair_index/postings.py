"""Postings: which items hold which keys, and how often, in a file and in the memory behind it."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

_MAX_COUNT = 255

PostingList = tuple[Any, Any, int]  # numbers of items, how often each holds the key, and the number to count from


@attrs.define
class _AddedPostings:
    items: "array[int]" = attrs.field(factory=lambda: array("i"))
    counts: "array[int]" = attrs.field(factory=lambda: array("B"))


@attrs.frozen
class PostingArrays:
    """Postings as they lie in a file: keys in order; of key k the entries from ``starts[k]`` to ``starts[k + 1]``."""

    keys: NDArray[np.uint64]
    starts: NDArray[np.uint32]
    items: NDArray[np.int32]
    counts: NDArray[np.uint8]

    @classmethod
    def empty(cls) -> "PostingArrays":
        """Postings of nothing."""
        return cls(np.zeros(0, np.uint64), np.zeros(1, np.uint32), np.zeros(0, np.int32), np.zeros(0, np.uint8))


class Postings:
    """Keys are 64-bit numbers. Not thread-safe: the index locks.

    An item that was removed keeps its entries, and no longer counts in `frequency`.
    """

    def __init__(self, base: PostingArrays, base_size: int) -> None:
        """``split`` is the number of the first item that is not in ``base``."""
        self._base = base
        self._base_size = base_size
        self._added: dict[int, _AddedPostings] = {}
        self._removed: Counter[int] = Counter()
        self._spans: dict[int, tuple[int, int]] = {}  # where a key's entries stand in the base, which never changes

    def add(self, ordinal: int, counts: Mapping[int, int]) -> None:
        """Append an item with its keys, each with how often the item holds it."""
        for key, count in counts.items():
            added = self._added.get(key)
            if added is None:
                added = self._added[key] = _AddedPostings()
            added.items.append(ordinal - self._base_size)
            added.counts.append(min(count, _MAX_COUNT))

    def remove(self, keys: Iterable[int]) -> None:
        """Take an item with these keys out of the statistics."""
        self._removed.update(set(keys))

    def frequency(self, key: int) -> int:
        """The number of items that hold the key and still stand."""
        start, end = self._spans.get(key) or self._find_span(key)  # asked for each neighbour of each word
        added = self._added.get(key)
        count = end - start if added is None else end - start + len(added.items)
        return max(0, count - self._removed[key] if self._removed else count)

    def get_lists(self, key: int) -> Iterator[PostingList]:
        """What is known of a key: views, valid until the next change."""
        start, end = self._find_span(key)
        if end > start:
            yield self._base.items[start:end], self._base.counts[start:end], 0
        added = self._added.get(key)
        if added is not None:
            yield added.items, added.counts, self._base_size

    def get_ordinals(self, key: int) -> NDArray[np.int64]:
        """The numbers of all items that ever held a key."""
        lists = [np.frombuffer(items, np.int32).astype(np.int64) + first for items, _, first in self.get_lists(key)]
        return np.concatenate(lists) if lists else np.zeros(0, np.int64)

    def snapshot(self) -> "PostingSnapshot":
        """All postings as they are now, untouched by later changes."""
        added_by_key = self._added
        keys = [np.full(len(each.items), key, np.uint64) for key, each in added_by_key.items()]
        items = [np.array(each.items, np.int64) + self._base_size for each in added_by_key.values()]
        counts = [np.array(each.counts, np.uint8) for each in added_by_key.values()]
        return PostingSnapshot(
            self._base,
            np.concatenate([np.zeros(0, np.uint64), *keys]),
            np.concatenate([np.zeros(0, np.int64), *items]),
            np.concatenate([np.zeros(0, np.uint8), *counts]),
        )

    def _find_span(self, key: int) -> tuple[int, int]:
        span = self._spans.get(key)
        if span is None:
            keys = self._base.keys
            position = int(keys.searchsorted(np.uint64(key)))
            exists = position < len(keys) and int(keys[position]) == key
            starts = self._base.starts
            span = self._spans[key] = (int(starts[position]), int(starts[position + 1])) if exists else (0, 0)
        return span


@attrs.frozen
class PostingSnapshot:
    """Postings at one moment: those of a file, and the entries behind it."""

    base: PostingArrays
    keys: NDArray[np.uint64]
    items: NDArray[np.int64]
    counts: NDArray[np.uint8]

    def merge(self, new_ordinals: NDArray[np.int64]) -> PostingArrays:
        """The postings of the items that stand; ``numbers`` gives each item its new number, -1 where it goes."""
        sizes = (self.base.starts[1:] - self.base.starts[:-1]).astype(np.int64)
        base_keys = np.repeat(self.base.keys, sizes)
        key = np.concatenate([base_keys, self.keys])
        item = new_ordinals[np.concatenate([self.base.items.astype(np.int64), self.items])]
        count = np.concatenate([self.base.counts, self.counts])
        is_live = item >= 0
        key, item, count = key[is_live], item[is_live], count[is_live]
        order = np.lexsort((item, key))
        merged_keys, starts = np.unique(key[order], return_index=True)
        ends = np.append(starts, len(order)).astype(np.uint32)
        return PostingArrays(merged_keys, ends, item[order].astype(np.int32), count[order])
