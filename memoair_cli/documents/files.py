"""Files to add to an index: found in folders, and read into documents."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from memoair_documents.errors import DocumentFileError, UnreadableFileError
from memoair_documents.reader_process import ReaderProcess
from memoair_documents.reading import ReadOptions, needs_reader_process, read_documents
from memoair_documents.tables import Row
from memoair_protocol.input_files import check_regular_file, read_regular_file

STDIN = Path("-")
# Larger files are no texts that people wrote; they would not fit into a request either.
_MAX_FILE_BYTES = 256 << 20


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


def read_file(source: SourceFile, options: ReadOptions, reader: ReaderProcess) -> Iterator[Row]:
    """Yield the documents of a file, each with the line at which it is (0 for a whole file).

    Args:
        source: The file.
        options: How to read it.
        reader: The process for PDF and DOCX files.

    Raises:
        UnreadableFileError: If the file cannot be read as its suffix says, or has no text.
        DocumentFileError: If a line of it is invalid; the message names the file.
        OSError: If it cannot be read.
    """
    is_stdin = source.path == STDIN
    try:
        if needs_reader_process(source.id):
            check_regular_file(source.path)
            yield from reader.read(source.path, source.id, options)
            return
        yield from read_documents(source.id, _read(source.path), options, detects_json_lines=is_stdin)
    except DocumentFileError as error:
        raise DocumentFileError(f"{source.path}:{error}") from None


def _read(path: Path) -> bytes:
    if path == STDIN:
        return sys.stdin.buffer.read()
    content = read_regular_file(path, _MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise UnreadableFileError(f"larger than {_MAX_FILE_BYTES >> 20} MB")
    return content
