"""A search: from a question to its words and dates, to the candidates that the kernel finds, to ranked hits."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from memoair_index import kernel
from memoair_index.analysis import fold, split_words, to_term_ids
from memoair_index.bm25 import K1, B, idf
from memoair_index.cues import QuestionType, classify_question
from memoair_index.dates import Days, find_days
from memoair_index.document import Document, Hit, Query
from memoair_index.items import NONE
from memoair_index.kernel import SCRATCH_BYTES, KernelRequest, KernelResult, RankRequest
from memoair_index.ranking import BM25_UNIT, COSINE_UNIT, Evidence, Weights, cue_features, feature_values
from memoair_index.static_model import Embedding
from memoair_index.store import Store, sanitize

# Candidates that all terms are looked at for; among 50, recall is the same.
_MIN_CANDIDATES = 128
# A question has a dozen words; of a pasted document the rarest do.
_MAX_WORDS = 96
# Among 16,000 the same is found, for .1 ms more.
_MAX_POSTINGS = 6_000
# What a word may be called besides: so many of its nearest that stand in any document, and what each counts,
# as a share of cosine squared.
_MAX_NEIGHBORS = 12
_NEIGHBOR_WEIGHT = 1.1
# What a word does for the utterances around the one that it stands in, a step away and so on.
DECAYS = (0.7, 0.5, 0.35, 0.25)
_SECONDS_PER_DAY = 86_400
# Some three thousand years from now: no moment that anybody meant lies beyond.
_MAX_TIMESTAMP_S = 1e11

_Floats = NDArray[np.float32]


@attrs.frozen
class AnalyzedQuery:
    """What a text says to a search, whoever asks it and when."""

    folded: str
    terms: tuple[int, ...]  # each once, in order
    vector: _Floats
    question_type: QuestionType


@attrs.frozen
class PreparedQuery:
    """A query, read once, outside of every lock."""

    query: Query
    terms: tuple[int, ...]
    vector: _Floats
    question_type: QuestionType
    days: Days

    def __bool__(self) -> bool:
        """Whether there is anything to search by."""
        return bool(self.terms or self.days or self.query.recent_turns)


@lru_cache(maxsize=64)
def _analyze(text: str, embedding: Embedding) -> AnalyzedQuery:
    """Read a text. The lanes of one search ask the same, each its own index."""
    folded = fold(text)
    words = split_words(folded)
    terms = tuple(dict.fromkeys(to_term_ids(words)))
    return AnalyzedQuery(folded, terms, _drop_non_finite(embedding.encode([words])[0]), classify_question(folded))


@lru_cache(maxsize=64)
def _name_ids(names: frozenset[str]) -> frozenset[int]:
    return frozenset(term for name in names for term in to_term_ids(split_words(fold(name))))


class Searcher:
    """Searches stores. ``search`` is not thread-safe: the index locks."""

    def __init__(self, embedding: Embedding, weights: Weights) -> None:
        self._embedding = embedding
        self._weights = weights
        self._scratch = np.zeros(0, np.uint8)

    def prepare(self, query: Query) -> PreparedQuery:
        """Read a query. Safe to use from any thread."""
        analyzed = _analyze(query.text, self._embedding)
        name_ids = _name_ids(query.speaker_names)
        terms = tuple(term for term in analyzed.terms if term not in name_ids) if name_ids else analyzed.terms
        return PreparedQuery(
            query, terms, analyzed.vector, analyzed.question_type, find_days(analyzed.folded, query.now)
        )

    def search(
        self, store: Store, prepared: PreparedQuery, limit: int, predicate: Callable[[Document], bool] | None
    ) -> list[Hit]:
        """The best documents of a store, best first."""
        candidate_limit = max(limit, _MIN_CANDIDATES)
        while True:
            candidates = self._find_candidates(store, prepared, candidate_limit)
            hits = self._rank_hits(store, prepared, candidates, limit, predicate)
            # A filter may have left out all of the best, and the next ones are still to be asked.
            if predicate is None or len(hits) == limit or len(candidates.items) < candidate_limit:
                return hits
            candidate_limit *= 8

    def _find_candidates(self, store: Store, prepared: PreparedQuery, limit: int) -> KernelResult:
        query = prepared.query
        only_group = store.find_group(sanitize(query.group)) if query.group is not None else NONE
        if query.group is not None and only_group == NONE:
            return _NO_RESULT
        bonus_items, bonuses = self._compute_bonuses(store, prepared)
        size = len(store.items)
        if len(self._scratch) < size * SCRATCH_BYTES:
            self._scratch = np.zeros((size + size // 4 + 64) * SCRATCH_BYTES, np.uint8)
        return kernel.score(
            KernelRequest(
                items=store.items,
                postings=self._select_postings(store, prepared.terms),
                scratch=self._scratch,
                average_length=store.average_length,
                limit=min(limit, size),
                k1=K1,
                b=B,
                decays=DECAYS,
                pooled_weight=self._weights["around"] / BM25_UNIT,
                speaker=_speaker_id(store, query),
                speaker_weight=self._weights["speaker" if query.speaker_is_named else "self"],
                only_group=only_group,
                exclude_group=store.find_group(sanitize(query.exclude_group))
                if query.exclude_group is not None
                else NONE,
                has_neighbors=store.has_neighbors,
                has_removed=store.live_count < size,
                bonus_items=bonus_items,
                bonuses=bonuses,
            )
        )

    def _select_postings(self, store: Store, terms: Sequence[int]) -> list[tuple[int, Any, Any, int, float]]:
        """For each word of the question the postings of itself and of its neighbours, with their weights.

        In a large store the rarest come first, until enough postings are to be gone through: what stands in every tenth
        document tells little that the rare words have not told, and would take most of the time.
        """
        frequency = store.terms.frequency
        words = sorted((count, number) for number, term in enumerate(terms) if (count := frequency(term)) > 0)
        chosen = [(number, terms[number], count, 1.0) for count, number in words[:_MAX_WORDS]]
        expanded = range(len(terms)) if len(terms) <= _MAX_WORDS else [number for number, _, _, _ in chosen]
        for number in expanded:
            chosen += self._find_neighbors(store, number, terms[number])
        budget = _MAX_POSTINGS
        lists: list[tuple[int, Any, Any, int, float]] = []
        for number, term, count, share in chosen:
            if count <= budget or not lists:
                budget -= count
                weight = share * idf(store.live_count, count)
                lists += [(number, *found, weight) for found in store.terms.get_lists(term)]
        return sorted(lists, key=itemgetter(0))

    def _find_neighbors(self, store: Store, number: int, term: int) -> list[tuple[int, int, int, float]]:
        """The neighbours of a word that stand in any document: its number, each one's term, frequency and share."""
        frequency = store.terms.frequency
        neighbors = []
        for neighbor, cosine in self._embedding.neighbors(term):
            count = frequency(neighbor)
            if count > 0:
                neighbors.append((number, neighbor, count, _NEIGHBOR_WEIGHT * cosine * cosine))
                if len(neighbors) == _MAX_NEIGHBORS:
                    break
        return neighbors

    def _compute_bonuses(self, store: Store, prepared: PreparedQuery) -> tuple[NDArray[np.int32], _Floats]:
        """What makes a candidate without any word of the question: a label that was named, a day that was asked for."""
        items, relevance = self._mentioned_documents(store, prepared.query)
        if not (len(items) or prepared.days):  # as with most questions
            return items, relevance
        bonuses = relevance * np.float32(self._weights["label"])
        if prepared.days:
            dated = np.flatnonzero(_match_days(prepared.days, store.items.to_array()["occurred_at"])).astype(np.int32)
            items = np.concatenate([items, dated])
            bonuses = np.concatenate([bonuses, np.full(len(dated), self._weights["date"], np.float32)])
        return items, bonuses

    def _rank_hits(
        self,
        store: Store,
        prepared: PreparedQuery,
        candidates: KernelResult,
        limit: int,
        predicate: Callable[[Document], bool] | None,
    ) -> list[Hit]:
        query = prepared.query
        ranked = kernel.rank(
            RankRequest(
                items=store.items,
                vectors=store.vectors,
                candidates=candidates,
                query_vector=prepared.vector if _has_comparable_vector(store, prepared) else _NO_VECTOR,
                pooled_weight=self._weights["around"] / BM25_UNIT,
                meaning_weight=self._weights["meaning"] / COSINE_UNIT,
                speaker=_speaker_id(store, query),
                speaker_weight=self._weights["speaker" if query.speaker_is_named else "self"],
                cue_weights=[
                    (int(cue), self._weights[name]) for name, cue in cue_features(prepared.question_type).items()
                ],
            )
        )
        explanation = _LazyExplanation(self, store, prepared, candidates)
        hits: list[Hit] = []
        for ordinal, score in ranked:
            # What has its number now has it in this store for ever, whatever becomes of the index.
            hit = Hit(ordinal, score, store.get_document, explanation)
            if predicate is None or predicate(hit.document):
                hits.append(hit)
                if len(hits) == limit:
                    break
        return hits

    def explain(
        self, store: Store, prepared: PreparedQuery, candidates: KernelResult, ordinal: int
    ) -> dict[str, float]:
        """What the score of one of the candidates is the sum of: every term that counts, with its weight."""
        query = prepared.query
        position = np.flatnonzero(candidates.items == ordinal)[:1]
        ordinals = candidates.items[position].astype(np.int64)
        items = store.items.take(ordinals)
        evidence = Evidence(
            items=items,
            pooled=candidates.pooled[position],
            cosines=self._compute_cosines(store, prepared, items["scale"], ordinals),
            matches_date=_match_days(prepared.days, items["occurred_at"]) if prepared.days else None,
            label_relevance=self._label_relevance(store, query, ordinals),
        )
        values = feature_values(
            evidence, prepared.question_type, _speaker_id(store, query), speaker_is_named=query.speaker_is_named
        )
        weighted = {name: float(value[0] * np.float32(self._weights[name])) for name, value in values.items()}
        return {name: value for name, value in weighted.items() if value}

    def _compute_cosines(
        self, store: Store, prepared: PreparedQuery, scales: _Floats, ordinals: NDArray[np.int64]
    ) -> _Floats:
        if not _has_comparable_vector(store, prepared):
            return np.zeros(len(ordinals), np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            rows = store.vectors.take(ordinals).astype(np.float32)
            # Not a product of matrices, which rounds equal rows differently.
            return _drop_non_finite((rows * prepared.vector).sum(axis=1) * scales)

    def _label_relevance(self, store: Store, query: Query, ordinals: NDArray[np.int64]) -> _Floats | None:
        items, relevance = self._mentioned_documents(store, query)
        if not len(items):
            return None
        relevance_by_item = dict(zip(items.tolist(), relevance.tolist(), strict=True))
        return np.array([relevance_by_item.get(number, 0.0) for number in ordinals.tolist()], np.float32)

    def _mentioned_documents(self, store: Store, query: Query) -> tuple[NDArray[np.int32], _Floats]:
        """The documents whose labels were named in the talk, the question among it, and how much."""
        return store.labels.find_documents(
            store.labels.find_mentioned((*query.recent_turns, query.text), store.live_count)
        )


@attrs.frozen
class _LazyExplanation:
    """What the scores of one search are made of, worked out when somebody asks."""

    searcher: Searcher
    store: Store
    prepared: PreparedQuery
    candidates: KernelResult

    def __call__(self, ordinal: int) -> Mapping[str, float]:
        return self.searcher.explain(self.store, self.prepared, self.candidates, ordinal)


_NO_VECTOR = np.zeros(0, np.float32)
_NO_RESULT = KernelResult(np.zeros(0, np.int32), _NO_VECTOR, _NO_VECTOR)


def _speaker_id(store: Store, query: Query) -> int:
    return NONE if query.speaker is None else store.find_speaker(sanitize(query.speaker))


def _has_comparable_vector(store: Store, prepared: PreparedQuery) -> bool:
    """Whether the question's vector is of the kind that the documents have: without a model, it is not."""
    return len(prepared.vector) == int(store.vectors.base.shape[1])


def _drop_non_finite(vector: _Floats) -> _Floats:
    """A vector without what is no number, which a damaged model or file may hold."""
    with np.errstate(invalid="ignore", over="ignore"):
        is_finite = math.isfinite(float(vector.sum()))
    return vector if is_finite else np.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0)


def _match_days(days: Days, timestamps: NDArray[np.float64]) -> NDArray[np.bool_]:
    is_valid = np.abs(timestamps) < _MAX_TIMESTAMP_S
    day_numbers = np.floor(np.where(is_valid, timestamps, 0) / _SECONDS_PER_DAY).astype(np.int64)
    return days.match(day_numbers) & is_valid
