"""The index: documents are added, removed and searched in memory, and merged into an immutable file."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from memoair_index.analysis import split_words, to_term_ids
from memoair_index.analyzed_document import AnalyzedDocument, analyze, sanitize
from memoair_index.container import ContainerError
from memoair_index.document import Document, Hit, Query
from memoair_index.folding import fold
from memoair_index.index_file import IndexFile, write_index
from memoair_index.items import NONE
from memoair_index.ranking import Weights, default_weights
from memoair_index.search import Searcher
from memoair_index.static_model import Embedding, NoEmbedding, default_model
from memoair_index.store import Store, StoreArrays, StoreSnapshot

# How many documents are analyzed before they are added together; searches run in between.
_BATCH_SIZE = 4_096


class Index:
    """Documents, searched by words, by meaning and by what was said around them.

    Thread-safe. Documents that were added or removed are seen by every search that begins after `add` or `remove` has
    returned. Among equal scores, the document that was added first ranks first.

    Example:
        >>> index = Index()
        >>> index.add([Document("a", "Returns are accepted within 30 days.", group="faq")])
        >>> index.search(Query("return"), limit=3)[0].document.id
        'a'
    """

    def __init__(self, embedding: Embedding | None = None, weights: Weights | None = None) -> None:
        """Create an empty index.

        Args:
            embedding: The model for search by meaning; by default the one that is shipped with the package.
            weights: The weights of the score's features; by default those that are shipped with the package.
        """
        self._embedding = embedding or default_model()
        self._searcher = Searcher(self._embedding, weights or default_weights())
        self._lock = threading.Lock()
        self._merge_lock = threading.Lock()
        self._store = Store(StoreArrays.empty(self._embedding.dimensions))
        self._file: IndexFile | None = None
        # Changes since a merge began, in order: added documents, and the ids of removed ones. None without a merge.
        self._journal: list[AnalyzedDocument | str] | None = None

    @classmethod
    def open(cls, path: Path, embedding: Embedding | None = None, weights: Weights | None = None) -> "Index":
        """Open an index file: memory-mapped, shared with every process that has it open, and never changed.

        The content is not compared with its checksums; `verify` does that.

        Args:
            path: The file.
            embedding: As for the constructor; it must be the one that made the file.
            weights: As for the constructor.

        Raises:
            ContainerError: The file is damaged, truncated, not an index, or made with another embedding.
            OSError: Reading failed.
        """
        index = cls(embedding, weights)
        index._use_file(IndexFile.open(path))
        return index

    @property
    def file_metadata(self) -> Mapping[str, Any]:
        """The metadata that was stored in the file by `merge`; empty without a file."""
        return self._file.metadata if self._file else {}

    @property
    def unmerged_count(self) -> int:
        """The number of documents that a merge would put into the file.

        These are the ones added since the file was written; all of them if an earlier release wrote it, because a merge
        then analyzes each document again.
        """
        with self._lock:
            return len(self._store.items) if self._is_outdated else self._store.added_count

    def __len__(self) -> int:
        """Return the number of documents."""
        with self._lock:
            return self._store.live_count

    def __contains__(self, document_id: object) -> bool:
        """Return whether a document of this id is in the index."""
        with self._lock:
            return isinstance(document_id, str) and self._store.find_ordinal(sanitize(document_id)) != NONE

    def add(self, documents: Iterable[Document]) -> None:
        """Add documents; a document with a known id replaces the earlier one.

        Args:
            documents: The documents, consumed in batches of 4,096.
        """
        remaining = iter(documents)
        while batch := list(islice(remaining, _BATCH_SIZE)):
            analyzed = analyze(batch, self._embedding)  # the slow part, outside the lock
            with self._lock:
                for document in analyzed:
                    self._store.add(document)
                self._record_changes(analyzed)

    def remove(self, document_ids: Iterable[str]) -> int:
        """Remove documents.

        Args:
            document_ids: Their ids; unknown ids are ignored.

        Returns:
            The number of documents that existed.
        """
        ids = [sanitize(document_id) for document_id in document_ids]
        with self._lock:
            self._record_changes(ids)
            return sum(self._store.remove(document_id) for document_id in ids)

    def search(self, query: Query, limit: int, predicate: Callable[[Document], bool] | None = None) -> list[Hit]:
        """Search the index.

        A document is found if it contains a term of the query or one of nearly the same meaning, if it is near such a
        document in its group, if it is of a date that the query names, or if it is about something that the recent
        turns mentioned.

        Args:
            query: The question and its context.
            limit: The maximum number of hits.
            predicate: Leaves out the documents for which it returns False. It runs under the index's lock, so it must
                not call this index.

        Returns:
            The best hits, best first.

        Raises:
            ContainerError: The index file is damaged.
        """
        prepared = self._searcher.prepare(query, self._store.languages)
        if limit <= 0 or not prepared:
            return []
        with self._lock:
            return self._searcher.search(self._store, prepared, limit, predicate)

    def prepare_talk(self, turns: Sequence[str]) -> None:
        """Analyze what was said, so that the next search whose ``recent_turns`` these are takes less time."""
        self._searcher.prepare(Query("", recent_turns=tuple(turns)), self._store.languages)
        with self._lock:
            self._store.labels.find_mentioned(turns, self._store.live_count)

    def document_frequency(self, word: str) -> int:
        """Return the number of documents that contain a word."""
        with self._lock:
            return min((self._store.terms.frequency(term) for term in to_term_ids(split_words(fold(word)))), default=0)

    def documents(self) -> list[Document]:
        """Return all documents in the order in which they were added. Takes long for a large file."""
        with self._lock:
            return self._live_documents()

    def iterate_documents(self) -> Iterator[Document]:
        """Yield the documents that are there now, in the order in which they were added; searches run in between."""
        with self._lock:
            store = self._store
            ordinals = store.live_ordinals()
        for ordinal in ordinals:
            with self._lock:
                document = store.get_document(ordinal)
            yield document

    def latest_documents(self, count: int, predicate: Callable[[Document], bool]) -> list[Document]:
        """Return the documents with the latest times, the latest first; those without a time are left out.

        Args:
            count: The maximum number of documents.
            predicate: Leaves out the documents for which it returns False. It must not call this index.
        """
        with self._lock:
            times = self._store.items.to_array()["occurred_at"]
            ordinals = np.array(self._store.live_ordinals(), np.int64)
            ordinals = ordinals[~np.isnan(times[ordinals])]
            # Stable, so that of equal times the document that was added last is the latest.
            by_time = ordinals[np.argsort(times[ordinals], kind="stable")][::-1].tolist()
            documents = map(self._store.get_document, by_time)
            return list(islice(filter(predicate, documents), count))

    def group_documents(self, name: str, last: int | None = None) -> list[Document]:
        """Return the documents of a group in order.

        Args:
            name: The group.
            last: Return only so many documents from the end of the group.
        """
        with self._lock:
            group_id = self._store.find_group(sanitize(name))
            ordinals = self._store.walk_backward(self._store.last_in_group(group_id)) if group_id != NONE else iter(())
            return [self._store.get_document(ordinal) for ordinal in islice(ordinals, last)][::-1]

    def contiguous_run(self, document_id: str, predicate: Callable[[Document], bool]) -> list[Document]:
        """Return a document with the unbroken run of neighbors in its group for which ``predicate`` is true.

        Args:
            document_id: The document to start from; it is always included.
            predicate: Ends the run on either side where it returns False. It must not call this index.

        Returns:
            The documents in order; empty if the id is unknown.
        """
        with self._lock:
            ordinal = self._store.find_ordinal(sanitize(document_id))
            if ordinal == NONE:
                return []
            preceding = self._take_while(islice(self._store.walk_backward(ordinal), 1, None), predicate)
            following = self._take_while(islice(self._store.walk_forward(ordinal), 1, None), predicate)
            return [*reversed(preceding), self._store.get_document(ordinal), *following]

    def merge(self, path: Path, collect_metadata: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Write all documents to a file and continue with that file; searches and changes go on during the merge.

        The file is written beside ``path`` and renamed into place once it is complete and durable. After an error the
        index and the file are as before.

        Args:
            path: The file to write; it may be the one that is open.
            collect_metadata: Returns small JSON metadata to store in the file. It is called at the moment whose
                documents the file will hold, under the index's lock, so it must not call this index.

        Raises:
            OSError: Writing failed.
            ContainerError: The file that is open is damaged.
        """
        with self._merge_lock:
            self.verify()  # damaged data must not be written again under a valid checksum
            with self._lock:
                snapshot = self._store.snapshot()
                documents = self._live_documents() if self._is_outdated else None
                metadata = collect_metadata()
                self._journal = []
            try:
                if documents is not None:
                    snapshot = self._analyze_again(documents)
                write_index(path, snapshot.compact(), self._embedding.fingerprint, metadata)
                file = IndexFile.open(path)
            except BaseException:
                with self._lock:
                    self._journal = None
                raise
            with self._lock:
                journal, self._journal = self._journal or [], None
                self._use_file(file)
                for change in journal:
                    if isinstance(change, str):
                        self._store.remove(change)
                    else:
                        self._store.add(change)

    def verify(self) -> None:
        """Compare the file, if there is one, with its checksums; raises `ContainerError` on a mismatch."""
        if self._file:
            self._file.verify()

    def _use_file(self, file: IndexFile) -> None:
        if not isinstance(self._embedding, NoEmbedding) and file.fingerprint != self._embedding.fingerprint:
            raise ContainerError(f"{file.container.path}: the vectors were made with another embedding")
        self._file, self._store = file, Store(file.arrays)

    @property
    def _is_outdated(self) -> bool:
        return self._file is not None and self._file.is_outdated

    def _live_documents(self) -> list[Document]:
        return [self._store.get_document(ordinal) for ordinal in self._store.live_ordinals()]

    def _analyze_again(self, documents: Sequence[Document]) -> StoreSnapshot:
        store = Store(StoreArrays.empty(self._embedding.dimensions))
        for first in range(0, len(documents), _BATCH_SIZE):
            for analyzed in analyze(list(documents[first : first + _BATCH_SIZE]), self._embedding):
                store.add(analyzed)
        return store.snapshot()

    def _record_changes(self, changes: Sequence[AnalyzedDocument] | Sequence[str]) -> None:
        if self._journal is not None:
            self._journal.extend(changes)

    def _take_while(self, ordinals: Iterator[int], predicate: Callable[[Document], bool]) -> list[Document]:
        documents = []
        for ordinal in ordinals:
            document = self._store.get_document(ordinal)
            if not predicate(document):
                break
            documents.append(document)
        return documents
