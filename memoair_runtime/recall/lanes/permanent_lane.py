"""The permanent lane: what was said in earlier calls."""

from collections.abc import Iterable

from memoair_index import Query
from memoair_runtime.calls.caller_memory import CallerMemory, FoundTurn
from memoair_runtime.clock import spoken_date
from memoair_runtime.gate import Gate, Readiness
from memoair_runtime.recall.lanes.lane import LaneAnswer, Passage, Question
from memoair_runtime.recall.lanes.turns import turn_hit, turn_passages
from memoair_runtime.vocabulary import LaneName

# How far around a turn that was found the talk is worth giving: answers stand a few turns behind their question.
_REACH = 4


class PermanentLane:
    """This caller's turns of every session but the current one, with what was said around them."""

    name = LaneName.PERMANENT
    default_limit = 6

    def __init__(self, memory: CallerMemory, gate: Gate) -> None:
        self._memory = memory
        self._gate = gate

    @property
    def readiness(self) -> Readiness:
        """How far the reading of the logs has come."""
        return self._gate.readiness

    def search(self, question: Question) -> LaneAnswer:
        """Answer with at most ``limit`` turns, best first; the passages go on with the turns around them."""
        self._gate.wait(question.deadline)
        query = Query(question.text, without_group=question.session_id)
        if question.keeps is None:
            found = self._memory.search(query, question.limit)
        else:
            everything = self._memory.search(query, len(self._memory))
            found = [each for each in everything if question.keeps(each.turn.metadata)][: question.limit]
        return LaneAnswer(
            hits=tuple(turn_hit(self.name, each) for each in found),
            passages=tuple(self._passages(found, around=question.keeps is None)),
        )

    def _passages(self, found: list[FoundTurn], *, around: bool) -> Iterable[Passage]:
        for each in found:
            yield from turn_passages(each.turn, spoken_date(each.turn.occurred_at), first=each.side)
        for distance in range(1, _REACH + 1) if around else ():  # what a filter did not let through stays out
            for each in found:
                for turn in self._memory.neighbours(each.turn, distance):
                    yield from turn_passages(turn, spoken_date(turn.occurred_at))
