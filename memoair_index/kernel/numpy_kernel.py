"""The kernel with NumPy: what the compiled one does, sum for sum in the same order and with the same rounding."""

from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from memoair_index.items import NONE
from memoair_index.kernel.request import KernelRequest, KernelResult, Numbers, Ranked, RankRequest, Scores

_f = np.float32


def score(request: KernelRequest) -> KernelResult:
    """Answer a request; see `KernelRequest`."""
    items = request.items.all()
    pooled = np.zeros(len(items), np.float32)
    for _, lists in groupby(request.postings, key=itemgetter(0)):
        best = np.zeros(len(items), np.float32)
        for _, numbers, counts, first, weight in lists:
            _gather(
                request, items, best, np.frombuffer(numbers, np.int32), np.frombuffer(counts, np.uint8), first, weight
            )
        pooled += _spread(request, items, best)
    bonus = np.zeros(len(items), np.float32)
    good = (request.bonuses > 0) & (request.bonus_items >= 0) & (request.bonus_items < len(items))
    np.add.at(bonus, request.bonus_items[good], request.bonuses[good])
    return _choose(request, items, pooled, bonus)


def _gather(
    request: KernelRequest,
    items: NDArray[np.void],
    best: Scores,
    numbers: Numbers,
    counts: NDArray[np.uint8],
    first: int,
    weight: float,
) -> None:
    """A word's best impact on each item that holds it or one of its neighbours."""
    held = numbers.astype(np.int64) + first
    is_item = (held >= 0) & (held < len(items))
    held, count = held[is_item], counts[is_item].astype(np.float32)
    length = items["length"][held].astype(np.float32)
    k1, b = _f(request.k1), _f(request.b)
    norm = k1 * (_f(1) - b) + k1 * b / _f(request.average_length) * length
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # of the lengths in a damaged file
        impact = _f(weight) * (((k1 + _f(1)) * count) / (count + norm))
    np.fmax.at(best, held, impact)


def _spread(request: KernelRequest, items: NDArray[np.void], best: Scores) -> Scores:
    """A word's impacts, spread to the items around, weaker with each step."""
    pooled = best.copy()
    found = np.flatnonzero(best > 0)
    for direction in ("previous", "following"):
        at, impact = found, best[found]
        for decay in request.decays:
            at = items[direction][at].astype(np.int64)
            goes_on = (at >= 0) & (at < len(items))
            at, impact = at[goes_on], impact[goes_on]
            np.maximum.at(pooled, at, impact * _f(decay))
    return pooled


def _choose(request: KernelRequest, items: NDArray[np.void], pooled: Scores, bonus: Scores) -> KernelResult:
    candidates = np.flatnonzero((pooled > 0) | (bonus > 0))
    group = items["group"][candidates]
    wanted = group >= 0
    if request.only_group != NONE:
        wanted &= group == request.only_group
    if request.without_group != NONE:
        wanted &= group != request.without_group
    candidates = candidates[wanted]
    scores = _f(request.pooled_weight) * pooled[candidates]
    scores += bonus[candidates]
    if request.speaker != NONE:
        scores[items["speaker"][candidates] == request.speaker] += _f(request.speaker_weight)
    best = candidates[np.argsort(-scores, kind="stable")[: request.limit]]
    return KernelResult(best.astype(np.int32), pooled[best], bonus[best])


def rank(request: RankRequest) -> Ranked:
    """Answer a request; see `RankRequest`. Cosines may differ from the compiled kernel's in their last bits."""
    found = request.found
    is_item = (found.items >= 0) & (found.items < len(request.items))
    numbers = found.items[is_item].astype(np.int64)
    items = request.items.take(numbers)
    scores = _f(request.pooled_weight) * found.pooled[is_item] + found.bonus[is_item]
    if len(request.question):
        with np.errstate(invalid="ignore", over="ignore"):
            cosines = request.vectors.take(numbers).astype(np.float32) @ request.question * items["scale"]
        scores += _f(request.meaning_weight) * np.where(np.isfinite(cosines), cosines, _f(0))
    for mask, weight in request.cues:
        scores[(items["cues"] & np.uint32(mask)) != 0] += _f(weight)
    if request.speaker != NONE:
        scores[items["speaker"] == request.speaker] += _f(request.speaker_weight)
    order = np.lexsort((numbers, -scores))
    return list(zip(numbers[order].tolist(), scores[order].tolist(), strict=True))
