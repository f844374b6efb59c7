"""The transformer of the variant ``medium``: one in a process, however many memories use it."""

import logging
import threading
from pathlib import Path

from memoair_index.transformer import Transformer, TransformerError
from memoair_protocol.starvation import raise_if_starved

log = logging.getLogger(__name__)


class TransformerModel:
    """A transformer that is opened when it is first needed. Thread-safe.

    Attributes:
        error: Why it is not available; None if it is, or has not been tried.
    """

    def __init__(self, folder: Path | None) -> None:
        """Take the folder of the model, if there is one; nothing is read yet."""
        self._folder = folder
        self._lock = threading.Lock()
        self._transformer: Transformer | None = None
        self.error: str | None = None if folder else "no model is configured"

    def open(self) -> Transformer | None:
        """Return the transformer, or None if it is not available. Takes half a second the first time.

        Raises:
            OSError, TransformerError: If it cannot be opened for want of descriptors or memory. It may be later.
        """
        with self._lock:
            if self._transformer is None and self._folder is not None and self.error is None:
                try:
                    self._transformer = Transformer(self._folder)
                except (TransformerError, ImportError, OSError) as error:
                    raise_if_starved(error)
                    self.error = str(error)
                    log.error("reranking is not available: action=medium_missing why=%s", error)
            return self._transformer
