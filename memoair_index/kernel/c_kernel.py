"""The C kernel: call the compiled module."""

import numpy as np

from memoair_index.kernel._compiled import rank as compiled_rank
from memoair_index.kernel._compiled import score as compiled_score
from memoair_index.kernel.request import KernelRequest, KernelResult, RankedItems, RankRequest


def score(request: KernelRequest) -> KernelResult:
    """Compute the best items; see `KernelRequest`."""
    items, pooled, talk, bonus = compiled_score(
        request.items.base,
        request.items.tail,
        request.scratch,
        request.postings,
        request.labels,
        request.bonus_items,
        request.bonuses,
        request.decays,
        (request.k1, request.b, request.average_length),
        (
            request.pooled_weight,
            request.talk_weight,
            request.speaker_weight,
            request.speaker,
            request.first_talk_word,
        ),
        (request.only_group, request.exclude_group, request.has_neighbors, request.has_removed),
        request.limit,
    )
    return KernelResult(
        np.frombuffer(items, np.int32),
        np.frombuffer(pooled, np.float32),
        np.frombuffer(talk, np.float32),
        np.frombuffer(bonus, np.float32),
    )


def rank(request: RankRequest) -> RankedItems:
    """Rank candidates by all features; see `RankRequest`."""
    candidates = request.candidates
    has_vectors = len(request.query_vector) > 0
    ranked: RankedItems = compiled_rank(
        request.items.base,
        request.items.tail,
        request.vectors.base if has_vectors else b"",
        request.vectors.tail if has_vectors else b"",
        candidates.items,
        candidates.pooled,
        candidates.talk,
        candidates.bonus,
        request.query_vector,
        (request.pooled_weight, request.talk_weight, request.meaning_weight, request.speaker_weight, request.speaker),
        request.cue_weights,
    )
    return ranked
