"""Search: analyze the query, let the kernel find candidates, and rank them by all features."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from heapq import nlargest
from itertools import chain
from operator import itemgetter
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from memoair_index import kernel
from memoair_index.analysis import hash_once, query_terms, spell_terms, split_words, to_term_ids, utterance_terms
from memoair_index.analyzed_document import sanitize
from memoair_index.bm25 import K1, B, idf
from memoair_index.confidence import LazyConfidence
from memoair_index.cues import QuestionType, classify_question
from memoair_index.dates import Days, find_days
from memoair_index.document import Document, Hit, Query
from memoair_index.folding import fold
from memoair_index.items import NONE
from memoair_index.kernel import SCRATCH_BYTES, KernelRequest, KernelResult, RankRequest
from memoair_index.misspellings import misspellings
from memoair_index.ranking import BM25_UNIT, COSINE_UNIT, Evidence, Weights, cue_features, feature_values
from memoair_index.static_model import Embedding
from memoair_index.store import Store

# At least this many candidates are ranked by all features. Recall is the same with 50 and with 200.
_MIN_CANDIDATES = 64
# A question has a dozen words; of a pasted document only the rarest words are expanded by their neighbors.
_MAX_EXPANDED_WORDS = 96
# A word is expanded by its nearest neighbors that occur in any document, each weighted by this times cosine squared.
_MAX_NEIGHBORS = 12
# A word that no document has is searched as the commonest words that differ from it by one letter, weighted by this.
_MAX_MISSPELLINGS = 8
_MISSPELLING_WEIGHT = 0.5
_MAX_UNKNOWN_WORDS = 2  # each takes some 40 µs the first time
_NEIGHBOR_WEIGHT = 1.1
# The impact of a word on the utterances around the one that contains it, one step away, two steps and so on.
DECAYS = (0.7, 0.5, 0.35, 0.25)
# What was said before the question: the last utterances count, each word once, by this for each utterance since.
TALK_DECAY = 0.9
_MAX_TALK_UTTERANCES = 12
# An agent's long answer has hundreds of words; the weightiest ones of the talk say what it is about. With this limit
# the first hit is right for 85 instead of 79 % of the questions of mtrag_un, and as often as without on other sets.
_MAX_TALK_WORDS = 32
# The positions of the talk's words begin here.
_FIRST_TALK_WORD = 1 << 20
_SECONDS_PER_DAY = 86_400
# Some three thousand years from now; later timestamps are errors.
_MAX_TIMESTAMP_S = 1e11

_Floats = NDArray[np.float32]


@attrs.frozen
class AnalyzedQuery:
    """What a search needs of a question's text alone, independent of its context and of the documents; cached."""

    folded: str
    words: tuple[str, ...]
    vector: _Floats
    question_type: QuestionType


@attrs.frozen
class PreparedQuery:
    """A query with everything that is computed before the index is locked."""

    query: Query
    terms: tuple[tuple[int, ...], ...]
    talk_terms: Mapping[int, float]  # of the utterances before the question: how much each counts, from 0 to 1
    vector: _Floats
    question_type: QuestionType
    days: Days
    languages: tuple[str, ...]  # of the documents

    def __bool__(self) -> bool:
        """Return whether there is anything to search for."""
        return bool(self.terms or self.days or self.query.recent_turns)


@lru_cache(maxsize=64)
def _analyze(text: str, embedding: Embedding) -> AnalyzedQuery:
    """Analyze a question. Cached, because the lanes of one search ask the same question, each of its own index."""
    folded = fold(text)
    words = split_words(folded)
    vector = _drop_non_finite(embedding.encode([words])[0])
    return AnalyzedQuery(folded, tuple(words), vector, classify_question(folded))


@lru_cache(maxsize=64)
def _question_terms(text: str, words: tuple[str, ...], languages: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Return for each word of a question its ids in the languages of the documents, without duplicates."""
    return tuple(dict.fromkeys(query_terms(text, words, languages)))


@lru_cache(maxsize=16)
def _spellings(text: str, languages: tuple[str, ...]) -> Mapping[int, str]:
    """Return the terms of a question by their ids."""
    return spell_terms(text, languages)


_utterance_terms = lru_cache(maxsize=1_024)(utterance_terms)


@lru_cache(maxsize=64)
def _name_ids(names: frozenset[str]) -> frozenset[int]:
    return frozenset(term for name in names for term in to_term_ids(split_words(fold(name))))


class Searcher:
    """Searches stores. `prepare` is thread-safe, `search` is not: the index locks."""

    def __init__(self, embedding: Embedding, weights: Weights) -> None:
        self._embedding = embedding
        self._weights = weights
        self._scratch = np.zeros(0, np.uint8)

    def prepare(self, query: Query, languages: tuple[str, ...]) -> PreparedQuery:
        """Analyze a query for documents in some languages."""
        analyzed = _analyze(query.text, self._embedding)
        name_ids = _name_ids(query.speaker_names)
        asked_terms = terms = _question_terms(query.text, analyzed.words, languages)
        if name_ids:
            terms = tuple(variants for variants in terms if name_ids.isdisjoint(variants))
        talk_terms: dict[int, float] = {}
        for age, utterance in enumerate(reversed(query.recent_turns[-_MAX_TALK_UTTERANCES:])):
            for term in _utterance_terms(utterance, languages):
                talk_terms.setdefault(term, TALK_DECAY**age)
        for term in (*(term for variants in asked_terms for term in variants), *name_ids):
            talk_terms.pop(term, None)
        days = find_days(analyzed.folded, query.now)
        return PreparedQuery(query, terms, talk_terms, analyzed.vector, analyzed.question_type, days, languages)

    def search(
        self, store: Store, prepared: PreparedQuery, limit: int, predicate: Callable[[Document], bool] | None
    ) -> list[Hit]:
        """Return the best documents of a store, best first."""
        candidate_limit = max(limit, _MIN_CANDIDATES)
        while True:
            candidates = self._find_candidates(store, prepared, candidate_limit)
            hits = self._rank_hits(store, prepared, candidates, limit, predicate)
            # The predicate may have left out the best candidates: repeat with more of them.
            if predicate is None or len(hits) == limit or len(candidates.items) < candidate_limit:
                return hits
            candidate_limit *= 8

    def _find_candidates(self, store: Store, prepared: PreparedQuery, limit: int) -> KernelResult:
        query = prepared.query
        only_group = store.find_group(sanitize(query.group)) if query.group is not None else NONE
        if query.group is not None and only_group == NONE:
            return _NO_RESULT
        dated_items, date_bonuses = self._find_dated(store, prepared)
        size = len(store.items)
        if len(self._scratch) < size * SCRATCH_BYTES:
            self._scratch = np.zeros((size + size // 4 + 64) * SCRATCH_BYTES, np.uint8)
        return kernel.score(
            KernelRequest(
                items=store.items,
                postings=self._select_postings(store, prepared),
                scratch=self._scratch,
                average_length=store.average_length,
                limit=min(limit, size),
                k1=K1,
                b=B,
                decays=DECAYS,
                pooled_weight=self._weights["around"] / BM25_UNIT,
                talk_weight=self._weights["talk"] / BM25_UNIT,
                first_talk_word=_FIRST_TALK_WORD,
                speaker=_speaker_id(store, query),
                speaker_weight=self._weights["speaker" if query.speaker_is_named else "self"],
                only_group=only_group,
                exclude_group=store.find_group(sanitize(query.exclude_group))
                if query.exclude_group is not None
                else NONE,
                has_neighbors=store.has_neighbors,
                has_removed=store.live_count < size,
                labels=store.labels.get_lists(self._mentioned_labels(store, query), self._weights["label"]),
                bonus_items=dated_items,
                bonuses=date_bonuses,
            )
        )

    def _select_postings(self, store: Store, prepared: PreparedQuery) -> list[tuple[int, Any, Any, int, float]]:
        """Return the weighted postings of each word and of its neighbors; see `KernelRequest`."""
        frequency, size = store.terms.frequency, store.live_count
        words = [[(term, count, 1.0) for term in terms if (count := frequency(term))] for terms in prepared.terms]
        expanded: Iterable[int] = range(len(words))
        if len(words) > _MAX_EXPANDED_WORDS:
            expanded = sorted(expanded, key=lambda word: sum(count for _, count, _ in words[word]))
            expanded = expanded[:_MAX_EXPANDED_WORDS]
        for word in expanded:
            for term in prepared.terms[word]:
                words[word] += self._find_neighbors(store, term)
        unknown = [word for word, variants in enumerate(words) if not variants][:_MAX_UNKNOWN_WORDS]
        for word in unknown:
            words[word] = self._find_misspelled(store, prepared, prepared.terms[word])
        weighted = [
            (word, term, factor * idf(size, count))
            for word, variants in enumerate(words)
            for term, count, factor in variants
        ]
        talk = [
            (word, term, share * idf(size, count))
            for word, (term, share) in enumerate(prepared.talk_terms.items(), start=_FIRST_TALK_WORD)
            if (count := frequency(term))
        ]
        weighted += nlargest(_MAX_TALK_WORDS, talk, key=itemgetter(2)) if len(talk) > _MAX_TALK_WORDS else talk
        return [
            (word, *postings, weight) for word, term, weight in weighted for postings in store.terms.get_lists(term)
        ]

    def _find_neighbors(self, store: Store, term: int) -> list[tuple[int, int, float]]:
        """Return the neighbors of a term that occur in any document, as (neighbor, frequency, factor)."""
        frequency = store.terms.frequency
        neighbors = []
        for neighbor, cosine in self._embedding.neighbors(term):
            count = frequency(neighbor)
            if count > 0:
                neighbors.append((neighbor, count, _NEIGHBOR_WEIGHT * cosine * cosine))
                if len(neighbors) == _MAX_NEIGHBORS:
                    break
        return neighbors

    def _find_misspelled(
        self, store: Store, prepared: PreparedQuery, terms: Iterable[int]
    ) -> list[tuple[int, int, float]]:
        """Return the terms that a word without documents may be a misspelling of, as (term, frequency, factor).

        Common English words are none: they are only not in these documents.
        """
        if any(self._embedding.neighbors(term) for term in terms):
            return []
        spellings = _spellings(prepared.query.text, prepared.languages)
        variants = [misspellings(spellings[term], store.signatures) for term in terms if term in spellings]
        ids = dict.fromkeys(map(hash_once, chain.from_iterable(variants)))
        counts = [(term, count) for term in ids if (count := store.terms.frequency(term))]
        likeliest = nlargest(_MAX_MISSPELLINGS, counts, key=itemgetter(1))
        return [(term, count, _MISSPELLING_WEIGHT) for term, count in likeliest]

    def _find_dated(self, store: Store, prepared: PreparedQuery) -> tuple[NDArray[np.int32], _Floats]:
        """Return the documents of a day that the question names, which are candidates without any of its words."""
        if not prepared.days:  # true of most questions
            return _NO_ITEMS, _NO_VECTOR
        dated = np.flatnonzero(_match_days(prepared.days, store.items.to_array()["occurred_at"])).astype(np.int32)
        return dated, np.full(len(dated), self._weights["date"], np.float32)

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
                talk_weight=self._weights["talk"] / BM25_UNIT,
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
        compared = query.text if len(prepared.vector) and _has_comparable_vector(store, prepared) else ""
        confidence = LazyConfidence(store, prepared.terms, ranked, self._weights, compared)
        for ordinal, score, _, _ in ranked:
            # An ordinal is never reused in this store, so a hit stays valid whatever happens to the index.
            hit = Hit(ordinal, score, store.get_document, explanation, confidence)
            if predicate is None or predicate(hit.document):
                hits.append(hit)
                if len(hits) == limit:
                    break
        if hits:
            confidence.best = hits[0].position
        return hits

    def explain(
        self, store: Store, prepared: PreparedQuery, candidates: KernelResult, ordinal: int
    ) -> dict[str, float]:
        """Return what each feature contributes to the score of one candidate, without zeros."""
        query = prepared.query
        position = np.flatnonzero(candidates.items == ordinal)[:1]
        ordinals = candidates.items[position].astype(np.int64)
        items = store.items.take(ordinals)
        evidence = Evidence(
            items=items,
            pooled=candidates.pooled[position],
            talk=candidates.talk[position],
            cosines=self._compute_cosines(store, prepared, items["scale"], ordinals),
            matches_date=_match_days(prepared.days, items["occurred_at"]) if prepared.days else None,
            label_relevance=np.array(
                [store.labels.relevance_of(ordinal, self._mentioned_labels(store, query))], np.float32
            ),
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
            # Not a matrix product, which may round equal rows differently.
            return _drop_non_finite((rows * prepared.vector).sum(axis=1) * scales)

    def _mentioned_labels(self, store: Store, query: Query) -> dict[int, float]:
        """Return the labels that the conversation or the question mentions, with their relevance."""
        return store.labels.find_mentioned((*query.recent_turns, query.text), store.live_count)


@attrs.frozen
class _LazyExplanation:
    """Computes the contributions to the scores of one search on demand."""

    searcher: Searcher
    store: Store
    prepared: PreparedQuery
    candidates: KernelResult

    def __call__(self, ordinal: int) -> Mapping[str, float]:
        return self.searcher.explain(self.store, self.prepared, self.candidates, ordinal)


_NO_VECTOR = np.zeros(0, np.float32)
_NO_ITEMS = np.zeros(0, np.int32)
_NO_RESULT = KernelResult(_NO_ITEMS, _NO_VECTOR, _NO_VECTOR, _NO_VECTOR)


def _speaker_id(store: Store, query: Query) -> int:
    return NONE if query.speaker is None else store.find_speaker(sanitize(query.speaker))


def _has_comparable_vector(store: Store, prepared: PreparedQuery) -> bool:
    """Return whether question and documents have vectors of the same model; without a model they do not."""
    return len(prepared.vector) == int(store.vectors.base.shape[1])


def _drop_non_finite(vector: _Floats) -> _Floats:
    """Return a vector with zeros for infinities and NaN, which a damaged model or file may hold."""
    with np.errstate(invalid="ignore", over="ignore"):
        is_finite = math.isfinite(float(vector.sum()))
    return vector if is_finite else np.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0)


def _match_days(days: Days, timestamps: NDArray[np.float64]) -> NDArray[np.bool_]:
    is_valid = np.abs(timestamps) < _MAX_TIMESTAMP_S
    day_numbers = np.floor(np.where(is_valid, timestamps, 0) / _SECONDS_PER_DAY).astype(np.int64)
    return days.match(day_numbers) & is_valid
