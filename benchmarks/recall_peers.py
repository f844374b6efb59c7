"""Peers for recall quality: BM25 without and with stems, a sentence transformer, and the sum of both."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import bm25s
import numpy as np
import Stemmer
from numpy.typing import NDArray

Scores = NDArray[np.float32]

# The length that the transformer was trained on; longer texts are truncated.
_MAX_TOKENS = 256
_BATCH = 32


class MiniLm:
    """all-MiniLM-L6-v2 exported to ONNX: a folder with ``model.onnx`` and ``tokenizer.json``."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        self._session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        self._inputs = {declared.name for declared in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.enable_padding()
        self._vectors_by_text: dict[str, Scores] = {}

    def encode(self, texts: Sequence[str]) -> Scores:
        """Return a vector of length 1 for each text. Vectors are cached, because the data sets share sessions."""
        # Texts of similar length are batched together; otherwise most of a batch would be padding.
        missing = sorted({text for text in texts if text not in self._vectors_by_text}, key=len)
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            self._vectors_by_text |= zip(batch, self._encode(batch), strict=True)
        return np.stack([self._vectors_by_text[text] for text in texts])

    def _encode(self, batch: Sequence[str]) -> Scores:
        encoded = self._tokenizer.encode_batch(list(batch))
        mask = np.array([text.attention_mask for text in encoded], np.int64)
        inputs = {
            "input_ids": np.array([text.ids for text in encoded], np.int64),
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(mask),
        }
        states = self._session.run(None, {name: value for name, value in inputs.items() if name in self._inputs})[0]
        vectors: Scores = (states * mask[:, :, None]).sum(axis=1)  # equals the mean after normalization
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


class Peers:
    """The peers over the same texts.

    bm25 is bm25s with its defaults, stem the same with Snowball's stems (with pairs of characters in Chinese), minilm
    the cosine by MiniLM if it is given, and sum that of bm25 and minilm.
    """

    def __init__(self, texts: Sequence[str], minilm: MiniLm | None, language: str = "english") -> None:
        self._language = language
        self._plain, self._stemmed = bm25s.BM25(), bm25s.BM25()
        for retriever, is_stemmed in ((self._plain, False), (self._stemmed, True)):
            retriever.index(_tokenize(texts, language, is_stemmed=is_stemmed), show_progress=False)
        self._minilm = minilm
        self._vectors = None if minilm is None else minilm.encode(texts)

    def rankings(self, question: str, said: Sequence[str] | None = None) -> Mapping[str, list[int]]:
        """Return the positions of the texts by each peer, best first.

        Args:
            question: The question.
            said: What was said before it. If it is given, also as "talk": the rankings of BM25 by all of it.
        """
        scores: dict[str, Scores] = {
            "bm25": self._score(question, is_stemmed=False),
            "stem": self._score(question, is_stemmed=True),
        }
        if said is not None:
            scores["talk"] = self._score(" ".join([*said, question]), is_stemmed=False)
        if self._minilm is not None:
            scores["minilm"] = self._vectors @ self._minilm.encode([question])[0]
            scores["sum"] = _z_scores(scores["bm25"]) + _z_scores(scores["minilm"])
        return {name: np.argsort(-values, kind="stable").tolist() for name, values in scores.items()}

    def _score(self, question: str, *, is_stemmed: bool) -> Scores:
        (tokens,) = _tokenize([question], self._language, is_stemmed=is_stemmed)
        known = [token for token in tokens if token in (self._stemmed if is_stemmed else self._plain).vocab_dict]
        retriever = self._stemmed if is_stemmed else self._plain
        return retriever.get_scores(known) if known else np.zeros(retriever.scores["num_docs"], np.float32)


def _tokenize(texts: Sequence[str], language: str, *, is_stemmed: bool) -> list[list[str]]:
    if is_stemmed and language == "chinese":
        runs = (re.findall(r"\w+", text) for text in texts)
        return [["".join(pair) for run in text_runs for pair in pairwise(run)] for text_runs in runs]
    stop_words = "en" if language == "english" else language if language in ("german", "russian") else None
    stemmer = Stemmer.Stemmer(language) if is_stemmed else None
    tokens: list[list[str]] = bm25s.tokenize(
        list(texts), stopwords=stop_words, stemmer=stemmer, return_ids=False, show_progress=False
    )
    return tokens


def fill_context(texts: Sequence[str], ranking: Sequence[int], budget: int) -> str:
    """Return the best texts, one per line, in at most ``budget`` characters; a text that does not fit is left out."""
    chosen = []
    for number in ranking:
        if len(texts[number]) < budget:
            chosen.append(texts[number])
            budget -= len(texts[number]) + 1
    return "\n".join(chosen)


def _z_scores(scores: Scores) -> Scores:
    return (scores - scores.mean()) / max(float(scores.std()), 1e-9)
