"""A search: from a question to its words and dates, to the candidates that the kernel finds, to ranked hits."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from memoair_index import kernel
from memoair_index.analysis import fold, term_ids, words
from memoair_index.bm25 import K1, B, idf
from memoair_index.cues import Asked, asked_for
from memoair_index.dates import Days, days_in
from memoair_index.document import Document, Hit, Query
from memoair_index.items import NONE
from memoair_index.kernel import SCRATCH_BYTES, KernelRequest, KernelResult
from memoair_index.ranking import WORDS_UNIT, Evidence, Weights, terms_of
from memoair_index.static_model import Embedding
from memoair_index.store import Store

# Candidates that all terms are looked at for; among 50, recall is the same.
_CANDIDATES = 128
# A question has a dozen words; of a pasted document the rarest do.
_MOST_WORDS = 96
# What a word may be called besides: so many of its nearest that stand in any document, and what each counts,
# as a share of cosine squared.
_NEIGHBOURS = 12
_NEIGHBOUR_WEIGHT = 1.1
# What a word does for the utterances around the one that it stands in, a step away and so on.
DECAYS = (0.7, 0.5, 0.35, 0.25)
_SECONDS_A_DAY = 86_400

_Floats = NDArray[np.float32]


@attrs.frozen
class Question:
    """A query, read once, outside of every lock."""

    query: Query
    terms: tuple[int, ...]  # each once, in order
    vector: _Floats
    asked: Asked
    days: Days

    def __bool__(self) -> bool:
        """Whether there is anything to search by."""
        return bool(self.terms or self.days or self.query.talk)


class Searching:
    """Searches stores. ``search`` is not thread-safe: the index locks."""

    def __init__(self, embedding: Embedding, weights: Weights) -> None:
        self._embedding = embedding
        self._weights = weights
        self._scratch = np.zeros(0, np.uint8)

    def prepare(self, query: Query) -> Question:
        """Read a query. Safe to use from any thread."""
        folded = fold(query.text)
        spoken = words(folded)
        names = {name for each in query.names for name in term_ids(words(fold(each)))}
        terms = tuple(term for term in dict.fromkeys(term_ids(spoken)) if term not in names)
        vector = _sound(self._embedding.encode([spoken])[0])
        return Question(query, terms, vector, asked_for(folded), days_in(folded, query.now))

    def search(
        self, store: Store, question: Question, limit: int, keeps: Callable[[Document], bool] | None
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

    def _candidates(self, store: Store, question: Question, limit: int) -> KernelResult:
        query = question.query
        only = store.group_of(query.group) if query.group is not None else NONE
        if query.group is not None and only == NONE:
            return _NOTHING
        bonus_items, bonuses = self._bonuses(store, question)
        speaker = store.speaker_of(query.speaker) if query.speaker is not None else NONE
        size = len(store.items)
        if len(self._scratch) < size * SCRATCH_BYTES:
            self._scratch = np.zeros(2 * size * SCRATCH_BYTES, np.uint8)
        return kernel.score(
            KernelRequest(
                items=store.items,
                postings=self._postings(store, question.terms),
                scratch=self._scratch,
                average_length=store.average_length,
                limit=limit,
                k1=K1,
                b=B,
                decays=DECAYS,
                own_weight=self._weights["words"] / WORDS_UNIT,
                pooled_weight=self._weights["around"] / WORDS_UNIT,
                speaker=speaker,
                speaker_weight=self._weights["speaker" if query.by_name else "self"],
                only_group=only,
                without_group=store.group_of(query.without_group) if query.without_group is not None else NONE,
                bonus_items=bonus_items,
                bonuses=bonuses,
            )
        )

    def _postings(self, store: Store, terms: Sequence[int]) -> list[tuple[int, Any, Any, int, float]]:
        """For each word of the question the postings of itself and of its neighbours, with their weights."""
        chosen = terms
        if len(terms) > _MOST_WORDS:
            known = [term for term in terms if store.terms.frequency(term)]
            chosen = sorted(known, key=store.terms.frequency)[:_MOST_WORDS]
        lists = []
        for number, term in enumerate(chosen):
            for each, frequency, share in self._alternatives(store, term):
                weight = share * idf(store.live, frequency)
                lists += [(number, *found, weight) for found in store.terms.lists(each)]
        return lists

    def _alternatives(self, store: Store, term: int) -> Iterator[tuple[int, int, float]]:
        """A term and its neighbours, as far as documents hold them: each with its frequency and its share of weight."""
        frequency = store.terms.frequency(term)
        if frequency > 0:
            yield term, frequency, 1.0
        left = _NEIGHBOURS
        for neighbour, cosine in self._embedding.neighbours(term):
            frequency = store.terms.frequency(neighbour)
            if frequency > 0:
                yield neighbour, frequency, _NEIGHBOUR_WEIGHT * cosine * cosine
                left -= 1
                if not left:
                    return

    def _bonuses(self, store: Store, question: Question) -> tuple[NDArray[np.int32], _Floats]:
        """What makes a candidate without any word of the question: a label that was named, a day that was asked for."""
        items, worths = store.labels.documents(store.labels.named(_said(question.query), store.live))
        bonuses = worths * np.float32(self._weights["label"])
        if question.days:
            dated = np.flatnonzero(_dated(question.days, store.items.all()["occurred_at"])).astype(np.int32)
            items = np.concatenate([items, dated])
            bonuses = np.concatenate([bonuses, np.full(len(dated), self._weights["date"], np.float32)])
        return items, bonuses

    def _hits(
        self,
        store: Store,
        question: Question,
        found: KernelResult,
        limit: int,
        keeps: Callable[[Document], bool] | None,
    ) -> list[Hit]:
        numbers = found.items.astype(np.int64)
        terms = self._terms(store, question, found, numbers)
        scores = sum(terms.values(), np.zeros(len(numbers), np.float32))
        hits: list[Hit] = []
        for place in np.lexsort((numbers, -scores)).tolist():
            document = store.document(int(numbers[place]))
            if keeps is None or keeps(document):
                hits.append(Hit(document, float(scores[place]), _Told(terms, place)))
                if len(hits) == limit:
                    break
        return hits

    def _terms(
        self, store: Store, question: Question, found: KernelResult, numbers: NDArray[np.int64]
    ) -> dict[str, _Floats]:
        """Every term of the score with its weight, a cell for each candidate."""
        query = question.query
        items = store.items.take(numbers)
        evidence = Evidence(
            items=items,
            own=found.own,
            pooled=found.pooled,
            cosines=self._cosines(store, question, items["scale"], numbers),
            dated=_dated(question.days, items["occurred_at"]),
            labels=self._labels(store, query, numbers),
        )
        speaker = store.speaker_of(query.speaker) if query.speaker is not None else NONE
        values = terms_of(evidence, question.asked, speaker, by_name=query.by_name)
        return {name: value * np.float32(self._weights[name]) for name, value in values.items()}

    def _cosines(self, store: Store, question: Question, scales: _Floats, numbers: NDArray[np.int64]) -> _Floats:
        if not question.vector.any():
            return np.zeros(len(numbers), np.float32)
        return _sound(store.vectors.take(numbers).astype(np.float32) @ question.vector * scales)

    def _labels(self, store: Store, query: Query, numbers: NDArray[np.int64]) -> _Floats:
        items, worths = store.labels.documents(store.labels.named(_said(query), store.live))
        by_item = dict(zip(items.tolist(), worths.tolist(), strict=True))
        return np.array([by_item.get(number, 0.0) for number in numbers.tolist()], np.float32)


class _Told(Mapping[str, float]):
    """One hit's part of the terms, read when somebody asks."""

    def __init__(self, terms: Mapping[str, _Floats], place: int) -> None:
        self._terms = terms
        self._place = place

    def __getitem__(self, name: str) -> float:
        return float(self._terms[name][self._place])

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._terms if self[name])

    def __len__(self) -> int:
        return sum(1 for _ in self)


_NOTHING = KernelResult(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))


def _sound(vector: _Floats) -> _Floats:
    """A vector without what is no number, which a damaged model or file may hold."""
    return vector if math.isfinite(float(vector.sum())) else np.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0)


def _said(query: Query) -> tuple[str, ...]:
    return (*query.talk, query.text)


def _dated(days: Days, moments: NDArray[np.float64]) -> NDArray[np.bool_]:
    if not days:
        return np.zeros(len(moments), bool)
    known = np.isfinite(moments)
    numbers = np.floor(np.where(known, moments, 0) / _SECONDS_A_DAY).astype(np.int64)
    return days.match(numbers) & known
