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

from memoair_index import ContainerError, Index, split_document
from memoair_runtime.recall.org_source import LoadedOrgIndex, Stamp

log = logging.getLogger(__name__)

_NS_A_MS = 1_000_000
_TOLD_LINES = 5
# How long one process waits for another that is reading the same documents, before it reads them for itself.
_LOCK_TIMEOUT_S = 60.0


class _DocumentLine(msgspec.Struct, frozen=True):
    id: Annotated[str, msgspec.Meta(min_length=1)]
    text: str
    metadata: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(_DocumentLine)


@attrs.frozen
class OrgDocuments:
    """A file of JSON lines, ``{"id", "text", "metadata"}`` each, and where its index is kept.

    ``prepare`` makes the folder for the index; it raises OSError where nothing can be kept there.
    """

    path: Path
    index_path: Path
    prepare: Callable[[], None]

    def stamp(self) -> tuple[int, int]:
        """What tells whether the file was written since; raises OSError."""
        state = self.path.stat()
        return state.st_mtime_ns, state.st_size

    def index(self) -> Index:
        """The documents' index: opened where it is kept, else read out of the file and kept.

        Raises OSError where the file can't be read, ValueError where no line of it is a document.
        """
        stamp = self.stamp()
        kept = self._open(stamp)
        if kept is not None:
            return kept
        with ExitStack() as held:
            with suppress(OSError, filelock.Timeout):  # then each process reads them for itself
                self.prepare()
                lock = filelock.FileLock(self.index_path.with_suffix(".lock"), timeout=_LOCK_TIMEOUT_S, mode=0o600)
                held.enter_context(lock)
                kept = self._open(stamp)  # another process may have read them meanwhile
                for left in self.index_path.parent.glob(f".{self.index_path.name}.*.part"):  # by a writer that died
                    left.unlink(missing_ok=True)
            if kept is None:
                kept = read_index(self.path)
                with suppress(OSError):  # nothing can be kept there
                    kept.merge(self.index_path, lambda: {"stamp": stamp})
            return kept

    def read_again(self) -> Index:
        """The documents' index, made anew because the kept one is damaged; raises as `index`."""
        with suppress(OSError):
            self.index_path.unlink()
        return self.index()

    def _open(self, stamp: tuple[int, int]) -> Index | None:
        try:
            index = Index.open(self.index_path)
        except FileNotFoundError:
            return None
        except (OSError, ContainerError) as error:
            log.warning("a kept index is of no use, documents are read: action=index_refused why=%s", error)
            return None
        return index if index.file_metadata.get("stamp") == list(stamp) else None


@attrs.frozen
class FileOrg:
    """The documents of a file that somebody keeps by hand; see `memoair_runtime.recall.org_source.OrgSource`."""

    documents: OrgDocuments
    looked_at_s: float | None = None

    @property
    def where(self) -> str:
        """The file."""
        return str(self.documents.path)

    def stamp(self) -> Stamp:
        """What tells whether the file was written since; raises OSError."""
        return self.documents.stamp()

    def index(self) -> LoadedOrgIndex:
        """The documents' index, of the version that is the time of the last write; raises OSError or ValueError."""
        version = self.documents.stamp()[0] // _NS_A_MS
        return LoadedOrgIndex(self.documents.index(), version)

    def read_again(self) -> LoadedOrgIndex:
        """The same, made anew; raises OSError or ValueError."""
        version = self.documents.stamp()[0] // _NS_A_MS
        return LoadedOrgIndex(self.documents.read_again(), version)


def read_index(path: Path) -> Index:
    """An index of the documents of a file; raises as `OrgDocuments.index`."""
    index = Index()
    index.add(chunk for line in _read(path) for chunk in split_document(line.id, line.text, line.metadata))
    return index


def _read(path: Path) -> list[_DocumentLine]:
    """The documents of a file; lines that are none are passed over and told. Raises ValueError where none is one."""
    documents: dict[str, _DocumentLine] = {}  # of two with one id the later one counts
    refused = []
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            document = _decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            refused.append(number)
        else:
            documents[document.id] = document
    if refused and not documents:
        raise ValueError('no line of it is a document, {"id": "...", "text": "...", "metadata": {...}}')
    if refused:
        told = ", ".join(map(str, refused[:_TOLD_LINES]))
        log.warning(
            "%s: lines are no documents: action=org_lines_skipped lines=%d such_as=%s", path, len(refused), told
        )
    return list(documents.values())
