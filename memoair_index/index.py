"""The index: documents come and go, every search sees all that came before it, and a file holds what was merged."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from memoair_index.analysis import fold, split_words, to_term_ids
from memoair_index.container import ContainerError
from memoair_index.document import Document, Hit, Query
from memoair_index.index_file import IndexFile, write_index
from memoair_index.items import NONE
from memoair_index.ranking import Weights, default_weights
from memoair_index.search import Searcher
from memoair_index.static_model import Embedding, NoEmbedding, default_model
from memoair_index.store import AnalyzedDocument, Store, StoreArrays, analyze, sanitize

# How many documents are analysed at once before they are let in: searches go on in between.
_BATCH_SIZE = 4_096


class Index:
    """Documents, searched by words, by meaning and by what stands around them.

    Every method may be called from any thread. ``add`` and ``remove`` are seen by every search that begins after they
    returned. Ties are broken by age: what came first ranks first.
    """

    def __init__(self, embedding: Embedding | None = None, weights: Weights | None = None) -> None:
        self._embedding = embedding or default_model()
        self._searcher = Searcher(self._embedding, weights or default_weights())
        self._lock = threading.Lock()
        self._merge_lock = threading.Lock()
        self._store = Store(StoreArrays.empty(self._embedding.dimensions))
        self._file: IndexFile | None = None
        # What has changed since a merge began: documents that came, ids that went.
        self._journal: list[AnalyzedDocument | str] | None = None

    @classmethod
    def open(cls, path: Path, embedding: Embedding | None = None, weights: Weights | None = None) -> "Index":
        """Open an index file: mapped, shared with every process that has it open, and never changed.

        Raises `ContainerError` where the file is damaged, cut short, none of ours, or made with another embedding;
        OSError where it can't be read. Its content is compared with its checksums by `verify` only.
        """
        index = cls(embedding, weights)
        index._switch_to(IndexFile.open(path))
        return index

    @property
    def file_metadata(self) -> Mapping[str, Any]:
        """What was noted in the file when it was written; empty where there is none."""
        return self._file.metadata if self._file else {}

    @property
    def unmerged_count(self) -> int:
        """How many documents were added since the file was written: what a merge would put into it."""
        with self._lock:
            return self._store.added_count

    def __len__(self) -> int:
        """Count the documents."""
        with self._lock:
            return self._store.live_count

    def __contains__(self, document_id: object) -> bool:
        """Tell whether a document of this id is in the index."""
        with self._lock:
            return isinstance(document_id, str) and self._store.find_ordinal(sanitize(document_id)) != NONE

    def add(self, documents: Iterable[Document]) -> None:
        """Add documents; one whose id is known replaces the old one."""
        remaining = iter(documents)
        while batch := list(islice(remaining, _BATCH_SIZE)):
            analyzed = analyze(batch, self._embedding)  # the slow part, outside the lock
            with self._lock:
                for document in analyzed:
                    self._store.add(document)
                self._record_changes(analyzed)

    def remove(self, document_ids: Iterable[str]) -> int:
        """Remove documents by id and return how many were there."""
        ids = [sanitize(document_id) for document_id in document_ids]
        with self._lock:
            self._record_changes(ids)
            return sum(self._store.remove(document_id) for document_id in ids)

    def search(self, query: Query, limit: int, predicate: Callable[[Document], bool] | None = None) -> list[Hit]:
        """Return the best documents, best first, at most ``limit``: those that share a term with the query or one that
        means nearly the same, stand near one that does, are of a date that it names, or are about what was talked of.

        ``keeps`` leaves out documents for which it is false; it must not ask this index.
        """
        prepared = self._searcher.prepare(query)
        if limit <= 0 or not prepared:
            return []
        with self._lock:
            return self._searcher.search(self._store, prepared, limit, predicate)

    def document_frequency(self, word: str) -> int:
        """How many documents hold a word."""
        with self._lock:
            return min((self._store.terms.frequency(term) for term in to_term_ids(split_words(fold(word)))), default=0)

    def documents(self) -> list[Document]:
        """All documents, in the order in which they were added. Of a large file this takes long."""
        with self._lock:
            return [self._store.get_document(number) for number in self._store.live_ordinals()]

    def group_documents(self, name: str, last: int | None = None) -> list[Document]:
        """The documents of a group in order; with ``last``, that many from its end."""
        with self._lock:
            group_id = self._store.find_group(sanitize(name))
            ordinals = self._store.walk_backward(self._store.last_in_group(group_id)) if group_id != NONE else iter(())
            return [self._store.get_document(number) for number in islice(ordinals, last)][::-1]

    def contiguous_run(self, document_id: str, predicate: Callable[[Document], bool]) -> list[Document]:
        """A document and its neighbours in the group, in order, as far as they ``belong`` on either side."""
        with self._lock:
            ordinal = self._store.find_ordinal(sanitize(document_id))
            if ordinal == NONE:
                return []
            preceding = self._take_while(islice(self._store.walk_backward(ordinal), 1, None), predicate)
            following = self._take_while(islice(self._store.walk_forward(ordinal), 1, None), predicate)
            return [*reversed(preceding), self._store.get_document(ordinal), *following]

    def merge(self, path: Path, collect_metadata: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Write all documents to a file, and go on with it; searches and changes go on meanwhile.

        The file stands beside ``path`` until it is whole and durable. ``note`` is asked, at the moment whose documents
        the file will hold, what to note in it; it must not ask this index. Raises OSError where the disk refuses, and
        `ContainerError` where the file so far is damaged: then everything is as before.
        """
        with self._merge_lock:
            self.verify()  # what is damaged must not get a sound checksum
            with self._lock:
                snapshot = self._store.snapshot()
                metadata = collect_metadata()
                self._journal = []
            try:
                write_index(path, snapshot.compact(), self._embedding.fingerprint, metadata)
                file = IndexFile.open(path)
            except BaseException:
                with self._lock:
                    self._journal = None
                raise
            with self._lock:
                journal, self._journal = self._journal or [], None
                self._switch_to(file)
                for change in journal:
                    if isinstance(change, str):
                        self._store.remove(change)
                    else:
                        self._store.add(change)

    def verify(self) -> None:
        """Compare the file, where there is one, with its checksums; raises `ContainerError` where it differs."""
        if self._file:
            self._file.verify()

    def _switch_to(self, file: IndexFile) -> None:
        if not isinstance(self._embedding, NoEmbedding) and file.fingerprint != self._embedding.fingerprint:
            raise ContainerError(f"{file.container.path}: its vectors were made with another embedding")
        self._file, self._store = file, Store(file.arrays)

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
