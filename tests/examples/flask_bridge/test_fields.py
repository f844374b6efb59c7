"""Every field of every report, missing, null or of another type: only a field that is needed may cost the call."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from support.webhooks import NUMBER, OUR_NUMBER, STARTED_AT

Path = tuple[str | int, ...]
VALUES = (None, ..., 1e300, "x", [None], {"x": None})  # ... removes the field
EXPECTED_TURNS = [("", "Juno here."), ("My boots are size nine.", "Noted.")]

VAPI: dict[str, Any] = {
    "message": {
        "type": "end-of-call-report",
        "timestamp": STARTED_AT * 1000,
        "call": {
            "id": "call",
            "orgId": "o-1",
            "type": "inboundPhoneCall",
            "startedAt": "2026-03-02T09:30:00.000Z",
            "metadata": {"campaign": "spring"},
            "assistantOverrides": {"variableValues": {"shop": "north"}, "metadata": {}},
            "customer": {"number": NUMBER, "name": "Ana", "externalId": None, "sipUri": None},
        },
        "customer": {"name": "Ana"},
        "assistant": {"name": "Juno", "metadata": {}},
        "phoneNumber": {"number": OUR_NUMBER},
        "endedReason": "customer-ended-call",
        "startedAt": "2026-03-02T09:30:00.000Z",
        "endedAt": "2026-03-02T09:31:00.000Z",
        "cost": 0.1,
        "analysis": {"summary": "s", "successEvaluation": "true"},
        "artifact": {
            "transcript": "AI: ...",
            "recordingUrl": "https://example.com",
            "messagesOpenAIFormatted": [{"role": "system", "content": "Be Juno."}],
            "messages": [
                {"role": "system", "message": "Be Juno.", "time": STARTED_AT * 1000},
                {
                    "role": "bot",
                    "message": "Juno here.",
                    "time": STARTED_AT * 1000,
                    "endTime": STARTED_AT * 1000,
                    "secondsFromStart": 0,
                    "metadata": {"wordLevelConfidence": []},
                },
                {
                    "role": "user",
                    "message": "My boots are size nine.",
                    "time": (STARTED_AT + 2) * 1000,
                    "secondsFromStart": 2,
                    "duration": 1000,
                },
                {"role": "tool_calls", "message": "", "toolCalls": [{"id": "t"}]},
                {"role": "bot", "message": "Noted.", "secondsFromStart": 4},
            ],
        },
    }
}
RETELL: dict[str, Any] = {
    "event": "call_analyzed",
    "call": {
        "call_type": "phone_call",
        "call_id": "call",
        "agent_id": "a-1",
        "agent_name": "Juno",
        "direction": "inbound",
        "from_number": NUMBER,
        "to_number": OUR_NUMBER,
        "start_timestamp": STARTED_AT * 1000,
        "end_timestamp": STARTED_AT * 1000,
        "disconnection_reason": "user_hangup",
        "metadata": {"campaign": "spring"},
        "retell_llm_dynamic_variables": {"shop": "north"},
        "call_analysis": {"in_voicemail": False, "call_summary": "s"},
        "transcript": "Agent: ...",
        "transcript_with_tool_calls": [{"role": "tool_call_invocation", "tool_call_id": "t"}],
        "transcript_object": [
            {"role": "agent", "content": "Juno here.", "words": [{"word": "Juno", "start": 0.1, "end": 0.4}]},
            {"role": "user", "content": "My boots are size nine.", "words": [{"word": "My", "start": 2, "end": 3}]},
            {"role": "agent", "content": "Noted.", "words": []},
        ],
    },
}
ELEVENLABS: dict[str, Any] = {
    "type": "post_call_transcription",
    "event_timestamp": STARTED_AT + 70,
    "data": {
        "agent_id": "a-1",
        "agent_name": "Juno",
        "status": "done",
        "user_id": None,
        "conversation_id": "call",
        "transcript": [
            {"role": "agent", "message": "Juno here.", "tool_calls": [], "tool_results": [], "time_in_call_secs": 0},
            {
                "role": "user",
                "message": "My boots are size nine.",
                "time_in_call_secs": 2,
                "interrupted": False,
                "ignored_as_backchannel": False,
                "conversation_turn_metrics": {"metrics": {}},
            },
            {
                "role": "agent",
                "message": "Noted.",
                "multivoice_message": None,
                "tool_results": [{"tool_name": "lookup", "is_error": False, "result": {"result_type": "x"}}],
                "time_in_call_secs": 4,
            },
        ],
        "metadata": {
            "start_time_unix_secs": STARTED_AT,
            "call_duration_secs": 60,
            "termination_reason": "end_call",
            "phone_call": {"direction": "inbound", "external_number": NUMBER, "call_result": "answered"},
            "features_usage": {"voicemail_detection": {"enabled": False, "used": False}},
        },
        "analysis": {"transcript_summary": "s", "call_successful": "success"},
        "conversation_initiation_client_data": {"dynamic_variables": {"user_name": "Ana", "shop": "north"}},
    },
}
# Without these, there is no call, no caller, or no words.
NEEDED = {
    "vapi": {
        ("message",), ("message", "type"), ("message", "call"), ("message", "call", "id"),
        ("message", "call", "customer"), ("message", "call", "customer", "number"), ("message", "artifact"),
    },
    "retell": {("event",), ("call",), ("call", "call_id"), ("call", "from_number")},
    "elevenlabs": {
        ("type",), ("data",), ("data", "conversation_id"), ("data", "metadata"), ("data", "metadata", "phone_call"),
        ("data", "metadata", "phone_call", "external_number"),
    },
}  # fmt: skip
WORDS = {
    "vapi": ("message", "artifact", "messages"),
    "retell": ("call", "transcript_object"),
    "elevenlabs": ("data", "transcript"),
}
TEXT_FIELDS = ("role", "message", "content")
# Own ids, which are used before the number: with a value, another caller is meant.
OTHER_CALLER = {
    ("message", "call", "customer", "externalId"), ("message", "call", "customer", "sipUri"), ("data", "user_id"),
}  # fmt: skip


def list_paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the paths of everything in a JSON document."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from list_paths(child, (*path, name))


def replace(document: Any, path: Path, value: Any, call: str, platform: str) -> Any:
    """Return a copy of a report of a call, with another value at the path."""
    changed = copy.deepcopy(document)
    {
        "vapi": lambda: changed["message"]["call"],
        "retell": lambda: changed["call"],
        "elevenlabs": lambda: changed["data"],
    }[platform]()[{"vapi": "id", "retell": "call_id", "elevenlabs": "conversation_id"}[platform]] = call
    parent = changed
    for name in path[:-1]:
        parent = parent[name]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return changed


def is_needed(platform: str, path: Path) -> bool:
    words = WORDS[platform]
    is_word = path[: len(words)] == words and (len(path) <= len(words) + 1 or path[-1] in TEXT_FIELDS)
    return path in NEEDED[platform] or is_word


def post_report(bridge: Any, platform: str, body: Any) -> int:
    if platform == "retell":
        return int(bridge.post_retell("webhook", body).status_code)
    return int((bridge.post_vapi if platform == "vapi" else bridge.post_elevenlabs)(body).status_code)


@pytest.mark.parametrize(
    ("platform", "document"),
    [("vapi", VAPI), ("retell", RETELL), ("elevenlabs", ELEVENLABS)],
    ids=["vapi", "retell", "elevenlabs"],
)
def test_an_invalid_field_costs_the_call_only_if_it_is_needed(bridge: Any, platform: str, document: Any) -> None:
    lost = []
    counted = bridge.count(platform=platform)
    for number, path in enumerate(list_paths(document)):
        for position, value in enumerate(VALUES):
            call = f"{platform}-{number}-{position}"
            counted += 1
            status = post_report(bridge, platform, replace(document, path, value, call, platform))
            turns = [(user, agent) for _, user, agent, _ in bridge.read_saved_turns(call)]
            assert status < 500, (path, value)
            assert bridge.count(platform=platform) == counted, (path, value)
            is_other_caller = path in OTHER_CALLER and value == "x"
            if turns != EXPECTED_TURNS and not is_needed(platform, path) and not is_other_caller:
                lost.append((path, value, turns))
    assert not lost
    assert bridge.count("bridge_invalid_fields_total", platform=platform)
