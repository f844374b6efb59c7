"""The kernel in C."""

import numpy as np

from memoair_index.kernel._compiled import score as compiled_score
from memoair_index.kernel.request import KernelRequest, KernelResult


def score(request: KernelRequest) -> KernelResult:
    """Answer a request; see `KernelRequest`."""
    items, own, pooled = compiled_score(
        request.items.base,
        request.items.tail,
        request.scratch,
        request.postings,
        request.bonus_items,
        request.bonuses,
        request.decays,
        (request.k1, request.b, request.average_length),
        (request.own_weight, request.pooled_weight, request.speaker_weight, request.speaker),
        (request.only_group, request.without_group, request.linked, request.removed),
        request.limit,
    )
    return KernelResult(
        np.frombuffer(items, np.int32), np.frombuffer(own, np.float32), np.frombuffer(pooled, np.float32)
    )
