"""Reranking of the organization's documents with a transformer, for sessions with the variant ``medium``.

The vectors of the documents are in a file of the project, which all runtimes of this machine share: one of them encodes
what is missing, and the others read. A vector belongs to a text, whatever document has it, so that documents that did
not change are not encoded again.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from itertools import islice

from memoair_index import Document, Hit, Index
from memoair_index.reranker import Reranker
from memoair_index.vector_store import VectorStore
from memoair_runtime.coalescing_job import CoalescingJob
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.transformer_model import TransformerModel

log = logging.getLogger(__name__)

# How much the feature counts. Documents are written to be found by what they mean, so it is more than for turns.
_WEIGHT = 2.0
# So many texts are encoded (some 6 s) before the others can use them, and before a change of the documents is noticed.
_BATCH_SIZE = 256
# How often a process that does not encode itself looks for what another one has encoded.
_POLL_INTERVAL_S = 10.0

_FileKey = tuple[int, int]


class OrgReranker:
    """Encodes the documents of a project in the background, and reranks them. Thread-safe."""

    def __init__(self, model: TransformerModel, folder: ProjectFolder) -> None:
        """Create a reranker that is not started."""
        self._model = model
        self._path = folder.org_vectors
        self._process_lock = ProcessLock(folder.lock("org-vectors"))
        self._job = CoalescingJob("encode-org", self._encode)
        self._lock = threading.Lock()
        self._index: Index | None = None  # whose documents are to be encoded; None unless started
        self._reranker: Reranker | None = None
        self._file_key: _FileKey | None = None  # of the file that the reranker has opened
        self._is_complete = False
        self._polled_at = 0.0

    def start(self, index: Index) -> None:
        """Encode the documents of an index in the background. Does nothing if that has been requested already."""
        with self._lock:
            if self._index is index or self._model.error:
                return
            self._index, self._is_complete = index, False
        self._job.start()

    def retry_if_due(self) -> None:
        """Start the encoding again that could not be started, or that failed a while ago."""
        self._job.retry_if_due()

    def rerank(self, hits: Sequence[Hit], question: str) -> list[Hit]:
        """Return the hits in a better order, or unchanged while nothing is encoded.

        Args:
            hits: Hits, best first.
            question: The question.
        """
        self._poll()
        reranker = self._reranker
        return list(hits) if reranker is None else reranker.rerank(hits, question, _WEIGHT)

    def _poll(self) -> None:
        now = time.monotonic()
        with self._lock:
            if self._index is None or self._is_complete or now - self._polled_at < _POLL_INTERVAL_S:
                return
            self._polled_at = now
        self._job.start()

    def _encode(self) -> None:
        transformer = self._model.open()
        if transformer is None:
            return
        is_encoder = self._process_lock.try_acquire()
        try:
            key = self._current_key()
            if self._reranker is None or key != self._file_key:
                self._reranker = Reranker(VectorStore(self._path, transformer), transformer, _vector_id)
                self._file_key = key
            if is_encoder:
                self._encode_missing(self._reranker.vectors)
        finally:
            self._process_lock.release()

    def _encode_missing(self, vectors: VectorStore) -> None:
        index = self._index
        while index is not None:
            documents = index.iterate_documents()
            while batch := list(islice(documents, _BATCH_SIZE)):
                texts = {_vector_id(document): document.text for document in batch}
                missing = vectors.find_missing(list(texts))
                vectors.add((vector_id, texts[vector_id]) for vector_id in missing)
                if vectors.unsaved_count >= _BATCH_SIZE:
                    self._save(vectors)
                if self._index is not index:
                    break
            self._save(vectors)
            with self._lock:
                if self._index is index:
                    self._is_complete = True
                    return
                index = self._index

    def _save(self, vectors: VectorStore) -> None:
        try:
            vectors.save()
            self._file_key = self._current_key()
        except OSError as error:
            log.warning("cannot save vectors: action=vectors_unsaved errno=%s", error.errno)

    def _current_key(self) -> _FileKey | None:
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_ino


def _vector_id(document: Document) -> str:
    return hashlib.blake2b(document.text.encode(errors="replace"), digest_size=16).hexdigest()
