"""The NumPy kernel: the same sums as the C kernel, in the same order and with the same rounding."""

from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from memoair_index.items import NONE
from memoair_index.kernel.request import (
    KernelRequest,
    KernelResult,
    Ordinals,
    RankedItems,
    RankRequest,
    Scores,
)

_f32 = np.float32


def score(request: KernelRequest) -> KernelResult:
    """Compute the best items; see `KernelRequest`."""
    items = request.items.to_array()
    pooled, talk = np.zeros(len(items), np.float32), np.zeros(len(items), np.float32)
    for word, lists in groupby(request.postings, key=itemgetter(0)):
        best = np.zeros(len(items), np.float32)
        for _, offsets, counts, first, weight in lists:
            _gather_impacts(
                request, items, best, np.frombuffer(offsets, np.int32), np.frombuffer(counts, np.uint8), first, weight
            )
        sums = talk if word >= request.first_talk_word else pooled
        sums += _spread_impacts(request, items, best)
    bonus = np.zeros(len(items), np.float32)
    for offsets, first, value in request.labels:
        ordinals = np.frombuffer(offsets, np.int32).astype(np.int64) + first
        ordinals = ordinals[(ordinals >= 0) & (ordinals < len(items))]
        np.fmax.at(bonus, ordinals, _f32(value))
    is_valid = (request.bonuses > 0) & (request.bonus_items >= 0) & (request.bonus_items < len(items))
    np.add.at(bonus, request.bonus_items[is_valid], request.bonuses[is_valid])
    return _select_best(request, items, pooled, talk, bonus)


def _gather_impacts(
    request: KernelRequest,
    items: NDArray[np.void],
    best: Scores,
    offsets: Ordinals,
    counts: NDArray[np.uint8],
    first: int,
    weight: float,
) -> None:
    """Raise ``best`` to the impact of one term of a word on each item that contains the term."""
    ordinals = offsets.astype(np.int64) + first
    is_item = (ordinals >= 0) & (ordinals < len(items))
    ordinals, count = ordinals[is_item], counts[is_item].astype(np.float32)
    length = items["length"][ordinals].astype(np.float32)
    k1, b = _f32(request.k1), _f32(request.b)
    norm = k1 * (_f32(1) - b) + k1 * b / _f32(request.average_length) * length
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a damaged file may hold invalid lengths
        impact = _f32(weight) * (((k1 + _f32(1)) * count) / (count + norm))
    np.fmax.at(best, ordinals, impact)


def _spread_impacts(request: KernelRequest, items: NDArray[np.void], best: Scores) -> Scores:
    """Return the impacts of a word on the items that contain it and, weaker with each step, on their neighbors."""
    pooled = best.copy()
    holders = np.flatnonzero(best > 0)
    for direction in ("previous", "following"):
        ordinals, impact = holders, best[holders]
        for decay in request.decays:
            ordinals = items[direction][ordinals].astype(np.int64)
            has_next = (ordinals >= 0) & (ordinals < len(items))
            ordinals, impact = ordinals[has_next], impact[has_next]
            np.maximum.at(pooled, ordinals, impact * _f32(decay))
    return pooled


def _select_best(
    request: KernelRequest, items: NDArray[np.void], pooled: Scores, talk: Scores, bonus: Scores
) -> KernelResult:
    candidates = np.flatnonzero((pooled > 0) | (talk > 0) | (bonus > 0))
    group = items["group"][candidates]
    is_selected = group >= 0
    if request.only_group != NONE:
        is_selected &= group == request.only_group
    if request.exclude_group != NONE:
        is_selected &= group != request.exclude_group
    candidates = candidates[is_selected]
    scores = _f32(request.pooled_weight) * pooled[candidates]
    scores += _f32(request.talk_weight) * talk[candidates]
    scores += bonus[candidates]
    if request.speaker != NONE:
        scores[items["speaker"][candidates] == request.speaker] += _f32(request.speaker_weight)
    best = candidates[np.argsort(-scores, kind="stable")[: request.limit]]
    return KernelResult(best.astype(np.int32), pooled[best], talk[best], bonus[best])


def rank(request: RankRequest) -> RankedItems:
    """Rank candidates by all features; see `RankRequest`. Cosines may differ from the C kernel's in their last bits."""
    candidates = request.candidates
    is_item = (candidates.items >= 0) & (candidates.items < len(request.items))
    ordinals = candidates.items[is_item].astype(np.int64)
    items = request.items.take(ordinals)
    pooled = candidates.pooled[is_item]
    scores = _f32(request.pooled_weight) * pooled
    scores += _f32(request.talk_weight) * candidates.talk[is_item]
    scores += candidates.bonus[is_item]
    cosines = np.zeros(len(ordinals), np.float32)
    if len(request.query_vector):
        with np.errstate(invalid="ignore", over="ignore"):
            products = request.vectors.take(ordinals).astype(np.float32) @ request.query_vector * items["scale"]
        cosines = np.where(np.isfinite(products), products, _f32(0))
        scores += _f32(request.meaning_weight) * cosines
    for mask, weight in request.cue_weights:
        scores[(items["cues"] & np.uint32(mask)) != 0] += _f32(weight)
    if request.speaker != NONE:
        scores[items["speaker"] == request.speaker] += _f32(request.speaker_weight)
    order = np.lexsort((ordinals, -scores))
    columns = (ordinals[order], scores[order], pooled[order], cosines[order])
    return list(zip(*(column.tolist() for column in columns), strict=True))
