"""Pending turns in the results of searches: what was said in a call is found before a runtime has accepted it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import attrs

from memoair_protocol.context_format import (
    MAX_CONTEXT_CHARS,
    MAX_SECTION_CHARS,
    SECTION_HEADERS,
    SECTION_SEPARATOR,
    TRUNCATION_MARK,
    format_line,
)
from memoair_protocol.enums import LaneName
from memoair_protocol.interruption import truncate_to_heard
from memoair_protocol.names import name_sides
from memoair_protocol.sanitizer import sanitize_line
from memoair_voice_sync._turns.unsaved_turn import UnsavedTurn
from memoair_voice_sync.results import SearchResult

_WORKING = LaneName.WORKING.value
_DEFAULT_LIMIT = 4
# How many of the last turns are returned whether or not they match, as a runtime does.
_RECENT_TURNS = 2
# A side of a turn is cut to this in the context; `working` has it whole.
_MAX_LINE_CHARS = 400
_WORDS = re.compile(r"\w+")
_SECTION = re.compile(r"(?ms)^## working\n.*?(?=\n\n## |\Z)")
_LATER_SECTION = re.compile(r"(?m)^## (?:permanent|org)$")


@attrs.frozen
class _PendingTurn:
    """A pending turn as it is recalled. The ``repr`` does not show what was said."""

    unsaved: UnsavedTurn = attrs.field(repr=False)
    user_text: str = attrs.field(repr=False)
    assistant_text: str = attrs.field(repr=False)
    metadata: Mapping[str, Any] = attrs.field(repr=False)

    @classmethod
    def of(cls, unsaved: UnsavedTurn) -> "_PendingTurn":
        """Return a turn as a runtime would save it: of an interrupted answer, what the caller heard."""
        turn = unsaved.turn
        payload = truncate_to_heard({"assistantText": turn.assistant_text, "metadata": turn.metadata})
        return cls(unsaved, turn.user_text, payload["assistantText"], payload["metadata"])

    @property
    def sides(self) -> list[tuple[str, str]]:
        """The speaker and the text of each side that said something."""
        agent_name = self.metadata.get("assistantName")
        caller, agent = name_sides(
            self.unsaved.user.fields.get("name"), agent_name if isinstance(agent_name, str) else None
        )
        return [(name, text) for name, text in ((caller, self.user_text), (agent, self.assistant_text)) if text]

    def to_hit(self, session_id: str) -> dict[str, Any]:
        """Return the turn as a hit of the working lane, marked as pending."""
        turn_id = self.unsaved.turn.turn_id
        hit_id = f"pending:{turn_id}"
        return {
            "id": hit_id,
            "text": "\n".join(f"{name}: {text}" for name, text in self.sides),
            "score": 0.0,
            "confidence": 0.0,
            "lane": _WORKING,
            "metadata": dict(self.metadata),
            "pending": True,
            "source": {
                "lane": _WORKING,
                "id": hit_id,
                "kind": "turn",
                "sessionId": session_id,
                "turnId": turn_id,
                "createdAt": self.metadata.get("occurredAt"),
                "pending": True,
            },
        }

    def to_lines(self) -> list[str]:
        """Return the turn as lines of the context, with the same protection as those of a runtime."""
        return [format_line(_shorten(sanitize_line(text[: 2 * _MAX_LINE_CHARS])), name) for name, text in self.sides]


def add_pending_turns(
    result: SearchResult,
    pending: Sequence[UnsavedTurn],
    session_id: str,
    query: str,
    lanes: Sequence[str] | None,
    top_k: Mapping[str, int] | None,
) -> SearchResult:
    """Add the pending turns of a call to the result of a search in it.

    The last turns and those that share words with the query come first in ``working``, each with ``pending``. They
    replace other hits if there are more than the lane may have. In the text they stand behind what was said before
    them, within the size limits of its section.

    Args:
        result: The result of the runtime, or an empty one if it failed.
        pending: The turns, in order.
        session_id: The id of the call.
        query: The query of the search.
        lanes: The lanes of the search; None means all.
        top_k: The largest number of hits per lane, as in the search.

    Returns:
        The result with the turns; ``trace["pendingTurns"]`` is their number.
    """
    saved = {hit.get("source", {}).get("turnId"): hit.get("text") for hit in result.working}
    turns = [turn for turn in map(_PendingTurn.of, pending) if turn.sides]
    hits = [(turn, turn.to_hit(session_id)) for turn in turns]
    # One of them may have been saved since.
    hits = [(turn, hit) for turn, hit in hits if saved.get(hit["source"]["turnId"]) != hit["text"]]
    limit = (top_k or {}).get(_WORKING, _DEFAULT_LIMIT)
    if not hits or limit <= 0 or (lanes is not None and _WORKING not in lanes):
        return result
    chosen = _choose(hits, query, limit)
    chosen_hits = [hit for _, hit in reversed(chosen)]  # the latest first, as in the lane
    working = [*chosen_hits, *result.working][: max(limit, len(chosen_hits))]
    kept = {hit["id"] for hit in working}
    dropped = {hit["id"] for hit in result.working} - kept
    sources = [source for source in result.sources if source.get("lane") != _WORKING or source["id"] not in dropped]
    lane_traces = dict(result.trace.get("lanes", {}))
    lane_traces[_WORKING] = {**lane_traces.get(_WORKING, {}), "hits": len(working)}
    lines = [line for turn, _ in chosen for line in turn.to_lines()]
    return replace(
        result,
        contextText=_add_lines(result.contextText, lines),
        working=working,
        sources=[*(hit["source"] for hit in chosen_hits), *sources],
        trace={**result.trace, "lanes": lane_traces, "pendingTurns": len(chosen)},
    )


def _choose(
    hits: list[tuple[_PendingTurn, dict[str, Any]]], query: str, limit: int
) -> list[tuple[_PendingTurn, dict[str, Any]]]:
    """Return at most ``limit`` turns in order: the last ones, then those that share most words with the query."""
    words = frozenset(_WORDS.findall(query.casefold()))
    recent = min(_RECENT_TURNS, limit)
    positions = list(range(len(hits)))
    earlier, latest = positions[:-recent], positions[-recent:]

    def rank(position: int) -> tuple[int, int]:
        return len(words.intersection(_WORDS.findall(hits[position][1]["text"].casefold()))), position

    best = sorted(earlier, key=rank, reverse=True)[: limit - len(latest)]
    return [hits[position] for position in sorted([*best, *latest])]


def _add_lines(context: str, lines: list[str]) -> str:
    """Add lines to the working section of a context; those that were said first give way if there is no room."""
    header = SECTION_HEADERS[LaneName.WORKING]
    section = _SECTION.search(context)
    later = _LATER_SECTION.search(context)
    if section is not None:
        before, old, after = context[: section.start()], section[0], context[section.end() :]
    else:
        position = len(context) if later is None else later.start()
        before, old, after = context[:position], "", context[position:]
        if before and not before.endswith(SECTION_SEPARATOR):
            before += SECTION_SEPARATOR
        if after:
            after = SECTION_SEPARATOR + after
    budget = min(MAX_SECTION_CHARS, MAX_CONTEXT_CHARS - len(before) - len(after)) - len(header)
    old_lines = old[len(header) :].splitlines() if old.startswith(header) else []
    kept = [line for line in [*old_lines, *lines] if line]
    while kept and sum(len(line) + 1 for line in kept) > budget:
        kept.pop(0)
    if not kept:
        return context
    return before + "\n".join([header, *kept]) + after


def _shorten(text: str) -> str:
    if len(text) <= _MAX_LINE_CHARS:
        return text
    cut = text[: _MAX_LINE_CHARS - len(TRUNCATION_MARK)]
    return (cut.rpartition(" ")[0] or cut).rstrip() + TRUNCATION_MARK
