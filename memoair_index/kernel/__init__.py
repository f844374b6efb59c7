"""The scoring kernel: from weighted postings to the best items.

Compiled where the machine that installed it has a compiler, else with NumPy: the same results, some times slower.
"""

import logging
from typing import Protocol

from memoair_index.kernel import numpy_kernel
from memoair_index.kernel.request import SCRATCH_BYTES, KernelRequest, KernelResult, RankedItems, RankRequest

__all__ = ["SCRATCH_BYTES", "KernelRequest", "KernelResult", "RankRequest", "RankedItems", "rank", "score"]

log = logging.getLogger(__name__)


class _Kernel(Protocol):
    def score(self, request: KernelRequest, /) -> KernelResult: ...

    def rank(self, request: RankRequest, /) -> RankedItems: ...


def _select_kernel() -> _Kernel:
    try:
        from memoair_index.kernel import c_kernel
    except ImportError:
        log.warning("no compiled kernel was installed, recall runs on NumPy, some times slower: action=kernel_plain")
        return numpy_kernel
    return c_kernel


_kernel = _select_kernel()
score = _kernel.score
rank = _kernel.rank
