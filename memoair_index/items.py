"""Items: the fixed-size record that scoring needs of each document, and arrays that grow in memory after a file.

A document's *ordinal* is its row in these arrays.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# One cache line holds nearly all that scoring reads of an item. `Item` in kernel/_compiled.c has the same layout.
ITEM_DTYPE = np.dtype(
    [
        ("occurred_at", "<f8"),  # seconds since the epoch; NaN if unknown
        ("group", "<i4"),  # -1 once the document was removed
        ("previous", "<i4"),  # ordinals of the neighbors in the group; -1 without one
        ("following", "<i4"),
        ("speaker", "<i4"),  # -1 if unknown
        ("length", "<i4"),  # in terms
        ("cues", "<u4"),  # `memoair_index.cues.Cue`
        ("scale", "<f4"),  # factor from the int8 vector to the embedding
        ("reserved", "<u4"),
    ]
)
NONE = -1

Array = NDArray[Any]


class GrowingArray:
    """An array in two parts: a base (mapped from a file) and a tail of rows that were appended in memory."""

    def __init__(self, base: Array) -> None:
        self.base = base
        self._buffer = np.zeros((64, *base.shape[1:]), base.dtype)
        self._tail_size = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.base) + self._tail_size

    @property
    def tail(self) -> Array:
        """The rows in memory: a view, valid until the next append."""
        return self._buffer[: self._tail_size]

    def append(self, row: Any) -> None:
        """Add a row at the end."""
        if self._tail_size == len(self._buffer):
            self._buffer = np.concatenate([self._buffer, np.zeros_like(self._buffer)])
        self._buffer[self._tail_size] = row
        self._tail_size += 1

    def locate(self, row: int) -> tuple[Array, int]:
        """Return the array that holds a row and the row's position in it, for reading or changing one field."""
        base_size = len(self.base)
        return (self.base, row) if row < base_size else (self._buffer, row - base_size)

    def take(self, rows: NDArray[np.int64]) -> Array:
        """Return copies of some rows."""
        base_size = len(self.base)
        if not self._tail_size:
            return self.base[rows]
        if not base_size:
            return self._buffer[rows]
        in_base = rows < base_size
        taken = np.empty((len(rows), *self.base.shape[1:]), self.base.dtype)
        taken[in_base] = self.base[rows[in_base]]
        taken[~in_base] = self._buffer[rows[~in_base] - base_size]
        return taken

    def to_array(self) -> Array:
        """Return all rows as one array: a copy if both parts have rows."""
        if not self._tail_size:
            return self.base
        return np.concatenate([self.base, self.tail]) if len(self.base) else self.tail
