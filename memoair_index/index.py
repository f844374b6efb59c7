"""The index: documents come and go one by one, and every search sees all that came before it."""

import threading
from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from memoair_index import bm25
from memoair_index.analysis import terms
from memoair_index.document import Document, Hit, Query
from memoair_index.postings import Postings


class Index:
    """An in-memory index with BM25 ranking.

    Every method may be called from any thread. ``add`` and ``remove`` are seen by every search that begins after they
    returned. Ties are broken by age: what came first ranks first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._postings = Postings()
        self._documents: list[Document | None] = []  # by ordinal; None where removed
        self._removed: list[int] = []
        self._ordinals: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._group_of = array("i")  # by ordinal

    def __len__(self) -> int:
        """Count the documents."""
        with self._lock:
            return len(self._ordinals)

    def __contains__(self, document_id: object) -> bool:
        """Tell whether a document of this id is in the index."""
        with self._lock:
            return document_id in self._ordinals

    def add(self, documents: Iterable[Document]) -> None:
        """Add documents; one whose id is known replaces the old one."""
        analysed = [(document, terms(document.text)) for document in documents]  # the slow part, outside the lock
        with self._lock:
            for document, words in analysed:
                self._forget(document.id)
                ordinal = self._postings.add(words)
                self._documents.append(document)
                self._group_of.append(self._groups.setdefault(document.group, len(self._groups)))
                self._ordinals[document.id] = ordinal

    def remove(self, document_ids: Iterable[str]) -> int:
        """Remove documents by id and return how many were there."""
        with self._lock:
            return sum(self._forget(document_id) for document_id in document_ids)

    def search(self, query: Query, limit: int) -> list[Hit]:
        """Return the best documents that share a term with the query, best first, at most ``limit``."""
        words = terms(query.text)
        if limit <= 0 or not words:
            return []
        with self._lock:
            scores = bm25.scores(self._postings, words)
            scores[self._removed] = 0
            self._keep_groups(scores, query)
            found = ((self._documents[ordinal], float(scores[ordinal])) for ordinal in _best(scores, limit))
            return [Hit(document, score) for document, score in found if document is not None]

    def _keep_groups(self, scores: NDArray[np.float32], query: Query) -> None:
        if query.group is None and query.without_group is None:
            return
        groups = np.array(self._group_of, np.int32)
        if query.group is not None:
            scores[groups != self._groups.get(query.group, -1)] = 0
        if query.without_group is not None:
            scores[groups == self._groups.get(query.without_group, -1)] = 0

    def _forget(self, document_id: str) -> bool:
        ordinal = self._ordinals.pop(document_id, None)
        if ordinal is None:
            return False
        document = self._documents[ordinal]
        if document is not None:
            self._postings.remove(terms(document.text))
        self._documents[ordinal] = None
        self._removed.append(ordinal)
        return True


def _best(scores: NDArray[np.float32], limit: int) -> list[int]:
    """The ordinals of the ``limit`` highest positive scores, best first, older before younger among equals."""
    worst = np.partition(scores, -limit)[-limit] if limit < scores.size else 0.0
    found = np.flatnonzero(scores >= worst if worst > 0 else scores > 0)
    order = np.argsort(-scores[found], kind="stable")[:limit]
    return [int(ordinal) for ordinal in found[order]]
