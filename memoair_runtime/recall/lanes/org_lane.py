"""The org lane: what the organisation's documents say."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from memoair_index import ContainerError, Document, Hit, Index, Query
from memoair_runtime.gate import Gate, Readiness
from memoair_runtime.recall.lanes.distinct import best_of_each
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneHit, Passage, Question, Source
from memoair_runtime.recall.org_documents import OrgDocuments, Stamp
from memoair_runtime.vocabulary import LaneName

log = logging.getLogger(__name__)

# Of one document several passages may be among the best; the best of them stands for it.
_PASSAGES_A_HIT = 3


class OrgLane:
    """The project's documents, asked in the light of the talk: spoken questions seldom name their subject.

    ``talk`` gives what was said last in a session, oldest first.
    """

    name = LaneName.ORG
    default_limit = 4

    def __init__(self, documents: OrgDocuments | None, talk: Callable[[str], tuple[str, ...]]) -> None:
        self._documents = documents
        self._talk = talk
        self._gate = Gate()
        self._index = Index()
        self._loading = threading.Lock()
        self._stamp: Stamp | None = None  # of the file as it was read
        self.problem: str | None = None  # why the file, as it is now, could not be read

    @property
    def readiness(self) -> Readiness:
        """How far the reading of the documents has come."""
        return self._gate.readiness

    @property
    def version(self) -> int | None:
        """Grows with every change of the file; None before it was read."""
        return None if self._stamp is None else self._stamp[0] // 1_000_000

    def load(self) -> None:
        """Read the file, or read it again where it has changed; searches go on with what was read before."""
        with self._loading:  # who comes while it is being read finds it read
            self._load()

    def search(self, question: Question) -> LaneAnswer:
        """Answer with at most ``limit`` documents, best first: of each the passage that fits best."""
        self._gate.wait(question.deadline)
        keeps = question.keeps
        query = Query(question.text, talk=self._talk(question.session_id), now=question.now)
        filter_ = None if keeps is None else lambda document: keeps(_metadata(document))
        index = self._index
        _, best = best_of_each(
            lambda wanted: index.search(query, wanted, filter_),
            lambda document: document.group,
            question.limit,
            question.limit * _PASSAGES_A_HIT,
        )
        chosen = list(best.values())
        return LaneAnswer(
            hits=tuple(map(self._hit, chosen)),
            passages=tuple(Passage(hit.document.text, (number,)) for number, hit in enumerate(chosen)),
        )

    def _load(self) -> None:
        if self._documents is None:
            self._gate.open()
            return
        try:
            stamp = self._documents.stamp()
            if stamp == self._stamp:
                return
            index = self._documents.index()
        except (OSError, ValueError) as error:
            self.problem = f"{self._documents.path}: {getattr(error, 'strerror', None) or error}"
            log.error("the organisation's documents can't be read: action=org_failed why=%s", self.problem)
            if self._stamp is None:
                self._gate.open(Readiness.ERROR)
            return
        self._index, self._stamp, self.problem = index, stamp, None
        self._gate.open()
        self._verify()

    def _verify(self) -> None:
        """Read what is kept from end to end, which also brings it from the disk before anybody waits for it."""
        try:
            self._index.verify()
        except (OSError, ContainerError) as error:
            log.error("a kept index is damaged, documents are read: action=index_damaged why=%s", error)
            assert self._documents is not None  # noqa: S101 - without documents nothing is kept
            self._index = self._documents.read_again()

    def _hit(self, hit: Hit) -> LaneHit:
        document = hit.document
        source = Source(self.name, document.group, "document", document_id=document.group)
        return LaneHit(document.text, hit.score, source, _metadata(document), hit)


def _metadata(document: Document) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = document.metadata["metadata"]
    return metadata
