"""The static embedding: a vector for each word piece, and for each common word those that mean nearly the same.

Distilled from all-MiniLM-L6-v2 by ``tools/distill.py``. A text's vector is the mean of its pieces' vectors, which are
weighted by how much each usually says, so that no transformer runs when a caller waits.
"""

import logging
import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from memoair_index.container import Container, ContainerError

log = logging.getLogger(__name__)

KIND = "memoair static embedding"
VERSION = 1

_MAX_CACHED_WORDS = 1 << 15


class Embedding(Protocol):
    """What an index asks of an embedding. Safe to use from any thread."""

    dimensions: int
    fingerprint: str  # of what the vectors depend on

    def __hash__(self) -> int:
        """An embedding stands for itself."""

    def encode(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Vectors of texts that are given as their folded words; shape ``(texts, dimensions)``.

        Each row has the length 1, or 0 for a text of which nothing is known.
        """

    def neighbors(self, term: int) -> Sequence[tuple[int, float]]:
        """Terms that mean nearly the same as a term, with the cosine to each, the closest first."""


class NoEmbedding:
    """Stands in where there is no model: recall goes by words alone."""

    dimensions = 1
    fingerprint = "none"

    def encode(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Nothing is known of any text."""
        return np.zeros((len(texts), self.dimensions), np.float32)

    def neighbors(self, term: int) -> Sequence[tuple[int, float]]:  # noqa: ARG002
        """No term has neighbours."""
        return ()


class StaticModel:
    """A model file, mapped. Safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        """Open a model file; raises `ContainerError` where it is damaged or none, OSError where it can't be read."""
        file = Container(path, KIND, VERSION)
        self._vectors = file.get_array("vectors")
        self._scales = file.get_array("scales").astype(np.float32)
        self._terms = file.get_array("terms")
        self._neighbor_starts = file.get_array("neighbour_starts")
        self._neighbor_positions = file.get_array("neighbours")
        self._cosine_bytes = file.get_array("closeness")
        try:
            self._tokenizer = Tokenizer.from_buffer(zlib.decompress(file.get_bytes("tokenizer")))
        except (zlib.error, ValueError) as error:
            raise ContainerError(f"{path}: its tokenizer can't be read") from error
        self.dimensions = int(self._vectors.shape[1])
        self.fingerprint = f"{file.checksum:08x}"
        self._tokenize_cached = lru_cache(_MAX_CACHED_WORDS)(self._tokenize)
        self._neighbors_cached = lru_cache(_MAX_CACHED_WORDS)(self._find_neighbors)

    def encode(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Vectors of texts; see `Embedding`."""
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        for row, words in zip(rows, texts, strict=True):
            row[:] = self._encode(words)
        return rows

    def neighbors(self, term: int) -> Sequence[tuple[int, float]]:
        """Terms that mean nearly the same as a term; see `Embedding`."""
        return self._neighbors_cached(term)

    def _encode(self, words: Sequence[str]) -> NDArray[np.float32]:
        pieces = np.array([piece for word in words for piece in self._tokenize_cached(word)], np.intp)
        if not pieces.size:
            return np.zeros(self.dimensions, np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # of the scales in a damaged file
            vector: NDArray[np.float32] = self._scales[pieces] @ self._vectors[pieces].astype(np.float32)
            length = math.sqrt(abs(float(vector @ vector)))
        return vector / np.float32(length) if 0 < length < math.inf else np.zeros(self.dimensions, np.float32)

    def _tokenize(self, word: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(word, add_special_tokens=False).ids)

    def _find_neighbors(self, term: int) -> tuple[tuple[int, float], ...]:
        position = int(self._terms.searchsorted(np.uint64(term)))
        if position == len(self._terms) or int(self._terms[position]) != term:
            return ()
        span = slice(int(self._neighbor_starts[position]), int(self._neighbor_starts[position + 1]))
        cosines = self._cosine_bytes[span].astype(np.float32) / np.float32(255)
        positions = self._neighbor_positions[span]
        is_valid = positions < len(self._terms)  # as all are, but in a damaged file
        return tuple(zip(self._terms[positions[is_valid]].tolist(), cosines[is_valid].tolist(), strict=True))


@lru_cache(maxsize=1)
def default_model() -> Embedding:
    """The model that comes with the package, opened once for a process; where it can't be read, none at all."""
    try:
        return StaticModel(Path(str(files("memoair_index") / "data" / "minilm-static.bin")))
    except (OSError, ContainerError) as error:
        log.error("recall goes by words alone, the embedding can't be read: action=no_embedding why=%s", error)
        return NoEmbedding()
