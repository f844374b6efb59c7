"""From turns to hits and passages: shared by the lanes that recall what was said."""

from memoair_runtime.calls.caller_memory import CALLER, FoundTurn, Turn
from memoair_runtime.recall.lanes.lane import LaneHit, Passage, Source
from memoair_runtime.vocabulary import LaneName


def turn_hit(lane: LaneName, found: FoundTurn) -> LaneHit:
    """The hit for a turn that was found."""
    turn = found.turn
    source = Source(lane, turn.event_id, "turn", turn.session_id, turn.turn_id, created_at=turn.occurred_at)
    return LaneHit(turn.text, found.score, source, turn.metadata)


def turn_passages(turn: Turn, heading: str = "", first: str = CALLER) -> list[Passage]:
    """The two sides of a turn, the ``first`` one first; a side without words is left out."""
    place = (turn.occurred_at, turn.session_id, turn.number)
    sides = [
        Passage(turn.user_text, (*place, 0), turn.caller, heading),
        Passage(turn.assistant_text, (*place, 1), turn.agent, heading),
    ]
    if first != CALLER:
        sides.reverse()
    return [side for side in sides if side.text]
