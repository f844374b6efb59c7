"""Of many passages those of different turns or documents: shared by the lanes."""

from collections.abc import Callable, Iterable, Iterator

from memoair_index import Document, Hit

_GROWTH_FACTOR = 8


def top_per_group(
    search: Callable[[int], list[Hit]], group_of: Callable[[Document], str], limit: int, min_passages: int
) -> tuple[list[Hit], dict[str, Hit]]:
    """Search for ``at_least`` passages, and for more until they are of ``limit`` turns or documents, if there are.

    Returns the passages, and the best one of each, best first.
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
        wanted *= _GROWTH_FACTOR  # one long text has filled all places


def limit_per_group(
    documents: Iterable[Document], group_of: Callable[[Document], str], max_per_group: int
) -> Iterator[Document]:
    """The passages without those of a turn or document that ``most`` better ones stand for already."""
    counts: dict[str, int] = {}
    for document in documents:
        group = group_of(document)
        count = counts[group] = counts.get(group, 0) + 1
        if count <= max_per_group:
            yield document
