"""Files to add to an index: found in folders, and read into documents."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from memoair_cli.documents.decoding import NotTextError, decode_text
from memoair_cli.documents.front_matter import split_front_matter
from memoair_cli.documents.html import html_to_markdown
from memoair_cli.documents.tables import Row, is_document, read_csv, read_json_lines
from memoair_index.label_extraction import FORMAT_KEY, MARKDOWN
from memoair_index.sections import split_sections

STDIN = Path("-")
_MARKDOWN_SUFFIXES = {".md", ".markdown", ".mdx"}
_HTML_SUFFIXES = {".html", ".htm", ".xhtml"}
_JSON_LINES_SUFFIXES = {".jsonl", ".ndjson"}
_CSV_SUFFIXES = {".csv", ".tsv"}
# Larger files are no texts that people wrote; they would not fit into a request either.
_MAX_FILE_BYTES = 256 << 20


class DocumentFileError(ValueError):
    """A file is invalid. The message names the file, and the line where there is one."""


@attrs.frozen
class SourceFile:
    """A file to read.

    Attributes:
        path: Where it is; `STDIN` for standard input.
        id: The id of its document: its path in the folder, with slashes, or its name.
        is_named: Whether the user named the file itself. What cannot be read in a folder is skipped instead.
    """

    path: Path
    id: str
    is_named: bool


@attrs.frozen
class ReadOptions:
    """How to read files.

    Attributes:
        encoding: The encoding of all files; None to find it for each.
        text_columns: The columns of a CSV file that are the text; empty to choose them by name.
        id_column: The column of a CSV file with the ids.
    """

    encoding: str | None = None
    text_columns: tuple[str, ...] = ()
    id_column: str = "id"


def find_files(paths: Sequence[Path], skip: Callable[[str, str], None]) -> Iterator[SourceFile]:
    """Yield the files at some paths, those of folders in the order of their names.

    Args:
        paths: Files, folders, and `STDIN`.
        skip: Called with the path and the reason for each file and folder that is left out.

    Raises:
        OSError: If a path cannot be read.
    """
    for path in paths:
        if path == STDIN or not path.is_dir():
            yield SourceFile(path, "stdin" if path == STDIN else path.name, is_named=True)
        else:
            yield from _walk(path, skip)


def _walk(folder: Path, skip: Callable[[str, str], None]) -> Iterator[SourceFile]:
    def report(error: OSError) -> None:
        skip(str(error.filename), error.strerror or "not readable")

    for current, folders, names in os.walk(folder, onerror=report):
        here = Path(current)
        for name in sorted(folders):
            if name.startswith("."):
                skip(f"{here / name}/", "hidden")
            elif (here / name).is_symlink():
                skip(f"{here / name}/", "a symbolic link to a folder")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = here / name
            if name.startswith("."):
                skip(str(path), "hidden")
            elif not path.is_file():
                skip(str(path), "not a file")
            else:
                yield SourceFile(path, path.relative_to(folder).as_posix(), is_named=False)


def read_documents(source: SourceFile, options: ReadOptions) -> Iterator[Row]:
    """Yield the documents of a file, each with the line at which it is (0 for a whole file).

    Raises:
        NotTextError: If the file is not text, or has none.
        DocumentFileError: If a line of it is invalid.
        OSError: If it cannot be read.
    """
    text = decode_text(_read(source.path), options.encoding)
    if not text.strip():
        raise NotTextError("empty")
    suffix = source.path.suffix.casefold()
    if source.path == STDIN and _is_json_lines(text):
        suffix = ".jsonl"
    try:
        if suffix in _JSON_LINES_SUFFIXES:
            yield from read_json_lines(text)
        elif suffix in _CSV_SUFFIXES:
            yield from read_csv(text, source.id, options.text_columns, options.id_column)
        elif suffix in _MARKDOWN_SUFFIXES:
            metadata, body = split_front_matter(text)
            yield 0, _make_markdown(source.id, body, metadata, "")
        elif suffix in _HTML_SUFFIXES:
            page = html_to_markdown(text)
            yield 0, _make_markdown(source.id, page.text, {}, page.title)
        else:
            yield 0, {"id": source.id, "text": text}
    except NotTextError:
        raise
    except ValueError as error:
        raise DocumentFileError(f"{source.path}:{error}") from None


def _read(path: Path) -> bytes:
    if path == STDIN:
        return sys.stdin.buffer.read()
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise NotTextError(f"larger than {_MAX_FILE_BYTES >> 20} MB")
    return path.read_bytes()


def _make_markdown(document_id: str, text: str, metadata: dict[str, Any], page_title: str) -> dict[str, Any]:
    if not text.strip():
        raise NotTextError("no text")
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
