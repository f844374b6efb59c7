"""Labels: what documents are about, and which labels a conversation has mentioned.

A spoken question seldom names its subject ("and do they take dogs?"), because the turns before it did. A turn mentions
a label (a title, the name of a place) to the degree that it contains the label's rare words.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from memoair_index.analysis import split_words, to_term_ids
from memoair_index.bm25 import idf
from memoair_index.container import check_range
from memoair_index.folding import fold
from memoair_index.items import NONE, GrowingArray
from memoair_index.postings import PostingArrays, Postings, PostingSnapshot

# A label keeps this share of its relevance with every turn since it was mentioned,
DECAY_PER_TURN = 0.95
# and this share if the question itself mentions another label in full.
SUBJECT_CHANGE_FACTOR = 0.75
# The words of a label count by themselves where its documents contain them, so a label that few documents bear says no
# more than its words: it counts for n / (n + this), where n is the number of documents (groups of chunks) that bear it,
_SPREAD_SATURATION = 4.0
# and for this share of that if the question itself mentions it. Neither holds for a label that is mentioned in full, as
# far as the text of its documents does not contain it.
_IN_QUESTION_SHARE = 0.1
# Labels with less than this share of the best relevance are ignored.
MIN_RELEVANCE_SHARE = 0.4
# A turn with less than this share of a label's idf does not mention it.
MIN_IDF_SHARE = 0.3
# Older turns have lost nine tenths of their relevance.
MAX_TURNS = 48
# A label of common words says little, even if all of them were said: its relevance is w / (w + this), where w is the
# sum of the idf of its words.
_IDF_SATURATION = 6.0
_FULL_MENTION_SHARE = 0.9
_MAX_CACHED_TURNS = 1_024


@attrs.frozen
class LabelArrays:
    """Labels as they are stored in a file.

    Attributes:
        text: The labels in UTF-8, one after another; a label's id is its position in this order.
        starts: Label ``i`` is ``text[starts[i]:starts[i + 1]]``; shape ``(labels + 1,)``.
        terms: From a term to the labels that contain it.
        documents: From a label to the documents that have it.
    """

    text: bytes
    starts: NDArray[np.int64]
    terms: PostingArrays
    documents: PostingArrays

    @classmethod
    def empty(cls) -> "LabelArrays":
        """Return arrays without labels."""
        return cls(b"", np.zeros(1, np.int64), PostingArrays.empty(), PostingArrays.empty())

    def decode_texts(self) -> list[str]:
        """Return the labels by id."""
        bounds = self.starts.tolist()
        return [self.text[start:end].decode(errors="replace") for start, end in pairwise(bounds)]


class _Mention(NamedTuple):
    """A label in a turn.

    Attributes:
        relevance: How much of it was mentioned, from 0 to 1.
        is_full: Whether it was mentioned in full.
        spread: The number of groups whose documents bear it.
        novelty: The share of it that is not in the text of its documents, from 0 to 1; only for a mention in full.
    """

    relevance: float
    is_full: bool
    spread: int
    novelty: float


_Mentions = dict[int, _Mention]  # by label id


class Labels:
    """The labels of an index's documents, by ordinal. Not thread-safe: the index locks."""

    def __init__(self, base: LabelArrays, base_size: int, items: GrowingArray, terms: Postings) -> None:
        """Start with the labels of a file.

        Args:
            base: The labels of the file.
            base_size: The documents of the file have the ordinals below this.
            items: The records of all documents, by ordinal.
            terms: From a term to the documents whose text contains it.
        """
        self._base = base
        self._terms = Postings(base.terms, len(base.starts) - 1)
        self._documents = Postings(base.documents, base_size)
        self._texts: list[str] | None = None  # read on first use
        self._label_ids: dict[str, int] = {}
        self._items, self._document_terms = items, terms
        # Caches that are valid until a document is added or removed: the mentions in a turn, the idf of a term among
        # all labels, and the spread and novelty of a label.
        self._mentions_by_turn: dict[str, _Mentions] = {}
        self._idf_by_term: dict[int, float] = {}
        self._spread_by_label: dict[int, int] = {}
        self._novelty_by_label: dict[int, float] = {}

    def add(self, ordinal: int, labels: Sequence[str]) -> None:
        """Record what a document is about."""
        for text in dict.fromkeys(labels):
            texts = self._load_texts()
            label = self._label_ids.get(text)
            if label is None:
                label = self._label_ids[text] = len(texts)
                texts.append(text)
                self._terms.add(label, dict.fromkeys(_term_ids(text), 1))
            self._documents.add(ordinal, {label: 1})
        self._clear_caches()

    def remove(self, labels: Sequence[str]) -> None:
        """Remove the labels of one document."""
        self._load_texts()
        self._documents.remove([self._label_ids[text] for text in labels if text in self._label_ids])
        self._clear_caches()

    def find_mentioned(self, turns: Sequence[str], document_count: int) -> dict[int, float]:
        """Return the labels that a conversation has mentioned.

        Args:
            turns: What was said, oldest first, the question last.
            document_count: The number of documents in the index.

        Returns:
            The relevance of each label by label id, from 0 to 1; it declines with every turn since the mention.
        """
        relevances: dict[int, float] = {}
        if not self._load_texts():
            return relevances
        factor = 1.0
        for age, turn in enumerate(reversed(turns[-MAX_TURNS:])):
            mentions = self._mentions_in(turn, document_count)
            decay = factor * DECAY_PER_TURN**age
            share = 1.0 if age else _IN_QUESTION_SHARE
            for label, mention in mentions.items():
                weight = share * mention.spread / (mention.spread + _SPREAD_SATURATION)
                if mention.is_full:
                    novelty = mention.novelty**2  # squared: a label that half of its documents contain is not novel
                    weight = novelty + (1 - novelty) * weight
                relevances[label] = max(relevances.get(label, 0.0), mention.relevance * decay * weight)
            if not age and any(mention.is_full for mention in mentions.values()):
                factor = SUBJECT_CHANGE_FACTOR
        min_relevance = MIN_RELEVANCE_SHARE * max(relevances.values(), default=0.0)
        return {label: relevance for label, relevance in relevances.items() if relevance >= min_relevance}

    def get_lists(self, relevances: Mapping[int, float], weight: float) -> list[tuple[Any, int, float]]:
        """Return the documents that bear some labels, as lists for the kernel; see `KernelRequest.labels`."""
        return [
            (items, first, weight * relevance)
            for label, relevance in relevances.items()
            for items, _, first in self._documents.get_lists(label)
        ]

    def relevance_of(self, ordinal: int, relevances: Mapping[int, float]) -> float:
        """Return the best relevance of the labels that a document bears."""
        return max(
            (relevance for label, relevance in relevances.items() if ordinal in self._documents.get_ordinals(label)),
            default=0.0,
        )

    def snapshot(self) -> "LabelSnapshot":
        """Return the labels as they are now, unaffected by later changes."""
        return LabelSnapshot(tuple(self._load_texts()), self._terms.snapshot(), self._documents.snapshot())

    def _clear_caches(self) -> None:
        self._mentions_by_turn.clear()
        self._idf_by_term.clear()
        self._spread_by_label.clear()
        self._novelty_by_label.clear()

    def _spread(self, label: int) -> int:
        """Return the number of groups whose documents bear a label."""
        spread = self._spread_by_label.get(label)
        if spread is None:
            groups = self._items.take(self._live_ordinals(label))["group"]
            spread = self._spread_by_label[label] = len(set(groups[groups >= 0].tolist()))
        return spread

    def _novelty(self, label: int, document_count: int) -> float:
        """Return the share of a label that is not in the text of its documents, from 0 to 1."""
        novelty = self._novelty_by_label.get(label)
        if novelty is None:
            ordinals = self._live_ordinals(label)
            ordinals = ordinals[self._items.take(ordinals)["group"] >= 0]  # without those that were removed
            weights = {term: self._term_idf(term, document_count) for term in _term_ids(self._load_texts()[label])}
            contained = sum(
                weight * np.isin(ordinals, self._document_terms.get_ordinals(term)).mean() if len(ordinals) else 0.0
                for term, weight in weights.items()
            )
            novelty = max(0.0, 1 - float(contained) / (sum(weights.values()) or 1.0))
            self._novelty_by_label[label] = novelty
        return novelty

    def _live_ordinals(self, label: int) -> NDArray[np.int64]:
        """Return the documents that bear a label, without invalid ordinals from a damaged file."""
        ordinals = self._documents.get_ordinals(label)
        return ordinals[(ordinals >= 0) & (ordinals < len(self._items))]

    def _load_texts(self) -> list[str]:
        if self._texts is None:
            self._texts = self._base.decode_texts()
            self._label_ids = {text: label for label, text in enumerate(self._texts)}
        return self._texts

    def _term_idf(self, term: int, document_count: int) -> float:
        """Return a term's idf by the documents with a label that contains it; two such labels count twice."""
        term_idf = self._idf_by_term.get(term)
        if term_idf is None:
            frequency = sum(map(self._documents.frequency, self._labels_with(term)))
            term_idf = self._idf_by_term[term] = idf(document_count, min(document_count, frequency))
        return term_idf

    def _labels_with(self, term: int) -> list[int]:
        """Return the labels that contain a term, without invalid ids from a damaged file."""
        size = len(self._load_texts())
        return [label for label in self._terms.get_ordinals(term).tolist() if 0 <= label < size]

    def _mentions_in(self, turn: str, document_count: int) -> "_Mentions":
        """Return the labels that one turn mentions, cached: a turn comes again with every search of its call."""
        mentions = self._mentions_by_turn.get(turn)
        if mentions is None:
            if len(self._mentions_by_turn) >= _MAX_CACHED_TURNS:
                self._mentions_by_turn.clear()
            mentions = self._mentions_by_turn[turn] = self._find_mentions(turn, document_count)
        return mentions

    def _find_mentions(self, turn: str, document_count: int) -> "_Mentions":
        said_idf: dict[int, float] = {}  # by label: the idf of its words that the turn contains
        for term in _term_ids(turn):
            for label in self._labels_with(term):
                said_idf[label] = said_idf.get(label, 0.0) + self._term_idf(term, document_count)
        mentions = {}
        for label, said in said_idf.items():
            full = sum(self._term_idf(term, document_count) for term in _term_ids(self._load_texts()[label]))
            if said >= MIN_IDF_SHARE * full and self._documents.frequency(label):
                is_full = said >= _FULL_MENTION_SHARE * full
                novelty = self._novelty(label, document_count) if is_full else 0.0
                mentions[label] = _Mention(said / (full + _IDF_SATURATION), is_full, self._spread(label), novelty)
        return mentions


@attrs.frozen
class LabelSnapshot:
    """Labels at one moment."""

    texts: tuple[str, ...]
    terms: PostingSnapshot
    documents: PostingSnapshot

    def merge(self, new_ordinals: NDArray[np.int64]) -> LabelArrays:
        """Return the labels of the remaining documents.

        Args:
            new_ordinals: The new ordinal of each document, by its present one; -1 for a document to leave out.
        """
        documents = self.documents.merge(new_ordinals)
        kept = documents.keys.astype(np.int64)
        new_labels = np.full(len(self.texts), NONE, np.int64)
        new_labels[check_range(kept, len(self.texts))] = np.arange(len(kept))
        texts = [self.texts[label].encode(errors="replace") for label in kept.tolist()]
        return LabelArrays(
            b"".join(texts),
            np.cumsum([0, *map(len, texts)], dtype=np.int64),
            self.terms.merge(new_labels),
            attrs.evolve(documents, keys=np.arange(len(kept), dtype=np.uint64)),
        )


@lru_cache(maxsize=1 << 14)
def _term_ids(text: str) -> frozenset[int]:
    return frozenset(to_term_ids(split_words(fold(text))))
