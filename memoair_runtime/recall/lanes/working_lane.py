"""The working lane: the turns of this session."""

from memoair_protocol.enums import Intent, LaneName
from memoair_runtime.memory.turn import event_id_of
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.readiness import Readiness
from memoair_runtime.recall.lanes.dedupe import best_confidence, top_per_group
from memoair_runtime.recall.lanes.hits import to_turn_hit, to_turn_passages
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneQuery

# How many of the last turns are returned whether or not they match: most queries refer to them.
_RECENT_TURNS = {
    Intent.ANSWER_CURRENT_USER: 2,
    Intent.FALLBACK: 2,
    Intent.SUMMARIZE_RECENT: 1_000,
    Intent.EARLIER_IN_CALL: 0,
}


class WorkingLane:
    """This session's turns: the last ones, and those that match the query. Thread-safe."""

    name = LaneName.WORKING
    default_limit = 4
    readiness = Readiness.READY  # a session's log is read when a request first names it

    def __init__(self, memory: UserMemory) -> None:
        self._memory = memory

    def search(self, query: LaneQuery) -> LaneAnswer:
        """Return at most ``limit`` turns: the recent ones first, then the matching ones, best first."""
        recent_count = min(_RECENT_TURNS[query.intent], query.limit)
        recent_turns = self._memory.get_recent_turns(query.session_id)[::-1][:recent_count]
        if recent_count and not recent_turns:
            return LaneAnswer(confidence=0.0)  # nothing has been said yet
        index_query = self._memory.build_query(query.text, query.now, group=query.session_id)
        hit_limit = query.limit + recent_count
        _, best_by_event = top_per_group(
            lambda limit: self._memory.search(index_query, limit), event_id_of, hit_limit, 2 * hit_limit
        )
        recent_ids = {turn.event_id for turn in recent_turns}
        chosen = [(turn, best_by_event.get(turn.event_id)) for turn in recent_turns]
        for event_id, hit in best_by_event.items():
            if len(chosen) < query.limit and event_id not in recent_ids:
                chosen.append((self._memory.get_turn(hit.document), hit))
        return LaneAnswer(
            hits=tuple(to_turn_hit(self.name, turn, hit) for turn, hit in chosen),
            passages=tuple(passage for turn, _ in chosen for passage in to_turn_passages(turn, query.text)),
            confidence=best_confidence(best_by_event.values()),
        )
