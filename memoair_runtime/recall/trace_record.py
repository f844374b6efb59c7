"""The record of a search for its recall trace: built after the reply was sent, from what the search has found.

It has no words: hits are named by their ids, and the terms of their scores are features of the search engine.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from memoair_protocol.context_format import SECTION_SEPARATOR
from memoair_protocol.enums import LaneName, TraceMode
from memoair_protocol.timestamps import format_utc
from memoair_runtime.recall.context_builder import ComposedContext
from memoair_runtime.recall.lane_executor import Outcomes
from memoair_runtime.recall.lanes.lane import LaneHit
from memoair_runtime.requests import SearchRequest


@attrs.frozen
class FinishedSearch:
    """A search that has been answered.

    Attributes:
        request: The search.
        intent: Its intent, or the one that was used instead of an unknown one.
        outcomes: What each lane that was asked has done.
        skipped: The lanes that were not asked.
        context: The context of the reply.
        notes: The notes of the trace.
        total_ms: How long it took, in milliseconds.
        deadline_ms: The time that it had, in milliseconds.
        occurred_at: When it was answered.
    """

    request: SearchRequest
    intent: str
    outcomes: Outcomes
    skipped: Sequence[LaneName]
    context: ComposedContext
    notes: Sequence[str]
    total_ms: float
    deadline_ms: float
    occurred_at: datetime


def build_record(search: FinishedSearch, mode: TraceMode) -> dict[str, Any]:
    """Return the record as the wire has it, without what is known only later: its turn, and words.

    Args:
        search: The search.
        mode: What to keep. ``off`` is not allowed.
    """
    sections = _split_sections(search.context.text)
    lanes: dict[str, Any] = {name.value: {"status": "skipped"} for name in search.skipped}
    for name, outcome in search.outcomes.items():
        section = sections.get(name, "")
        lane = {"status": outcome.status.value, "ms": round(outcome.duration_ms, 3), "chars": len(section)}
        if outcome.answer.confidence is not None:
            lane["confidence"] = round(outcome.answer.confidence, 4)
        items = [_hit_record(hit, search.context) for hit in outcome.answer.hits]
        lanes[name.value] = lane | {"hits": len(items), "items": items}
    return {
        "sessionId": search.request.session_id,
        "occurredAt": format_utc(search.occurred_at),
        "mode": mode.value,
        "intent": search.intent,
        "totalMs": search.total_ms,
        "deadlineMs": search.deadline_ms,
        "degraded": any(outcome.is_degraded for outcome in search.outcomes.values()),
        "contextChars": len(search.context.text),
        "lanes": lanes,
        "notes": list(search.notes),
    }


def _hit_record(hit: LaneHit, context: ComposedContext) -> dict[str, Any]:
    source = hit.source.to_wire()
    record: dict[str, Any] = {
        "id": source["id"],
        "kind": source["kind"],
        "score": round(hit.score, 4),
        "confidence": round(hit.confidence, 4),
        "inContext": hit.source.key in context.sources,
    }
    # The names of features, not words: see `memoair_index.ranking.FEATURES`.
    record["terms"] = {feature: round(weight, 4) for feature, weight in hit.contributions().items()}
    record |= {name: source[name] for name in ("sessionId", "turnId", "indexName", "documentId") if name in source}
    return record


def _split_sections(context: str) -> Mapping[LaneName, str]:
    """Return the sections of a context by lane. Only the context builder begins a line with ``## ``."""
    sections = {}
    for section in context.split(f"{SECTION_SEPARATOR}## "):
        name = section.removeprefix("## ").partition("\n")[0]
        if name in LaneName._value2member_map_:
            sections[LaneName(name)] = section
    return sections
