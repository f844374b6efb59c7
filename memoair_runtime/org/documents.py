"""The organization's documents from a JSON Lines file, and their index, which is stored in the project's folder."""

import codecs
import logging
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import attrs
import filelock
import msgspec

from memoair_index import ContainerError, Index, split_document
from memoair_protocol.input_files import read_regular_file
from memoair_protocol.private_files import check_private_file
from memoair_protocol.starvation import raise_if_starved
from memoair_runtime.org.source import LoadedOrgIndex
from memoair_runtime.storage.project_folder import ProjectFolder

log = logging.getLogger(__name__)

_NS_PER_MS = 1_000_000
_MAX_LOGGED_LINES = 5
# How long a process waits for another one that indexes the same documents, before it indexes them itself.
_LOCK_TIMEOUT_S = 60.0


class _DocumentLine(msgspec.Struct, frozen=True):
    id: Annotated[str, msgspec.Meta(min_length=1)]
    text: str
    metadata: dict[str, Any] = {}


_line_decoder = msgspec.json.Decoder(_DocumentLine)


@attrs.frozen
class FileOrg:
    """The `OrgSource` of a JSON Lines file, ``{"id", "text", "metadata"}`` per line, and its stored index.

    The operator maintains the file.

    Attributes:
        folder: The project's folder, in which the index is stored.
        path: The file.
        poll_interval_s: None, because only a session start checks the file for changes.
    """

    folder: ProjectFolder
    path: Path
    poll_interval_s: float | None = None

    @property
    def description(self) -> str:
        """The path of the file."""
        return str(self.path)

    @property
    def index_path(self) -> Path:
        """Where the index is stored."""
        return self.folder.org_file_index(self.path)

    def version_key(self) -> tuple[int, int]:
        """Return the file's time and size, which differ once it was written; raises OSError."""
        state = self.path.stat()
        return state.st_mtime_ns, state.st_size

    def load_index(self) -> LoadedOrgIndex:
        """Return the index of the documents: the stored one if it is current, otherwise a new one, which is stored.

        Its version is the file's time in milliseconds.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If no line of the file is a document.
        """
        version_key = self.version_key()
        index = self._open_stored(version_key)
        return LoadedOrgIndex(self._build(version_key) if index is None else index, version_key[0] // _NS_PER_MS)

    def rebuild(self) -> LoadedOrgIndex:
        """Discard the stored index, which is damaged, and return a new one; raises as `load_index`."""
        with suppress(OSError):
            self.index_path.unlink()
        return self.load_index()

    def _build(self, version_key: tuple[int, int]) -> Index:
        path, index = self.index_path, None
        with ExitStack() as stack:
            with suppress(OSError, filelock.Timeout):  # without the lock, each process indexes them itself
                self.folder.create()
                stack.enter_context(filelock.FileLock(path.with_suffix(".lock"), timeout=_LOCK_TIMEOUT_S, mode=0o600))
                index = self._open_stored(version_key)  # another process may have stored it by now
                # Temporary files of a writer that died.
                for leftover in path.parent.glob(f".{path.name}.*.part"):
                    leftover.unlink(missing_ok=True)
            if index is None:
                index = build_index(self.path)
                with suppress(OSError):  # the index is used without being stored
                    index.merge(path, lambda: {"stamp": version_key})
            return index

    def _open_stored(self, version_key: tuple[int, int]) -> Index | None:
        try:
            check_private_file(self.index_path)
            index = Index.open(self.index_path)
        except FileNotFoundError:
            return None
        except (OSError, ContainerError) as error:
            raise_if_starved(error)
            log.warning("the stored index is invalid and is rebuilt: action=index_refused why=%s", error)
            return None
        return index if index.file_metadata.get("stamp") == list(version_key) else None


def build_index(path: Path) -> Index:
    """Build an index of the documents of a file; raises as `FileOrg.load_index`."""
    index = Index()
    index.add(chunk for line in _read_lines(path) for chunk in split_document(line.id, line.text, line.metadata))
    return index


def _read_lines(path: Path) -> list[_DocumentLine]:
    """Return the documents of a file. Log invalid lines and skip them; raise ValueError if no line is valid."""
    documents: dict[str, _DocumentLine] = {}  # of two documents with the same id, the later one counts
    skipped = []
    content = read_regular_file(path).removeprefix(codecs.BOM_UTF8)
    for line_number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            document = _line_decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            skipped.append(line_number)
        else:
            documents[document.id] = document
    if skipped and not documents:
        raise ValueError('no line is a document like {"id": "...", "text": "...", "metadata": {...}}')
    if skipped:
        logged_lines = ", ".join(map(str, skipped[:_MAX_LOGGED_LINES]))
        log.warning(
            "%s: skipped lines that are not documents: action=org_lines_skipped lines=%d such_as=%s",
            path,
            len(skipped),
            logged_lines,
        )
    return list(documents.values())
