"""A long text in chunks that overlap, cut at sentences where it has any, each a document that can be found."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from memoair_index.document import Document
from memoair_index.label_extraction import extract_labels
from memoair_index.sentences import split_passages, split_sentences

# The size at which recall was best (docs/design.md), and about two sentences of what stood before: who reads a chunk
# alone has to know what it goes on about.
CHUNK_CHARS = 700
OVERLAP_CHARS = 150


def split_document(
    document_id: str, text: str, metadata: Mapping[str, Any], index_name: str | None = None
) -> Iterator[Document]:
    """A text's chunks as documents, each with what the text is about; at least one.

    An id is known within one index; where there are several, ``index_name`` tells which it is.
    """
    chunk_metadata: dict[str, Any] = {"id": document_id, "metadata": metadata}
    if index_name is not None:
        chunk_metadata["indexName"] = index_name
    group = document_group(document_id, index_name)
    labels = extract_labels(text, metadata)
    for ordinal, chunk in enumerate(split_chunks(text)):
        yield Document(f"{group}#{ordinal}", chunk, group=group, labels=labels, metadata=chunk_metadata)


def document_group(document_id: str, index_name: str | None = None) -> str:
    """The group that a text's chunks are in, and that their ids begin with."""
    return document_id if index_name is None else f"{quote(index_name, safe='')}/{quote(document_id, safe='')}"


def split_chunks(text: str, size: int = CHUNK_CHARS, overlap: int = OVERLAP_CHARS) -> list[str]:
    """The chunks of a text, in order: at least one, none longer than ``size``; see `spans`."""
    return [text[start:end] for start, end in chunk_spans(text, size, overlap)]


def chunk_spans(text: str, size: int, overlap: int) -> list[tuple[int, int]]:
    """Where the chunks of a text begin and end. Each but the first begins within the last ``overlap`` characters of the
    one before it, at the first of its sentences there, or at its end; so nothing is left out.
    """
    if len(text) <= size:
        return [(0, len(text))]
    spans: list[tuple[int, int]] = []
    sentence_starts: list[int] = [0]  # of the sentences of the chunk that is being filled
    end = 0
    for sentence in split_sentences(text):
        for part in split_passages(sentence, size - overlap):
            if end + len(part) - sentence_starts[0] > size:
                spans.append((sentence_starts[0], end))
                sentence_starts = [start for start in sentence_starts if end - start <= overlap]
            sentence_starts.append(end)
            end += len(part)
    return [*spans, (sentence_starts[0], end)]
