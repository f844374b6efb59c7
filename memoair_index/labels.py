"""Labels: what documents are about, and which of them a talk has named.

A spoken question seldom names its subject ("and do they take dogs?"): the talk before it did. A label (a title, the
name of a place) is named by a turn as far as its rare words stand in it.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import attrs
import numpy as np
from numpy.typing import NDArray

from memoair_index.analysis import fold, term_ids, words
from memoair_index.bm25 import idf
from memoair_index.items import NONE
from memoair_index.postings import PostingArrays, Postings, PostingSnapshot

# How much of its weight a label keeps with every turn that has passed since it was named.
DECAY = 0.95
# And how much, where the question itself names another one in full.
CHANGED_SUBJECT = 0.75
# What is worth less than this share of the best is not looked at.
LEAST_WORTH = 0.4
# What is named by less than this share of its words is not meant.
LEAST_SHARE = 0.3
# Older turns have lost nine tenths of their weight.
MOST_TURNS = 48
# A label of common words says little, also where all of them were said: its worth is w / (w + this), w being the sum
# of its words' idf.
_ENOUGH_IDF = 6.0
_NEARLY_WHOLE = 0.9
_CACHED_TURNS = 1_024
_NO_DOCUMENTS = np.zeros(0, np.int32), np.zeros(0, np.float32)


@attrs.frozen
class LabelArrays:
    """Labels as they lie in a file: their texts in one row, by number, and which terms and documents have which."""

    text: bytes
    starts: NDArray[np.int64]
    terms: PostingArrays  # from a term to the labels that hold it
    documents: PostingArrays  # from a label to the documents that it is on

    @classmethod
    def empty(cls) -> "LabelArrays":
        """No labels."""
        return cls(b"", np.zeros(1, np.int64), PostingArrays.empty(), PostingArrays.empty())

    def texts(self) -> list[str]:
        """The labels, by number."""
        bounds = self.starts.tolist()
        return [self.text[start:end].decode(errors="replace") for start, end in pairwise(bounds)]


_Named = dict[int, tuple[float, bool]]  # by label: its worth, and whether all of it was said


class Labels:
    """The labels of an index's documents, known by their numbers. Not thread-safe: the index locks."""

    def __init__(self, base: LabelArrays, split: int) -> None:
        """``split`` is the number of the first document that is not in ``base``."""
        self._base = base
        self._terms = Postings(base.terms, len(base.starts) - 1)
        self._documents = Postings(base.documents, split)
        self._texts: list[str] | None = None  # read when somebody first asks
        self._numbers: dict[str, int] = {}
        # Both until a document comes or goes: what a turn names, and the weight of a term among all labels.
        self._named: dict[str, _Named] = {}
        self._weights: dict[int, float] = {}

    def add(self, item: int, labels: Sequence[str]) -> None:
        """Note what a document is about."""
        for text in dict.fromkeys(labels):
            texts = self._known()
            label = self._numbers.get(text)
            if label is None:
                label = self._numbers[text] = len(texts)
                texts.append(text)
                self._terms.add(label, dict.fromkeys(_terms(text), 1))
            self._documents.add(item, {label: 1})
        self._named.clear()
        self._weights.clear()

    def remove(self, labels: Sequence[str]) -> None:
        """Forget that a document is about these."""
        self._known()
        self._documents.remove([self._numbers[text] for text in labels if text in self._numbers])
        self._named.clear()
        self._weights.clear()

    def named(self, talk: Sequence[str], documents: int) -> dict[int, float]:
        """For each label that a talk (oldest first) has named, its worth from 0 to 1, less with every turn since.

        ``documents`` is how many there are in all.
        """
        found: dict[int, float] = {}
        if not self._known():
            return found
        passed = 1.0
        for age, turn in enumerate(reversed(talk[-MOST_TURNS:])):
            named = self._named_by(turn, documents)
            for label, (worth, _) in named.items():
                found[label] = max(found.get(label, 0.0), worth * passed * DECAY**age)
            if not age and any(is_whole for _, is_whole in named.values()):
                passed = CHANGED_SUBJECT
        least = LEAST_WORTH * max(found.values(), default=0.0)
        return {label: worth for label, worth in found.items() if worth >= least}

    def documents(self, named: Mapping[int, float]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The documents of some labels, and of each the best that its labels have."""
        if not named:
            return _NO_DOCUMENTS
        best: dict[int, float] = {}
        for label, worth in named.items():
            for document in self._documents.items(label).tolist():
                best[document] = max(best.get(document, 0.0), worth)
        return np.array(list(best), np.int32), np.array(list(best.values()), np.float32)

    def snapshot(self) -> "LabelSnapshot":
        """The labels as they are now, untouched by later changes."""
        return LabelSnapshot(tuple(self._known()), self._terms.snapshot(), self._documents.snapshot())

    def _known(self) -> list[str]:
        if self._texts is None:
            self._texts = self._base.texts()
            self._numbers = {text: number for number, text in enumerate(self._texts)}
        return self._texts

    def _weight(self, term: int, documents: int) -> float:
        """The idf of a term, by the documents with a label that holds it; one with two such labels counts twice."""
        weight = self._weights.get(term)
        if weight is None:
            frequency = sum(map(self._documents.frequency, self._labels_with(term)))
            weight = self._weights[term] = idf(documents, min(documents, frequency))
        return weight

    def _labels_with(self, term: int) -> list[int]:
        """The labels that hold a term. What a damaged file makes of them is left out."""
        size = len(self._known())
        return [label for label in self._terms.items(term).tolist() if 0 <= label < size]

    def _named_by(self, turn: str, documents: int) -> "_Named":
        """The labels that one turn names. A turn comes again with every search of its call."""
        named = self._named.get(turn)
        if named is None:
            if len(self._named) >= _CACHED_TURNS:
                self._named.clear()
            named = self._named[turn] = self._look_up(turn, documents)
        return named

    def _look_up(self, turn: str, documents: int) -> "_Named":
        said: dict[int, float] = {}
        for term in _terms(turn):
            for label in self._labels_with(term):
                said[label] = said.get(label, 0.0) + self._weight(term, documents)
        found = {}
        for label, share in said.items():
            whole = sum(self._weight(term, documents) for term in _terms(self._known()[label]))
            if share >= LEAST_SHARE * whole and self._documents.frequency(label):
                found[label] = share / (whole + _ENOUGH_IDF), share >= _NEARLY_WHOLE * whole
        return found


@attrs.frozen
class LabelSnapshot:
    """Labels at one moment."""

    texts: tuple[str, ...]
    terms: PostingSnapshot
    documents: PostingSnapshot

    def merged(self, numbers: NDArray[np.int64]) -> LabelArrays:
        """The labels of the documents that stand; ``numbers`` gives each document its new number, -1 where it goes."""
        documents = self.documents.merged(numbers)
        kept = documents.keys.astype(np.int64)
        renumbered = np.full(len(self.texts), NONE, np.int64)
        renumbered[kept] = np.arange(len(kept))
        texts = [self.texts[label].encode(errors="replace") for label in kept.tolist()]
        return LabelArrays(
            b"".join(texts),
            np.cumsum([0, *map(len, texts)], dtype=np.int64),
            self.terms.merged(renumbered),
            attrs.evolve(documents, keys=np.arange(len(kept), dtype=np.uint64)),
        )


@lru_cache(maxsize=1 << 14)
def _terms(text: str) -> frozenset[int]:
    return frozenset(term_ids(words(fold(text))))
