"""A long text in chunks that overlap, cut at sentences where it has any, each a document that can be found."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from memoair_index.document import Document
from memoair_index.label_extraction import labels_of
from memoair_index.sentences import passages, sentences

# The size at which recall was best (docs/design.md), and about two sentences of what stood before: who reads a chunk
# alone has to know what it goes on about.
CHUNK_CHARS = 700
OVERLAP_CHARS = 150


def documents_of(
    document_id: str, text: str, metadata: Mapping[str, Any], index_name: str | None = None
) -> Iterator[Document]:
    """A text's chunks as documents, each with what the text is about; at least one.

    An id is known within one index; where there are several, ``index_name`` tells which it is.
    """
    kept: dict[str, Any] = {"id": document_id, "metadata": metadata}
    if index_name is not None:
        kept["indexName"] = index_name
    group = group_of(document_id, index_name)
    labels = labels_of(text, metadata)
    for number, chunk in enumerate(chunks(text)):
        yield Document(f"{group}#{number}", chunk, group=group, labels=labels, metadata=kept)


def group_of(document_id: str, index_name: str | None = None) -> str:
    """The group that a text's chunks are in, and that their ids begin with."""
    return document_id if index_name is None else f"{quote(index_name, safe='')}/{quote(document_id, safe='')}"


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
