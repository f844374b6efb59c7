"""Items: what scoring must know of each document, one fixed record each, in a file or in memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# One cache line holds nearly all that scoring asks of an item. The compiled kernel has the same record.
ITEM_DTYPE = np.dtype(
    [
        ("occurred_at", "<f8"),  # seconds since the epoch; NaN where unknown
        ("group", "<i4"),  # -1 once the document was removed
        ("previous", "<i4"),  # the neighbours in the group; -1 where there is none
        ("following", "<i4"),
        ("speaker", "<i4"),  # -1 where unknown
        ("length", "<i4"),  # terms
        ("cues", "<u4"),  # `memoair_index.cues.Cue`
        ("scale", "<f4"),  # of the vector
        ("reserved", "<u4"),
    ]
)
NONE = -1

Array = NDArray[Any]


class GrowingArray:
    """Rows of an array: those of a file, which are mapped, and behind them those that were added since, in memory."""

    def __init__(self, base: Array) -> None:
        self.base = base
        self._buffer = np.zeros((64, *base.shape[1:]), base.dtype)
        self._tail_size = 0

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.base) + self._tail_size

    @property
    def tail(self) -> Array:
        """The rows in memory: a view, valid until the next one is appended."""
        return self._buffer[: self._tail_size]

    def append(self, row: Any) -> None:
        """Add a row at the end."""
        if self._tail_size == len(self._buffer):
            self._buffer = np.concatenate([self._buffer, np.zeros_like(self._buffer)])
        self._buffer[self._tail_size] = row
        self._tail_size += 1

    def locate(self, row: int) -> tuple[Array, int]:
        """The array that holds a row, and the row's place in it: for reading and changing one field."""
        base_size = len(self.base)
        return (self.base, row) if row < base_size else (self._buffer, row - base_size)

    def take(self, rows: NDArray[np.int64]) -> Array:
        """Copies of some rows."""
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
        """Every row, in one array: a copy where there are both kinds."""
        if not self._tail_size:
            return self.base
        return np.concatenate([self.base, self.tail]) if len(self.base) else self.tail
