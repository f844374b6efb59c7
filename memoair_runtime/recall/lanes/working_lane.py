"""The working lane: what was said in this call."""

from memoair_index import Query
from memoair_runtime.calls.caller_memory import CALLER, CallerMemory, FoundTurn
from memoair_runtime.gate import Readiness
from memoair_runtime.recall.lanes.lane import LaneAnswer, Question
from memoair_runtime.recall.lanes.turns import turn_hit, turn_passages
from memoair_runtime.vocabulary import Intent, LaneName

# The last turns, which a question most often leans on, are given whether or not they share a word with it.
_RECENT = {Intent.ANSWER_CURRENT_USER: 2, Intent.FALLBACK: 2, Intent.SUMMARISE_RECENT: 1_000, Intent.EARLIER_IN_CALL: 0}


class WorkingLane:
    """This session's turns: the last ones, and those that share words with the question."""

    name = LaneName.WORKING
    default_limit = 4
    readiness = Readiness.READY  # a session is read when it is first named

    def __init__(self, memory: CallerMemory) -> None:
        self._memory = memory

    def search(self, question: Question) -> LaneAnswer:
        """Answer with at most ``limit`` turns: hits best first, the recent ones before the rest."""
        turns = self._memory.turns(question.session_id)[::-1]
        if not turns:
            return LaneAnswer()
        recents = min(_RECENT[question.intent], question.limit)
        found = self._memory.search(Query(question.text, group=question.session_id), question.limit + recents)
        by_id = {each.turn.event_id: each for each in found}
        recent = [by_id.get(turn.event_id, FoundTurn(turn, 0.0, CALLER)) for turn in turns[:recents]]
        given = {each.turn.event_id for each in recent}
        best = [each for each in found if each.turn.event_id not in given]
        chosen = [*recent, *best][: question.limit]
        return LaneAnswer(
            hits=tuple(turn_hit(self.name, each) for each in chosen),
            passages=tuple(passage for each in chosen for passage in turn_passages(each.turn, first=each.side)),
        )
