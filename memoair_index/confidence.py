"""Confidence: how likely a hit is what the question asks for, on a scale that means the same in every store.

A score is comparable within one search only: the best hit of a small store may have 3, that of a large one 12. The
confidence is a logistic function of a few features that do not depend on the store. Its coefficients are data
(``data/confidence.json``), fitted by ``tools/fit_confidence.py``.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files

import attrs
import msgspec
import numpy as np

from memoair_index.bm25 import idf
from memoair_index.items import NONE
from memoair_index.kernel import RankedItems
from memoair_index.ranking import BM25_UNIT, COSINE_UNIT, Weights
from memoair_index.store import Store

# Each feature by name, with its meaning. The names are the keys of confidence.json and of `Hit.confidence_features`.
CONFIDENCE_FEATURES: Mapping[str, str] = {
    "share": "how much of the question's words the hit or its neighbors contain, or words of nearly the same meaning:"
    " weighted by rarity, from 0 to 1. Words that no document contains weigh most",
    "meaning": "cosine of the static embeddings of question and hit",
    "context": "what else speaks for the hit (the talk before, labels, the speaker, dates), in units of the score",
    "behind": "how far its score is behind that of the best hit, as a part of that",
    "ahead": "for the best hit: how far its score is ahead of the best of another document or call, as a part of it",
}
INTERCEPT = "intercept"

# The features are bounded, so that no single one decides.
_MAX_CONTEXT = 5.0
_MAX_AHEAD = 0.5
# Where nothing else was found, it says little that a hit is ahead: this much is typical.
_TYPICAL_AHEAD = 0.15
# The cosine of a typical best hit. It stands in where there is no embedding to compare, or none that says anything: the
# model is for Latin letters, and nearly all Russian texts are alike to it (right hits .98, wrong ones .97).
_TYPICAL_COSINE = 0.6
_LATIN_LETTERS = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_MAX_READ_CHARS = 400
# The next best of another document is nearly always among so many hits.
_MAX_COMPARED = 12


@lru_cache(maxsize=1)
def default_coefficients() -> Mapping[str, float]:
    """Return the coefficients that are shipped with the package."""
    content = (files("memoair_index") / "data" / "confidence.json").read_bytes()
    return msgspec.json.decode(content, type=dict[str, float])


@lru_cache(maxsize=1)
def _split_coefficients() -> tuple[float, tuple[float, float, float, float, float]]:
    coefficients = default_coefficients()
    share, meaning, context, behind, ahead = (coefficients[name] for name in CONFIDENCE_FEATURES)
    return coefficients[INTERCEPT], (share, meaning, context, behind, ahead)


@attrs.define
class LazyConfidence:
    """Computes the confidence of the hits of one search on demand. Thread-safe.

    Attributes:
        store: The store that was searched.
        terms: The ids of each word of the question.
        ranked: All candidates, best first.
        weights: The weights of the score.
        question: The question, or "" if its embedding cannot be compared with those of the documents.
        best: The best hit that was returned, with which the others are compared. Its ordinal, not the hit: a cycle of
            references would keep everything until the garbage collector finds it.
    """

    store: Store
    terms: Sequence[Sequence[int]]
    ranked: RankedItems
    weights: Weights
    question: str
    best: int = NONE
    _shared: "_SearchFeatures | None" = attrs.field(init=False, default=None)
    _known: dict[int, float] = attrs.field(init=False, factory=dict)

    def __call__(self, ordinal: int) -> float:
        """Return the confidence of a hit, from 0 to 1."""
        confidence = self._known.get(ordinal)
        if confidence is None:
            intercept, (share, meaning, context, behind, ahead) = _split_coefficients()
            values = self._values(ordinal)
            logit = intercept + share * values[0] + meaning * values[1] + context * values[2]
            logit += behind * values[3] + ahead * values[4]
            # A damaged file may hold anything.
            confidence = 1 / (1 + math.exp(-max(-30.0, min(30.0, logit)))) if math.isfinite(logit) else 0.0
            self._known[ordinal] = confidence
        return confidence

    def features(self, ordinal: int) -> dict[str, float]:
        """Return the values of `CONFIDENCE_FEATURES` for a hit."""
        return dict(zip(CONFIDENCE_FEATURES, self._values(ordinal), strict=True))

    def _values(self, ordinal: int) -> tuple[float, ...]:
        shared = self._shared
        if shared is None:
            shared = self._shared = self._compute_shared()
        _, score, pooled, cosine = shared.by_ordinal[ordinal]
        share = pooled / shared.word_sum if shared.word_sum else 0.0
        context = (score - pooled * shared.word_weight - cosine * shared.cosine_weight) / BM25_UNIT
        return (
            share if share < 1.0 else 1.0,
            cosine if shared.has_cosines else _TYPICAL_COSINE,
            min(context, _MAX_CONTEXT) if context > 0 else 0.0,
            (shared.best_score - score) / shared.best_score if shared.best_score > 0 else 0.0,
            shared.ahead if ordinal == shared.best else 0.0,
        )

    def _compute_shared(self) -> "_SearchFeatures":
        by_ordinal = {entry[0]: entry for entry in self.ranked}
        best = self.best
        best_score = by_ordinal[best][1]
        next_score = self._find_next_score(best)
        ahead = _TYPICAL_AHEAD
        if next_score is not None and best_score > 0:
            ahead = min((best_score - next_score) / best_score, _MAX_AHEAD)
        return _SearchFeatures(
            best,
            best_score,
            ahead,
            by_ordinal,
            self._sum_words(),
            _is_latin(self.question),
            self.weights["around"] / BM25_UNIT,
            self.weights["meaning"] / COSINE_UNIT,
        )

    def _find_next_score(self, best: int) -> float | None:
        """Return the score of the best candidate of another group than the best hit's; None without one."""
        place = 0
        while self.ranked[place][0] != best:
            place += 1
        compared = self.ranked[place : place + 1 + _MAX_COMPARED]
        best_group, *groups = self.store.items.take(np.array([entry[0] for entry in compared]))["group"].tolist()
        return next((entry[1] for entry, group in zip(compared[1:], groups, strict=True) if group != best_group), None)

    def _sum_words(self) -> float:
        """Return the sum of the words' idf: what a hit gets that contains every word once."""
        frequency, size = self.store.terms.frequency, self.store.live_count
        total = 0.0
        for variants in self.terms:
            counts = [count for term in variants if (count := frequency(term))]
            total += idf(size, min(counts, default=0))
        return total


@attrs.frozen
class _SearchFeatures:
    """What the hits of one search share.

    Attributes:
        best: The ordinal of the best hit.
        best_score: Its score.
        ahead: How far it is ahead of the best of another group.
        by_ordinal: Each candidate.
        word_sum: What a hit gets that contains every word once.
        has_cosines: Whether the cosines say anything.
        word_weight: The factor of the sum of the question's words in the score.
        cosine_weight: The factor of the cosine in the score.
    """

    best: int
    best_score: float
    ahead: float
    by_ordinal: Mapping[int, tuple[int, float, float, float]]
    word_sum: float
    has_cosines: bool
    word_weight: float
    cosine_weight: float


def _is_latin(text: str) -> bool:
    """Return whether most letters of a text, or of its beginning, are Latin."""
    if text.isascii():
        return bool(text)
    start = text[:_MAX_READ_CHARS]
    return 2 * len(_LATIN_LETTERS.findall(start)) > sum(map(str.isalpha, start))
