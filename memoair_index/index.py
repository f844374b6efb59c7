"""The index: documents come and go, every search sees all that came before it, and a file holds what was merged."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from memoair_index.analysis import fold, term_ids, words
from memoair_index.container import ContainerError
from memoair_index.document import Document, Hit, Query
from memoair_index.index_file import IndexFile, write_index
from memoair_index.items import NONE
from memoair_index.ranking import Weights, default_weights
from memoair_index.search import Searcher
from memoair_index.static_model import Embedding, NoEmbedding, default_model
from memoair_index.store import AnalyzedDocument, Store, StoreArrays, analyze, sound

# How many documents are analysed at once before they are let in: searches go on in between.
_BATCH = 4_096


class Index:
    """Documents, searched by words, by meaning and by what stands around them.

    Every method may be called from any thread. ``add`` and ``remove`` are seen by every search that begins after they
    returned. Ties are broken by age: what came first ranks first.
    """

    def __init__(self, embedding: Embedding | None = None, weights: Weights | None = None) -> None:
        self._embedding = embedding or default_model()
        self._searching = Searcher(self._embedding, weights or default_weights())
        self._lock = threading.Lock()
        self._merging = threading.Lock()
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
        index._use(IndexFile.open(path))
        return index

    @property
    def note(self) -> Mapping[str, Any]:
        """What was noted in the file when it was written; empty where there is none."""
        return self._file.note if self._file else {}

    @property
    def unmerged(self) -> int:
        """How many documents were added since the file was written: what a merge would put into it."""
        with self._lock:
            return self._store.tail

    def __len__(self) -> int:
        """Count the documents."""
        with self._lock:
            return self._store.live

    def __contains__(self, document_id: object) -> bool:
        """Tell whether a document of this id is in the index."""
        with self._lock:
            return isinstance(document_id, str) and self._store.number_of(sound(document_id)) != NONE

    def add(self, documents: Iterable[Document]) -> None:
        """Add documents; one whose id is known replaces the old one."""
        waiting = iter(documents)
        while batch := list(islice(waiting, _BATCH)):
            analysed = analyze(batch, self._embedding)  # the slow part, outside the lock
            with self._lock:
                for each in analysed:
                    self._store.add(each)
                self._note_change(analysed)

    def remove(self, document_ids: Iterable[str]) -> int:
        """Remove documents by id and return how many were there."""
        ids = [sound(document_id) for document_id in document_ids]
        with self._lock:
            self._note_change(ids)
            return sum(self._store.remove(document_id) for document_id in ids)

    def search(self, query: Query, limit: int, keeps: Callable[[Document], bool] | None = None) -> list[Hit]:
        """Return the best documents, best first, at most ``limit``: those that share a term with the query or one that
        means nearly the same, stand near one that does, are of a date that it names, or are about what was talked of.

        ``keeps`` leaves out documents for which it is false; it must not ask this index.
        """
        question = self._searching.prepare(query)
        if limit <= 0 or not question:
            return []
        with self._lock:
            return self._searching.search(self._store, question, limit, keeps)

    def frequency(self, word: str) -> int:
        """How many documents hold a word."""
        with self._lock:
            return min((self._store.terms.frequency(term) for term in term_ids(words(fold(word)))), default=0)

    def documents(self) -> list[Document]:
        """All documents, in the order in which they were added. Of a large file this takes long."""
        with self._lock:
            return [self._store.document(number) for number in self._store.numbers()]

    def group(self, name: str, last: int | None = None) -> list[Document]:
        """The documents of a group in order; with ``last``, that many from its end."""
        with self._lock:
            group = self._store.group_of(sound(name))
            numbers = self._store.backwards(self._store.end_of(group)) if group != NONE else iter(())
            return [self._store.document(number) for number in islice(numbers, last)][::-1]

    def stretch(self, document_id: str, belongs: Callable[[Document], bool]) -> list[Document]:
        """A document and its neighbours in the group, in order, as far as they ``belong`` on either side."""
        with self._lock:
            number = self._store.number_of(sound(document_id))
            if number == NONE:
                return []
            before = self._while(islice(self._store.backwards(number), 1, None), belongs)
            behind = self._while(islice(self._store.forwards(number), 1, None), belongs)
            return [*reversed(before), self._store.document(number), *behind]

    def merge(self, path: Path, note: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Write all documents to a file, and go on with it; searches and changes go on meanwhile.

        The file stands beside ``path`` until it is whole and durable. ``note`` is asked, at the moment whose documents
        the file will hold, what to note in it; it must not ask this index. Raises OSError where the disk refuses, and
        `ContainerError` where the file so far is damaged: then everything is as before.
        """
        with self._merging:
            self.verify()  # what is damaged must not get a sound checksum
            with self._lock:
                snapshot = self._store.snapshot()
                noted = note()
                self._journal = []
            try:
                write_index(path, snapshot.compacted(), self._embedding.fingerprint, noted)
                file = IndexFile.open(path)
            except BaseException:
                with self._lock:
                    self._journal = None
                raise
            with self._lock:
                journal, self._journal = self._journal or [], None
                self._use(file)
                for change in journal:
                    if isinstance(change, str):
                        self._store.remove(change)
                    else:
                        self._store.add(change)

    def verify(self) -> None:
        """Compare the file, where there is one, with its checksums; raises `ContainerError` where it differs."""
        if self._file:
            self._file.verify()

    def _use(self, file: IndexFile) -> None:
        if not isinstance(self._embedding, NoEmbedding) and file.fingerprint != self._embedding.fingerprint:
            raise ContainerError(f"{file.container.path}: its vectors were made with another embedding")
        self._file, self._store = file, Store(file.arrays)

    def _note_change(self, changes: Sequence[AnalyzedDocument] | Sequence[str]) -> None:
        if self._journal is not None:
            self._journal.extend(changes)

    def _while(self, numbers: Iterator[int], belongs: Callable[[Document], bool]) -> list[Document]:
        found = []
        for number in numbers:
            document = self._store.document(number)
            if not belongs(document):
                break
            found.append(document)
        return found
