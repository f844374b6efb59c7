"""The org lane: what the organisation's documents say."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from memoair_index import ContainerError, Document, Hit, Index, Query
from memoair_runtime.coalescing_job import CoalescingJob
from memoair_runtime.enums import LaneName
from memoair_runtime.readiness import Readiness, ReadinessGate
from memoair_runtime.recall.lanes.dedupe import best_of_each
from memoair_runtime.recall.lanes.lane import HitSource, LaneAnswer, LaneHit, LaneQuery, Passage
from memoair_runtime.recall.org_source import LoadedOrgIndex, OrgSource, Stamp

log = logging.getLogger(__name__)

# Of one document several passages may be among the best; the best of them stands for it.
_PASSAGES_A_HIT = 3


class OrgLane:
    """The project's documents, asked in the light of the talk: spoken questions seldom name their subject.

    ``talk`` gives what was said last in a session, oldest first.
    """

    name = LaneName.ORG
    default_limit = 4

    def __init__(self, source: OrgSource | None, talk: Callable[[str], tuple[str, ...]]) -> None:
        self._source = source
        self._talk = talk
        self._gate = ReadinessGate()
        self._index = Index()
        self._loading = threading.Lock()
        self._loader = CoalescingJob("load-org", self.load)
        self._stamp: Stamp | None = None  # of the documents as they were read
        self._looked_at = -math.inf
        self._verified: str | None = None  # the base that is known to be sound
        self.version: int | None = None  # grows with every change of the documents; None before they were read
        self.problem: str | None = None  # why the documents, as they are now, could not be read

    @property
    def readiness(self) -> Readiness:
        """How far the reading of the documents has come."""
        return self._gate.readiness

    def load(self) -> None:
        """Read the documents, or read them again where they have changed; searches go on with what was read before."""
        with self._loading:  # who comes while they are being read finds them read
            self._load()

    def load_soon(self) -> None:
        """The same behind the requests; returns at once."""
        self._loader.start()

    def search(self, question: LaneQuery) -> LaneAnswer:
        """Answer with at most ``limit`` documents, best first: of each the passage that fits best."""
        self._gate.wait(question.deadline)
        keeps = question.keeps
        query = Query(question.text, recent_turns=self._talk(question.session_id), now=question.now)
        filter_ = None if keeps is None else lambda document: keeps(_metadata(document))
        self._look()
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

    def _look(self) -> None:
        """See now and then whether another process has brought other documents, which this search need not wait for."""
        every_s = self._source.looked_at_s if self._source else None
        now = time.monotonic()
        if self._source is None or every_s is None or now - self._looked_at < every_s:
            return
        self._looked_at = now
        with suppress(OSError):  # the loader will say so
            if self._source.stamp() != self._stamp:
                self.load_soon()

    def _load(self) -> None:
        if self._source is None:
            self._gate.open()
            return
        try:
            stamp = self._source.stamp()
            if stamp is not None and stamp == self._stamp:
                return
            documents = self._source.index() if stamp is not None else LoadedOrgIndex(Index(), 0)
        except (OSError, ValueError) as error:
            self.problem = f"{self._source.where}: {getattr(error, 'strerror', None) or error}"
            log.error("the organisation's documents can't be read: action=org_failed why=%s", self.problem)
            if self._stamp is None:
                self._gate.open(Readiness.ERROR)
            return
        self._index, self._stamp, self.problem = documents.index, stamp, None
        self.version = documents.version if stamp is not None else None
        self._gate.open()
        if documents.base is None or documents.base != self._verified:
            self._verify(self._source)
            self._verified = documents.base

    def _verify(self, source: OrgSource) -> None:
        """Read what is kept from end to end, which also brings it from the disk before anybody waits for it."""
        try:
            self._index.verify()
        except (OSError, ContainerError) as error:
            log.error("a kept index is damaged, documents are read: action=index_damaged why=%s", str(error))
            self._index = source.read_again().index

    def _hit(self, hit: Hit) -> LaneHit:
        document = hit.document
        document_id, index_name = document.metadata["id"], document.metadata.get("indexName")
        source = HitSource(self.name, document_id, "document", document_id=document_id, index_name=index_name)
        return LaneHit(document.text, hit.score, source, _metadata(document), hit)


def _metadata(document: Document) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = document.metadata["metadata"]
    return metadata
