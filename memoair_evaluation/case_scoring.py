"""Compare what was recalled with what a case expects."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from memoair_evaluation.case_records import Expectation, RecallCase
from memoair_evaluation.matching import contains_phrase, to_words
from memoair_evaluation.scoring import CaseScores
from memoair_protocol.context_format import SECTION_HEADERS
from memoair_protocol.defaults import SEARCH_TIMEOUT_MS
from memoair_protocol.enums import LaneName
from memoair_runtime.preview import ComposedContext, PreviewedSearch, SourceKey

# The lanes with hits that have a rank.
_HIT_LANES = (LaneName.WORKING, LaneName.PERMANENT, LaneName.ORG)
# Titles and notes of sections are not recalled. Only the context builder begins a line with "## ".
_HEADER = re.compile("|".join(rf"^{re.escape(header)}$" for header in SECTION_HEADERS.values()), re.MULTILINE)
_SECTION_END = "\0"  # in no word: no phrase is found across sections

# The sources of the turns of a case by their session and turn ids.
TurnKeys = Mapping[tuple[str, str], SourceKey]


def score_case(case: RecallCase, search: PreviewedSearch, turn_keys: TurnKeys, timeout_ms: float | None) -> CaseScores:
    """Return the scores of a case.

    Args:
        case: The case.
        search: What was recalled: its first context is the one at the budgets, its second that at half of them.
        turn_keys: The turns of the case.
        timeout_ms: How long a search may take; None for the time that it has by default.
    """
    context, half = (_SearchedContext(context, turn_keys) for context in search.contexts[:2])
    found = tuple(position for position, item in enumerate(case.must) if context.has(item))
    found_half = tuple(position for position, item in enumerate(case.must) if half.has(item))
    missing = tuple(position for position in range(len(case.must)) if position not in found)
    unwanted = tuple(position for position, item in enumerate(case.must_not) if context.has(item))
    limit_ms = timeout_ms or SEARCH_TIMEOUT_MS
    return CaseScores(
        recalled=len(found) / len(case.must) if case.must else None,
        recalled_half=len(found_half) / len(case.must) if case.must else None,
        rank=_best_rank(case.must, search.reply),
        unwanted=len(unwanted),
        chars=len(search.contexts[0].text),
        ms=search.reply["trace"]["totalMs"],
        late_lanes=tuple(name.value for name, ended_ms in search.ended_ms.items() if ended_ms > limit_ms),
        passed=not missing and not unwanted,
        missing=missing,
        found=found,
        unwanted_items=unwanted,
        found_half=found_half,
    )


class _SearchedContext:
    """A context in which expectations are looked up."""

    def __init__(self, context: ComposedContext, turn_keys: TurnKeys) -> None:
        self._context = context
        self._turn_keys = turn_keys

    def has(self, item: Expectation) -> bool:
        if item.text is not None:
            return contains_phrase(self._words, item.text)
        if item.fact is not None:
            return contains_phrase(self._words_of_caller, item.fact)
        if item.document is not None:
            return any(
                kind == "document" and id_ == item.document and _is_index(item, index_name)
                for kind, id_, index_name in self._context.sources
            )
        return any(
            key in self._context.sources
            for (session_id, turn_id), key in self._turn_keys.items()
            if turn_id == item.turn and item.session in (None, session_id)
        )

    @cached_property
    def _words(self) -> str:
        return _to_section_words(self._context.text)

    @cached_property
    def _words_of_caller(self) -> str:
        before, _, _ = f"\n{self._context.text}".partition(f"\n{SECTION_HEADERS[LaneName.ORG]}\n")
        return _to_section_words(before)


def _to_section_words(context: str) -> str:
    return _SECTION_END.join(map(to_words, _HEADER.split(context)))


def _best_rank(items: Iterable[Expectation], reply: Mapping[str, Any]) -> int | None:
    """Return the best rank of an item among the hits of its lane, from 1; None if no lane has any of them."""
    tests = [_hit_test(item) for item in items]
    ranks = (
        rank
        for lane in _HIT_LANES
        for rank, hit in enumerate(reply[lane.value] if tests else (), 1)
        if any(is_hit(hit) for is_hit in tests)
    )
    return min(ranks, default=None)


def _hit_test(item: Expectation) -> Callable[[Mapping[str, Any]], bool]:
    """Return a function that tells whether a hit is what is expected."""

    def is_hit(hit: Mapping[str, Any]) -> bool:
        source = hit["source"]
        if item.document is not None:
            return source.get("documentId") == item.document and _is_index(item, source.get("indexName"))
        if item.turn is not None:
            return source.get("turnId") == item.turn and item.session in (None, source.get("sessionId"))
        if item.fact is not None and hit["lane"] == LaneName.ORG:
            return False
        return contains_phrase(to_words(hit["text"]), item.fact or item.text or "")

    return is_hit


def _is_index(item: Expectation, index_name: str | None) -> bool:
    """Return whether a document of an index is meant. Documents from a folder may have none: then any is."""
    return None in (item.index, index_name) or item.index == index_name
