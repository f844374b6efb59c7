"""Of many passages those of different turns or documents: shared by the lanes."""

from collections.abc import Callable, Iterable, Iterator

from memoair_index import Document, Hit

_MORE = 8


def best_of_each(
    search: Callable[[int], list[Hit]], key: Callable[[Document], str], limit: int, at_least: int
) -> tuple[list[Hit], dict[str, Hit]]:
    """Search for ``at_least`` passages, and for more until they are of ``limit`` turns or documents, if there are.

    Returns the passages, and the best one of each, best first.
    """
    wanted = max(at_least, limit)
    while True:
        found = search(wanted)
        best: dict[str, Hit] = {}
        for hit in found:
            if len(best) == limit:
                return found, best
            best.setdefault(key(hit.document), hit)
        if len(best) == limit or len(found) < wanted:
            return found, best
        wanted *= _MORE  # one long text has filled all places


def few_of_each(documents: Iterable[Document], key: Callable[[Document], str], most: int) -> Iterator[Document]:
    """The passages without those of a turn or document that ``most`` better ones stand for already."""
    counts: dict[str, int] = {}
    for document in documents:
        each = key(document)
        count = counts[each] = counts.get(each, 0) + 1
        if count <= most:
            yield document
