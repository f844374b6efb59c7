"""Items: what scoring must know of each document, one fixed record each, in a file or in memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# One cache line holds nearly all that scoring asks of an item. The compiled kernel has the same record.
ITEM = np.dtype(
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
        self._grown = np.zeros((64, *base.shape[1:]), base.dtype)
        self._added = 0

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.base) + self._added

    @property
    def tail(self) -> Array:
        """The rows in memory: a view, valid until the next one is appended."""
        return self._grown[: self._added]

    def append(self, row: Any) -> None:
        """Add a row at the end."""
        if self._added == len(self._grown):
            self._grown = np.concatenate([self._grown, np.zeros_like(self._grown)])
        self._grown[self._added] = row
        self._added += 1

    def part(self, number: int) -> tuple[Array, int]:
        """The array that holds a row, and the row's place in it: for reading and changing one field."""
        split = len(self.base)
        return (self.base, number) if number < split else (self._grown, number - split)

    def take(self, numbers: NDArray[np.int64]) -> Array:
        """Copies of some rows."""
        split = len(self.base)
        if not self._added:
            return self.base[numbers]
        if not split:
            return self._grown[numbers]
        in_file = numbers < split
        taken = np.empty((len(numbers), *self.base.shape[1:]), self.base.dtype)
        taken[in_file] = self.base[numbers[in_file]]
        taken[~in_file] = self._grown[numbers[~in_file] - split]
        return taken

    def all(self) -> Array:
        """Every row, in one array: a copy where there are both kinds."""
        if not self._added:
            return self.base
        return np.concatenate([self.base, self.tail]) if len(self.base) else self.tail
