"""The working lane: what was said in this call."""

from memoair_runtime.enums import Intent, LaneName
from memoair_runtime.memory.turn import event_id_of
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.readiness import Readiness
from memoair_runtime.recall.lanes.dedupe import best_of_each
from memoair_runtime.recall.lanes.hits import turn_hit, turn_passages
from memoair_runtime.recall.lanes.lane import NO_ANSWER, LaneAnswer, LaneQuery

# The last turns, which a question most often leans on, are given whether or not they share a word with it.
_RECENT = {Intent.ANSWER_CURRENT_USER: 2, Intent.FALLBACK: 2, Intent.SUMMARISE_RECENT: 1_000, Intent.EARLIER_IN_CALL: 0}


class WorkingLane:
    """This session's turns: the last ones, and those that share words with the question."""

    name = LaneName.WORKING
    default_limit = 4
    readiness = Readiness.READY  # a session is read when it is first named

    def __init__(self, memory: UserMemory) -> None:
        self._memory = memory

    def search(self, question: LaneQuery) -> LaneAnswer:
        """Answer with at most ``limit`` turns: hits best first, the recent ones before the rest."""
        recents = min(_RECENT[question.intent], question.limit)
        turns = self._memory.get_recent_turns(question.session_id)[::-1][:recents]
        if recents and not turns:
            return NO_ANSWER  # nothing has been said yet
        query = self._memory.build_query(question.text, question.now, group=question.session_id)
        wanted = question.limit + recents
        _, best = best_of_each(lambda most: self._memory.search(query, most), event_id_of, wanted, 2 * wanted)
        given = {turn.event_id for turn in turns}
        chosen = [(turn, best.get(turn.event_id)) for turn in turns]
        for event_id, hit in best.items():
            if len(chosen) < question.limit and event_id not in given:
                chosen.append((self._memory.get_turn(hit.document), hit))
        return LaneAnswer(
            hits=tuple(turn_hit(self.name, turn, hit) for turn, hit in chosen),
            passages=tuple(passage for turn, _ in chosen for passage in turn_passages(turn, question.text)),
        )
