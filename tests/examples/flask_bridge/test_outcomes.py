"""What is acknowledged is kept, or leaves a log line and a counter: whatever calls, answers or is sent."""

import logging
from typing import Any

import pytest
from support.webhooks import (
    NUMBER,
    OUR_NUMBER,
    elevenlabs_event,
    retell_call,
    twilio_form,
    vapi_message,
    vapi_report,
)

WORDS = [("user", "My boots are size nine."), ("agent", "Noted.")]
TURNS = [("My boots are size nine.", "Noted.")]


def report(platform: str, call: str, **fields: Any) -> dict[str, Any]:
    """Return the report of a call by a caller without a number, with these fields in its call."""
    if platform == "retell":
        return {"event": "call_ended", "call": {**retell_call(call, *WORDS, number=None), **fields}}
    if platform == "vapi":
        body = vapi_report(call, *(("bot" if role == "agent" else role, text) for role, text in WORDS), number=None)
        body["message"]["call"].update(fields)
        return body
    body = elevenlabs_event(call, *WORDS, number=None)
    body["data"]["metadata"].update(fields.pop("metadata", {}))
    body["data"].update(fields)
    return body


def post_report(bridge: Any, platform: str, body: Any) -> int:
    if platform == "retell":
        return int(bridge.post_retell("webhook", body).status_code)
    return int((bridge.post_vapi if platform == "vapi" else bridge.post_elevenlabs)(body).status_code)


def texts_of(turns: list[tuple[str, str, str, str]]) -> list[tuple[str, str]]:
    return [(user, agent) for _, user, agent, _ in turns]


SPELLINGS = [
    "sip:+14155550123@pbx.example;user=phone",
    '"Ana" <sip:+14155550123@pbx.example>',
    "tel:+1-415-555-0123",
    "0014155550123",
    "00 1 415 555 0123",
    "whatsapp:+14155550123",
    "+1 (415) 555-0123",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("platform", ["vapi", "retell", "elevenlabs"])
def test_a_number_in_any_spelling_is_the_same_caller(bridge: Any, platform: str, spelling: str) -> None:
    call = f"spelled-{platform}-{SPELLINGS.index(spelling)}"
    fields = {
        "vapi": {"customer": {"number": spelling}},
        "retell": {"from_number": spelling},
        "elevenlabs": {"metadata": {"phone_call": {"external_number": spelling}}},
    }
    assert post_report(bridge, platform, report(platform, call, **fields[platform])) in (200, 204)
    assert texts_of(bridge.read_saved_turns(call)) == TURNS
    assert "size nine" in bridge.call_tool("Which size?", spelling)


OTHER_CALLERS = [
    ("vapi", {"metadata": {"userId": "ana-1"}}, "ana-1"),
    ("vapi", {"assistantOverrides": {"variableValues": {"user_id": "ana-2"}}}, "ana-2"),
    ("vapi", {"type": "webCall", "customer": {"externalId": "ana-3"}}, "ana-3"),
    ("vapi", {"customer": {"sipUri": "sip:ana@Example.com"}}, "sip:ana@example.com"),
    ("vapi", {"customer": {"number": "14155550123"}}, "14155550123"),
    ("retell", {"call_type": "web_call", "metadata": {"user_id": 7}}, "7"),
    ("retell", {"call_type": "web_call", "retell_llm_dynamic_variables": {"user_id": "ana-4"}}, "ana-4"),
    ("retell", {"from_number": "client:ana"}, "client:ana"),
    ("elevenlabs", {"user_id": "ana-5"}, "ana-5"),
    ("elevenlabs", {"conversation_initiation_client_data": {"user_id": "ana-6"}}, "ana-6"),
    ("elevenlabs", {"metadata": {"whatsapp": {"whatsapp_user_id": "442079460123"}}}, "+442079460123"),
]


@pytest.mark.parametrize(("platform", "fields", "caller"), OTHER_CALLERS)
def test_callers_without_a_telephone_number_are_kept(
    bridge: Any, platform: str, fields: dict[str, Any], caller: str
) -> None:
    call = f"other-{caller.replace('@', '.').replace('+', '')}"
    kept = bridge.count(platform=platform, outcome="kept")
    assert post_report(bridge, platform, report(platform, call, **fields)) in (200, 204)
    assert texts_of(bridge.read_saved_turns(call, caller)) == TURNS
    assert bridge.count(platform=platform, outcome="kept") == kept + 1
    assert bridge.count("bridge_kept_turns_total", platform=platform) >= 1


@pytest.mark.parametrize("caller", ["client:ana-7", "sip:ana-8@example.com", "442079460124"])
def test_twilio_callers_without_a_telephone_number_are_remembered(bridge: Any, caller: str) -> None:
    call = f"CA{caller.replace('@', '.')}"
    bridge.say(call, 1, "My tent is green.", caller)
    assert "My tent is green." in bridge.say(call, 2, "Which colour has my tent?", caller)


NOT_KEPT = [
    ("vapi", report("vapi", "lost-1"), 200, "no_caller", "lost-1"),
    ("retell", report("retell", "lost-2", from_number="anonymous"), 204, "no_caller", "lost-2"),
    ("elevenlabs", report("elevenlabs", "lost-3"), 200, "no_caller", "lost-3"),
    ("vapi", vapi_report("lost-4"), 200, "no_words", "lost-4"),
    ("vapi", vapi_message("end-of-call-report", "lost-5"), 200, "no_words", "lost-5"),
    ("retell", {"event": "call_ended", "call": retell_call("lost-6", transcript="")}, 204, "no_words", "lost-6"),
    ("retell", {"event": "call_ended", "call": retell_call("lost-7", ("injected", "Hi."))}, 204, "no_words", "lost-7"),
    ("retell", {"event": "call_ended", "call": None}, 204, "no_words", "-"),
    ("elevenlabs", elevenlabs_event("lost-8"), 200, "no_words", "lost-8"),
    ("vapi", vapi_message("message-of-tomorrow", "lost-9"), 200, "unknown_type", "-"),
    ("vapi", vapi_message("chat.created", "lost-10"), 200, "unknown_type", "-"),
    ("retell", {"event": "chat_ended", "chat": {"chat_id": "c"}}, 204, "unknown_type", "-"),
    ("elevenlabs", {"type": "event_of_tomorrow", "data": {}}, 200, "unknown_type", "-"),
]  # fmt: skip


@pytest.mark.parametrize(("platform", "body", "status", "outcome", "call"), NOT_KEPT)
def test_what_is_not_kept_leaves_a_log_line_and_a_counter(
    bridge: Any, caplog: pytest.LogCaptureFixture, platform: str, body: Any, status: int, outcome: str, call: str
) -> None:
    before = bridge.count(platform=platform, outcome=outcome)
    caplog.clear()
    assert post_report(bridge, platform, body) == status
    assert bridge.count(platform=platform, outcome=outcome) == before + 1
    [line] = [record for record in caplog.records if record.name == "bridge"]
    assert line.levelno == logging.WARNING
    assert f"platform={platform} outcome={outcome} call={call} " in line.getMessage()
    assert "size nine" not in line.getMessage()


def test_the_log_names_unknown_types_but_nothing_that_is_no_name(bridge: Any, caplog: pytest.LogCaptureFixture) -> None:
    post_report(bridge, "vapi", vapi_message("message-of-tomorrow"))
    assert "detail=message-of-tomorrow" in caplog.text
    post_report(bridge, "vapi", vapi_message("My secret is\nred"))
    assert "secret" not in caplog.text


def test_events_that_have_no_words_are_counted_and_not_logged(bridge: Any, caplog: pytest.LogCaptureFixture) -> None:
    before = {name: bridge.count(platform=name, outcome="ignored") for name in ("vapi", "retell", "elevenlabs")}
    post_report(bridge, "vapi", vapi_message("speech-update"))
    post_report(bridge, "vapi", vapi_message("transcript[transcriptType='final']"))
    post_report(bridge, "retell", {"event": "transcript_updated", "call": retell_call("c")})
    post_report(bridge, "elevenlabs", {"type": "call_initiation_failure", "data": {}})
    after = {name: bridge.count(platform=name, outcome="ignored") for name in before}
    assert {name: after[name] - before[name] for name in before} == {"vapi": 2, "retell": 1, "elevenlabs": 1}
    assert not [record for record in caplog.records if record.name == "bridge"]


def test_a_refused_request_leaves_a_log_line_and_a_counter(bridge: Any, caplog: pytest.LogCaptureFixture) -> None:
    counts = [bridge.count(platform="vapi", outcome=outcome) for outcome in ("invalid", "unauthorized")]
    assert bridge.post_vapi(b"[]").status_code == 400
    assert bridge.post_vapi(b"{}", **{"X-Vapi-Secret": "wrong"}).status_code == 401
    assert [bridge.count(platform="vapi", outcome=outcome) for outcome in ("invalid", "unauthorized")] == [
        count + 1 for count in counts
    ]
    assert "outcome=invalid" in caplog.text
    assert "outcome=unauthorized" in caplog.text


def test_calls_without_a_known_caller_are_answered_and_counted(bridge: Any) -> None:
    before = bridge.count(platform="twilio", outcome="no_caller")
    assert "I have noted" in bridge.say("CAwithheld", 1, "My boots are size nine.", "anonymous")
    assert bridge.count(platform="twilio", outcome="no_caller") == before + 1


@pytest.mark.parametrize(
    "transcript",
    [
        {"scrubbed_transcript_with_tool_calls": [{"role": role, "content": text} for role, text in WORDS]},
        {"transcript": "User: My boots are size nine.\nAgent: Noted."},
        {"scrubbed_transcript": "User: My boots are size nine.\nAgent: Noted."},
    ],
)
def test_a_scrubbed_or_plain_transcript_is_kept(bridge: Any, transcript: dict[str, Any]) -> None:
    call_id = f"scrubbed-{next(iter(transcript))}"
    call = retell_call(call_id)
    for name in ("transcript", "transcript_object"):
        del call[name]
    assert post_report(bridge, "retell", {"event": "call_analyzed", "call": {**call, **transcript}}) == 204
    assert texts_of(bridge.read_saved_turns(call_id)) == TURNS


def test_metrics_need_the_token(bridge: Any, make_bridge: Any) -> None:
    assert bridge.http.get("/metrics").status_code == 404
    assert bridge.http.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 404
    off = make_bridge(BRIDGE_METRICS_TOKEN="")
    assert off.http.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


MACHINES = [
    ("retell", {"from_number": NUMBER, "disconnection_reason": "voicemail_reached"}),
    ("retell", {"from_number": NUMBER, "disconnection_reason": "ivr_reached"}),
    ("retell", {"from_number": NUMBER, "call_analysis": {"in_voicemail": True}}),
    ("vapi", {"customer": {"number": NUMBER}, "endedReason": "voicemail"}),
    ("elevenlabs", {"metadata": {"phone_call": {"external_number": NUMBER, "call_result": "voicemail"}}}),
    (
        "elevenlabs",
        {
            "metadata": {
                "phone_call": {"external_number": NUMBER},
                "features_usage": {"voicemail_detection": {"enabled": True, "used": True}},
            }
        },
    ),
]


@pytest.mark.parametrize(("platform", "fields"), MACHINES)
def test_what_a_machine_says_is_not_kept_as_the_callers(bridge: Any, platform: str, fields: dict[str, Any]) -> None:
    call = f"machine-{[fields for _, fields in MACHINES].index(fields)}"
    before = bridge.count(platform=platform, outcome="answering_machine")
    assert post_report(bridge, platform, report(platform, call, **fields)) in (200, 204)
    assert texts_of(bridge.read_saved_turns(call)) == [("", "Noted.")]
    assert bridge.count(platform=platform, outcome="answering_machine") == before + 1


@pytest.mark.parametrize("order", [("call_ended", "call_analyzed"), ("call_analyzed", "call_ended")])
def test_a_machine_may_be_found_by_the_analysis_only(bridge: Any, order: tuple[str, str]) -> None:
    number, call_id = "+4930123456" + order[0][-1].replace("d", "1"), f"analysis-{order[0]}"
    words = [("user", "Leave a message."), ("agent", "Please ring back."), ("user", "Beep. The red line is closed.")]
    for event in order:
        call = retell_call(call_id, *words, number=number)
        if event == "call_analyzed":
            call["call_analysis"] = {"in_voicemail": True}
        assert post_report(bridge, "retell", {"event": event, "call": call}) == 204
    memory = bridge.call_tool("Which line is closed? Leave a message?", number)
    assert "ring back" in memory
    assert "red line" not in memory
    assert "Leave a message" not in memory


def test_twilio_hangs_up_on_an_answering_machine(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"Direction": "outbound-api", "AnsweredBy": "machine_end_beep"}
    form = twilio_form("CAmachine", number=OUR_NUMBER, **{**machine, "To": NUMBER})
    reply = bridge.post_twilio("/twilio/voice", form)
    assert "<Hangup" in reply.text
    assert "<Say" not in reply.text
    monkeypatch.setattr("bridge.twilio_voice.voicemail_message", lambda: "Please ring back.")
    form = twilio_form("CAmachine", "Leave a message.", OUR_NUMBER, **{**machine, "To": NUMBER})
    reply = bridge.post_twilio("/twilio/turn?n=1", form)
    assert "<Say>Please ring back.</Say><Hangup" in reply.text
    assert not bridge.read_saved_turns("CAmachine")


@pytest.mark.parametrize("answered_by", ["human", "unknown"])
def test_twilio_talks_to_a_person_and_to_one_who_may_be_a_machine(bridge: Any, answered_by: str) -> None:
    reply = bridge.post_twilio("/twilio/voice", twilio_form(f"CA{answered_by}", AnsweredBy=answered_by))
    assert "<Gather" in reply.text


def test_a_machine_that_twilio_finds_later_takes_back_what_was_kept(
    bridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.twilio_voice.answer", lambda *_: "I see.")
    number, call = "+4940123456", "CAlater"
    bridge.say(call, 1, "You have reached the red line.", number)
    assert texts_of(bridge.read_saved_turns(call, number))[0][0] == "You have reached the red line."
    form = {
        "CallSid": call,
        "AccountSid": "AC0",
        "AnsweredBy": "machine_start",
    }  # as the asynchronous detection sends it
    assert bridge.post_twilio("/twilio/status", form).status_code == 204
    assert "red line" not in bridge.call_tool("Who was reached?", number)
    assert "red line" not in texts_of(bridge.read_saved_turns(call, number))[0][0]
    reply = bridge.post_twilio("/twilio/turn?n=2", twilio_form(call, "Beep.", number))
    assert "<Hangup" in reply.text
    assert len(bridge.read_saved_turns(call, number)) == 1


def test_calls_have_the_platforms_ids_and_end(bridge: Any) -> None:
    number = "+4950123456"
    bridge.post_twilio("/twilio/voice", twilio_form("CAends", number=number))
    bridge.say("CAends", 1, "My tent is green.", number)
    assert bridge.read_end_reasons("CAends", number) == []
    for _ in range(2):
        form = twilio_form("CAends", number=number, CallStatus="completed")
        assert bridge.post_twilio("/twilio/status", form).status_code == 204
    assert bridge.read_end_reasons("CAends", number) == ["completed"]
    assert bridge.post_twilio("/twilio/turn?n=2", twilio_form("CAends", "One more.", number)).status_code == 200
    assert [user for _, user, _, _ in bridge.read_saved_turns("CAends", number)] == ["My tent is green.", "One more."]


def test_a_call_of_vapi_begins_with_its_first_status_and_ends_with_its_last(bridge: Any) -> None:
    number = "+4960123456"
    bridge.post_vapi(vapi_message("status-update", "vapi-ends", number, status="in-progress"))
    bridge.post_vapi(vapi_message("status-update", "vapi-ends", number, status="ended"))
    assert bridge.read_end_reasons("vapi-ends", number) == ["ended"]


def test_two_calls_of_a_caller_do_not_see_each_other_as_one(bridge: Any) -> None:
    number = "+4970123456"
    bridge.say("CAone", 1, "My tent is green.", number)
    reply = bridge.say("CAtwo", 1, "Which colour has my tent?", number)
    assert "My tent is green." in reply
    assert [len(bridge.read_saved_turns(call, number)) for call in ("CAone", "CAtwo")] == [1, 1]
