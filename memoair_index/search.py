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
from memoair_index.analysis import fold, term_ids, words
from memoair_index.bm25 import K1, B, idf
from memoair_index.cues import QuestionType, question_type
from memoair_index.dates import Days, days_in
from memoair_index.document import Document, Hit, Query
from memoair_index.items import NONE
from memoair_index.kernel import SCRATCH_BYTES, KernelRequest, KernelResult, RankRequest
from memoair_index.ranking import MEANING_UNIT, WORDS_UNIT, Evidence, Weights, cues_that_count, terms_of
from memoair_index.static_model import Embedding
from memoair_index.store import Store, sound

# Candidates that all terms are looked at for; among 50, recall is the same.
_CANDIDATES = 128
# A question has a dozen words; of a pasted document the rarest do.
_MOST_WORDS = 96
# Among 16,000 the same is found, for .1 ms more.
_MOST_POSTINGS = 6_000
# What a word may be called besides: so many of its nearest that stand in any document, and what each counts,
# as a share of cosine squared.
_NEIGHBOURS = 12
_NEIGHBOUR_WEIGHT = 1.1
# What a word does for the utterances around the one that it stands in, a step away and so on.
DECAYS = (0.7, 0.5, 0.35, 0.25)
_SECONDS_A_DAY = 86_400
# Some three thousand years from now: no moment that anybody meant lies beyond.
_FARTHEST_MOMENT = 1e11

_Floats = NDArray[np.float32]


@attrs.frozen
class AnalyzedQuery:
    """What a text says to a search, whoever asks it and when."""

    folded: str
    terms: tuple[int, ...]  # each once, in order
    vector: _Floats
    asked: QuestionType


@attrs.frozen
class PreparedQuery:
    """A query, read once, outside of every lock."""

    query: Query
    terms: tuple[int, ...]
    vector: _Floats
    asked: QuestionType
    days: Days

    def __bool__(self) -> bool:
        """Whether there is anything to search by."""
        return bool(self.terms or self.days or self.query.talk)


@lru_cache(maxsize=64)
def _read(text: str, embedding: Embedding) -> AnalyzedQuery:
    """Read a text. The lanes of one search ask the same, each its own index."""
    folded = fold(text)
    spoken = words(folded)
    terms = tuple(dict.fromkeys(term_ids(spoken)))
    return AnalyzedQuery(folded, terms, _sound(embedding.encode([spoken])[0]), question_type(folded))


@lru_cache(maxsize=64)
def _ids(names: frozenset[str]) -> frozenset[int]:
    return frozenset(term for name in names for term in term_ids(words(fold(name))))


class Searcher:
    """Searches stores. ``search`` is not thread-safe: the index locks."""

    def __init__(self, embedding: Embedding, weights: Weights) -> None:
        self._embedding = embedding
        self._weights = weights
        self._scratch = np.zeros(0, np.uint8)

    def prepare(self, query: Query) -> PreparedQuery:
        """Read a query. Safe to use from any thread."""
        reading = _read(query.text, self._embedding)
        names = _ids(query.names)
        terms = tuple(term for term in reading.terms if term not in names) if names else reading.terms
        return PreparedQuery(query, terms, reading.vector, reading.asked, days_in(reading.folded, query.now))

    def search(
        self, store: Store, question: PreparedQuery, limit: int, keeps: Callable[[Document], bool] | None
    ) -> list[Hit]:
        """The best documents of a store, best first."""
        wanted = max(limit, _CANDIDATES)
        while True:
            found = self._candidates(store, question, wanted)
            hits = self._hits(store, question, found, limit, keeps)
            # A filter may have left out all of the best, and the next ones are still to be asked.
            if keeps is None or len(hits) == limit or len(found.items) < wanted:
                return hits
            wanted *= 8

    def _candidates(self, store: Store, question: PreparedQuery, limit: int) -> KernelResult:
        query = question.query
        only = store.group_of(sound(query.group)) if query.group is not None else NONE
        if query.group is not None and only == NONE:
            return _NOTHING
        bonus_items, bonuses = self._bonuses(store, question)
        size = len(store.items)
        if len(self._scratch) < size * SCRATCH_BYTES:
            self._scratch = np.zeros((size + size // 4 + 64) * SCRATCH_BYTES, np.uint8)
        return kernel.score(
            KernelRequest(
                items=store.items,
                postings=self._postings(store, question.terms),
                scratch=self._scratch,
                average_length=store.average_length,
                limit=min(limit, size),
                k1=K1,
                b=B,
                decays=DECAYS,
                pooled_weight=self._weights["around"] / WORDS_UNIT,
                speaker=_speaker(store, query),
                speaker_weight=self._weights["speaker" if query.by_name else "self"],
                only_group=only,
                without_group=store.group_of(sound(query.without_group)) if query.without_group is not None else NONE,
                linked=store.linked,
                removed=store.live < size,
                bonus_items=bonus_items,
                bonuses=bonuses,
            )
        )

    def _postings(self, store: Store, terms: Sequence[int]) -> list[tuple[int, Any, Any, int, float]]:
        """For each word of the question the postings of itself and of its neighbours, with their weights.

        In a large store the rarest come first, until enough postings are to be gone through: what stands in every tenth
        document tells little that the rare words have not told, and would take most of the time.
        """
        frequency = store.terms.frequency
        words = sorted((count, number) for number, term in enumerate(terms) if (count := frequency(term)) > 0)
        chosen = [(number, terms[number], count, 1.0) for count, number in words[:_MOST_WORDS]]
        asked = range(len(terms)) if len(terms) <= _MOST_WORDS else [number for number, _, _, _ in chosen]
        for number in asked:
            chosen += self._neighbours(store, number, terms[number])
        room = _MOST_POSTINGS
        lists: list[tuple[int, Any, Any, int, float]] = []
        for number, term, count, share in chosen:
            if count <= room or not lists:
                room -= count
                weight = share * idf(store.live, count)
                lists += [(number, *found, weight) for found in store.terms.lists(term)]
        return sorted(lists, key=itemgetter(0))

    def _neighbours(self, store: Store, number: int, term: int) -> list[tuple[int, int, int, float]]:
        """The neighbours of a word that stand in any document: its number, each one's term, frequency and share."""
        frequency = store.terms.frequency
        found = []
        for neighbour, cosine in self._embedding.neighbours(term):
            count = frequency(neighbour)
            if count > 0:
                found.append((number, neighbour, count, _NEIGHBOUR_WEIGHT * cosine * cosine))
                if len(found) == _NEIGHBOURS:
                    break
        return found

    def _bonuses(self, store: Store, question: PreparedQuery) -> tuple[NDArray[np.int32], _Floats]:
        """What makes a candidate without any word of the question: a label that was named, a day that was asked for."""
        items, worths = self._named(store, question.query)
        if not (len(items) or question.days):  # as with most questions
            return items, worths
        bonuses = worths * np.float32(self._weights["label"])
        if question.days:
            dated = np.flatnonzero(_dated(question.days, store.items.all()["occurred_at"])).astype(np.int32)
            items = np.concatenate([items, dated])
            bonuses = np.concatenate([bonuses, np.full(len(dated), self._weights["date"], np.float32)])
        return items, bonuses

    def _hits(
        self,
        store: Store,
        question: PreparedQuery,
        found: KernelResult,
        limit: int,
        keeps: Callable[[Document], bool] | None,
    ) -> list[Hit]:
        query = question.query
        ranked = kernel.rank(
            RankRequest(
                items=store.items,
                vectors=store.vectors,
                found=found,
                question=question.vector if _is_comparable(store, question) else _NO_VECTOR,
                pooled_weight=self._weights["around"] / WORDS_UNIT,
                meaning_weight=self._weights["meaning"] / MEANING_UNIT,
                speaker=_speaker(store, query),
                speaker_weight=self._weights["speaker" if query.by_name else "self"],
                cues=[(int(cue), self._weights[name]) for name, cue in cues_that_count(question.asked).items()],
            )
        )
        told = _LazyExplanation(self, store, question, found)
        hits: list[Hit] = []
        for number, score in ranked:
            # What has its number now has it in this store for ever, whatever becomes of the index.
            hit = Hit(number, score, store.document, told)
            if keeps is None or keeps(hit.document):
                hits.append(hit)
                if len(hits) == limit:
                    break
        return hits

    def terms(self, store: Store, question: PreparedQuery, found: KernelResult, number: int) -> dict[str, float]:
        """What the score of one of the candidates is the sum of: every term that counts, with its weight."""
        query = question.query
        place = np.flatnonzero(found.items == number)[:1]
        numbers = found.items[place].astype(np.int64)
        items = store.items.take(numbers)
        evidence = Evidence(
            items=items,
            pooled=found.pooled[place],
            cosines=self._cosines(store, question, items["scale"], numbers),
            dated=_dated(question.days, items["occurred_at"]) if question.days else None,
            labels=self._labels(store, query, numbers),
        )
        values = terms_of(evidence, question.asked, _speaker(store, query), by_name=query.by_name)
        weighted = {name: float(value[0] * np.float32(self._weights[name])) for name, value in values.items()}
        return {name: value for name, value in weighted.items() if value}

    def _cosines(self, store: Store, question: PreparedQuery, scales: _Floats, numbers: NDArray[np.int64]) -> _Floats:
        if not _is_comparable(store, question):
            return np.zeros(len(numbers), np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            rows = store.vectors.take(numbers).astype(np.float32)
            # Not a product of matrices, which rounds equal rows differently.
            return _sound((rows * question.vector).sum(axis=1) * scales)

    def _labels(self, store: Store, query: Query, numbers: NDArray[np.int64]) -> _Floats | None:
        items, worths = self._named(store, query)
        if not len(items):
            return None
        by_item = dict(zip(items.tolist(), worths.tolist(), strict=True))
        return np.array([by_item.get(number, 0.0) for number in numbers.tolist()], np.float32)

    def _named(self, store: Store, query: Query) -> tuple[NDArray[np.int32], _Floats]:
        """The documents whose labels were named in the talk, the question among it, and how much."""
        return store.labels.documents(store.labels.named((*query.talk, query.text), store.live))


@attrs.frozen
class _LazyExplanation:
    """What the scores of one search are made of, worked out when somebody asks."""

    searching: Searcher
    store: Store
    question: PreparedQuery
    found: KernelResult

    def __call__(self, number: int) -> Mapping[str, float]:
        return self.searching.terms(self.store, self.question, self.found, number)


_NO_VECTOR = np.zeros(0, np.float32)
_NOTHING = KernelResult(np.zeros(0, np.int32), _NO_VECTOR, _NO_VECTOR)


def _speaker(store: Store, query: Query) -> int:
    return NONE if query.speaker is None else store.speaker_of(sound(query.speaker))


def _is_comparable(store: Store, question: PreparedQuery) -> bool:
    """Whether the question's vector is of the kind that the documents have: without a model, it is not."""
    return len(question.vector) == int(store.vectors.base.shape[1])


def _sound(vector: _Floats) -> _Floats:
    """A vector without what is no number, which a damaged model or file may hold."""
    with np.errstate(invalid="ignore", over="ignore"):
        is_sound = math.isfinite(float(vector.sum()))
    return vector if is_sound else np.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0)


def _dated(days: Days, moments: NDArray[np.float64]) -> NDArray[np.bool_]:
    known = np.abs(moments) < _FARTHEST_MOMENT
    numbers = np.floor(np.where(known, moments, 0) / _SECONDS_A_DAY).astype(np.int64)
    return days.match(numbers) & known
