"""Tables of a store: from ids and group names to numbers, in a file and in the memory behind it."""

import attrs
import numpy as np
from numpy.typing import NDArray

from memoair_index.analysis import stable_hash
from memoair_index.items import NONE


@attrs.frozen
class IdArrays:
    """Names as they lie in a file: the 64-bit numbers that stand for them, in order, and what each leads to."""

    keys: NDArray[np.uint64]
    values: NDArray[np.int32]

    @classmethod
    def build(cls, names: list[str], values: list[int]) -> "IdArrays":
        """Arrays for these names; raises ValueError where two of them fall together."""
        keys = np.array([stable_hash(name) for name in names], np.uint64)
        order = np.argsort(keys, kind="stable")
        if (np.diff(keys[order]) == 0).any():
            raise ValueError("two names have the same number")
        return cls(keys[order], np.array(values, np.int32)[order])


class IdMap:
    """From names to numbers. Not thread-safe: the index locks."""

    def __init__(self, base: IdArrays) -> None:
        self._base = base
        self._overrides: dict[str, int] = {}  # what was told since; NONE where a name was taken away

    def get(self, name: str) -> int:
        """What a name leads to, or `NONE`."""
        value = self._overrides.get(name)
        if value is None:
            key = stable_hash(name)
            position = int(self._base.keys.searchsorted(np.uint64(key))) if len(self._base.keys) else 0
            exists = position < len(self._base.keys) and int(self._base.keys[position]) == key
            value = int(self._base.values[position]) if exists else NONE
        return value

    def set(self, name: str, value: int) -> None:
        """Let a name lead to a number; `NONE` takes it away."""
        self._overrides[name] = value
