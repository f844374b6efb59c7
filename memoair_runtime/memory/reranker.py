"""The second reading: a transformer looks again at what was found, for sessions that were started as ``medium``.

Optional: it needs a model on this machine and the extra ``onnx``. What was said it learns in the background; where it
has not come that far, or is not there at all, the first order stands.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from memoair_index import Document, Hit
from memoair_index.ranking import default_weights
from memoair_index.reranker import BEST, TERM, Reranker
from memoair_index.transformer import TransformerError
from memoair_runtime.coalescing_job import CoalescingJob

log = logging.getLogger(__name__)

__all__ = ["BEST", "BackgroundReranker"]


class BackgroundReranker:
    """One caller's turns, as the transformer of a model folder reads them. Safe to use from any thread."""

    def __init__(self, model: Path | None, cache: Path, get_documents: Callable[[str], Sequence[Document]]) -> None:
        """``cache`` is where vectors are kept; ``group`` gives all that was said in a session, in order."""
        self._model = model
        self._cache = cache
        self._get_documents = get_documents
        self._reranker: Reranker | None = None
        self._lock = threading.Lock()
        self._save_lock = threading.Lock()  # no vector is written while they are being forgotten
        self._pending: dict[str, bool] = {}  # sessions with something new, and whether they are over
        self._is_started = False
        self._job = CoalescingJob("second-reading", self._encode_pending)
        self.error: str | None = None if model else "no model is given for it"

    def start(self, session_ids: Sequence[str]) -> None:
        """Open the model and learn these sessions, in the background; only the first call does anything."""
        with self._lock:
            if self._is_started or self.error:
                return
            self._is_started = True
        for session_id in session_ids:
            self.add_session(session_id, is_complete=True)
        self._job.start()

    def add_session(self, session_id: str, *, is_complete: bool) -> None:
        """Learn what is new in a session, if anybody wants it. What was said last waits for its answer."""
        with self._lock:
            if not self._is_started or self.error:
                return
            self._pending[session_id] = is_complete
        self._job.start()

    def erase(self) -> None:
        """Let go of what was learned, and delete its file; the next `begin` learns anew. Raises OSError."""
        with self._lock:
            self._is_started = False
            self._pending.clear()
        with self._save_lock:
            self._reranker = None
            self._cache.unlink(missing_ok=True)

    def rerank(self, hits: Sequence[Hit], question: str) -> list[Hit]:
        """The hits in the order of the second reading; as they are, as long as the model is being opened."""
        reranker = self._reranker
        return list(hits) if reranker is None else reranker.rescored(hits, question, default_weights()[TERM])

    def _encode_pending(self) -> None:
        reranker = self._reranker or self._open_model()
        while reranker is not None:
            with self._lock:
                if not self._pending:
                    break
                session_id, is_complete = self._pending.popitem()
            reranker.learn(self._get_documents(session_id), is_whole=is_complete)
        with self._save_lock:
            if reranker is None or reranker is not self._reranker or not reranker.vectors.unsaved:
                return
            try:
                reranker.vectors.save()
            except OSError as error:
                log.warning("vectors could not be kept: action=vectors_unsaved errno=%s", error.errno)

    def _open_model(self) -> Reranker | None:
        assert self._model is not None  # noqa: S101 - else there is a problem, and nobody comes here
        try:
            self._reranker = Reranker.open(self._model, self._cache)
        except (TransformerError, ImportError, OSError) as error:
            self.error = str(error)
            log.error("there is no second reading: action=medium_missing why=%s", error)
        return self._reranker
