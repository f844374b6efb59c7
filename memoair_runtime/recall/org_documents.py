"""The organisation's documents: from a file of JSON lines to an index, which is kept beside the callers' memories."""

import codecs
import logging
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import attrs
import filelock
import msgspec

from memoair_index import ContainerError, Index, documents_of
from memoair_runtime.recall.org_source import LoadedOrgIndex, VersionKey

log = logging.getLogger(__name__)

_NS_PER_MS = 1_000_000
_MAX_LOGGED_LINES = 5
# How long one process waits for another that is reading the same documents, before it reads them for itself.
_LOCK_TIMEOUT_S = 60.0


class _DocumentLine(msgspec.Struct, frozen=True):
    id: Annotated[str, msgspec.Meta(min_length=1)]
    text: str
    metadata: dict[str, Any] = {}


_line_decoder = msgspec.json.Decoder(_DocumentLine)


@attrs.frozen
class OrgDocuments:
    """A file of JSON lines, ``{"id", "text", "metadata"}`` each, and where its index is kept.

    ``prepare`` makes the folder for the index; it raises OSError where nothing can be kept there.
    """

    path: Path
    index_path: Path
    create_folder: Callable[[], None]

    def version_key(self) -> tuple[int, int]:
        """What tells whether the file was written since; raises OSError."""
        state = self.path.stat()
        return state.st_mtime_ns, state.st_size

    def load_index(self) -> Index:
        """The documents' index: opened where it is kept, else read out of the file and kept.

        Raises OSError where the file can't be read, ValueError where no line of it is a document.
        """
        version_key = self.version_key()
        index = self._open_stored(version_key)
        if index is not None:
            return index
        with ExitStack() as stack:
            with suppress(OSError, filelock.Timeout):  # then each process reads them for itself
                self.create_folder()
                lock = filelock.FileLock(self.index_path.with_suffix(".lock"), timeout=_LOCK_TIMEOUT_S, mode=0o600)
                stack.enter_context(lock)
                index = self._open_stored(version_key)  # another process may have read them meanwhile
                for leftover in self.index_path.parent.glob(f".{self.index_path.name}.*.part"):  # by a writer that died
                    leftover.unlink(missing_ok=True)
            if index is None:
                index = build_index(self.path)
                with suppress(OSError):  # nothing can be kept there
                    index.merge(self.index_path, lambda: {"stamp": version_key})
            return index

    def rebuild_index(self) -> Index:
        """The documents' index, made anew because the kept one is damaged; raises as `index`."""
        with suppress(OSError):
            self.index_path.unlink()
        return self.load_index()

    def _open_stored(self, version_key: tuple[int, int]) -> Index | None:
        try:
            index = Index.open(self.index_path)
        except FileNotFoundError:
            return None
        except (OSError, ContainerError) as error:
            log.warning("a kept index is of no use, documents are read: action=index_refused why=%s", error)
            return None
        return index if index.note.get("stamp") == list(version_key) else None


@attrs.frozen
class FileOrg:
    """The documents of a file that somebody keeps by hand; see `memoair_runtime.recall.org_source.OrgSource`."""

    documents: OrgDocuments
    poll_interval_s: float | None = None

    @property
    def description(self) -> str:
        """The file."""
        return str(self.documents.path)

    def version_key(self) -> VersionKey:
        """What tells whether the file was written since; raises OSError."""
        return self.documents.version_key()

    def load_index(self) -> LoadedOrgIndex:
        """The documents' index, of the version that is the time of the last write; raises OSError or ValueError."""
        version = self.documents.version_key()[0] // _NS_PER_MS
        return LoadedOrgIndex(self.documents.load_index(), version)

    def rebuild(self) -> LoadedOrgIndex:
        """The same, made anew; raises OSError or ValueError."""
        version = self.documents.version_key()[0] // _NS_PER_MS
        return LoadedOrgIndex(self.documents.rebuild_index(), version)


def build_index(path: Path) -> Index:
    """An index of the documents of a file; raises as `OrgDocuments.index`."""
    index = Index()
    index.add(chunk for line in _read_lines(path) for chunk in documents_of(line.id, line.text, line.metadata))
    return index


def _read_lines(path: Path) -> list[_DocumentLine]:
    """The documents of a file; lines that are none are passed over and told. Raises ValueError where none is one."""
    documents: dict[str, _DocumentLine] = {}  # of two with one id the later one counts
    skipped = []
    for line_number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            document = _line_decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            skipped.append(line_number)
        else:
            documents[document.id] = document
    if skipped and not documents:
        raise ValueError('no line of it is a document, {"id": "...", "text": "...", "metadata": {...}}')
    if skipped:
        logged_lines = ", ".join(map(str, skipped[:_MAX_LOGGED_LINES]))
        log.warning(
            "%s: lines are no documents: action=org_lines_skipped lines=%d such_as=%s", path, len(skipped), logged_lines
        )
    return list(documents.values())
