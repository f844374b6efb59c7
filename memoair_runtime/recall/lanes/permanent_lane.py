"""The permanent lane: what was said in earlier calls, and what is known of it."""

import time

from memoair_index import Hit, Query
from memoair_runtime.enums import LaneName, Variant
from memoair_runtime.memory.facts import is_fact
from memoair_runtime.memory.reranker import MAX_RERANKED, BackgroundReranker
from memoair_runtime.memory.turn import event_of
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.readiness import Readiness, ReadinessGate
from memoair_runtime.recall.lanes.dedupe import best_of_each
from memoair_runtime.recall.lanes.hits import FoundPassages, fact_hit, turn_hit
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneHit, LaneQuery

# The section of the context has room for some twenty utterances.
_PASSAGES = 36
# A second reading takes some milliseconds; with less time left than this the first order stands.
_SECOND_READING_S = 0.015


class PermanentLane:
    """This caller's turns of every session but the current one, and the facts that the cloud found in them.

    Hits are turns and facts; the passages are facts and single utterances, among them those around a turn, as far as
    they are worth it.
    """

    name = LaneName.PERMANENT
    default_limit = 6

    def __init__(self, memory: UserMemory, gate: ReadinessGate, second: BackgroundReranker) -> None:
        self._memory = memory
        self._second = second
        self._gate = gate

    @property
    def readiness(self) -> Readiness:
        """How far the reading of the logs has come."""
        return self._gate.readiness

    def search(self, question: LaneQuery) -> LaneAnswer:
        """Answer with at most ``limit`` turns and facts, best first."""
        self._gate.wait(question.deadline)
        query = self._memory.query(question.text, question.now, without_group=question.session_id)
        found, best = best_of_each(
            lambda wanted: self._search(query, wanted, question), event_of, question.limit, _PASSAGES
        )
        return LaneAnswer(
            hits=tuple(map(self._hit, best.values())),
            passages=FoundPassages(found, question.text),
        )

    def _hit(self, hit: Hit) -> LaneHit:
        if is_fact(hit.document):
            return fact_hit(self.name, hit)
        return turn_hit(self.name, self._memory.turn_of(hit.document), hit)

    def _search(self, query: Query, wanted: int, question: LaneQuery) -> list[Hit]:
        is_medium = question.variant is Variant.MEDIUM and question.deadline - time.monotonic() > _SECOND_READING_S
        found = self._memory.search(query, max(wanted, MAX_RERANKED) if is_medium else wanted, question.keeps)
        return self._second.rescored(found, question.text) if is_medium else found
