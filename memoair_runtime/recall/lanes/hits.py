"""Conversion of turns and facts to hits and passages, shared by the working and the permanent lane."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from memoair_index import Document, Hit
from memoair_protocol.enums import LaneName
from memoair_runtime.memory.facts import fact_id_of, is_fact, to_fact
from memoair_runtime.memory.speaker_names import AGENT
from memoair_runtime.memory.turn import StoredTurn, event_id_of, from_timestamp, shown_names_of
from memoair_runtime.recall.lanes.lane import HitSource, LaneHit, Passage
from memoair_runtime.recall.lanes.passage_order import LINE_OVERHEAD_CHARS, order_passages, sort_latest
from memoair_runtime.recall.snippet import MAX_WHOLE_CHARS, extract_snippet

_SECONDS_PER_DAY = 86_400
_MONTHS = "January February March April May June July August September October November December".split()
# A memory whose passages have so many characters fits its section of the context, with dates and speakers.
_SHORT_CHARS = 2_200


def to_turn_hit(lane: LaneName, turn: StoredTurn, hit: Hit | None = None, penalty: float = 0.0) -> LaneHit:
    """Make the lane's hit for a turn.

    Args:
        lane: The lane.
        turn: The turn.
        hit: The index hit of the turn's best passage, or None if the turn was not found by its words.
        penalty: What to take off the hit's score; see `LaneHit`.
    """
    source = HitSource(lane, turn.event_id, "turn", turn.session_id, turn.turn_id, created_at=turn.occurred_at)
    if hit is None:
        return LaneHit(turn.text, 0.0, source, turn.metadata)
    return LaneHit(turn.text, hit.score - penalty, source, turn.metadata, hit, penalty)


def to_fact_hit(lane: LaneName, hit: Hit, penalty: float = 0.0) -> LaneHit:
    """Make the lane's hit for a fact that the index found."""
    fact = to_fact(hit.document)
    source = HitSource(lane, fact.id, "fact", fact.session_id, created_at=fact.said_at)
    return LaneHit(fact.text, hit.score - penalty, source, hit.document.metadata["metadata"], hit, penalty)


def to_turn_passages(turn: StoredTurn, query: str) -> list[Passage]:
    """Return the sides of a turn as passages: a long reply as a snippet, a side without words not at all."""
    position = (turn.occurred_at, turn.session_id, turn.ordinal)
    caller_name, agent_name = turn.shown_names
    source = ("turn", turn.event_id, None)
    sides = [
        Passage(turn.user_text, (*position, 0), caller_name, source=source),
        Passage(extract_snippet(turn.assistant_text, query), (*position, 1), agent_name, source=source),
    ]
    return [side for side in sides if side.text]


class FoundPassages:
    """The passages of a search under the dates of their turns, in the order of `order_passages`.

    Facts have no speaker. Passages are made lazily while the context builder iterates, because most do not fit, and
    kept for the next time: it may build the context again. One thread at a time may iterate.

    Args:
        hits: The hits of turns and facts.
        query: The text of the query, for the snippets of long replies.
        first: Passages that come before those that were found.
        all_documents: All passages there are; empty if there are too many for a context.
    """

    def __init__(
        self, hits: list[Hit], query: str, first: Sequence[Document] = (), all_documents: Sequence[Document] = ()
    ) -> None:
        self._made: list[Passage] = []
        # A generator of a method would hold this object, which would then wait for the garbage collector.
        self._rest = _make_passages(hits, query, first, all_documents)

    def __iter__(self) -> Iterator[Passage]:
        position = 0
        while True:
            if position == len(self._made):
                passage = next(self._rest, None)
                if passage is None:
                    return
                self._made.append(passage)
            yield self._made[position]
            position += 1


def _make_passages(
    hits: list[Hit], query: str, first: Sequence[Document], all_documents: Sequence[Document]
) -> Iterator[Passage]:
    yielded: set[str] = set()
    for document in _order_documents(hits, query, first, all_documents):
        if document.id not in yielded:
            yielded.add(document.id)
            yield _to_passage(document, query)


def _order_documents(
    hits: list[Hit], query: str, first: Sequence[Document], all_documents: Sequence[Document]
) -> Iterator[Document]:
    yield from sort_latest(first)
    yield from order_passages(hits, query)
    rest = sort_latest(all_documents)
    if sum(min(len(document.text), MAX_WHOLE_CHARS) + LINE_OVERHEAD_CHARS for document in rest) <= _SHORT_CHARS:
        yield from rest


def _to_passage(document: Document, query: str) -> Passage:
    occurred_at = document.occurred_at or 0.0
    heading = _format_day(occurred_at // _SECONDS_PER_DAY)
    if is_fact(document):
        position = (occurred_at, document.group, 0, False, 0)
        return Passage(document.text, position, "", heading, ("fact", fact_id_of(document), None))
    metadata = document.metadata
    is_reply = document.speaker == AGENT
    text = extract_snippet(document.text, query) if is_reply else document.text
    position = (occurred_at, document.group, metadata["number"], is_reply, metadata["part"])
    source = ("turn", event_id_of(document), None)
    return Passage(text, position, shown_names_of(document)[is_reply], heading, source)


@lru_cache(maxsize=1 << 12)
def _format_day(days: float) -> str:
    """Format a day that is given as the number of days since the epoch: ``3 March 2026``, in every locale."""
    day = from_timestamp(days * _SECONDS_PER_DAY)
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
