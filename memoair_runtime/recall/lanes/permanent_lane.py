"""The permanent lane: the turns of earlier sessions, and facts."""

from memoair_index import Document, Hit, Query
from memoair_protocol.enums import Intent, LaneName
from memoair_runtime.memory.reranker import MAX_RERANKED, BackgroundReranker
from memoair_runtime.memory.turn import StoredTurn, event_id_of
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.readiness import Readiness, ReadinessGate
from memoair_runtime.recall.lanes.dedupe import (
    FoundTurn,
    best_confidence,
    drop_repeated_turns,
    is_empty,
    select_confident_turns,
    top_turns,
)
from memoair_runtime.recall.lanes.hits import FoundPassages, to_fact_hit, to_turn_hit
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneHit, LaneQuery

# More than the context takes, so that duplicates can be left out. The kernel ranks as many anyway.
_MIN_PASSAGES = 64
# A larger memory is not short, whatever its texts.
_MAX_SHORT_MEMORY = 200
# How many of the last utterances `summarise_recent` brings.
_LATEST_PASSAGES = 32


class PermanentLane:
    """The user's turns of all sessions but the current one, and the facts that the cloud learned from them.

    Hits are turns and facts; those that repeat another one or say nothing rank behind the others. The passages are
    facts and single utterances, including those around a turn that was found, ordered by their value. If all there is
    fits the context, the passages are all there is, also what no word of the query leads to. Thread-safe.
    """

    name = LaneName.PERMANENT
    default_limit = 6

    def __init__(self, memory: UserMemory, gate: ReadinessGate, reranker: BackgroundReranker | None = None) -> None:
        self._memory = memory
        self._reranker = reranker
        self._gate = gate

    @property
    def readiness(self) -> Readiness:
        """How far the session logs are loaded."""
        return self._gate.readiness

    def search(self, query: LaneQuery) -> LaneAnswer:
        """Return at most ``limit`` turns and facts, best first.

        With the intent ``summarise_recent``, the last turns of the memory are first.

        Raises:
            NotReadyError: If the session logs are not loaded by the deadline, or could not be read.
        """
        self._gate.wait(query.deadline)
        index_query = self._memory.build_query(query.text, query.now, without_group=query.session_id)
        found = top_turns(
            lambda limit: self._search_memory(index_query, limit, query),
            self._memory.get_turn,
            query.limit,
            _MIN_PASSAGES,
        )
        confidence = best_confidence(turn.hit for turn in found.turns)
        if query.min_confidence:
            found = select_confident_turns(found, query.min_confidence)
        hits = self._to_lane_hits(found.turns)
        latest: list[Document] = []
        if query.intent is Intent.SUMMARIZE_RECENT:
            latest = self._memory.latest_documents(_LATEST_PASSAGES, query.session_id, query.predicate)
            latest_hits = [to_turn_hit(self.name, turn) for turn in self._to_turns(latest)[: query.limit]]
            latest_ids = {hit.source.id for hit in latest_hits}
            hits = [*latest_hits, *(hit for hit in hits if hit.source.id not in latest_ids)][: query.limit]
        # With a minimum, only what is likely to answer is wanted, and not a short memory as a whole.
        max_whole = 0 if query.min_confidence else _MAX_SHORT_MEMORY
        return LaneAnswer(
            hits=tuple(hits),
            passages=FoundPassages(
                found.hits,
                query.text,
                first=latest,
                all_documents=self._memory.all_documents(max_whole, query.session_id, query.predicate),
            ),
            confidence=confidence,
        )

    def _to_turns(self, documents: list[Document]) -> list[StoredTurn]:
        first_documents = {event_id_of(document): document for document in documents}
        turns = drop_repeated_turns([self._memory.get_turn(document) for document in first_documents.values()])
        return sorted(turns, key=is_empty)

    def _to_lane_hits(self, found_turns: list[FoundTurn]) -> list[LaneHit]:
        """Return the hits. The score of a redundant one is at most that of the hits before it."""
        lane_hits = []
        lowest_score = min((found.hit.score for found in found_turns if not found.is_redundant), default=None)
        for found in found_turns:
            penalty = 0.0
            if found.is_redundant and lowest_score is not None:
                penalty = max(0.0, found.hit.score - lowest_score)
            if found.turn is None:
                lane_hits.append(to_fact_hit(self.name, found.hit, penalty))
            else:
                lane_hits.append(to_turn_hit(self.name, found.turn, found.hit, penalty))
        return lane_hits

    def _search_memory(self, index_query: Query, limit: int, query: LaneQuery) -> list[Hit]:
        if self._reranker is None or not query.can_rerank():
            return self._memory.search(index_query, limit, query.predicate)
        return self._reranker.rerank(
            self._memory.search(index_query, max(limit, MAX_RERANKED), query.predicate), query.text
        )
