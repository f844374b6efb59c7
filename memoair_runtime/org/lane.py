"""The org lane: the organization's documents."""

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from memoair_index import ContainerError, Index
from memoair_protocol.enums import LaneName
from memoair_protocol.starvation import is_starved, raise_if_starved
from memoair_runtime.coalescing_job import CoalescingJob
from memoair_runtime.org.answer import DEFAULT_LIMIT, answer_from_documents
from memoair_runtime.org.reranker import OrgReranker
from memoair_runtime.org.source import LoadedOrgIndex, OrgSource, VersionKey
from memoair_runtime.readiness import Readiness, ReadinessGate
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneQuery

log = logging.getLogger(__name__)


class OrgLane:
    """The project's documents. Thread-safe.

    Queries are expanded by the recent turns of the session, because spoken questions seldom name their subject.

    Args:
        source: The source of the documents.
        get_recent_turns: Returns the last texts of a session, oldest first, by its id.
        reranker: Reranks what was found, for sessions with the variant ``medium``.

    Attributes:
        version: Version of the documents; it grows with every change. None before they are loaded.
        error: Why the documents in their current state could not be loaded, or None.
    """

    name = LaneName.ORG
    default_limit = DEFAULT_LIMIT

    def __init__(
        self, source: OrgSource, get_recent_turns: Callable[[str], tuple[str, ...]], reranker: OrgReranker
    ) -> None:
        self._source = source
        self._reranker = reranker
        self._is_encoding = False  # whether any session has asked for the variant medium
        self._get_recent_turns = get_recent_turns
        self._gate = ReadinessGate()
        self._index = Index()
        self._load_lock = threading.Lock()
        self._loader = CoalescingJob("load-org", self.load)
        self._version_key: VersionKey | None = None  # of the loaded documents
        self._polled_at = -math.inf
        self._verified_base: str | None = None  # the index file that was verified last
        self.version: int | None = None
        self.error: str | None = None

    @property
    def readiness(self) -> Readiness:
        """How far the documents are loaded."""
        return self._gate.readiness

    def load(self) -> bool:
        """Load the documents if they have changed; until then, searches use those that were loaded before.

        Returns:
            False if they could not be loaded for want of descriptors, memory or threads, and should be loaded again.
        """
        with self._load_lock:  # a second call waits for the first one and finds the documents loaded
            return self._load()

    def load_in_background(self) -> None:
        """Start `load` in the background and return immediately."""
        self._loader.start()

    def retry_if_due(self) -> None:
        """Start the loading or the encoding again that could not be started, or that failed a while ago."""
        self._loader.retry_if_due()
        self._reranker.retry_if_due()

    def encode_in_background(self) -> None:
        """Encode the documents for `Variant.MEDIUM` in the background, now and whenever they have changed."""
        self._is_encoding = True
        self._reranker.start(self._index)

    def prepare_talk(self, session_id: str) -> None:
        """Analyze what was said last in a session, so that its next search need not: some 20 µs for each sentence."""
        self._index.prepare_talk(self._get_recent_turns(session_id))

    def search(self, query: LaneQuery) -> LaneAnswer:
        """Return at most ``limit`` documents, best first, each with its best passage.

        Raises:
            NotReadyError: If the documents are not loaded by the deadline, or could not be loaded.
        """
        self._gate.wait(query.deadline)
        recent_turns = self._get_recent_turns(query.session_id)
        self._poll_source()
        return answer_from_documents(self._index, query, recent_turns, self._reranker.rerank)

    def _poll_source(self) -> None:
        """Check at intervals whether another process has pulled other documents; this search does not wait for them."""
        interval_s = self._source.poll_interval_s
        now = time.monotonic()
        if interval_s is None or now - self._polled_at < interval_s:
            return
        self._polled_at = now
        with suppress(OSError):  # the next load reports it
            if self._source.version_key() != self._version_key:
                self.load_in_background()

    def _load(self) -> bool:
        try:
            version_key = self._source.version_key()
            if version_key is not None and version_key == self._version_key:
                return True
            loaded = self._source.load_index() if version_key is not None else LoadedOrgIndex(Index(), 0)
        except (OSError, ValueError, MemoryError) as error:
            self.error = f"{self._source.description}: {getattr(error, 'strerror', None) or error}"
            log.error("failed to load the organization's documents: action=org_failed why=%s", self.error)
            if self._version_key is None:
                self._gate.open(Readiness.ERROR)
            return not is_starved(error)
        self._use_index(loaded.index)
        self._version_key, self.error = version_key, None
        self.version = loaded.version if version_key is not None else None
        self._gate.open()
        if loaded.base_sha256 is None or loaded.base_sha256 != self._verified_base:
            self._verify()
            self._verified_base = loaded.base_sha256
        return True

    def _verify(self) -> None:
        """Verify the stored index, and rebuild it if it is damaged.

        This reads the file from end to end, so that it is in the page cache before a search waits for it.
        """
        try:
            self._index.verify()
        except (OSError, ContainerError) as error:
            raise_if_starved(error)
            log.error("the stored index is damaged and is rebuilt: action=index_damaged why=%s", str(error))
            self._use_index(self._source.rebuild().index)

    def _use_index(self, index: Index) -> None:
        self._index = index
        if self._is_encoding:
            self._reranker.start(index)
