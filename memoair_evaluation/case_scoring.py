"""Compare what was recalled with what a case expects."""

from collections.abc import Iterator, Mapping
from typing import Any

from memoair_evaluation.case_records import EvaluationCase, Expectation
from memoair_evaluation.matching import contains_phrase, to_words
from memoair_evaluation.scoring import CaseScores
from memoair_protocol.enums import LaneName

_HIT_LANES = (LaneName.WORKING, LaneName.PERMANENT, LaneName.ORG)


def score_case(case: EvaluationCase, reply: Mapping[str, Any], half_context: str, timeout_ms: float) -> CaseScores:
    """Return the scores of a case."""
    context = reply["contextText"]
    found = [position for position, item in enumerate(case.must) if _is_recalled(item, reply, context)]
    found_half = [position for position, item in enumerate(case.must) if _is_recalled(item, reply, half_context)]
    unwanted = tuple(position for position, item in enumerate(case.must_not) if _is_recalled(item, reply, context))
    missing = tuple(position for position in range(len(case.must)) if position not in found)
    ranks = [rank for item in case.must for rank in _ranks(item, reply)]
    return CaseScores(
        recalled=len(found) / len(case.must) if case.must else None,
        recalled_half=len(found_half) / len(case.must) if case.must else None,
        rank=min(ranks, default=None),
        unwanted=len(unwanted),
        chars=len(context),
        ms=reply["trace"]["totalMs"],
        late_lanes=tuple(name for name, lane in reply["trace"]["lanes"].items() if lane["ms"] > timeout_ms),
        passed=not missing and not unwanted,
        missing=missing,
        found=tuple(found),
        unwanted_items=unwanted,
    )


def _is_recalled(item: Expectation, reply: Mapping[str, Any], context: str) -> bool:
    if item.text is not None:
        return contains_phrase(to_words(context), item.text)
    if item.fact is not None:
        return contains_phrase(to_words(context.partition("## org\n")[0]), item.fact)
    return any(
        _begins_in(hit["text"], context) for lane in _HIT_LANES for hit in reply[lane.value] if _is_hit(item, hit)
    )


def _ranks(item: Expectation, reply: Mapping[str, Any]) -> Iterator[int]:
    for lane in _HIT_LANES:
        for rank, hit in enumerate(reply[lane.value], 1):
            if _is_hit(item, hit):
                yield rank
                break


def _is_hit(item: Expectation, hit: Mapping[str, Any]) -> bool:
    source = hit["source"]
    if item.document is not None:
        return source.get("documentId") == item.document and item.index in (None, source.get("indexName"))
    if item.turn is not None:
        return source.get("turnId") == item.turn and item.session in (None, source.get("sessionId"))
    if item.fact is not None and hit["lane"] == LaneName.ORG:
        return False
    return contains_phrase(to_words(hit["text"]), item.fact or item.text or "")


def _begins_in(text: str, context: str) -> bool:
    return any(part[:40] in context for line in text.split("\n") if (part := line.partition(": ")[2] or line))
