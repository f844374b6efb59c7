"""Maps from document ids and group names to numbers: an immutable part in a file, and changes in memory."""

import attrs
import numpy as np
from numpy.typing import NDArray

from memoair_index.analysis import stable_hash
from memoair_index.container import ContainerError
from memoair_index.items import NONE


@attrs.frozen
class IdArrays:
    """An id map as it is stored in a file.

    Attributes:
        keys: The 64-bit hashes of the names, sorted; shape ``(names,)``.
        values: The number of each name, in the order of ``keys``; shape ``(names,)``.
    """

    keys: NDArray[np.uint64]
    values: NDArray[np.int32]

    @classmethod
    def build(cls, names: list[str], values: list[int]) -> "IdArrays":
        """Build the arrays of some names; raises `ContainerError` if two names have the same hash."""
        keys = np.array([stable_hash(name) for name in names], np.uint64)
        order = np.argsort(keys, kind="stable")
        if (np.diff(keys[order]) == 0).any():
            raise ContainerError("two names have the same 64-bit hash")
        return cls(keys[order], np.array(values, np.int32)[order])


class IdMap:
    """A map from names to numbers. Not thread-safe: the index locks."""

    def __init__(self, base: IdArrays) -> None:
        self._base = base
        self._overrides: dict[str, int] = {}  # changes since the file was written; NONE for a removed name

    def get(self, name: str) -> int:
        """Return the number of a name, or `NONE`."""
        value = self._overrides.get(name)
        if value is None:
            key = stable_hash(name)
            position = int(self._base.keys.searchsorted(np.uint64(key))) if len(self._base.keys) else 0
            exists = position < len(self._base.keys) and int(self._base.keys[position]) == key
            value = int(self._base.values[position]) if exists else NONE
        return value

    def set(self, name: str, value: int) -> None:
        """Set the number of a name; `NONE` removes the name."""
        self._overrides[name] = value
