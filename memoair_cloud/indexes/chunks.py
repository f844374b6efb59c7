"""A long text in chunks that overlap, cut at sentences where it has any."""

from memoair_index import passages, sentences

# The size at which recall was best (docs/design.md), and about two sentences of what stood before: who reads a chunk
# alone has to know what it goes on about.
CHUNK_CHARS = 700
OVERLAP_CHARS = 150


def chunks(text: str, size: int = CHUNK_CHARS, overlap: int = OVERLAP_CHARS) -> list[str]:
    """The chunks of a text, in order: at least one, none longer than ``size``; see `spans`."""
    return [text[start:end] for start, end in spans(text, size, overlap)]


def spans(text: str, size: int, overlap: int) -> list[tuple[int, int]]:
    """Where the chunks of a text begin and end. Each but the first begins within the last ``overlap`` characters of the
    one before it, at the first of its sentences there, or at its end; so nothing is left out.
    """
    if len(text) <= size:
        return [(0, len(text))]
    found: list[tuple[int, int]] = []
    starts: list[int] = [0]  # of the sentences of the chunk that is being filled
    end = 0
    for sentence in sentences(text):
        for part in passages(sentence, size - overlap):
            if end + len(part) - starts[0] > size:
                found.append((starts[0], end))
                starts = [start for start in starts if end - start <= overlap]
            starts.append(end)
            end += len(part)
    return [*found, (starts[0], end)]
