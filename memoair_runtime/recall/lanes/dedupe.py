"""Selection of hits, shared by the lanes: the best of each turn or document, what is new, and what is confident."""

from collections.abc import Callable, Hashable, Iterable, Mapping

import attrs

from memoair_index import Document, Hit
from memoair_runtime.memory.facts import is_fact
from memoair_runtime.memory.turn import StoredTurn, event_id_of
from memoair_runtime.recall.utterances import content_key, says_nothing

_GROWTH_FACTOR = 8
# Not more passages are searched because turns repeat each other or say nothing.
_MAX_OVERFETCH = 512


def top_per_group(
    search: Callable[[int], list[Hit]],
    group_of: Callable[[Document], str],
    limit: int,
    min_passages: int,
    count_extra: Callable[[Iterable[Hit]], int] = lambda _: 0,
) -> dict[str, Hit]:
    """Search until the hits belong to ``limit`` different documents, if there are so many.

    Args:
        search: Returns at most the given number of hits, best first.
        group_of: Returns the document that a passage belongs to.
        limit: Number of documents to find.
        min_passages: Number of hits to search for at first.
        count_extra: Returns how many more documents to return if they are among the hits, given the best ones.

    Returns:
        The best hit of each document, best first.
    """
    wanted = max(min_passages, limit)
    while True:
        hits = search(wanted)
        best_by_group: dict[str, Hit] = {}
        needed = limit
        for hit in hits:
            if len(best_by_group) == limit == needed:
                needed += count_extra(best_by_group.values())
            if len(best_by_group) >= needed:
                return best_by_group
            best_by_group.setdefault(group_of(hit.document), hit)
        if len(best_by_group) >= limit or len(hits) < wanted:
            return best_by_group
        wanted *= _GROWTH_FACTOR  # one long text has filled the whole result


@attrs.frozen
class FoundTurn:
    """A turn or fact that was found.

    Attributes:
        hit: The hit of its best passage.
        turn: The turn; None for a fact.
        is_redundant: Whether it repeats a better one, or says nothing. It then ranks behind those that say something.
    """

    hit: Hit
    turn: StoredTurn | None
    is_redundant: bool = False


@attrs.frozen
class FoundTurns:
    """The result of `top_turns`.

    Attributes:
        hits: All passages that were found, best first.
        turns: The turns and facts, those first that say something that no better one says.
    """

    hits: list[Hit]
    turns: list[FoundTurn]


def top_turns(
    search: Callable[[int], list[Hit]],
    get_turn: Callable[[Document], StoredTurn],
    limit: int,
    min_passages: int,
    seen_keys: frozenset[Hashable] = frozenset(),
) -> FoundTurns:
    """Search until ``limit`` turns or facts say something that no better one says, if there are so many.

    Four repeats of a question would otherwise take the place of the turn that answers it.

    Args:
        search: Returns at most the given number of hits, best first.
        get_turn: Returns the turn that a passage belongs to.
        limit: Number of turns to find.
        min_passages: Number of hits to search for at first.
        seen_keys: The `turn_key` of turns that are known already.
    """
    wanted = max(min_passages, limit)
    while True:
        hits = search(wanted)
        useful: list[FoundTurn] = []
        redundant: list[FoundTurn] = []
        seen_events: set[str] = set()
        seen = set(seen_keys)
        for hit in hits:
            if len(useful) == limit:
                break
            event_id = event_id_of(hit.document)
            if event_id in seen_events:
                continue
            seen_events.add(event_id)
            turn = None if is_fact(hit.document) else get_turn(hit.document)
            key = (content_key(hit.document.text),) if turn is None else turn_key(turn)
            if key in seen or (turn is not None and is_empty(turn)):
                redundant.append(FoundTurn(hit, turn, is_redundant=True))
            else:
                useful.append(FoundTurn(hit, turn))
                seen.add(key)
        has_enough = len(useful) == limit or (wanted >= _MAX_OVERFETCH and len(seen_events) >= limit)
        if has_enough or len(hits) < wanted:
            return FoundTurns(hits, [*useful, *redundant][:limit])
        wanted *= _GROWTH_FACTOR  # one long text, or what says nothing new, has filled the whole result


def turn_key(turn: StoredTurn) -> Hashable:
    """Return a key that is the same for turns in which both sides say the same."""
    return content_key(turn.user_text), content_key(turn.assistant_text)


def is_empty(turn: StoredTurn) -> bool:
    """Return whether neither side of a turn says anything: an unanswered question, a greeting."""
    return says_nothing(turn.user_text, is_reply=False) and says_nothing(turn.assistant_text, is_reply=True)


def drop_repeated_turns(turns: Iterable[StoredTurn]) -> list[StoredTurn]:
    """Return the turns without those that repeat an earlier one of the list.

    Of turns that ask the same without an answer, the first is kept, too, whatever the words of the answers.
    """
    kept: dict[Hashable, StoredTurn] = {}
    for turn in turns:
        key = content_key(turn.user_text) if is_empty(turn) else turn_key(turn)
        kept.setdefault(key, turn)
    return list(kept.values())


def best_confidence(hits: Iterable[Hit]) -> float:
    """Return the confidence of the hit with the most; 0 without hits."""
    return max((hit.confidence for hit in hits), default=0.0)


def select_confident(hits: Mapping[str, Hit], min_confidence: float) -> dict[str, Hit]:
    """Return the hits of at least this confidence, by turn or document, in their order."""
    return {group: hit for group, hit in hits.items() if hit.confidence >= min_confidence}


def select_confident_turns(found: FoundTurns, min_confidence: float) -> FoundTurns:
    """Return the turns of at least this confidence; all passages of a turn go the way of the best one."""
    turns = [turn for turn in found.turns if turn.hit.confidence >= min_confidence]
    event_ids = {event_id_of(turn.hit.document) for turn in turns}
    return FoundTurns([hit for hit in found.hits if event_id_of(hit.document) in event_ids], turns)
