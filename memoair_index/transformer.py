"""A sentence transformer: the meaning of a whole text as a vector, computed by onnxruntime on one thread.

It takes milliseconds for a question and tens of milliseconds for a hundred tokens, so that questions are encoded during
a search and everything else beforehand. Optional: onnxruntime is imported when a model is opened; it is installed by
``pip install 'memoair-voice[onnx]>=0.4'``.
"""

import math
import os
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from memoair_protocol.input_files import open_regular_file, read_regular_file
from memoair_protocol.installing import install_command

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
# Longer texts are truncated. MiniLM was trained on this length.
MAX_TOKENS = 128

# More than 128 tokens of any language. Texts are cut before tokenizing, because a tokenizer reads a whole text before
# it truncates.
_MAX_CHARS = 4096
# The lanes of one search encode the same question one after another.
_MAX_CACHED_QUERIES = 16
_CHUNK_BYTES = 1 << 20
_LOG_FATAL_ONLY = 4  # silences onnxruntime's own messages on stderr: failures are raised, and reported once
_REQUIRED_INPUTS = {"input_ids", "attention_mask"}
_TYPE_IDS_INPUT = "token_type_ids"

_Floats = NDArray[np.float32]


class TransformerError(ValueError):
    """A folder holds no usable transformer: a file is missing, damaged, or of another kind."""


class Transformer:
    """A model that turns texts into vectors, from a folder with ``model.onnx`` and ``tokenizer.json``.

    The model takes ``input_ids`` and ``attention_mask`` (and ``token_type_ids``, if it declares them), and its first
    output is a vector for each token. Thread-safe, and usable in processes that are forked after it was opened, because
    it has no threads of its own.

    Attributes:
        dimensions: The length of a vector.
        fingerprint: Identifies the model and its tokenizer; equal fingerprints mean equal vectors.
    """

    def __init__(self, folder: Path) -> None:
        """Open a model; raises `TransformerError`, or ImportError if onnxruntime is not installed."""
        self._tokenizer = _open_tokenizer(folder / TOKENIZER_FILE)
        self.fingerprint = _fingerprint(folder / MODEL_FILE, folder / TOKENIZER_FILE)
        self._session = _open_session(folder / MODEL_FILE)
        inputs = {declared.name for declared in self._session.get_inputs()}
        if not _REQUIRED_INPUTS <= inputs <= _REQUIRED_INPUTS | {_TYPE_IDS_INPUT}:
            expected = "input_ids, attention_mask and optionally token_type_ids"
            raise TransformerError(f"{folder / MODEL_FILE}: unsupported inputs, expected {expected}")
        self._needs_token_types = _TYPE_IDS_INPUT in inputs
        self._output_name = self._session.get_outputs()[0].name
        self.dimensions = self._probe_dimensions(folder / MODEL_FILE)
        self._encode_cached = lru_cache(_MAX_CACHED_QUERIES)(self._encode_read_only)

    def encode(self, texts: Sequence[str]) -> _Floats:
        """Return the vectors of texts, the means of their tokens' vectors; shape ``(texts, dimensions)``.

        Each row has length 1, or 0 for a text without tokens. Never fails, whatever a text holds.
        """
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        # One by one: on one thread a batch is no faster, its padding takes memory, and in a model whose activations are
        # quantized dynamically, a text's vector would depend on the rest of the batch.
        for row, text in zip(rows, texts, strict=True):
            row[:] = self._encode(_truncate(text))
        return rows

    def encode_query(self, text: str) -> _Floats:
        """Return the vector of a question, read-only, from a small cache; shape ``(dimensions,)``."""
        return self._encode_cached(_truncate(text))

    def _encode_read_only(self, text: str) -> _Floats:
        vector = self._encode(text)
        vector.flags.writeable = False  # later calls return the same array
        return vector

    def _encode(self, text: str) -> _Floats:
        encoding = self._tokenizer.encode(text)
        if all(encoding.special_tokens_mask):
            return np.zeros(self.dimensions, np.float32)
        vector: _Floats = self._run_model(encoding.ids)[0].mean(axis=0, dtype=np.float32)
        length = float(np.linalg.norm(vector))
        # A damaged model may return infinities or NaN.
        return vector / length if 0 < length < math.inf else np.zeros(self.dimensions, np.float32)

    def _run_model(self, ids: Sequence[int]) -> NDArray[Any]:
        tokens = np.array([ids], np.int64)
        inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        if self._needs_token_types:
            inputs[_TYPE_IDS_INPUT] = np.zeros_like(tokens)
        (vectors,) = self._session.run([self._output_name], inputs)
        return np.asarray(vectors)

    def _probe_dimensions(self, path: Path) -> int:
        """Run the model once, which also loads it from disk, and return the dimensions of its vectors."""
        ids = self._tokenizer.encode("a").ids or [0]
        try:
            shape = self._run_model(ids).shape
        except Exception as error:
            raise TransformerError(f"{path}: running the model failed ({type(error).__name__})") from error
        if len(shape) != 3 or shape[:2] != (1, len(ids)) or not shape[2]:
            raise TransformerError(f"{path}: the model's first output is not a vector for each token")
        return int(shape[2])


def _truncate(text: str) -> str:
    """Return the beginning of a text, longer than what the model reads, as well-formed Unicode."""
    words = text[: 16 * _MAX_CHARS].split(maxsplit=MAX_TOKENS)[:MAX_TOKENS]  # a word is hardly ever less than a token
    beginning = " ".join(words)[:_MAX_CHARS]
    return beginning if beginning.isascii() else beginning.encode(errors="replace").decode()


def _open_tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_buffer(read_regular_file(path))
    except OSError as error:
        raise TransformerError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise TransformerError(f"{path}: not a tokenizer file, or damaged") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def _open_session(path: Path) -> Any:
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # the arena never frees the memory of the longest text, and saves no time
    options.log_severity_level = _LOG_FATAL_ONLY
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise TransformerError(f"{path}: not an ONNX model, or damaged ({type(error).__name__})") from error


def _import_onnxruntime() -> Any:
    """Import the library with telemetry disabled.

    From version 1.29 on, it reports to Microsoft on import, under an id that it keeps in the user's cache folder. What
    is remembered of a call stays on the device, and so does the fact that there was a call.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, during the import
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"reranking needs onnxruntime, which is not installed: {install_command('onnx')}") from error
    onnxruntime.disable_telemetry_events()  # builds for Windows apps ignore the environment variable
    return onnxruntime


def _fingerprint(*paths: Path) -> str:
    crc = zlib.crc32(str(MAX_TOKENS).encode())
    for path in paths:
        try:
            with open_regular_file(path) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    crc = zlib.crc32(chunk, crc)
        except OSError as error:
            raise TransformerError(f"{path}: {error.strerror or error}") from error
    return f"{crc:08x}"
