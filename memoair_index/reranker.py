"""The second stage of a search: a transformer looks again at the best of what the index found.

It reads the question while the caller waits (2 to 7 ms). What the documents mean it has learned before, in the
background: encoding fifty of them afresh would take half a second.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from memoair_index.document import Document, Hit
from memoair_index.ranking import COSINE_UNIT
from memoair_index.transformer import Transformer
from memoair_index.vector_store import VectorStore

# The name of its term in `memoair_index.Hit.terms`.
FEATURE = "transformer"
# How many of the best are looked at again.
MAX_RERANKED = 50
# Of each neighbour as much is read as stands nearest: the document itself must not be drowned, or cut off.
NEIGHBOR_CHARS = 200


class Reranker:
    """Scores what was found once more. Every method may be called from any thread.

    ``transformer`` may be shared by any number of second stages; ``vectors`` are its own.
    """

    def __init__(self, transformer: Transformer, cache_path: Path) -> None:
        """``cache`` is the file that keeps the vectors; see `VectorStore`."""
        self._transformer = transformer
        self.vectors = VectorStore(cache_path, transformer)

    @classmethod
    def open(cls, folder: Path, cache_path: Path) -> "Reranker":
        """Open the transformer in a folder, with ``model.onnx`` and ``tokenizer.json``.

        Raises `memoair_index.transformer.TransformerError` where it can't be used, ImportError where onnxruntime is not
        installed.
        """
        return cls(Transformer(folder), cache_path)

    def encode_group(self, group: Sequence[Document], *, is_complete: bool) -> int:
        """Learn what the documents of a group mean, as far as that is not known, and return how many were encoded.

        ``group`` holds all of them, in order. As long as it is not whole, its last document waits for its neighbour.
        """
        texts = texts_in_context(group)
        if not is_complete:
            texts = texts[:-1]
        missing = set(self.vectors.find_missing([document_id for document_id, _ in texts]))
        return self.vectors.add(each for each in texts if each[0] in missing)

    def rerank(self, hits: Sequence[Hit], query_text: str, weight: float) -> list[Hit]:
        """The hits of one search, best first, with a term more for the best `BEST`, in the order of their new scores.

        The term is ``weight`` for each fifth of the cosine between question and document. A document of which nothing
        is known yet gets the mean of the others, which neither favours nor punishes it; where nothing is known of any,
        the hits are returned as they are. Among equals the order stays.
        """
        ids = [hit.document.id for hit in hits[:MAX_RERANKED]]
        if len(self.vectors.find_missing(ids)) == len(ids):
            return list(hits)
        cosines = self.vectors.cosines(self._transformer.encode_query(query_text), ids)
        known = ~np.isnan(cosines)
        if not known.any():
            return list(hits)
        cosines[~known] = cosines[known].mean()
        contributions = (cosines * np.float32(weight / COSINE_UNIT)).tolist()
        reranked = _RerankedHits(hits, contributions)
        best = [
            Hit(place, hits[place].score + worth, reranked.load_document, reranked.load_contributions)
            for place, worth in enumerate(contributions)
        ]
        return sorted([*best, *hits[MAX_RERANKED:]], key=lambda hit: -hit.score)


def texts_in_context(group: Sequence[Document]) -> list[tuple[str, str]]:
    """For each document of a group, in order, its id, and its text with what stands on either side of it.

    What is said in answer to something says little without it.
    """
    texts = ["", *(document.text for document in group), ""]
    return [
        (document.id, "\n".join(filter(None, (before[-NEIGHBOR_CHARS:], own, behind[:NEIGHBOR_CHARS]))))
        for document, before, own, behind in zip(group, texts, texts[1:], texts[2:], strict=False)
    ]


class _RerankedHits:
    """What is asked about hits that were rescored, by their places before: read when somebody asks."""

    def __init__(self, hits: Sequence[Hit], contributions: Sequence[float]) -> None:
        self._hits = hits
        self._contributions = contributions

    def load_document(self, position: int) -> Document:
        return self._hits[position].document

    def load_contributions(self, position: int) -> Mapping[str, float]:
        contribution = self._contributions[position]
        return {**self._hits[position].contributions, **({FEATURE: contribution} if contribution else {})}
