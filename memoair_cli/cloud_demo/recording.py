"""Play a planned call as an agent would: search before each answer, and record events and recall traces."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs

from memoair_cli.cloud_demo.planning import PlannedCall, PlannedTurn
from memoair_protocol.corrections import CORRECTS_KEY
from memoair_protocol.enums import EventType, LaneName
from memoair_protocol.interruption import FULL_TEXT_KEY
from memoair_protocol.session_prompt import describe_prompt
from memoair_protocol.timestamps import format_utc

# What voice agents use.
_DEADLINE_MS = 250
_LATE_LANE = LaneName.PERMANENT
# Below this, a hit would only distract the model.
_MIN_CONFIDENCE = 0.05

Search = Callable[[Mapping[str, Any]], Mapping[str, Any]]
ApplyEvent = Callable[[Mapping[str, Any]], None]


@attrs.define
class RecordedCall:
    """What a machine sends of a call.

    Attributes:
        events: The events, as the wire has them.
        traces: The recall traces, as the wire has them.
    """

    events: list[dict[str, Any]] = attrs.field(factory=list)
    traces: list[dict[str, Any]] = attrs.field(factory=list)

    def encoded_events(self) -> list[bytes]:
        """Return the events as JSON, each by itself."""
        return [json.dumps(event).encode() for event in self.events]


def record_call(call: PlannedCall, search: Search, apply_event: ApplyEvent, prompt_version: int) -> RecordedCall:
    """Play a call.

    Args:
        call: The call.
        search: Searches the caller's memory, as in ``POST /v1/runtime/search_memory``.
        apply_event: Adds an event to that memory.
        prompt_version: The version of the agent's prompt.
    """
    recorded = RecordedCall()
    _add_event(call, recorded, EventType.SESSION_START, call.started_at, _start_payload(call, prompt_version))
    for number, turn in enumerate(call.turns, 1):
        turn_id = f"turn-{number}"
        payload = _turn_payload(turn, turn_id)
        if turn.searches:
            trace = {**_search(call, turn, turn_id, search), "promptVersion": prompt_version}
            recorded.traces.append(trace)
            if call.line.recall == "tool":
                hits = sum(lane["hits"] for lane in trace["lanes"].values())
                tool = {"name": "search_memory", "latencyMs": trace["totalMs"], "hits": hits}
                payload["toolCalls"].insert(0, tool)
        said = {**payload, "userText": turn.misheard} if turn.misheard is not None else payload
        event = _add_event(call, recorded, EventType.TURN, turn.said_at, said)
        if turn.searches:
            recorded.traces[-1]["turnEventId"] = event["eventId"]
        if turn.misheard is not None:
            corrected = {**payload, CORRECTS_KEY: event["eventId"]}
            event = _add_event(call, recorded, EventType.TURN, turn.said_at + timedelta(seconds=1), corrected)
        apply_event(event)
    reason = "voicemail" if call.is_outbound else "caller_hung_up"
    _add_event(call, recorded, EventType.SESSION_END, call.ended_at, {"reason": reason})
    return recorded


def _add_event(
    call: PlannedCall, recorded: RecordedCall, event_type: EventType, at: datetime, payload: Mapping[str, Any]
) -> dict[str, Any]:
    seq = len(recorded.events) + 1
    event = {
        "eventId": f"{call.session_id}-{seq}",
        "type": event_type.value,
        "sessionId": call.session_id,
        "seq": seq,
        "occurredAt": format_utc(at),
        "payload": payload,
    }
    recorded.events.append(event)
    return event


def _start_payload(call: PlannedCall, prompt_version: int) -> dict[str, Any]:
    shown = {name: call.caller[name] for name in ("plan", "patient") if name in call.caller}
    direction = "outbound" if call.is_outbound else "inbound"
    metadata = {"assistantName": call.line.assistant, "line": call.line.name, "direction": direction}
    metadata |= describe_prompt(prompt_version, "production")
    user = {"id": call.caller["id"], "name": call.caller["name"], "metadata": shown}
    return {"user": user, "metadata": metadata}


def _turn_payload(turn: PlannedTurn, turn_id: str) -> dict[str, Any]:
    tool_calls = []
    if turn.tool is not None:
        tool_calls.append({"latencyMs": turn.tool_ms, **turn.tool})
    metadata: dict[str, Any] = {}
    if turn.speaker is not None:
        metadata["speaker"] = turn.speaker
    payload = {
        "turnId": turn_id,
        "userText": turn.user_text,
        "assistantText": turn.heard_text,
        "toolCalls": tool_calls,
        "metadata": metadata,
    }
    if turn.full_text is not None:
        payload[FULL_TEXT_KEY] = turn.full_text
        metadata["interrupted"] = True
    return payload


def _search(call: PlannedCall, turn: PlannedTurn, turn_id: str, search: Search) -> dict[str, Any]:
    """Search as the agent does, and return the trace."""
    lanes = [lane for lane in LaneName if not (turn.is_late and lane is _LATE_LANE)]
    reply = search(
        {
            "sessionId": call.session_id,
            "query": turn.misheard or turn.user_text,
            "lanes": [lane.value for lane in lanes],
            "timeoutMs": _DEADLINE_MS,
            "minConfidence": _MIN_CONFIDENCE,
            "explain": True,
        }
    )
    found, context = reply["trace"], str(reply["contextText"])
    traced = {name: _trace_lane(name, lane, reply) for name, lane in found["lanes"].items()}
    total_ms = found["totalMs"]
    if turn.is_late:  # this is made up: on this machine, the lane would have been in time
        traced[_LATE_LANE.value] = {"status": "late", "ms": float(_DEADLINE_MS), "hits": 0}
        total_ms = round(_DEADLINE_MS + total_ms, 3)
    return {
        "traceId": f"{call.session_id}-{turn_id}",
        "sessionId": call.session_id,
        "turnId": turn_id,
        "occurredAt": format_utc(turn.said_at),
        "mode": "text",
        "origin": call.line.recall,
        "totalMs": total_ms,
        "deadlineMs": float(_DEADLINE_MS),
        "degraded": bool(found["degraded"]) or turn.is_late,
        "contextChars": len(context),
        "notes": list(found.get("notes") or ()),
        "query": turn.misheard or turn.user_text,
        "contextText": context,
        "lanes": traced,
    }


def _trace_lane(name: str, lane: Mapping[str, Any], reply: Mapping[str, Any]) -> dict[str, Any]:
    hits = reply.get(name)
    terms = (reply["trace"].get("explain") or {}).get(name, {})
    items = [_trace_hit(hit, terms, reply["contextText"]) for hit in hits] if isinstance(hits, Sequence) else []
    record = {"status": lane["status"], "ms": lane.get("ms", 0.0), "hits": len(items) or lane.get("hits", 0)}
    if lane.get("confidence") is not None:
        record["confidence"] = lane["confidence"]
    return {**record, "items": items}


def _trace_hit(hit: Mapping[str, Any], terms: Mapping[str, Any], context: str) -> dict[str, Any]:
    source = hit["source"]
    names = ("sessionId", "turnId", "indexName", "documentId")
    return {
        "id": source["id"],
        "kind": source["kind"],
        "score": hit["score"],
        "inContext": hit["text"].partition("\n")[0].partition(": ")[2][:40] in context,
        "terms": terms.get(hit["id"], {}),
        **{name: source[name] for name in names if name in source},
    }
