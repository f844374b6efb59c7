"""The answer of an index of documents to a query, apart from how the documents are loaded."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from memoair_index import Document, Hit, Index, Query
from memoair_index.reranker import MAX_RERANKED
from memoair_protocol.enums import LaneName
from memoair_runtime.recall.lanes.dedupe import best_confidence, select_confident, top_per_group
from memoair_runtime.recall.lanes.lane import HitSource, LaneAnswer, LaneHit, LaneQuery, Passage

DEFAULT_LIMIT = 4
# Several passages of one document may be among the best; only the best of them is returned.
_PASSAGES_PER_HIT = 3
# So many copies of documents are looked past.
_MAX_COPIES = 4
# Scores that differ by less may be equal but for rounding.
_EQUAL_SCORES = 1e-3


def answer_from_documents(
    index: Index,
    query: LaneQuery,
    recent_turns: tuple[str, ...],
    rerank: Callable[[Sequence[Hit], str], list[Hit]] | None = None,
) -> LaneAnswer:
    """Return at most ``limit`` documents, best first, each with its best passage. Thread-safe.

    Args:
        index: The documents.
        query: The query.
        recent_turns: The last texts of the session, oldest first. They expand the query, because spoken questions
            seldom name their subject.
        rerank: Reranks what was found, if the query asks for it; None to leave it as it is.
    """
    predicate = query.predicate
    index_query = Query(query.text, recent_turns=recent_turns, now=query.now)
    filter_ = None if predicate is None else lambda document: predicate(_metadata(document))

    def search(limit: int) -> list[Hit]:
        if rerank is None or not query.can_rerank():
            return index.search(index_query, limit, filter_)
        return rerank(index.search(index_query, max(limit, MAX_RERANKED), filter_), query.text)

    best_by_document = top_per_group(
        search,
        lambda document: document.group,
        query.limit,
        (query.limit + _MAX_COPIES) * _PASSAGES_PER_HIT,
        lambda hits: _MAX_COPIES if _have_equal_scores(hits) else 0,
    )
    confidence = best_confidence(best_by_document.values())
    if query.min_confidence:
        best_by_document = select_confident(best_by_document, query.min_confidence)
    hits = [_to_lane_hit(hit) for hit in _put_copies_last(best_by_document.values(), query.limit)]
    return LaneAnswer(
        hits=tuple(hits),
        passages=tuple(Passage(hit.text, (rank,), source=hit.source.key) for rank, hit in enumerate(hits)),
        confidence=confidence,
    )


def _to_lane_hit(hit: Hit) -> LaneHit:
    document = hit.document
    document_id, index_name = document.metadata["id"], document.metadata.get("indexName")
    source = HitSource(LaneName.ORG, document_id, "document", document_id=document_id, index_name=index_name)
    return LaneHit(document.text, hit.score, source, _metadata(document), hit)


def _have_equal_scores(hits: Iterable[Hit]) -> bool:
    """Return whether there may be copies among hits, best first: the scores of copies are equal."""
    return any(hit.score - following.score < _EQUAL_SCORES for hit, following in pairwise(hits))


def _put_copies_last(hits: Iterable[Hit], limit: int) -> list[Hit]:
    """Return the best hits; those with the text and the metadata of a better one only if there are too few others."""
    seen: list[tuple[str, Mapping[str, Any]]] = []
    distinct: list[Hit] = []
    copies: list[Hit] = []
    for hit in hits:
        key = hit.document.text, _metadata(hit.document)
        (copies if key in seen else distinct).append(hit)
        seen.append(key)
    # If copies fill the rest, the hits are in the order of their scores again.
    return sorted([*distinct, *copies][:limit], key=lambda hit: -hit.score)


def _metadata(document: Document) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = document.metadata["metadata"]
    return metadata
