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
from memoair_index.document import Hit
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


@attrs.define
class LazyConfidence:
    """Computes the confidence of the hits of one search on demand. Thread-safe.

    Attributes:
        store: The store that was searched.
        terms: The ids of each word of the question.
        ranked: All candidates, best first.
        hits: Those that were returned; they are compared with the best of them.
        weights: The weights of the score.
        question: The question, or "" if its embedding cannot be compared with those of the documents.
    """

    store: Store
    terms: Sequence[Sequence[int]]
    ranked: RankedItems
    hits: Sequence[Hit]
    weights: Weights
    question: str
    _shared: "_SearchFeatures | None" = attrs.field(init=False, default=None)

    def __call__(self, ordinal: int) -> float:
        """Return the confidence of a hit, from 0 to 1."""
        coefficients = default_coefficients()
        logit = coefficients[INTERCEPT]
        for name, value in self.features(ordinal).items():
            logit += coefficients[name] * value
        # A damaged file may hold anything.
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit)))) if math.isfinite(logit) else 0.0

    def features(self, ordinal: int) -> dict[str, float]:
        """Return the values of `CONFIDENCE_FEATURES` for a hit."""
        if self._shared is None:
            self._shared = self._compute_shared()
        shared = self._shared
        score, pooled, cosine = shared.by_ordinal[ordinal]
        words = pooled * self.weights["around"] / BM25_UNIT
        context = score - words - cosine * self.weights["meaning"] / COSINE_UNIT
        return {
            "share": min(pooled / shared.word_sum, 1.0) if shared.word_sum else 0.0,
            "meaning": cosine if shared.has_cosines else _TYPICAL_COSINE,
            "context": min(max(context / BM25_UNIT, 0.0), _MAX_CONTEXT),
            "behind": (shared.best_score - score) / shared.best_score if shared.best_score > 0 else 0.0,
            "ahead": shared.ahead if ordinal == shared.best else 0.0,
        }

    def _compute_shared(self) -> "_SearchFeatures":
        best = self.hits[0].position
        by_ordinal = {ordinal: (score, pooled, cosine) for ordinal, score, pooled, cosine in self.ranked}
        place = next(place for place, entry in enumerate(self.ranked) if entry[0] == best)
        compared = self.ranked[place : place + _MAX_COMPARED]
        groups = self.store.items.take(np.array([entry[0] for entry in compared], np.int64))["group"].tolist()
        best_score = compared[0][1]
        others = (entry[1] for entry, group in zip(compared, groups, strict=True) if group != groups[0])
        next_score = next(others, None)
        ahead = _TYPICAL_AHEAD
        if next_score is not None and best_score > 0:
            ahead = min((best_score - next_score) / best_score, _MAX_AHEAD)
        is_latin = _is_latin(self.question)
        return _SearchFeatures(best, best_score, ahead, by_ordinal, self._sum_words(), is_latin)

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
        by_ordinal: The score, the sum of the question's words and the cosine of each candidate.
        word_sum: What a hit gets that contains every word once.
        has_cosines: Whether the cosines say anything.
    """

    best: int
    best_score: float
    ahead: float
    by_ordinal: Mapping[int, tuple[float, float, float]]
    word_sum: float
    has_cosines: bool


def _is_latin(text: str) -> bool:
    """Return whether most letters of a text, or of its beginning, are Latin."""
    start = text[:_MAX_READ_CHARS]
    return 2 * len(_LATIN_LETTERS.findall(start)) > sum(map(str.isalpha, start))
