"""The kernel in C."""

import numpy as np

from memoair_index.kernel._compiled import rank as compiled_rank
from memoair_index.kernel._compiled import score as compiled_score
from memoair_index.kernel.request import KernelRequest, KernelResult, Ranked, RankRequest


def score(request: KernelRequest) -> KernelResult:
    """Answer a request; see `KernelRequest`."""
    items, pooled, bonus = compiled_score(
        request.items.base,
        request.items.tail,
        request.scratch,
        request.postings,
        request.bonus_items,
        request.bonuses,
        request.decays,
        (request.k1, request.b, request.average_length),
        (request.pooled_weight, request.speaker_weight, request.speaker),
        (request.only_group, request.without_group, request.linked, request.removed),
        request.limit,
    )
    return KernelResult(
        np.frombuffer(items, np.int32),
        np.frombuffer(pooled, np.float32),
        np.frombuffer(bonus, np.float32),
    )


def rank(request: RankRequest) -> Ranked:
    """Answer a request; see `RankRequest`."""
    found = request.found
    has_vectors = len(request.question) > 0
    ranked: Ranked = compiled_rank(
        request.items.base,
        request.items.tail,
        request.vectors.base if has_vectors else b"",
        request.vectors.tail if has_vectors else b"",
        found.items,
        found.pooled,
        found.bonus,
        request.question,
        (request.pooled_weight, request.meaning_weight, request.speaker_weight, request.speaker),
        request.cues,
    )
    return ranked
