"""From the name and the bytes of a file to the documents in it.

PDF and DOCX files are read with the extra `documents`.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import attrs

from memoair_documents.decoding import decode_text
from memoair_documents.docx import docx_to_markdown
from memoair_documents.errors import DocumentFileError, UnreadableFileError
from memoair_documents.front_matter import split_front_matter
from memoair_documents.html import html_to_markdown
from memoair_documents.markdown import TitledText
from memoair_documents.pdf import pdf_to_markdown
from memoair_documents.tables import Row, is_document, read_csv, read_json_lines
from memoair_index.label_extraction import FORMAT_KEY, MARKDOWN
from memoair_index.sections import split_sections

_MARKDOWN_SUFFIXES = {".md", ".markdown", ".mdx"}
_HTML_SUFFIXES = {".html", ".htm", ".xhtml"}
_JSON_LINES_SUFFIXES = {".jsonl", ".ndjson"}
_CSV_SUFFIXES = {".csv", ".tsv"}
_BINARY_READERS: Mapping[str, Callable[[bytes], TitledText]] = {".pdf": pdf_to_markdown, ".docx": docx_to_markdown}


@attrs.frozen
class ReadOptions:
    """How to read files.

    Attributes:
        encoding: The encoding of all text files; None to find it for each.
        text_columns: The columns of a CSV file that are the text; empty to choose them by name.
        id_column: The column of a CSV file with the ids.
    """

    encoding: str | None = None
    text_columns: tuple[str, ...] = ()
    id_column: str = "id"


def read_documents(
    name: str, content: bytes, options: ReadOptions, *, detects_json_lines: bool = False
) -> Iterator[Row]:
    """Yield the documents of a file, each with the line at which it is (0 for a whole file).

    Args:
        name: The name of the file, or its path with slashes. It is the id of its document, and its suffix says how
            the file is read.
        content: The bytes of the file.
        options: How to read it.
        detects_json_lines: Whether a text that begins with a document in JSON is read as JSON lines, whatever its
            name.

    Raises:
        UnreadableFileError: If the file cannot be read as its suffix says, or has no text.
        DocumentFileError: If a line of it is invalid.
    """
    suffix = PurePosixPath(name).suffix.casefold()
    if suffix in _BINARY_READERS:
        file = _BINARY_READERS[suffix](content)
        yield 0, _make_markdown(name, file.text, {"title": file.title} if file.title else {}, "")
        return
    text = decode_text(content, options.encoding)
    if not text.strip():
        raise UnreadableFileError("empty")
    if detects_json_lines and _is_json_lines(text):
        suffix = ".jsonl"
    try:
        if suffix in _JSON_LINES_SUFFIXES:
            yield from read_json_lines(text)
        elif suffix in _CSV_SUFFIXES:
            yield from read_csv(text, name, options.text_columns, options.id_column)
        elif suffix in _MARKDOWN_SUFFIXES:
            metadata, body = split_front_matter(text)
            yield 0, _make_markdown(name, body, metadata, "")
        elif suffix in _HTML_SUFFIXES:
            page = html_to_markdown(text)
            yield 0, _make_markdown(name, page.text, {}, page.title)
        else:
            yield 0, {"id": name, "text": text}
    except UnreadableFileError:
        raise
    except ValueError as error:
        raise DocumentFileError(str(error)) from None


def needs_reader_process(name: str) -> bool:
    """Return whether a file, by its name, is in a format that can hide how much work it is to read: PDF and DOCX."""
    return PurePosixPath(name).suffix.casefold() in _BINARY_READERS


def is_table(name: str) -> bool:
    """Return whether the documents of a file have ids of their own, by its name: JSON lines and CSV."""
    return PurePosixPath(name).suffix.casefold() in _JSON_LINES_SUFFIXES | _CSV_SUFFIXES


def _make_markdown(document_id: str, text: str, metadata: dict[str, Any], page_title: str) -> dict[str, Any]:
    if not text.strip():
        raise UnreadableFileError("no text")
    first_heading = next((section.headings[0] for section in split_sections(text) if section.headings), "")
    title = metadata.get("title") or first_heading or page_title
    return {
        "id": document_id,
        "text": text,
        "metadata": {**metadata, **({"title": title} if title else {}), FORMAT_KEY: MARKDOWN},
    }


def _is_json_lines(text: str) -> bool:
    first_line = text.lstrip().partition("\n")[0]
    try:
        return first_line.startswith("{") and is_document(next(read_json_lines(first_line))[1])
    except ValueError:
        return False
