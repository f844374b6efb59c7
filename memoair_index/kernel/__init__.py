"""The scoring kernel: from weighted postings to the best items.

Compiled where the machine that installed it has a compiler, else with NumPy: the same results, some times slower.
"""

import logging
from typing import Protocol

from memoair_index.kernel import plain
from memoair_index.kernel.request import SCRATCH_BYTES, KernelRequest, KernelResult

__all__ = ["SCRATCH_BYTES", "KernelRequest", "KernelResult", "score"]

log = logging.getLogger(__name__)


class _Score(Protocol):
    def __call__(self, request: KernelRequest) -> KernelResult: ...


def _choose() -> _Score:
    try:
        from memoair_index.kernel import compiled
    except ImportError:
        log.warning("no compiled kernel was installed, recall runs on NumPy, some times slower: action=kernel_plain")
        return plain.score
    return compiled.score


score: _Score = _choose()
