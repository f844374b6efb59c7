"""The org lane: what the organisation's documents say."""

import codecs
import logging
import threading
from pathlib import Path
from typing import Annotated, Any

import msgspec

from memoair_index import Document, Index, Query
from memoair_runtime.gate import Gate, Readiness
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneHit, Passage, Question, Source
from memoair_runtime.vocabulary import LaneName

log = logging.getLogger(__name__)


class _OrgDocument(msgspec.Struct, frozen=True):
    id: Annotated[str, msgspec.Meta(min_length=1)]
    text: str
    metadata: dict[str, Any] = {}


_TOLD_LINES = 5
_decoder = msgspec.json.Decoder(_OrgDocument)


class OrgLane:
    """The project's documents, read from a file of JSON lines: ``{"id", "text", "metadata"}`` each."""

    name = LaneName.ORG
    default_limit = 4

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._gate = Gate()
        self._index = Index()
        self._loading = threading.Lock()
        self.version: int | None = None  # grows with every change of the file
        self.problem: str | None = None  # why the file, as it is now, could not be read

    @property
    def readiness(self) -> Readiness:
        """How far the reading of the documents has come."""
        return self._gate.readiness

    def load(self) -> None:
        """Read the file, or read it again where it has changed; searches go on with what was read before."""
        with self._loading:  # who comes while it is being read finds it read
            self._load()

    def _load(self) -> None:
        if self._path is None:
            self._gate.open()
            return
        try:
            version = self._path.stat().st_mtime_ns // 1_000_000
            if version == self.version:
                return
            index = Index()
            index.add(_read(self._path))
        except (OSError, ValueError) as error:
            self.problem = f"{self._path}: {getattr(error, 'strerror', None) or error}"
            log.error("the organisation's documents can't be read: action=org_failed why=%s", self.problem)
            if self.version is None:
                self._gate.open(Readiness.ERROR)
            return
        self._index, self.version, self.problem = index, version, None
        self._gate.open()

    def search(self, question: Question) -> LaneAnswer:
        """Answer with at most ``limit`` documents, best first."""
        self._gate.wait(question.deadline)
        index = self._index
        keeps = question.keeps
        found = index.search(Query(question.text), question.limit if keeps is None else len(index))
        if keeps is not None:
            found = [hit for hit in found if keeps(hit.document.metadata)][: question.limit]
        return LaneAnswer(
            hits=tuple(
                LaneHit(
                    hit.document.text,
                    hit.score,
                    Source(self.name, hit.document.id, "document", document_id=hit.document.id),
                    hit.document.metadata,
                )
                for hit in found
            ),
            passages=tuple(Passage(hit.document.text, (number,)) for number, hit in enumerate(found)),
        )


def _read(path: Path) -> list[Document]:
    """The documents of a file; lines that are none are passed over and told. Raises ValueError where none is one."""
    documents = []
    refused = []
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            document = _decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            refused.append(number)
        else:
            documents.append(Document(document.id, document.text, document.id, metadata=document.metadata))
    if refused and not documents:
        raise ValueError('no line of it is a document, {"id": "...", "text": "...", "metadata": {...}}')
    if refused:
        told = ", ".join(map(str, refused[:_TOLD_LINES]))
        log.warning(
            "%s: lines are no documents: action=org_lines_skipped lines=%d such_as=%s", path, len(refused), told
        )
    return documents
