"""Reranking: a transformer scores the best hits of the index again.

It encodes the question during the search (2 to 7 ms). The documents are encoded beforehand, in the background: encoding
fifty of them during the search would take half a second.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

import numpy as np

from memoair_index.document import Document, Hit
from memoair_index.ranking import COSINE_UNIT
from memoair_index.transformer import Transformer
from memoair_index.vector_store import VectorStore

# The name of the feature that reranking adds; see `memoair_index.ranking.FEATURES`.
FEATURE = "transformer"
# How many of the best hits are scored again.
MAX_RERANKED = 50
# How much of each neighbor is encoded with a document, the nearest part: more would drown the document or cut it off.
NEIGHBOR_CHARS = 200


class Reranker:
    """Scores hits again by a transformer. Thread-safe.

    Attributes:
        vectors: The vectors of the documents, which belong to this reranker alone.
    """

    def __init__(
        self, vectors: VectorStore, transformer: Transformer, vector_id: Callable[[Document], str] = attrgetter("id")
    ) -> None:
        """Create a reranker.

        Args:
            vectors: The documents' vectors.
            transformer: The model, which any number of rerankers may share.
            vector_id: Returns the id of a document's vector.
        """
        self._transformer = transformer
        self._vector_id = vector_id
        self.vectors = vectors

    def encode_group(self, group: Sequence[Document], *, is_complete: bool) -> int:
        """Encode the documents of a group whose vectors are missing.

        Args:
            group: All documents of the group so far, in order.
            is_complete: Whether no more documents will follow. Otherwise the last document waits, because it is encoded
                together with its neighbor.

        Returns:
            The number of documents that were encoded.
        """
        texts = texts_in_context(group)
        if not is_complete:
            texts = texts[:-1]
        missing = set(self.vectors.find_missing([document_id for document_id, _ in texts]))
        return self.vectors.add(text for text in texts if text[0] in missing)

    def rerank(self, hits: Sequence[Hit], query_text: str, weight: float) -> list[Hit]:
        """Return the hits of one search by their new scores.

        The best `MAX_RERANKED` hits get one more feature: ``weight`` for each fifth of the cosine between question and
        document. A document without a vector gets the mean of the others, which neither favors nor punishes it. If no
        document has a vector, the hits are returned unchanged. Ties keep their order.

        Args:
            hits: The hits, best first.
            query_text: The question.
            weight: The weight of the feature.
        """
        ids = [self._vector_id(hit.document) for hit in hits[:MAX_RERANKED]]
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
            Hit(
                position,
                hits[position].score + contribution,
                reranked.load_document,
                reranked.load_contributions,
                reranked.confidence,
            )
            for position, contribution in enumerate(contributions)
        ]
        return sorted([*best, *hits[MAX_RERANKED:]], key=lambda hit: -hit.score)


def texts_in_context(group: Sequence[Document]) -> list[tuple[str, str]]:
    """Return the id of each document of a group, and its text with the nearest part of both neighbors.

    An answer says little without the question before it.
    """
    texts = ["", *(document.text for document in group), ""]
    return [
        (document.id, "\n".join(filter(None, (previous[-NEIGHBOR_CHARS:], own, following[:NEIGHBOR_CHARS]))))
        for document, previous, own, following in zip(group, texts, texts[1:], texts[2:], strict=False)
    ]


class _RerankedHits:
    """Loads the documents and contributions of reranked hits, by their positions before reranking."""

    def __init__(self, hits: Sequence[Hit], contributions: Sequence[float]) -> None:
        self._hits = hits
        self._contributions = contributions
        self.confidence = _EarlierConfidence(hits)

    def load_document(self, position: int) -> Document:
        return self._hits[position].document

    def load_contributions(self, position: int) -> Mapping[str, float]:
        contribution = self._contributions[position]
        return {**self._hits[position].contributions, **({FEATURE: contribution} if contribution else {})}


class _EarlierConfidence:
    """The confidence that hits had before reranking: it is calibrated to the features of the index."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self._hits = hits

    def __call__(self, position: int) -> float:
        return self._hits[position].confidence

    def features(self, position: int) -> Mapping[str, float]:
        return self._hits[position].confidence_features
