"""Postings: which items have which keys, and how often; an immutable part in a file, and additions in memory."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from memoair_index.container import ContainerError, check_range

_MAX_COUNT = 255  # one byte

PostingList = tuple[Any, Any, int]  # ordinals of items, how often each has the key, and what to add to the ordinals
# What was found for so many keys is remembered: a search looks up some hundred, most of which the next one needs again.
_MAX_REMEMBERED = 2_048


@attrs.frozen
class PostingArrays:
    """Postings as they are stored in a file.

    Attributes:
        keys: The keys, sorted; shape ``(keys,)``.
        starts: Key ``k`` has the entries from ``starts[k]`` to ``starts[k + 1]``; shape ``(keys + 1,)``.
        items: The ordinal of the item of each entry; shape ``(entries,)``.
        counts: How often that item has the key, at most 255; shape ``(entries,)``.
    """

    keys: NDArray[np.uint64]
    starts: NDArray[np.uint32]
    items: NDArray[np.int32]
    counts: NDArray[np.uint8]

    @classmethod
    def empty(cls) -> "PostingArrays":
        """Return postings without keys."""
        return cls(np.zeros(0, np.uint64), np.zeros(1, np.uint32), np.zeros(0, np.int32), np.zeros(0, np.uint8))


class Postings:
    """Postings by 64-bit key. Not thread-safe: the index locks.

    A removed item keeps its entries, but `frequency` no longer counts it.
    """

    def __init__(self, base: PostingArrays, base_size: int) -> None:
        """Start with the postings of a file, whose items have the ordinals below ``base_size``."""
        self._base = base
        self._base_size = base_size
        # By key: the items, and how often each has the key. A tuple: a document brings some ten new keys.
        self._added: dict[int, tuple[array[int], array[int]]] = {}
        self._removed: Counter[int] = Counter()
        self._remembered: dict[int, tuple[int, tuple[PostingList, ...]]] = {}

    def add(self, ordinal: int, counts: Mapping[int, int]) -> None:
        """Append an item; ``counts`` says how often it has each key."""
        position, added_by_key = ordinal - self._base_size, self._added
        for key, count in counts.items():
            self._remembered.pop(key, None)
            added = added_by_key.get(key)
            if added is None:
                added_by_key[key] = array("i", (position,)), array("B", (min(count, _MAX_COUNT),))
            else:
                added[0].append(position)
                added[1].append(min(count, _MAX_COUNT))

    def remove(self, keys: Iterable[int]) -> None:
        """Stop counting an item that has these keys."""
        distinct = set(keys)
        self._removed.update(distinct)
        for key in distinct:
            self._remembered.pop(key, None)

    def frequency(self, key: int) -> int:
        """Return the number of items that have the key and were not removed."""
        return (self._remembered.get(key) or self._look_up(key))[0]  # called for each neighbor of each word

    def get_lists(self, key: int) -> tuple[PostingList, ...]:
        """Return the posting lists of a key: views, valid until the next change."""
        return (self._remembered.get(key) or self._look_up(key))[1]

    def get_ordinals(self, key: int) -> NDArray[np.int64]:
        """Return the ordinals of all items that have a key, removed ones included."""
        lists = [np.frombuffer(items, np.int32).astype(np.int64) + first for items, _, first in self.get_lists(key)]
        return np.concatenate(lists) if lists else np.zeros(0, np.int64)

    def snapshot(self) -> "PostingSnapshot":
        """Return all postings as they are now, unaffected by later changes."""
        added_by_key = self._added
        keys = [np.full(len(added[0]), key, np.uint64) for key, added in added_by_key.items()]
        items = [np.array(added[0], np.int64) + self._base_size for added in added_by_key.values()]
        counts = [np.array(added[1], np.uint8) for added in added_by_key.values()]
        return PostingSnapshot(
            self._base,
            np.concatenate([np.zeros(0, np.uint64), *keys]),
            np.concatenate([np.zeros(0, np.int64), *items]),
            np.concatenate([np.zeros(0, np.uint8), *counts]),
        )

    def _look_up(self, key: int) -> tuple[int, tuple[PostingList, ...]]:
        """Return the frequency and the posting lists of a key, and remember them."""
        base, added = self._base, self._added.get(key)
        start = end = 0
        if size := len(base.keys):
            position = int(base.keys.searchsorted(np.uint64(key)))
            if position < size and int(base.keys[position]) == key:
                start, end = int(base.starts[position]), int(base.starts[position + 1])
        lists: tuple[PostingList, ...] = ()
        if end > start:
            lists = ((base.items[start:end], base.counts[start:end], 0),)
        count = end - start
        if added is not None:
            lists += ((*added, self._base_size),)
            count += len(added[0])
        found = max(0, count - self._removed[key]), lists
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = found
        return found


@attrs.frozen
class PostingSnapshot:
    """Postings at one moment: those of a file, and one entry each for what was added since."""

    base: PostingArrays
    keys: NDArray[np.uint64]
    items: NDArray[np.int64]
    counts: NDArray[np.uint8]

    def merge(self, new_ordinals: NDArray[np.int64]) -> PostingArrays:
        """Return the postings of the remaining items under new ordinals.

        Args:
            new_ordinals: The new ordinal of each item, by its present one; -1 for an item to leave out.
        """
        starts = self.base.starts.astype(np.int64)
        sizes = starts[1:] - starts[:-1]
        if (sizes < 0).any() or starts[0] or starts[-1] != len(self.base.items):
            raise ContainerError("the index file is damaged: the entries of the keys do not follow one another")
        base_keys = np.repeat(self.base.keys, sizes)
        key = np.concatenate([base_keys, self.keys])
        item = np.concatenate([self.base.items.astype(np.int64), self.items])
        item = new_ordinals[check_range(item, len(new_ordinals))]
        count = np.concatenate([self.base.counts, self.counts])
        is_live = item >= 0
        key, item, count = key[is_live], item[is_live], count[is_live]
        order = np.lexsort((item, key))
        merged_keys, starts = np.unique(key[order], return_index=True)
        ends = np.append(starts, len(order)).astype(np.uint32)
        return PostingArrays(merged_keys, ends, item[order].astype(np.int32), count[order])
