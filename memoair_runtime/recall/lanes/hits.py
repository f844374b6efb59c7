"""From what was said, and from facts, to hits and passages: shared by the lanes that recall it."""

import math
from collections.abc import Iterator
from functools import lru_cache

import attrs

from memoair_index import Hit
from memoair_runtime.enums import LaneName
from memoair_runtime.memory.facts import is_fact, to_fact
from memoair_runtime.memory.speaker_names import AGENT
from memoair_runtime.memory.turn import StoredTurn, event_id_of, from_timestamp
from memoair_runtime.recall.lanes.dedupe import few_of_each
from memoair_runtime.recall.lanes.lane import HitSource, LaneHit, Passage
from memoair_runtime.recall.snippet import WHOLE_CHARS, excerpt
from memoair_runtime.timeutil import spoken_date

_SECONDS_A_DAY = 86_400
# A long reply must not take the room of all other turns.
_PASSAGES_A_TURN = 3
# What an utterance's length costs of its score, by its characters; a line takes some beside the words.
_LINE_CHARS = 20
_PRICES = [0.6 * math.log(_LINE_CHARS + chars) for chars in range(WHOLE_CHARS + 1)]


def turn_hit(lane: LaneName, turn: StoredTurn, hit: Hit | None = None) -> LaneHit:
    """The hit for a turn; ``hit`` is the passage of it that was found, where one was."""
    source = HitSource(lane, turn.event_id, "turn", turn.session_id, turn.turn_id, created_at=turn.occurred_at)
    if hit is None:
        return LaneHit(turn.text, 0.0, source, turn.metadata)
    return LaneHit(turn.text, hit.score, source, turn.metadata, hit)


def fact_hit(lane: LaneName, hit: Hit) -> LaneHit:
    """The hit for a fact that was found."""
    fact = to_fact(hit.document)
    source = HitSource(lane, fact.id, "fact", fact.session_id, created_at=fact.said_at)
    return LaneHit(fact.text, hit.score, source, hit.document.metadata["metadata"], hit)


def turn_passages(turn: StoredTurn, question: str) -> list[Passage]:
    """The two sides of a turn; a side without words is left out, a long reply cut to what matters."""
    place = (turn.occurred_at, turn.session_id, turn.ordinal)
    sides = [
        Passage(turn.user_text, (*place, 0), turn.caller_name),
        Passage(excerpt(turn.assistant_text, question), (*place, 1), turn.agent_name),
    ]
    return [side for side in sides if side.text]


@attrs.frozen
class FoundPassages:
    """The passages that were found, under the days on which they were said, those first that are most worth their room.

    A fact is a line that nobody in particular has said.

    Each is made when the composer comes to it: most find no room.
    """

    hits: list[Hit]
    question: str

    def __iter__(self) -> Iterator[Passage]:
        worth = sorted(self.hits, key=_worth, reverse=True)
        for document in few_of_each((hit.document for hit in worth), event_id_of, _PASSAGES_A_TURN):
            if is_fact(document):
                at = document.occurred_at or 0.0
                yield Passage(document.text, (at, document.group, 0, False, 0), "", _day(at // _SECONDS_A_DAY))
                continue
            kept = document.metadata
            is_reply = document.speaker == AGENT
            text = excerpt(document.text, self.question) if is_reply else document.text
            at = document.occurred_at or 0.0
            place = (at, document.group, kept["number"], is_reply, kept["part"])
            yield Passage(text, place, kept[document.speaker], _day(at // _SECONDS_A_DAY))


def _worth(hit: Hit) -> float:
    """What a passage is worth in a context that is measured in characters: two short ones may say more than a long one.

    On LoCoMo a point more of the evidence stands in the context than by the score alone; .5 to .8 do the same.
    """
    return hit.score - _PRICES[min(len(hit.document.text), WHOLE_CHARS)]


@lru_cache(maxsize=1 << 12)
def _day(days: float) -> str:
    """The day that is so many days since the epoch."""
    return spoken_date(from_timestamp(days * _SECONDS_A_DAY))
