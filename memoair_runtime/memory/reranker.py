"""Reranking with a transformer, for sessions with the variant ``medium``.

Optional: it needs a model on this machine and the extra ``onnx``. It encodes turns in the background. Search results
keep their original order while turns are not encoded yet, or if reranking is not available.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from memoair_index import Document, Hit
from memoair_index.ranking import default_weights
from memoair_index.reranker import FEATURE, MAX_RERANKED, Reranker
from memoair_index.vector_store import VectorStore
from memoair_runtime.coalescing_job import CoalescingJob
from memoair_runtime.transformer_model import TransformerModel

log = logging.getLogger(__name__)

__all__ = ["MAX_RERANKED", "BackgroundReranker"]


class BackgroundReranker:
    """Encodes the turns of one user in the background, and reranks search results. Thread-safe."""

    def __init__(
        self, model: TransformerModel, cache: Path, get_documents: Callable[[str], Sequence[Document]]
    ) -> None:
        """Create a reranker that is not started.

        Args:
            model: The model.
            cache: The file for vectors.
            get_documents: Returns all passages of a session, in order.
        """
        self._model = model
        self._cache = cache
        self._get_documents = get_documents
        self._reranker: Reranker | None = None
        self._lock = threading.Lock()
        self._save_lock = threading.Lock()  # no vectors are written while they are being erased
        self._pending: dict[str, bool] = {}  # sessions with new turns, and whether they have ended
        self._is_started = False
        self._job = CoalescingJob("second-reading", self._encode_pending)  # the name is part of an action code in logs

    def start(self, session_ids: Sequence[str]) -> None:
        """Open the model and encode these sessions in the background. Has an effect once, until `erase`."""
        with self._lock:
            if self._is_started or self._model.error:
                return
            self._is_started = True
        for session_id in session_ids:
            self.add_session(session_id, is_complete=True)
        self._job.start()

    def add_session(self, session_id: str, *, is_complete: bool) -> None:
        """Encode what is new in a session in the background. Does nothing unless started.

        Args:
            session_id: The session.
            is_complete: Whether it has ended. If not, its last passage waits for the one that follows, which is part of
                its context.
        """
        with self._lock:
            if not self._is_started or self._model.error:
                return
            self._pending[session_id] = is_complete
        self._job.start()

    def erase(self) -> None:
        """Erase all vectors, in memory and on the disk; the next `start` encodes again.

        Raises:
            OSError: The file cannot be deleted.
        """
        with self._lock:
            self._is_started = False
            self._pending.clear()
        with self._save_lock:
            self._reranker = None
            self._cache.unlink(missing_ok=True)

    def retry_if_due(self) -> None:
        """Start the encoding again that could not be started, or that failed a while ago."""
        self._job.retry_if_due()

    def rerank(self, hits: Sequence[Hit], question: str) -> list[Hit]:
        """Return the hits in a better order, or unchanged while the model is not open.

        Args:
            hits: Hits, best first.
            question: The question.
        """
        reranker = self._reranker
        return list(hits) if reranker is None else reranker.rerank(hits, question, default_weights()[FEATURE])

    def _encode_pending(self) -> None:
        reranker = self._reranker or self._open_model()
        while reranker is not None:
            with self._lock:
                if not self._pending:
                    break
                session_id, is_complete = self._pending.popitem()
            reranker.encode_group(self._get_documents(session_id), is_complete=is_complete)
        with self._save_lock:
            if reranker is None or reranker is not self._reranker or not reranker.vectors.unsaved_count:
                return
            try:
                reranker.vectors.save()
            except OSError as error:
                log.warning("cannot save vectors: action=vectors_unsaved errno=%s", error.errno)

    def _open_model(self) -> Reranker | None:
        transformer = self._model.open()
        if transformer is not None:
            self._reranker = Reranker(VectorStore(self._cache, transformer), transformer)
        return self._reranker
