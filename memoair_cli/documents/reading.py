"""Read the documents in folders and files, and divide them into requests."""

import codecs
import json
from collections.abc import Iterable, Iterator, Sequence
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
from memoair_protocol.limits import MAX_DOCUMENTS

# The limit of one request (1 MB), with some room for the rest of its body.
_MAX_BYTES = 1_000_000


@attrs.frozen
class FoundDocuments:
    """What was read.

    Attributes:
        documents: The documents in JSON, by id.
        skipped_ids: Ids of files that exist but were skipped; their documents are not missing.
    """

    documents: dict[str, bytes] = attrs.field(factory=dict)
    skipped_ids: set[str] = attrs.field(factory=set)


def read_paths(paths: Sequence[Path], options: ReadOptions, exit_code: int = 1) -> FoundDocuments:
    """Return the documents in folders and files; exit with a message if one that was named cannot be read.

    All of them are read before any is used, so that an error changes nothing.

    Args:
        paths: Folders and files.
        options: How to read them.
        exit_code: The exit code of an error.
    """
    with closing(ReaderProcess()) as reader:
        return _read_files(paths, options, reader, exit_code)


def _read_files(paths: Sequence[Path], options: ReadOptions, reader: ReaderProcess, exit_code: int) -> FoundDocuments:
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
    if len(content) > _MAX_BYTES:
        raise DocumentFileError(f"{place}: the document has {len(content):,} bytes; split it below {_MAX_BYTES:,}")
    if problem := identifier_problem(document["id"]):
        raise DocumentFileError(f"{place}: the id {problem}")
    return content


def split_batches(documents: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield documents in JSON in batches, each of which fits into a request."""
    batch: list[bytes] = []
    size = 0
    for document in documents:
        if batch and (len(batch) == MAX_DOCUMENTS or size + len(document) > _MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document) + 1
    if batch:
        yield batch


def check_encoding(encoding: str | None, exit_code: int = 1) -> str | None:
    """Return the encoding; exit if there is no such one."""
    try:
        if encoding is not None:
            codecs.lookup(encoding)
    except LookupError:
        fail(f"unknown encoding: {encoding}", exit_code)
    return encoding


def _print_skipped(path: str, reason: str) -> None:
    typer.echo(f"skipped {path}: {reason}", err=True)
