"""Chunking: split a long text into overlapping chunks, cut between sentences where possible, that are indexed."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from memoair_index.document import Document
from memoair_index.label_extraction import FORMAT_KEY, MARKDOWN, extract_labels
from memoair_index.sections import Section, split_sections
from memoair_index.sentences import split_passages, split_sentences

# The size at which recall was best (docs/design.md), and an overlap of about two sentences, so that a chunk that is
# read alone shows what it continues.
CHUNK_CHARS = 700
OVERLAP_CHARS = 150
# The headings above a chunk are its first line. They come on top of its size, so very long ones are cut.
_MAX_PATH_CHARS = 200


def split_document(
    document_id: str, text: str, metadata: Mapping[str, Any], index_name: str | None = None
) -> Iterator[Document]:
    """Split a document into chunks to index, at least one.

    Args:
        document_id: The document's id, unique within its named index.
        text: The text of the document.
        metadata: Copied to every chunk; its short strings become labels. ``"format": "markdown"`` splits the text at
            its headings, see `split_text`.
        index_name: The named index of the document, where a project has several.

    Yields:
        The chunks in order, in one group, each with the labels of the whole document.
    """
    chunk_metadata: dict[str, Any] = {"id": document_id, "metadata": metadata}
    if index_name is not None:
        chunk_metadata["indexName"] = index_name
    group = document_group(document_id, index_name)
    labels = extract_labels(text, metadata)
    for ordinal, chunk in enumerate(split_text(text, metadata)):
        yield Document(f"{group}#{ordinal}", chunk, group=group, labels=labels, metadata=chunk_metadata)


def split_text(text: str, metadata: Mapping[str, Any]) -> list[str]:
    """Split the text of a document into the texts of its chunks.

    A text whose metadata has ``"format": "markdown"`` is split at its headings. The text of a section begins with the
    title and the headings above it, as one line (``Returns > Boots``), so that it is found by them and is understood
    when it is read alone. Short sections share a chunk as far as they fit: alone they were found less often
    (docs/performance.md).

    Args:
        text: The text of the document.
        metadata: The document's metadata.

    Returns:
        The chunks in order, at least one.
    """
    if metadata.get(FORMAT_KEY) != MARKDOWN:
        return split_chunks(text)
    title = metadata.get("title")
    chunks: list[str] = []
    can_extend = False  # whether the last chunk is of whole sections
    for section in split_sections(text):
        path = _format_path(section, title if isinstance(title, str) else "")
        parts = [f"{path}\n{part.strip()}" if path else part.strip() for part in split_chunks(section.text.strip())]
        is_whole = len(parts) == 1
        if can_extend and is_whole and len(chunks[-1]) + 2 + len(parts[0]) <= CHUNK_CHARS:
            chunks[-1] += f"\n\n{parts[0]}"
        else:
            chunks += parts
        can_extend = is_whole
    return chunks


def _format_path(section: Section, title: str) -> str:
    """Return the line above a section's text: the document's title, unless the headings begin with it, and those."""
    title = " ".join(title.split())
    names = section.headings if section.headings[:1] == (title,) or not title else (title, *section.headings)
    return " > ".join(names)[:_MAX_PATH_CHARS]


def document_group(document_id: str, index_name: str | None = None) -> str:
    """Return the group of a document's chunks, which is also the prefix of their ids.

    Args:
        document_id: The document's id.
        index_name: The named index of the document, where a project has several.
    """
    return document_id if index_name is None else f"{quote(index_name, safe='')}/{quote(document_id, safe='')}"


def split_chunks(text: str, size: int = CHUNK_CHARS, overlap: int = OVERLAP_CHARS) -> list[str]:
    """Split a text into overlapping chunks.

    Each chunk but the first begins within the last ``overlap`` characters of the previous one, at the first sentence
    that starts there, or else at its end. Nothing is left out.

    Args:
        text: Any text.
        size: The maximum length of a chunk in characters.
        overlap: The maximum overlap of neighboring chunks in characters.

    Returns:
        The chunks in order, at least one.
    """
    return [text[start:end] for start, end in chunk_spans(text, size, overlap)]


def chunk_spans(text: str, size: int, overlap: int) -> list[tuple[int, int]]:
    """Return the start and end of each chunk; see `split_chunks`."""
    if len(text) <= size:
        return [(0, len(text))]
    spans: list[tuple[int, int]] = []
    sentence_starts: list[int] = [0]  # of the chunk that is being filled
    end = 0
    for sentence in split_sentences(text):
        for part in split_passages(sentence, size - overlap):
            if end + len(part) - sentence_starts[0] > size:
                spans.append((sentence_starts[0], end))
                sentence_starts = [start for start in sentence_starts if end - start <= overlap]
            sentence_starts.append(end)
            end += len(part)
    return [*spans, (sentence_starts[0], end)]
