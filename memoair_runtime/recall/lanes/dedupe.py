"""Selection of hits, shared by the lanes: the best of each turn or document, and those of enough confidence."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from memoair_index import Document, Hit

_GROWTH_FACTOR = 8


def top_per_group(
    search: Callable[[int], list[Hit]], group_of: Callable[[Document], str], limit: int, min_passages: int
) -> tuple[list[Hit], dict[str, Hit]]:
    """Search until the hits belong to ``limit`` different turns or documents, if there are so many.

    Args:
        search: Returns at most the given number of hits, best first.
        group_of: Returns the turn or document that an indexed document belongs to.
        limit: Number of turns or documents to find.
        min_passages: Number of hits to search for at first.

    Returns:
        All hits, and the best hit of each turn or document, both best first.
    """
    wanted = max(min_passages, limit)
    while True:
        hits = search(wanted)
        best_by_group: dict[str, Hit] = {}
        for hit in hits:
            if len(best_by_group) == limit:
                return hits, best_by_group
            best_by_group.setdefault(group_of(hit.document), hit)
        if len(best_by_group) == limit or len(hits) < wanted:
            return hits, best_by_group
        wanted *= _GROWTH_FACTOR  # one long text has filled the whole result


def best_confidence(hits: Iterable[Hit]) -> float:
    """Return the confidence of the hit with the most; 0 without hits."""
    return max((hit.confidence for hit in hits), default=0.0)


def select_confident(hits: Mapping[str, Hit], min_confidence: float) -> dict[str, Hit]:
    """Return the hits of at least this confidence, by turn or document, in their order."""
    return {group: hit for group, hit in hits.items() if hit.confidence >= min_confidence}


def limit_per_group(
    documents: Iterable[Document], group_of: Callable[[Document], str], max_per_group: int
) -> Iterator[Document]:
    """Yield the documents in their order, but at most ``max_per_group`` of each turn or document."""
    counts: dict[str, int] = {}
    for document in documents:
        group = group_of(document)
        count = counts[group] = counts.get(group, 0) + 1
        if count <= max_per_group:
            yield document
