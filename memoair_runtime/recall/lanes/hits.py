"""Conversion of turns and facts to hits and passages, shared by the working and the permanent lane."""

import math
from collections.abc import Iterator
from functools import lru_cache

import attrs

from memoair_index import Hit
from memoair_protocol.enums import LaneName
from memoair_runtime.memory.facts import is_fact, to_fact
from memoair_runtime.memory.speaker_names import AGENT
from memoair_runtime.memory.turn import StoredTurn, event_id_of, from_timestamp
from memoair_runtime.recall.lanes.dedupe import limit_per_group
from memoair_runtime.recall.lanes.lane import HitSource, LaneHit, Passage
from memoair_runtime.recall.snippet import MAX_WHOLE_CHARS, extract_snippet

_SECONDS_PER_DAY = 86_400
_MONTHS = "January February March April May June July August September October November December".split()
# A long reply must not take the space of all other turns.
_MAX_PASSAGES_PER_TURN = 3
# What an utterance's length in characters costs of its score. A line has an overhead besides its words.
_LINE_OVERHEAD_CHARS = 20
_LENGTH_PENALTIES = [0.6 * math.log(_LINE_OVERHEAD_CHARS + chars) for chars in range(MAX_WHOLE_CHARS + 1)]


def to_turn_hit(lane: LaneName, turn: StoredTurn, hit: Hit | None = None) -> LaneHit:
    """Make the lane's hit for a turn.

    Args:
        lane: The lane.
        turn: The turn.
        hit: The index hit of the turn's best passage, or None if the turn was not found by its words.
    """
    source = HitSource(lane, turn.event_id, "turn", turn.session_id, turn.turn_id, created_at=turn.occurred_at)
    if hit is None:
        return LaneHit(turn.text, 0.0, source, turn.metadata)
    return LaneHit(turn.text, hit.score, source, turn.metadata, hit)


def to_fact_hit(lane: LaneName, hit: Hit) -> LaneHit:
    """Make the lane's hit for a fact that the index found."""
    fact = to_fact(hit.document)
    source = HitSource(lane, fact.id, "fact", fact.session_id, created_at=fact.said_at)
    return LaneHit(fact.text, hit.score, source, hit.document.metadata["metadata"], hit)


def to_turn_passages(turn: StoredTurn, query: str) -> list[Passage]:
    """Return the sides of a turn as passages: a long reply as a snippet, a side without words not at all."""
    position = (turn.occurred_at, turn.session_id, turn.ordinal)
    sides = [
        Passage(turn.user_text, (*position, 0), turn.caller_name),
        Passage(extract_snippet(turn.assistant_text, query), (*position, 1), turn.agent_name),
    ]
    return [side for side in sides if side.text]


@attrs.frozen
class FoundPassages:
    """The passages of index hits, those first that are worth most per character, under the dates of their turns.

    Facts have no speaker. Passages are made lazily while the context builder iterates, because most do not fit.

    Attributes:
        hits: The hits of turns and facts.
        query: The text of the query, for the snippets of long replies.
    """

    hits: list[Hit]
    query: str

    def __iter__(self) -> Iterator[Passage]:
        by_value = sorted(self.hits, key=_passage_value, reverse=True)
        for document in limit_per_group((hit.document for hit in by_value), event_id_of, _MAX_PASSAGES_PER_TURN):
            if is_fact(document):
                occurred_at = document.occurred_at or 0.0
                yield Passage(
                    document.text,
                    (occurred_at, document.group, 0, False, 0),
                    "",
                    _format_day(occurred_at // _SECONDS_PER_DAY),
                )
                continue
            metadata = document.metadata
            is_reply = document.speaker == AGENT
            text = extract_snippet(document.text, self.query) if is_reply else document.text
            occurred_at = document.occurred_at or 0.0
            position = (occurred_at, document.group, metadata["number"], is_reply, metadata["part"])
            yield Passage(text, position, metadata[document.speaker], _format_day(occurred_at // _SECONDS_PER_DAY))


def _passage_value(hit: Hit) -> float:
    """Return the value of a passage in a context that is limited in characters: its score less a penalty for length.

    Two short passages may say more than a long one. On LoCoMo, the context has one percentage point more of the
    evidence than with the score alone; factors from 0.5 to 0.8 give the same result.
    """
    return hit.score - _LENGTH_PENALTIES[min(len(hit.document.text), MAX_WHOLE_CHARS)]


@lru_cache(maxsize=1 << 12)
def _format_day(days: float) -> str:
    """Format a day that is given as the number of days since the epoch: ``3 March 2026``, in every locale."""
    day = from_timestamp(days * _SECONDS_PER_DAY)
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
