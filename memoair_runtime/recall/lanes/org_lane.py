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
from memoair_runtime.recall.lanes.dedupe import top_per_group
from memoair_runtime.recall.lanes.lane import HitSource, LaneAnswer, LaneHit, LaneQuery, Passage
from memoair_runtime.recall.org_source import LoadedOrgIndex, OrgSource, VersionKey

log = logging.getLogger(__name__)

# Of one document several passages may be among the best; the best of them stands for it.
_PASSAGES_PER_HIT = 3


class OrgLane:
    """The project's documents, asked in the light of the talk: spoken questions seldom name their subject.

    ``talk`` gives what was said last in a session, oldest first.
    """

    name = LaneName.ORG
    default_limit = 4

    def __init__(self, source: OrgSource | None, get_recent_turns: Callable[[str], tuple[str, ...]]) -> None:
        self._source = source
        self._get_recent_turns = get_recent_turns
        self._gate = ReadinessGate()
        self._index = Index()
        self._load_lock = threading.Lock()
        self._loader = CoalescingJob("load-org", self.load)
        self._version_key: VersionKey | None = None  # of the documents as they were read
        self._polled_at = -math.inf
        self._verified_base: str | None = None  # the base that is known to be sound
        self.version: int | None = None  # grows with every change of the documents; None before they were read
        self.error: str | None = None  # why the documents, as they are now, could not be read

    @property
    def readiness(self) -> Readiness:
        """How far the reading of the documents has come."""
        return self._gate.readiness

    def load(self) -> None:
        """Read the documents, or read them again where they have changed; searches go on with what was read before."""
        with self._load_lock:  # who comes while they are being read finds them read
            self._load()

    def load_in_background(self) -> None:
        """The same behind the requests; returns at once."""
        self._loader.start()

    def search(self, query: LaneQuery) -> LaneAnswer:
        """Answer with at most ``limit`` documents, best first: of each the passage that fits best."""
        self._gate.wait(query.deadline)
        predicate = query.predicate
        index_query = Query(query.text, talk=self._get_recent_turns(query.session_id), now=query.now)
        filter_ = None if predicate is None else lambda document: predicate(_metadata(document))
        self._poll_source()
        index = self._index
        _, best_by_document = top_per_group(
            lambda wanted: index.search(index_query, wanted, filter_),
            lambda document: document.group,
            query.limit,
            query.limit * _PASSAGES_PER_HIT,
        )
        chosen = list(best_by_document.values())
        return LaneAnswer(
            hits=tuple(map(self._to_lane_hit, chosen)),
            passages=tuple(Passage(hit.document.text, (number,)) for number, hit in enumerate(chosen)),
        )

    def _poll_source(self) -> None:
        """See now and then whether another process has brought other documents, which this search need not wait for."""
        interval_s = self._source.poll_interval_s if self._source else None
        now = time.monotonic()
        if self._source is None or interval_s is None or now - self._polled_at < interval_s:
            return
        self._polled_at = now
        with suppress(OSError):  # the loader will say so
            if self._source.version_key() != self._version_key:
                self.load_in_background()

    def _load(self) -> None:
        if self._source is None:
            self._gate.open()
            return
        try:
            version_key = self._source.version_key()
            if version_key is not None and version_key == self._version_key:
                return
            loaded = self._source.load_index() if version_key is not None else LoadedOrgIndex(Index(), 0)
        except (OSError, ValueError) as error:
            self.error = f"{self._source.description}: {getattr(error, 'strerror', None) or error}"
            log.error("the organisation's documents can't be read: action=org_failed why=%s", self.error)
            if self._version_key is None:
                self._gate.open(Readiness.ERROR)
            return
        self._index, self._version_key, self.error = loaded.index, version_key, None
        self.version = loaded.version if version_key is not None else None
        self._gate.open()
        if loaded.base_sha256 is None or loaded.base_sha256 != self._verified_base:
            self._verify(self._source)
            self._verified_base = loaded.base_sha256

    def _verify(self, source: OrgSource) -> None:
        """Read what is kept from end to end, which also brings it from the disk before anybody waits for it."""
        try:
            self._index.verify()
        except (OSError, ContainerError) as error:
            log.error("a kept index is damaged, documents are read: action=index_damaged why=%s", str(error))
            self._index = source.rebuild().index

    def _to_lane_hit(self, hit: Hit) -> LaneHit:
        document = hit.document
        document_id, index_name = document.metadata["id"], document.metadata.get("indexName")
        source = HitSource(self.name, document_id, "document", document_id=document_id, index_name=index_name)
        return LaneHit(document.text, hit.score, source, _metadata(document), hit)


def _metadata(document: Document) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = document.metadata["metadata"]
    return metadata
