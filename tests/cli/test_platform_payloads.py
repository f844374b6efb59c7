"""What platforms and recognizers return: pages, other roles, callers without a number. All people are made up."""

import io
import json
from datetime import datetime, timezone
from typing import Any

import pytest

from memoair_transcripts import (
    NoTranscriptError,
    Rejection,
    Side,
    TranscriptOptions,
    TranscriptTurn,
    caller_address,
    find_caller,
    format_of,
    parse_call,
    read_transcript,
)

STARTED_AT = datetime(2026, 3, 2, 14, 4, tzinfo=timezone.utc)
STARTED_AT_MS = int(STARTED_AT.timestamp() * 1_000)
NUMBER = "+442079460123"


def read(
    content: Any, options: TranscriptOptions | None = None, format_: str | None = None
) -> tuple[list[TranscriptTurn], list[str], list[str]]:
    """Return turns, rejections, and the reasons of what is passed over."""
    skipped: list[str] = []
    stream = io.BytesIO(json.dumps(content).encode())
    found = list(
        read_transcript(stream, "calls.json", options, format=format_, on_skip=lambda item: skipped.append(item.reason))
    )
    turns = [item for item in found if isinstance(item, TranscriptTurn)]
    return turns, [str(item) for item in found if isinstance(item, Rejection)], skipped


def texts(turns: list[TranscriptTurn]) -> list[tuple[str, str]]:
    return [(turn.user_text, turn.assistant_text) for turn in turns]


# Retell


def retell(*items: Any, **more: Any) -> dict[str, Any]:
    return {
        "call_id": "call-7",
        "call_type": "phone_call",
        "direction": "inbound",
        "from_number": NUMBER,
        "start_timestamp": STARTED_AT_MS,
        "transcript_object": [{"role": role, "content": text} for role, text in items],
        **more,
    }


def test_people_and_texts_beside_caller_and_agent_are_passed_over() -> None:
    call = retell(
        ("agent", "Hello."),
        ("user", "My parcel is late."),
        ("transfer_target", "secret"),
        ("injected", "secret"),
        ("some_role_of_tomorrow", "secret"),
        ("tool_call_invocation", "secret"),
        ("agent", "I see."),
    )
    turns, rejected, skipped = read(call)

    assert (texts(turns), rejected) == ([("", "Hello."), ("My parcel is late.", "I see.")], [])
    assert skipped == [
        "said by a person the call was transferred to",
        "put into the conversation by a program",
        "the role is unknown",
    ]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda calls: calls,
        lambda calls: {"items": calls, "pagination_key": "x", "has_more": False},
        lambda calls: {"event": "call_analyzed", "call": calls[0]},
        lambda calls: {"headers": {}, "body": {"event": "call_ended", "call": calls[0]}},
    ],
)
def test_calls_are_found_in_pages_and_other_wrappers(wrap: Any) -> None:
    turns, rejected, skipped = read(wrap([retell(("user", "Hi."))]))

    assert (texts(turns), rejected, skipped) == ([("Hi.", "")], [], [])


def test_a_page_of_calls_without_words_is_passed_over() -> None:
    calls = [{**retell(), "call_id": name, "transcript_object": None} for name in ("a", "b")]
    for call in calls:
        del call["transcript_object"]
    assert read({"items": calls, "has_more": True}) == (
        [],
        [],
        ["the call has no transcript; get-call returns it, if it is stored"] * 2,
    )


@pytest.mark.parametrize(
    "transcript",
    [
        {"scrubbed_transcript_with_tool_calls": [{"role": "user", "content": "I am [NAME]."}]},
        {"transcript_object": [], "scrubbed_transcript_with_tool_calls": [{"role": "user", "content": "I am [NAME]."}]},
        {"transcript": "User: I am [NAME].\n"},
        {"scrubbed_transcript": "User: I am\n[NAME]."},
        {"transcript": "User: I am [NAME].\nTransfer Target: secret\nmore secret"},
    ],
)
def test_calls_with_other_transcripts_are_read(transcript: dict[str, Any]) -> None:
    call = retell()
    del call["transcript_object"]
    turns, rejected, _ = read({**call, **transcript}, format_="retell")

    assert not rejected
    assert [turn.user_text.replace("\n", " ") for turn in turns] == ["I am [NAME]."]


@pytest.mark.parametrize(
    "metadata", [None, "x", 7, ["x"], True, {"userId": None}, {"userId": {"a": 1}}, {"userId": ""}]
)
def test_metadata_of_any_type_is_accepted(metadata: Any) -> None:
    turns, rejected, _ = read(retell(("user", "Hi."), metadata=metadata))

    assert ([turn.user_id for turn in turns], rejected) == ([NUMBER], [])


# Vapi


def vapi(**more: Any) -> dict[str, Any]:
    message = {"role": "user", "message": "Hi.", "secondsFromStart": 1}
    return {"id": "call-7", "orgId": "o", "type": "webCall", "artifact": {"messages": [message]}, **more}


def test_a_page_of_vapi_calls_is_read() -> None:
    calls = [vapi(id=name, customer={"number": NUMBER}) for name in ("a", "b")]
    page = {"results": calls, "metadata": {"itemsPerPage": 10, "currentPage": 1, "totalItems": 2}}
    turns, rejected, skipped = read(page)

    assert ([turn.session_id for turn in turns], rejected, skipped) == (["a", "b"], [], [])


@pytest.mark.parametrize(
    ("fields", "user_id"),
    [
        ({"metadata": {"userId": "ana"}, "customer": {"number": NUMBER}}, "ana"),
        ({"metadata": {"userId": 42}}, "42"),
        ({"assistantOverrides": {"metadata": {"userId": "ana"}}}, "ana"),
        ({"assistantOverrides": {"variableValues": {"user_id": "ana"}}}, "ana"),
        ({"customer": {"number": NUMBER, "externalId": "crm-7"}}, NUMBER),
        ({"customer": {"externalId": "crm-7"}, "metadata": "x"}, "crm-7"),
        ({"customer": {"sipUri": "sip:ana@example.com"}}, "sip:ana@example.com"),
        ({"customer": {"number": "anonymous", "externalId": "crm-7"}}, "crm-7"),
    ],
)
def test_callers_of_vapi_are_identified_without_a_number_too(fields: dict[str, Any], user_id: str) -> None:
    turns, rejected, _ = read(vapi(**fields))
    report = {"message": {"type": "end-of-call-report", "artifact": vapi()["artifact"], "call": {"id": "c", **fields}}}

    assert ([turn.user_id for turn in turns], rejected) == ([user_id], [])
    assert [turn.user_id for turn in read(report)[0]] == [user_id]


def test_a_vapi_call_of_a_session_and_one_with_a_text_only_are_read() -> None:
    options = TranscriptOptions(user_id="ana")
    assert texts(read(vapi(sessionId="s", zero={}), options)[0]) == [("Hi.", "")]
    call = vapi(artifact={"transcript": "AI: Hello.\nUser: Hi.\nAI: Yes?\n"})
    assert texts(read(call, options)[0]) == [("", "Hello."), ("Hi.", "Yes?")]


def test_other_messages_of_vapi_are_passed_over() -> None:
    update = {"message": {"type": "status-update", "status": "ended", "call": {"id": "a", "orgId": "o"}}}

    assert read(update, format_="vapi") == ([], [], ["the call has no messages; GET /call/{id} returns them"])


# ElevenLabs


def elevenlabs(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "conversation_id": "conv-7",
        "agent_name": "Juno",
        "status": "done",
        "transcript": list(entries),
        **more,
        "metadata": {
            "start_time_unix_secs": STARTED_AT_MS // 1_000,
            "call_duration_secs": 9,
            **more.get("metadata", {}),
        },
    }


def entry(role: str, message: str | None, seconds: int = 0, **more: Any) -> dict[str, Any]:
    return {"role": role, "message": message, "time_in_call_secs": seconds, **more}


def test_a_conversation_of_elevenlabs_is_read() -> None:
    parts = [{"text": "Hello,", "voice_label": "Juno"}, {"text": "dear caller.", "voice_label": None}]
    conversation = elevenlabs(
        entry("agent", None, multivoice_message={"parts": parts}),
        entry("user", "My parcel is late.", 4),
        entry("agent", "I see, so", 6),
        entry("user", "mhm", 7, ignored_as_backchannel=True),
        entry("agent", "it is in Leeds.", 8, tool_calls=[{"params_as_json": "secret"}]),
        entry("user", "secret", 8, contextual_update_info={"context_id": "x"}),
        entry("agent", None, 9),
        metadata={"phone_call": {"external_number": NUMBER, "direction": "inbound"}},
    )
    for content in (conversation, {"type": "post_call_transcription", "event_timestamp": 1, "data": conversation}):
        turns, rejected, skipped = read(content)
        assert not rejected
        assert texts(turns) == [("", "Hello, dear caller."), ("My parcel is late.", "I see, so\nit is in Leeds.")]
        assert [(turn.user_id, turn.session_id, turn.assistant_name) for turn in turns] == [
            (NUMBER, "conv-7", "Juno")
        ] * 2
        assert turns[1].occurred_at == STARTED_AT.replace(second=4)
        assert skipped == [
            "a backchannel, which the agent did not answer",
            "put into the conversation by a program",
        ]


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"phone_call": {"external_number": NUMBER}}},
        {"metadata": {"sms": {"sms_user_phone_number": "+44 20 7946 0123"}}},
        {"metadata": {"whatsapp": {"whatsapp_user_id": "442079460123"}}, "user_id": "442079460123"},
        {"conversation_initiation_client_data": {"dynamic_variables": {"system__caller_id": NUMBER}}},
    ],
)
def test_a_caller_is_the_same_over_all_channels(fields: dict[str, Any]) -> None:
    assert [turn.user_id for turn in read(elevenlabs(entry("user", "Hi."), **fields))[0]] == [NUMBER]


def test_a_list_of_conversations_without_words_is_passed_over() -> None:
    page = {"conversations": [{"conversation_id": "a", "call_duration_secs": 9}], "has_more": False}
    reason = "the conversation has no transcript; GET /v1/convai/conversations/{id} returns it"

    assert read(page) == ([], [], [reason])


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("+44 (0)20", "+44 (0)20"),
        ("+44 20 7946-0123", NUMBER),
        ("0044 20 7946 0123", NUMBER),
        ("tel:+442079460123", NUMBER),
        ("sip:+442079460123@pbx.example;transport=tls", NUMBER),
        ("whatsapp:+442079460123", NUMBER),
        ("whatsapp:442079460123", NUMBER),
        ("sip:ana@example.com", "sip:ana@example.com"),
        ('"Ana B." <SIPS:ana@Example.com:5061;transport=tls>;tag=9', "sip:ana@example.com"),
        ('"Ana" <sip:+442079460123@pbx.example>', NUMBER),
        ("client:ana", "client:ana"),
        ("442079460123", "442079460123"),
        ("020 7946 0123", "020 7946 0123"),
        ("Anonymous", None),
        ("No Caller ID", None),
        ("private_number", None),
        ("{{system__caller_id}}", None),
        ("undefined", None),
        ("sip:anonymous@anonymous.invalid", None),
        ("+266696687", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_an_address_has_one_spelling(value: object, address: str | None) -> None:
    assert caller_address(value) == address


@pytest.mark.parametrize(
    ("platform", "payload", "caller"),
    [
        ("vapi", {"message": {"type": "hang", "call": {"customer": {"number": "0044 20 7946 0123"}}}}, NUMBER),
        ("vapi", {"messages": [], "metadata": {"userId": "ana"}, "call": {"customer": {"number": NUMBER}}}, "ana"),
        ("vapi", {"messages": [], "user_id": "ana"}, "ana"),
        ("vapi", {"call": {"type": "webCall", "customer": {"sipUri": f"sip:{NUMBER}@pbx.example"}}}, NUMBER),
        ("retell", {"event": "call_started", "call": {"from_number": NUMBER, "to_number": "+1"}}, NUMBER),
        ("retell", {"call": {"direction": "outbound", "from_number": "+18005550199", "to_number": NUMBER}}, NUMBER),
        ("retell", {"call_type": "web_call", "metadata": {"user_id": 7}}, "7"),
        ("retell", {"call_type": "web_call", "retell_llm_dynamic_variables": {"user_id": "ana"}}, "ana"),
        ("elevenlabs", {"query": "?", "caller_id": f"tel:{NUMBER}"}, NUMBER),
        ("elevenlabs", {"messages": [], "elevenlabs_extra_body": {"user_id": "ana"}}, "ana"),
        ("elevenlabs", {"messages": [], "user_id": "tel:+44 20 7946 0123"}, NUMBER),
        ("elevenlabs", {"messages": [], "user_id": "anonymous", "caller_id": NUMBER}, NUMBER),
        ("twilio", {"Direction": "inbound", "From": f"whatsapp:{NUMBER}", "To": "whatsapp:+1"}, NUMBER),
        ("twilio", {"Direction": "outbound-api", "From": "+18005550199", "To": f"sip:{NUMBER}@pbx.example"}, NUMBER),
        ("twilio", {"Direction": 7, "From": ["x"]}, None),
    ],
)
def test_a_caller_is_found_in_what_is_sent_during_a_call(
    platform: str, payload: dict[str, Any], caller: str | None
) -> None:
    assert find_caller(platform, payload) == caller


def test_a_platform_must_be_known() -> None:
    with pytest.raises(ValueError, match="unknown platform 'vonage'; the platforms are vapi, retell, elevenlabs"):
        find_caller("vonage", {})
    with pytest.raises(ValueError, match="unknown platform 'vonage'"):
        parse_call("vonage", {})


def test_a_webhook_is_read_although_fields_are_invalid() -> None:
    invalid: list[str] = []
    call = retell(("user", "Hi."), ("agent", [{"type": "text", "text": "Hello."}]), start_timestamp="soon", call_id=7)
    call["transcript_object"] += [None, {"role": None, "content": "secret"}]
    parsed = parse_call("retell", {"event": "call_ended", "call": {**call, "agent_name": 7}}, on_invalid=invalid.append)

    utterances = list(parsed.utterances)
    assert [(utterance.side, utterance.text) for utterance in utterances[:2]] == [
        (Side.USER, "Hi."),
        (Side.ASSISTANT, "Hello."),
    ]
    assert [utterance.error for utterance in utterances[2:]] == [
        "null, not a JSON object",
        "role must be one of user, agent",
    ]
    assert (parsed.user_id, parsed.session_id) == (NUMBER, None)
    assert sorted(invalid) == ["agent_name", "call_id", "start_timestamp"]


@pytest.mark.parametrize("payload", [{}, {"event": "call_ended", "call": None}, {"call": {"call_id": "c"}}])
def test_a_webhook_without_words_says_so(payload: dict[str, Any]) -> None:
    with pytest.raises(NoTranscriptError):
        parse_call("retell", payload)


MACHINES = [
    retell(("user", "Leave a message."), ("agent", "Ring me."), disconnection_reason="voicemail_reached"),
    retell(("user", "Leave a message."), ("agent", "Ring me."), disconnection_reason="ivr_reached"),
    retell(("user", "Leave a message."), ("agent", "Ring me."), call_analysis={"in_voicemail": True}),
    vapi(
        endedReason="voicemail",
        customer={"number": NUMBER},
        artifact={
            "messages": [{"role": "user", "message": "Leave a message."}, {"role": "bot", "message": "Ring me."}]
        },
    ),
]


def elevenlabs_machines() -> list[dict[str, Any]]:
    words = [entry("user", "Leave a message."), entry("agent", "Ring me.")]
    success = {"result_type": "voicemail_detection_success", "status": "success"}
    tool = {
        "role": "agent",
        "tool_results": [{"tool_name": "voicemail_detection", "is_error": False, "result": success}],
    }
    phone_call = {"external_number": NUMBER}
    return [
        elevenlabs(*words, metadata={"phone_call": {**phone_call, "call_result": "voicemail"}}),
        elevenlabs(
            *words,
            metadata={
                "phone_call": phone_call,
                "features_usage": {"voicemail_detection": {"enabled": True, "used": True}},
            },
        ),
        elevenlabs(*words, tool, metadata={"phone_call": phone_call}),
    ]


@pytest.mark.parametrize("call", [*MACHINES, *elevenlabs_machines()])
def test_what_an_answering_machine_says_is_not_the_callers(call: dict[str, Any]) -> None:
    turns, rejected, skipped = read(call)

    assert (texts(turns), rejected) == ([("", "Ring me.")], [])
    assert skipped == ["said by an answering machine or a phone menu"]


# Recognizers

CALLER = TranscriptOptions(user_id="ana", started_at=STARTED_AT, callers=("1",))


def word(text: str, speaker: int | None, start: float) -> dict[str, Any]:
    return {"word": text.lower(), "punctuated_word": text, "speaker": speaker, "start": start}


DEEPGRAM_WORDS = [word("Hello.", 0, 0.5), word("My", 1, 4), word("parcel.", 1, 4.5), word("Yes?", 0, 6)]
DEEPGRAM = {
    "metadata": {"request_id": "r-7", "created": "2026-04-01T00:00:00Z", "model_info": {}},
    "results": {"channels": [{"alternatives": [{"transcript": "secret", "words": DEEPGRAM_WORDS}]}]},
}
DEEPGRAM_UTTERANCES = {
    "results": {
        "channels": [{"alternatives": []}],
        "utterances": [
            {"start": 0.5, "transcript": "Hello.", "speaker": 0, "channel": 0},
            {"start": 4, "transcript": "My parcel.", "speaker": 1, "channel": 0},
            {"start": 6, "transcript": "Yes?", "speaker": 0, "channel": 0},
        ],
    }
}
DEEPGRAM_CHANNELS = {
    "results": {
        "channels": [
            {"alternatives": [{"words": [word("Hello.", None, 0.5)]}]},
            {"alternatives": [{"words": [word("My", None, 4), word("parcel.", None, 4.5)]}]},
        ]
    }
}
ASSEMBLYAI = {
    "id": "a-7",
    "audio_url": "https://example.org/a.mp3",
    "utterances": [
        {"speaker": "A", "text": "Hello.", "start": 500},
        {"speaker": "1", "text": "My parcel.", "start": 4_000},
        {"speaker": "A", "text": "Yes?", "start": 6_000},
    ],
}
REV = {
    "speakers": [{"id": 0, "name": "Juno"}, {"id": 1, "name": "Dana"}],
    "monologues": [
        {"speaker": 0, "elements": [{"type": "text", "value": "Hello", "ts": 0.5}, {"type": "punct", "value": "."}]},
        {
            "speaker": 1,
            "elements": [{"value": "My", "ts": 4.0}, {"value": " "}, {"value": "parcel"}, {"value": "."}],
        },
        {"speaker": 0, "elements": [{"type": "text", "value": "Yes?", "ts": 6.0}]},
    ],
}


@pytest.mark.parametrize(
    ("content", "format_"),
    [
        (DEEPGRAM, "deepgram"),
        (DEEPGRAM_UTTERANCES, "deepgram"),
        (DEEPGRAM_CHANNELS, "deepgram"),
        (ASSEMBLYAI, "assemblyai"),
        (REV, "rev"),
    ],
)
@pytest.mark.parametrize("label", ["1", "speaker 1", "Dana"])
def test_what_recognizers_return_is_read(content: dict[str, Any], format_: str, label: str) -> None:
    if (label == "Dana" and format_ != "rev") or (label == "speaker 1" and content is DEEPGRAM_CHANNELS):
        label = "1"
    options = TranscriptOptions(user_id="ana", started_at=STARTED_AT, callers=(label,))
    turns, rejected, skipped = read(content, options)

    assert format_of("a.json", json.dumps(content).encode()) == format_
    assert (rejected, skipped) == ([], [])
    answer = "" if content is DEEPGRAM_CHANNELS else "Yes?"
    assert texts(turns) == [("", "Hello."), ("My parcel.", answer)]
    assert [turn.occurred_at and (turn.occurred_at - STARTED_AT).total_seconds() for turn in turns] == [0.5, 4]


def test_a_transcript_that_does_not_say_who_speaks_is_rejected() -> None:
    words = [word("secret", None, 1)]
    turns, rejected, _ = read({"results": {"channels": [{"alternatives": [{"words": words}]}]}}, CALLER)
    assert not turns
    assert rejected == [
        "calls.json:1: results.channels[0]: the transcript does not say who speaks; "
        "request diarize or multichannel from the recognizer"
    ]
    assert read({**ASSEMBLYAI, "utterances": None}, CALLER)[2] == [
        "the transcript has no utterances; request speaker_labels or multichannel"
    ]


def test_speakers_that_the_options_do_not_name_are_rejected() -> None:
    turns, rejected, _ = read(ASSEMBLYAI, TranscriptOptions(user_id="ana", callers=("1",), assistants=("B",)))

    assert texts(turns) == [("My parcel.", "")]
    assert len(rejected) == 2


@pytest.mark.parametrize("format_", ["vapi", "retell", "elevenlabs", "deepgram", "assemblyai", "rev", "twilio"])
def test_what_holds_no_call_is_passed_over(format_: str) -> None:
    assert read({"hello": "secret", "more": [{"a": "secret"}]}, CALLER, format_) == ([], [], ["no call is found in it"])
