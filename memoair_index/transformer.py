"""A sentence transformer: what a whole text means, as a vector, computed by onnxruntime on one thread.

It takes milliseconds for a question and tens of them for a hundred tokens: questions are read while a caller waits,
everything else before. Optional: onnxruntime is imported when a model is opened, and comes with
``pip install "memoair-voice[onnx]"``.
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

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
# What is longer loses its end. MiniLM was trained on this length.
MAX_TOKENS = 128

# More than 128 tokens of any language: a tokeniser reads all of a text before it cuts.
_MAX_CHARS = 4096
# Lanes ask the same question one after the other.
_MAX_CACHED_QUERIES = 16
_CHUNK_BYTES = 1 << 20
_LOG_FATAL_ONLY = 4  # onnxruntime's own messages on stderr: what fails is raised, and told once
_REQUIRED_INPUTS = {"input_ids", "attention_mask"}
_TYPE_IDS_INPUT = "token_type_ids"

_Floats = NDArray[np.float32]


class TransformerError(ValueError):
    """A folder holds no transformer that can be used: a file is missing, damaged, or of another kind."""


class Transformer:
    """A model that turns texts into vectors, from a folder with ``model.onnx`` and ``tokenizer.json``.

    The model takes ``input_ids`` and ``attention_mask`` (and ``token_type_ids``, where it wants them), and its first
    output is a vector for each token. Safe to use from any thread, and in children that were forked off after it was
    opened: it has no threads of its own.
    """

    def __init__(self, folder: Path) -> None:
        """Open a model; raises `TransformerError`, or ImportError where onnxruntime is not installed."""
        self._tokenizer = _open_tokenizer(folder / TOKENIZER_FILE)
        self.fingerprint = _fingerprint(folder / MODEL_FILE, folder / TOKENIZER_FILE)  # of what the vectors depend on
        self._session = _open_session(folder / MODEL_FILE)
        inputs = {each.name for each in self._session.get_inputs()}
        if not _REQUIRED_INPUTS <= inputs <= _REQUIRED_INPUTS | {_TYPE_IDS_INPUT}:
            raise TransformerError(f"{folder / MODEL_FILE}: it wants other inputs than tokens and their mask")
        self._needs_token_types = _TYPE_IDS_INPUT in inputs
        self._output_name = self._session.get_outputs()[0].name
        self.dimensions = self._probe_dimensions(folder / MODEL_FILE)
        self._encode_cached = lru_cache(_MAX_CACHED_QUERIES)(self._encode_read_only)

    def encode(self, texts: Sequence[str]) -> _Floats:
        """Vectors of texts: the means of their tokens' vectors; shape ``(texts, dimensions)``.

        Each row has the length 1, or 0 for a text without any token. Never fails for what a text holds.
        """
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        # One by one: on one thread a batch is no faster, its padding takes memory, and where activations are
        # quantised as they come, a text's vector would depend on its company.
        for row, text in zip(rows, texts, strict=True):
            row[:] = self._encode(_truncate(text))
        return rows

    def encode_query(self, text: str) -> _Floats:
        """The vector of a question, shape ``(dimensions,)``; the last ones are remembered. Not to be changed."""
        return self._encode_cached(_truncate(text))

    def _encode_read_only(self, text: str) -> _Floats:
        vector = self._encode(text)
        vector.flags.writeable = False  # the next one who asks gets the same array
        return vector

    def _encode(self, text: str) -> _Floats:
        encoding = self._tokenizer.encode(text)
        if all(encoding.special_tokens_mask):
            return np.zeros(self.dimensions, np.float32)
        vector: _Floats = self._run_model(encoding.ids)[0].mean(axis=0, dtype=np.float32)
        length = float(np.linalg.norm(vector))
        # A damaged model may give what is no number.
        return vector / length if 0 < length < math.inf else np.zeros(self.dimensions, np.float32)

    def _run_model(self, ids: Sequence[int]) -> NDArray[Any]:
        tokens = np.array([ids], np.int64)
        inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        if self._needs_token_types:
            inputs[_TYPE_IDS_INPUT] = np.zeros_like(tokens)
        (vectors,) = self._session.run([self._output_name], inputs)
        return np.asarray(vectors)

    def _probe_dimensions(self, path: Path) -> int:
        """Run the model once, which also brings it from the disk, and return the dimensions of its vectors."""
        ids = self._tokenizer.encode("a").ids or [0]
        try:
            shape = self._run_model(ids).shape
        except Exception as error:
            raise TransformerError(f"{path}: it can't be run ({type(error).__name__})") from error
        if len(shape) != 3 or shape[:2] != (1, len(ids)) or not shape[2]:
            raise TransformerError(f"{path}: its first output is not a vector for each token")
        return int(shape[2])


def _truncate(text: str) -> str:
    """The beginning of a text, more than is read of it, as well-formed Unicode."""
    words = text[: 16 * _MAX_CHARS].split(maxsplit=MAX_TOKENS)[:MAX_TOKENS]  # hardly any is less than a token
    beginning = " ".join(words)[:_MAX_CHARS]
    return beginning if beginning.isascii() else beginning.encode(errors="replace").decode()


def _open_tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
    except OSError as error:
        raise TransformerError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise TransformerError(f"{path}: it is no tokenizer, or damaged") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def _open_session(path: Path) -> Any:
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # the arena keeps for ever what the longest text took, and saves no time
    options.log_severity_level = _LOG_FATAL_ONLY
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise TransformerError(f"{path}: it is no ONNX model, or damaged ({type(error).__name__})") from error


def _import_onnxruntime() -> Any:
    """The library, told to send nothing.

    From 1.29 on it reports to Microsoft as soon as it is imported, by an id that it keeps in the user's cache folder.
    What is remembered of a call stays on the device, and so does that there was one.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, while it is imported
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            'the second stage needs onnxruntime, which is not installed: pip install "memoair-voice[onnx]"'
        ) from error
    onnxruntime.disable_telemetry_events()  # builds for Windows apps don't ask the environment
    return onnxruntime


def _fingerprint(*paths: Path) -> str:
    crc = zlib.crc32(str(MAX_TOKENS).encode())
    for path in paths:
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    crc = zlib.crc32(chunk, crc)
        except OSError as error:
            raise TransformerError(f"{path}: {error.strerror or error}") from error
    return f"{crc:08x}"
