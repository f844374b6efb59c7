"""The scoring kernel: compute the best items from weighted postings.

It is compiled from C if a compiler was present at installation, and runs on NumPy otherwise: with the same results, but
several times slower.
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
        log.warning(
            "the compiled kernel is not installed, recall runs on NumPy, several times slower: action=kernel_plain"
        )
        return numpy_kernel
    return c_kernel


_kernel = _select_kernel()
score = _kernel.score
rank = _kernel.rank
