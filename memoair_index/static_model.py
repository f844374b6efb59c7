"""The static embedding: a vector for each word piece, and the nearest neighbors of each common word.

Distilled from all-MiniLM-L6-v2 by ``tools/distill.py``. The vector of a text is the mean of its pieces' vectors, each
weighted by how much the piece usually says, so that no transformer runs during a search.
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
from memoair_protocol.starvation import raise_if_starved

log = logging.getLogger(__name__)

KIND = "memoair static embedding"
VERSION = 1

_MAX_CACHED_WORDS = 1 << 15


class Embedding(Protocol):
    """What an index needs of an embedding. Thread-safe.

    Attributes:
        dimensions: The length of a vector.
        fingerprint: Identifies the model; equal fingerprints mean equal vectors.
    """

    dimensions: int
    fingerprint: str

    def __hash__(self) -> int:
        """Return a hash by identity."""

    def encode(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return the vectors of texts that are given as their folded words; shape ``(texts, dimensions)``.

        Each row has length 1, or 0 for a text without known words.
        """

    def neighbors(self, term: int) -> Sequence[tuple[int, float]]:
        """Return the terms of nearly the same meaning as a term, each with its cosine, the closest first."""


class NoEmbedding:
    """The embedding without a model: searches use words only."""

    dimensions = 1
    fingerprint = "none"

    def encode(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return zero vectors."""
        return np.zeros((len(texts), self.dimensions), np.float32)

    def neighbors(self, term: int) -> Sequence[tuple[int, float]]:  # noqa: ARG002
        """Return no neighbors."""
        return ()


class StaticModel:
    """A model file, memory-mapped. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open a model file; raises `ContainerError` if it is damaged or not a model, OSError if reading fails."""
        file = Container(path, KIND, VERSION)
        self._vectors = file.get_array("vectors", np.int8, 2)
        self._scales = file.get_array("scales", np.float16).astype(np.float32)
        self._terms = file.get_array("terms", np.uint64)
        self._neighbor_starts = file.get_array("neighbour_starts", np.uint32)
        self._neighbor_positions = file.get_array("neighbours", np.uint16)
        self._cosine_bytes = file.get_array("closeness", np.uint8)
        fits = len(self._vectors) == len(self._scales) and len(self._neighbor_starts) == len(self._terms) + 1
        if not fits or len(self._neighbor_positions) != len(self._cosine_bytes):
            raise ContainerError(f"{path}: the arrays do not fit together")
        try:
            self._tokenizer = Tokenizer.from_buffer(zlib.decompress(file.get_bytes("tokenizer")))
        except (zlib.error, ValueError) as error:
            raise ContainerError(f"{path}: the tokenizer is invalid") from error
        self.dimensions = int(self._vectors.shape[1])
        self.fingerprint = f"{file.checksum:08x}"
        self._tokenize_cached = lru_cache(_MAX_CACHED_WORDS)(self._tokenize)
        self._neighbors_cached = lru_cache(_MAX_CACHED_WORDS)(self._find_neighbors)

    def encode(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return the vectors of texts; see `Embedding`."""
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        for row, words in zip(rows, texts, strict=True):
            row[:] = self._encode(words)
        return rows

    def neighbors(self, term: int) -> Sequence[tuple[int, float]]:
        """Return the terms of nearly the same meaning as a term; see `Embedding`."""
        return self._neighbors_cached(term)

    def _encode(self, words: Sequence[str]) -> NDArray[np.float32]:
        pieces = np.array([piece for word in words for piece in self._tokenize_cached(word)], np.intp)
        pieces = pieces[pieces < len(self._scales)]  # all of them, except in a damaged file
        if not pieces.size:
            return np.zeros(self.dimensions, np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # a damaged file may hold invalid scales
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
        is_valid = positions < len(self._terms)  # always true, except in a damaged file
        return tuple(zip(self._terms[positions[is_valid]].tolist(), cosines[is_valid].tolist(), strict=True))


@lru_cache(maxsize=1)
def default_model() -> Embedding:
    """Return the model that is shipped with the package, opened once per process; `NoEmbedding` if it is unreadable.

    Raises:
        OSError: If it cannot be opened for want of descriptors or memory. The next call tries again.
    """
    try:
        return StaticModel(Path(str(files("memoair_index") / "data" / "minilm-static.bin")))
    except (OSError, ContainerError) as error:
        raise_if_starved(error)
        log.error("the embedding is unreadable, recall uses words only: action=no_embedding why=%s", error)
        return NoEmbedding()
