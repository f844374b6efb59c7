"""The working lane: the turns of this session."""

from itertools import islice

from memoair_index import Hit
from memoair_protocol.enums import Intent, LaneName
from memoair_runtime.memory.turn import StoredTurn, event_id_of
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.readiness import Readiness
from memoair_runtime.recall.lanes.dedupe import best_confidence, drop_repeated_turns, top_turns, turn_key
from memoair_runtime.recall.lanes.hits import to_turn_hit, to_turn_passages
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneQuery

# How many of the last turns are returned whether or not they match: most queries refer to them.
_RECENT_TURNS = {
    Intent.ANSWER_CURRENT_USER: 2,
    Intent.FALLBACK: 2,
    Intent.SUMMARIZE_RECENT: 1_000,
    Intent.EARLIER_IN_CALL: 0,
}
# The intents whose context holds more of the session than the hits: as many turns as its section has space for.
_WHOLE_SESSION = frozenset([Intent.SUMMARIZE_RECENT, Intent.EARLIER_IN_CALL])
_MAX_CONTEXT_TURNS = 24


class WorkingLane:
    """This session's turns: the last ones, and those that match the query. Thread-safe.

    Turns that repeat another one or say nothing rank behind the others.
    """

    name = LaneName.WORKING
    default_limit = 4
    readiness = Readiness.READY  # a session's log is read when a request first names it

    def __init__(self, memory: UserMemory) -> None:
        self._memory = memory

    def search(self, query: LaneQuery) -> LaneAnswer:
        """Return at most ``limit`` turns: the recent ones first, then the matching ones, best first.

        With the intent ``earlier_in_call``, the matching ones are first, then the others from the last one back.
        """
        recent_count = min(_RECENT_TURNS[query.intent], query.limit)
        latest_turns = drop_repeated_turns(self._memory.get_recent_turns(query.session_id)[::-1])
        if not latest_turns:
            return LaneAnswer(confidence=0.0)  # nothing has been said yet
        context_limit = query.limit
        if query.intent in _WHOLE_SESSION:
            context_limit = max(query.limit, _MAX_CONTEXT_TURNS)
        recent_turns = latest_turns[:recent_count]
        chosen, confidence = self._choose_turns(query, recent_turns, context_limit)
        if query.intent in _WHOLE_SESSION:
            chosen_ids = {turn.event_id for turn, _ in chosen}
            others = (turn for turn in latest_turns if turn.event_id not in chosen_ids)
            chosen += [(turn, None) for turn in islice(others, context_limit - len(chosen))]
        return LaneAnswer(
            hits=tuple(to_turn_hit(self.name, turn, hit) for turn, hit in chosen[: query.limit]),
            passages=tuple(passage for turn, _ in chosen for passage in to_turn_passages(turn, query.text)),
            confidence=confidence,
        )

    def _choose_turns(
        self, query: LaneQuery, recent_turns: list[StoredTurn], limit: int
    ) -> tuple[list[tuple[StoredTurn, Hit | None]], float]:
        """Return the recent turns, then the matching ones, each with its hit if it matches; and the best confidence."""
        index_query = self._memory.build_query(query.text, query.now, group=query.session_id)
        hit_limit = limit + len(recent_turns)
        found = top_turns(
            lambda passages: self._memory.search(index_query, passages),
            self._memory.get_turn,
            hit_limit,
            4 * hit_limit,
            frozenset(map(turn_key, recent_turns)),
        )
        best_by_event: dict[str, Hit] = {}
        for hit in found.hits:
            best_by_event.setdefault(event_id_of(hit.document), hit)
        recent_ids = {turn.event_id for turn in recent_turns}
        matching = [(match.turn, match.hit) for match in found.turns if match.turn is not None]
        chosen = [
            *((turn, best_by_event.get(turn.event_id)) for turn in recent_turns),
            *((turn, hit) for turn, hit in matching if turn.event_id not in recent_ids),
        ]
        return chosen[:limit], best_confidence(best_by_event.values())
