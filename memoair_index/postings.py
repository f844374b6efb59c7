"""Which documents hold which terms, how often, and how long each is: what a ranking function needs to know."""

from array import array
from collections import Counter
from collections.abc import Iterable

import attrs
import numpy as np
from numpy.typing import NDArray


@attrs.define
class _TermPostings:
    ordinals: "array[int]" = attrs.field(factory=lambda: array("i"))
    frequencies: "array[float]" = attrs.field(factory=lambda: array("f"))
    live: int = 0  # documents that still stand; the two arrays keep those that were removed


class Postings:
    """Term postings of documents numbered from 0 in the order of arrival.

    A removed document keeps its number and its entries, and no longer counts. Not thread-safe: the index locks.
    """

    def __init__(self) -> None:
        self._terms: dict[str, _TermPostings] = {}
        self._lengths = array("f")
        self._live_length = 0.0
        self._live = 0

    def __len__(self) -> int:
        """Count the documents that stand."""
        return self._live

    @property
    def size(self) -> int:
        """The number of documents ever added, removed ones included: the length of an array with one cell for each."""
        return len(self._lengths)

    @property
    def average_length(self) -> float:
        """The mean number of terms of a document that stands."""
        return self._live_length / self._live if self._live else 0.0

    def add(self, terms: list[str]) -> int:
        """Append a document and return its number."""
        ordinal = len(self._lengths)
        self._lengths.append(len(terms))
        for term, count in Counter(terms).items():
            postings = self._terms.get(term)
            if postings is None:
                postings = self._terms[term] = _TermPostings()
            postings.ordinals.append(ordinal)
            postings.frequencies.append(count)
            postings.live += 1
        self._live_length += len(terms)
        self._live += 1
        return ordinal

    def remove(self, terms: Iterable[str]) -> None:
        """Take a document that was added with these terms out of the statistics."""
        length = 0
        for term, count in Counter(terms).items():
            self._terms[term].live -= 1
            length += count
        self._live_length -= length
        self._live -= 1

    def document_frequency(self, term: str) -> int:
        """The number of standing documents that hold the term."""
        postings = self._terms.get(term)
        return postings.live if postings else 0

    def of(self, term: str) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The numbers of the documents that ever held the term, and how often each did: copies, safe to keep."""
        postings = self._terms[term]
        return np.array(postings.ordinals, np.int32), np.array(postings.frequencies, np.float32)

    def lengths(self) -> NDArray[np.float32]:
        """The number of terms of every document ever added: a copy."""
        return np.array(self._lengths, np.float32)
