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
from memoair_index.reranker import FEATURE, MAX_RERANKED, Reranker
from memoair_index.transformer import TransformerError
from memoair_runtime.coalescing_job import CoalescingJob

log = logging.getLogger(__name__)

__all__ = ["MAX_RERANKED", "BackgroundReranker"]


class BackgroundReranker:
    """One caller's turns, as the transformer of a model folder reads them. Safe to use from any thread."""

    def __init__(self, model: Path | None, cache: Path, group: Callable[[str], Sequence[Document]]) -> None:
        """``cache`` is where vectors are kept; ``group`` gives all that was said in a session, in order."""
        self._model = model
        self._cache = cache
        self._group = group
        self._stage: Reranker | None = None
        self._lock = threading.Lock()
        self._saving = threading.Lock()  # no vector is written while they are being forgotten
        self._due: dict[str, bool] = {}  # sessions with something new, and whether they are over
        self._is_wanted = False
        self._job = CoalescingJob("second-reading", self._learn)
        self.problem: str | None = None if model else "no model is given for it"

    def begin(self, session_ids: Sequence[str]) -> None:
        """Open the model and learn these sessions, in the background; only the first call does anything."""
        with self._lock:
            if self._is_wanted or self.problem:
                return
            self._is_wanted = True
        for session_id in session_ids:
            self.hear(session_id, is_whole=True)
        self._job.start()

    def hear(self, session_id: str, *, is_whole: bool) -> None:
        """Learn what is new in a session, if anybody wants it. What was said last waits for its answer."""
        with self._lock:
            if not self._is_wanted or self.problem:
                return
            self._due[session_id] = is_whole
        self._job.start()

    def forget(self) -> None:
        """Let go of what was learned, and delete its file; the next `begin` learns anew. Raises OSError."""
        with self._lock:
            self._is_wanted = False
            self._due.clear()
        with self._saving:
            self._stage = None
            self._cache.unlink(missing_ok=True)

    def rescored(self, hits: Sequence[Hit], question: str) -> list[Hit]:
        """The hits in the order of the second reading; as they are, as long as the model is being opened."""
        stage = self._stage
        return list(hits) if stage is None else stage.rerank(hits, question, default_weights()[FEATURE])

    def _learn(self) -> None:
        stage = self._stage or self._open()
        while stage is not None:
            with self._lock:
                if not self._due:
                    break
                session_id, is_whole = self._due.popitem()
            stage.encode_group(self._group(session_id), is_complete=is_whole)
        with self._saving:
            if stage is None or stage is not self._stage or not stage.vectors.unsaved_count:
                return
            try:
                stage.vectors.save()
            except OSError as error:
                log.warning("vectors could not be kept: action=vectors_unsaved errno=%s", error.errno)

    def _open(self) -> Reranker | None:
        assert self._model is not None  # noqa: S101 - else there is a problem, and nobody comes here
        try:
            self._stage = Reranker.open(self._model, self._cache)
        except (TransformerError, ImportError, OSError) as error:
            self.problem = str(error)
            log.error("there is no second reading: action=medium_missing why=%s", error)
        return self._stage
