"""What recall is compared with: plain BM25, a sentence transformer, and the sum of both."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import bm25s
import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]

# What the transformer was trained on; of a longer text it reads the beginning.
_MAX_TOKENS = 256
_BATCH = 32


class MiniLm:
    """all-MiniLM-L6-v2 as exported to ONNX: a folder with ``model.onnx`` and ``tokenizer.json``."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        self._session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        self._inputs = {each.name for each in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.enable_padding()
        self._vectors_by_text: dict[str, Scores] = {}

    def encode(self, texts: Sequence[str]) -> Scores:
        """A vector of length 1 for each text. Those that were asked for before are kept: sets share sessions."""
        # Texts of about one length go together, else most of a batch is padding.
        missing = sorted({text for text in texts if text not in self._vectors_by_text}, key=len)
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            self._vectors_by_text |= zip(batch, self._encode(batch), strict=True)
        return np.stack([self._vectors_by_text[text] for text in texts])

    def _encode(self, batch: Sequence[str]) -> Scores:
        encoded = self._tokenizer.encode_batch(list(batch))
        mask = np.array([each.attention_mask for each in encoded], np.int64)
        inputs = {
            "input_ids": np.array([each.ids for each in encoded], np.int64),
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(mask),
        }
        states = self._session.run(None, {name: value for name, value in inputs.items() if name in self._inputs})[0]
        vectors: Scores = (states * mask[:, :, None]).sum(axis=1)  # as long as their mean, once they are normalised
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


class Peers:
    """The peers over the same texts: BM25 (bm25s, its defaults), and with MiniLM its cosine and the sum of both."""

    def __init__(self, texts: Sequence[str], minilm: MiniLm | None) -> None:
        self._retriever = bm25s.BM25()
        self._retriever.index(bm25s.tokenize(list(texts), stopwords="en", show_progress=False), show_progress=False)
        self._minilm = minilm
        self._vectors = None if minilm is None else minilm.encode(texts)

    def rankings(self, question: str) -> Mapping[str, list[int]]:
        """The numbers of the texts by each peer, best first."""
        tokens = bm25s.tokenize([question], stopwords="en", return_ids=False, show_progress=False)[0]
        scores: dict[str, Scores] = {"bm25": self._retriever.get_scores(tokens)}
        if self._minilm is not None:
            scores["minilm"] = self._vectors @ self._minilm.encode([question])[0]
            scores["sum"] = _z_scores(scores["bm25"]) + _z_scores(scores["minilm"])
        return {name: np.argsort(-each, kind="stable").tolist() for name, each in scores.items()}


def fill_context(texts: Sequence[str], ranking: Sequence[int], budget: int) -> str:
    """The best texts, a line each, in at most ``room`` characters; one that does not fit is left out."""
    chosen = []
    for number in ranking:
        if len(texts[number]) < budget:
            chosen.append(texts[number])
            budget -= len(texts[number]) + 1
    return "\n".join(chosen)


def _z_scores(scores: Scores) -> Scores:
    return (scores - scores.mean()) / max(float(scores.std()), 1e-9)
