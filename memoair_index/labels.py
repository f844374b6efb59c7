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

from memoair_index.analysis import fold, split_words, to_term_ids
from memoair_index.bm25 import idf
from memoair_index.items import NONE
from memoair_index.postings import PostingArrays, Postings, PostingSnapshot

# How much of its weight a label keeps with every turn that has passed since it was named.
DECAY_PER_TURN = 0.95
# And how much, where the question itself names another one in full.
SUBJECT_CHANGE_FACTOR = 0.75
# What is worth less than this share of the best is not looked at.
MIN_RELEVANCE_SHARE = 0.4
# What is named by less than this share of its words is not meant.
MIN_IDF_SHARE = 0.3
# Older turns have lost nine tenths of their weight.
MAX_TURNS = 48
# A label of common words says little, also where all of them were said: its worth is w / (w + this), w being the sum
# of its words' idf.
_IDF_SATURATION = 6.0
_FULL_MENTION_SHARE = 0.9
_MAX_CACHED_TURNS = 1_024
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

    def decode_texts(self) -> list[str]:
        """The labels, by number."""
        bounds = self.starts.tolist()
        return [self.text[start:end].decode(errors="replace") for start, end in pairwise(bounds)]


_Mentions = dict[int, tuple[float, bool]]  # by label: its worth, and whether all of it was said


class Labels:
    """The labels of an index's documents, known by their numbers. Not thread-safe: the index locks."""

    def __init__(self, base: LabelArrays, base_size: int) -> None:
        """``split`` is the number of the first document that is not in ``base``."""
        self._base = base
        self._terms = Postings(base.terms, len(base.starts) - 1)
        self._documents = Postings(base.documents, base_size)
        self._texts: list[str] | None = None  # read when somebody first asks
        self._label_ids: dict[str, int] = {}
        # Both until a document comes or goes: what a turn names, and the weight of a term among all labels.
        self._mentions_by_turn: dict[str, _Mentions] = {}
        self._idf_by_term: dict[int, float] = {}

    def add(self, ordinal: int, labels: Sequence[str]) -> None:
        """Note what a document is about."""
        for text in dict.fromkeys(labels):
            texts = self._load_texts()
            label = self._label_ids.get(text)
            if label is None:
                label = self._label_ids[text] = len(texts)
                texts.append(text)
                self._terms.add(label, dict.fromkeys(_term_ids(text), 1))
            self._documents.add(ordinal, {label: 1})
        self._mentions_by_turn.clear()
        self._idf_by_term.clear()

    def remove(self, labels: Sequence[str]) -> None:
        """Forget that a document is about these."""
        self._load_texts()
        self._documents.remove([self._label_ids[text] for text in labels if text in self._label_ids])
        self._mentions_by_turn.clear()
        self._idf_by_term.clear()

    def find_mentioned(self, turns: Sequence[str], document_count: int) -> dict[int, float]:
        """For each label that a talk (oldest first) has named, its worth from 0 to 1, less with every turn since.

        ``documents`` is how many there are in all.
        """
        relevance_by_label: dict[int, float] = {}
        if not self._load_texts():
            return relevance_by_label
        factor = 1.0
        for age, turn in enumerate(reversed(turns[-MAX_TURNS:])):
            mentions = self._mentions_in(turn, document_count)
            for label, (worth, _) in mentions.items():
                relevance_by_label[label] = max(
                    relevance_by_label.get(label, 0.0), worth * factor * DECAY_PER_TURN**age
                )
            if not age and any(is_whole for _, is_whole in mentions.values()):
                factor = SUBJECT_CHANGE_FACTOR
        min_relevance = MIN_RELEVANCE_SHARE * max(relevance_by_label.values(), default=0.0)
        return {label: worth for label, worth in relevance_by_label.items() if worth >= min_relevance}

    def find_documents(self, relevance_by_label: Mapping[int, float]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The documents of some labels, and of each the best that its labels have."""
        if not relevance_by_label:
            return _NO_DOCUMENTS
        relevance_by_document: dict[int, float] = {}
        for label, worth in relevance_by_label.items():
            for document in self._documents.get_ordinals(label).tolist():
                relevance_by_document[document] = max(relevance_by_document.get(document, 0.0), worth)
        return np.array(list(relevance_by_document), np.int32), np.array(
            list(relevance_by_document.values()), np.float32
        )

    def snapshot(self) -> "LabelSnapshot":
        """The labels as they are now, untouched by later changes."""
        return LabelSnapshot(tuple(self._load_texts()), self._terms.snapshot(), self._documents.snapshot())

    def _load_texts(self) -> list[str]:
        if self._texts is None:
            self._texts = self._base.decode_texts()
            self._label_ids = {text: number for number, text in enumerate(self._texts)}
        return self._texts

    def _term_idf(self, term: int, document_count: int) -> float:
        """The idf of a term, by the documents with a label that holds it; one with two such labels counts twice."""
        term_idf = self._idf_by_term.get(term)
        if term_idf is None:
            frequency = sum(map(self._documents.frequency, self._labels_with(term)))
            term_idf = self._idf_by_term[term] = idf(document_count, min(document_count, frequency))
        return term_idf

    def _labels_with(self, term: int) -> list[int]:
        """The labels that hold a term. What a damaged file makes of them is left out."""
        size = len(self._load_texts())
        return [label for label in self._terms.get_ordinals(term).tolist() if 0 <= label < size]

    def _mentions_in(self, turn: str, document_count: int) -> "_Mentions":
        """The labels that one turn names. A turn comes again with every search of its call."""
        mentions = self._mentions_by_turn.get(turn)
        if mentions is None:
            if len(self._mentions_by_turn) >= _MAX_CACHED_TURNS:
                self._mentions_by_turn.clear()
            mentions = self._mentions_by_turn[turn] = self._find_mentions(turn, document_count)
        return mentions

    def _find_mentions(self, turn: str, document_count: int) -> "_Mentions":
        mentioned_idf: dict[int, float] = {}
        for term in _term_ids(turn):
            for label in self._labels_with(term):
                mentioned_idf[label] = mentioned_idf.get(label, 0.0) + self._term_idf(term, document_count)
        mentions = {}
        for label, label_idf in mentioned_idf.items():
            full_idf = sum(self._term_idf(term, document_count) for term in _term_ids(self._load_texts()[label]))
            if label_idf >= MIN_IDF_SHARE * full_idf and self._documents.frequency(label):
                mentions[label] = label_idf / (full_idf + _IDF_SATURATION), label_idf >= _FULL_MENTION_SHARE * full_idf
        return mentions


@attrs.frozen
class LabelSnapshot:
    """Labels at one moment."""

    texts: tuple[str, ...]
    terms: PostingSnapshot
    documents: PostingSnapshot

    def merge(self, new_ordinals: NDArray[np.int64]) -> LabelArrays:
        """The labels of the documents that stand; ``numbers`` gives each document its new number, -1 where it goes."""
        documents = self.documents.merge(new_ordinals)
        kept_labels = documents.keys.astype(np.int64)
        new_labels = np.full(len(self.texts), NONE, np.int64)
        new_labels[kept_labels] = np.arange(len(kept_labels))
        texts = [self.texts[label].encode(errors="replace") for label in kept_labels.tolist()]
        return LabelArrays(
            b"".join(texts),
            np.cumsum([0, *map(len, texts)], dtype=np.int64),
            self.terms.merge(new_labels),
            attrs.evolve(documents, keys=np.arange(len(kept_labels), dtype=np.uint64)),
        )


@lru_cache(maxsize=1 << 14)
def _term_ids(text: str) -> frozenset[int]:
    return frozenset(to_term_ids(split_words(fold(text))))
