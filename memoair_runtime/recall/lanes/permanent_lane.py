"""The permanent lane: the turns of earlier sessions, and facts."""

import time

from memoair_index import Hit, Query
from memoair_protocol.enums import LaneName, Variant
from memoair_runtime.memory.facts import is_fact
from memoair_runtime.memory.reranker import MAX_RERANKED, BackgroundReranker
from memoair_runtime.memory.turn import event_id_of
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.readiness import Readiness, ReadinessGate
from memoair_runtime.recall.lanes.dedupe import best_confidence, select_confident, top_per_group
from memoair_runtime.recall.lanes.hits import FoundPassages, to_fact_hit, to_turn_hit
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneHit, LaneQuery

# The section of the context has space for about twenty utterances.
_MIN_PASSAGES = 36
# Reranking takes some milliseconds; with less time left than this it is skipped.
_MIN_RERANK_S = 0.015


class PermanentLane:
    """The user's turns of all sessions but the current one, and the facts that the cloud learned from them.

    Hits are turns and facts. The passages are facts and single utterances, including those around a turn that was
    found, ordered by their value. Thread-safe.
    """

    name = LaneName.PERMANENT
    default_limit = 6

    def __init__(self, memory: UserMemory, gate: ReadinessGate, reranker: BackgroundReranker) -> None:
        self._memory = memory
        self._reranker = reranker
        self._gate = gate

    @property
    def readiness(self) -> Readiness:
        """How far the session logs are loaded."""
        return self._gate.readiness

    def search(self, query: LaneQuery) -> LaneAnswer:
        """Return at most ``limit`` turns and facts, best first.

        Raises:
            NotReadyError: If the session logs are not loaded by the deadline, or could not be read.
        """
        self._gate.wait(query.deadline)
        index_query = self._memory.build_query(query.text, query.now, without_group=query.session_id)
        hits, best_by_event = top_per_group(
            lambda limit: self._search_memory(index_query, limit, query), event_id_of, query.limit, _MIN_PASSAGES
        )
        confidence = best_confidence(best_by_event.values())
        if query.min_confidence:
            best_by_event = select_confident(best_by_event, query.min_confidence)
            # All passages of a turn go the way of the best one.
            hits = [hit for hit in hits if event_id_of(hit.document) in best_by_event]
        return LaneAnswer(
            hits=tuple(map(self._to_lane_hit, best_by_event.values())),
            passages=FoundPassages(hits, query.text),
            confidence=confidence,
        )

    def _to_lane_hit(self, hit: Hit) -> LaneHit:
        if is_fact(hit.document):
            return to_fact_hit(self.name, hit)
        return to_turn_hit(self.name, self._memory.get_turn(hit.document), hit)

    def _search_memory(self, index_query: Query, limit: int, query: LaneQuery) -> list[Hit]:
        can_rerank = query.variant is Variant.MEDIUM and query.deadline - time.monotonic() > _MIN_RERANK_S
        hits = self._memory.search(index_query, max(limit, MAX_RERANKED) if can_rerank else limit, query.predicate)
        return self._reranker.rerank(hits, query.text) if can_rerank else hits
