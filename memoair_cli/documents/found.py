"""Read files and folders into documents, for the commands that need all of them before they begin."""

import codecs
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import typer

from memoair_cli.documents.files import SourceFile, find_files, read_file
from memoair_cli.options import fail
from memoair_documents.errors import DocumentFileError, UnreadableFileError
from memoair_documents.reader_process import ReaderProcess
from memoair_documents.reading import ReadOptions
from memoair_protocol.identifiers import identifier_problem

# The limit of one request (1 MB), with some room for the rest of its body.
MAX_DOCUMENT_BYTES = 1_000_000


@attrs.frozen
class FoundDocuments:
    """What was read.

    Attributes:
        documents: The documents in JSON, by id.
        skipped_ids: Ids of files that exist but were skipped; their documents are not missing.
    """

    documents: dict[str, bytes] = attrs.field(factory=dict)
    skipped_ids: set[str] = attrs.field(factory=set)


def read_all_documents(paths: list[Path], options: ReadOptions, exit_code: int = 1) -> FoundDocuments:
    """Read all files. What is skipped in folders is printed; exit if a file that was named cannot be read.

    Args:
        paths: Folders and files.
        options: How to read them.
        exit_code: The exit code of an error.
    """
    with closing(ReaderProcess()) as reader:
        return _read_files(paths, options, reader, exit_code)


def _read_files(paths: list[Path], options: ReadOptions, reader: ReaderProcess, exit_code: int) -> FoundDocuments:
    found = FoundDocuments()
    file_by_id: dict[str, Path] = {}
    try:
        for source in find_files(paths, _print_skipped):
            try:
                for line, document in read_file(source, options, reader):
                    document_id = document["id"]
                    # Within one file, the later of two documents with one id counts, as in the cloud.
                    if file_by_id.setdefault(document_id, source.path) != source.path:
                        fail(f"{source.path}: the id {document_id} is in {file_by_id[document_id]}, too", exit_code)
                    found.documents[document_id] = _encode(document, source, line)
            except UnreadableFileError as error:
                if source.is_named:
                    fail(f"{source.path}: {error}", exit_code)
                _print_skipped(str(source.path), str(error))
                found.skipped_ids.add(source.id)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}", exit_code)
    except DocumentFileError as error:
        fail(str(error), exit_code)
    return found


def _encode(document: dict[str, Any], source: SourceFile, line: int) -> bytes:
    place = f"{source.path}:{line}" if line else str(source.path)
    try:
        content = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # also half of a surrogate pair
        raise DocumentFileError(f"{place}: the document has a character or a number that JSON cannot have") from None
    if len(content) > MAX_DOCUMENT_BYTES:
        raise DocumentFileError(
            f"{place}: the document has {len(content):,} bytes; split it below {MAX_DOCUMENT_BYTES:,}"
        )
    if problem := identifier_problem(document["id"]):
        raise DocumentFileError(f"{place}: the id {problem}")
    return content


def _print_skipped(path: str, reason: str) -> None:
    typer.echo(f"skipped {path}: {reason}", err=True)


def check_encoding(encoding: str | None) -> str | None:
    """Return the encoding; exit if there is no such one."""
    try:
        if encoding is not None:
            codecs.lookup(encoding)
    except LookupError:
        fail(f"unknown encoding: {encoding}")
    return encoding
