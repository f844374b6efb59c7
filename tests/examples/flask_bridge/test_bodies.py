"""Bodies that a platform, or anyone with its secret, may send: none of them causes an internal error."""

from typing import Any

import pytest
from support.webhooks import (
    OTHER_NUMBER,
    SECRETS,
    elevenlabs_event,
    encoded,
    retell_call,
    twilio_form,
    twilio_signature,
    vapi_message,
    vapi_report,
)

INVALID_BODIES = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"hello"',
    b"{",
    b"[" * 100_000,
    b'{"message": "\\ud800"}',
    b"\xff\xfe",
    b'{"event": 1}',
]


@pytest.mark.parametrize("body", INVALID_BODIES, ids=lambda body: repr(body[:20]))
def test_a_webhook_body_of_the_wrong_shape_is_answered_with_400(bridge: Any, body: bytes) -> None:
    replies = [
        bridge.post_vapi(body),
        bridge.post_retell("webhook", body),
        bridge.post_retell("function", body),
        bridge.post_elevenlabs(body),
    ]
    assert {(reply.status_code, reply.json["error"]) for reply in replies} == {(400, "Bad Request")}


def test_a_tool_body_of_the_wrong_shape_is_answered_with_400(bridge: Any) -> None:
    headers = {"Authorization": f"Bearer {SECRETS['ELEVENLABS_TOOL_SECRET']}"}
    for body in (b"", b"[]", b'{"query": 1}', b'{"caller_id": {}}'):
        assert bridge.http.post("/elevenlabs/tool", data=body, headers=headers).status_code == 400


@pytest.mark.parametrize("call", ["", "a b", "../../etc", "x" * 129, "c\0", "c\n", "ä"])
def test_an_invalid_call_id_is_answered_with_400(bridge: Any, call: str) -> None:
    entry = ("user", "hello")
    replies = [
        bridge.post_vapi(vapi_report(call, entry)),
        bridge.post_retell("webhook", {"event": "call_ended", "call": retell_call(call, entry)}),
        bridge.post_elevenlabs(elevenlabs_event(call, entry)),
        bridge.post_twilio("/twilio/voice", twilio_form(call)),
    ]
    assert [reply.status_code for reply in replies] == [400] * 4


def test_a_body_that_is_too_large_is_answered_with_413(bridge: Any) -> None:
    large = b" " * (16 * 1024 * 1024 + 1)
    replies = [bridge.post_vapi(large), bridge.post_retell("webhook", large), bridge.post_elevenlabs(large)]
    form = twilio_form("CA1", "x" * (2 * 1024 * 1024))
    replies.append(bridge.post_twilio("/twilio/turn?n=1", form))
    assert [reply.status_code for reply in replies] == [413] * 4


def test_a_body_that_is_too_large_is_counted(bridge: Any, caplog: pytest.LogCaptureFixture) -> None:
    before = bridge.count(platform="vapi", outcome="too_large")
    assert bridge.post_vapi(b" " * (16 * 1024 * 1024 + 1)).status_code == 413
    assert bridge.count(platform="vapi", outcome="too_large") == before + 1
    assert "platform=vapi outcome=too_large" in caplog.text


def test_the_limit_can_be_changed(make_bridge: Any) -> None:
    bridge = make_bridge(BRIDGE_MAX_BODY_MB="1")
    assert bridge.post_vapi(b" " * (1024 * 1024 + 1)).status_code == 413


@pytest.mark.parametrize("platform", ["vapi", "retell", "elevenlabs"])
def test_a_call_of_many_megabytes_is_kept(bridge: Any, platform: str) -> None:
    """A call of 40 minutes, with as much around each word as platforms send, and more."""
    lines = [("agent" if number % 2 else "user", f"Line {number} " + "about boots " * 20) for number in range(200)]
    padding = [{"word": "boots", "start": 0.25 * number, "end": 0.25 * number + 0.2} for number in range(60_000)]
    call = f"large-{platform}"
    if platform == "vapi":
        body = vapi_report(call, *(("bot" if role == "agent" else role, text) for role, text in lines))
        body["message"]["artifact"]["messagesOpenAIFormatted"] = padding
        reply = bridge.post_vapi(body)
    elif platform == "retell":
        body = {"event": "call_ended", "call": retell_call(call, *lines, transcript_with_tool_calls=padding)}
        reply = bridge.post_retell("webhook", body)
    else:
        body = elevenlabs_event(call, *lines)
        body["data"]["analysis"]["padding"] = padding
        reply = bridge.post_elevenlabs(body)
    assert len(encoded(body)) > 2_500_000
    assert reply.status_code in (200, 204)
    assert len(bridge.read_saved_turns(call)) == 100


def test_a_monologue_too_long_for_one_turn_is_kept_in_several(bridge: Any) -> None:
    words = [f"word{number}" for number in range(30_000)]
    lines = [("agent", "Go on."), ("user", " ".join(words)), ("agent", "I see.")]
    call = retell_call("monologue", *lines, number=OTHER_NUMBER)
    assert bridge.post_retell("webhook", {"event": "call_ended", "call": call}).status_code == 204
    turns = bridge.read_saved_turns("monologue", OTHER_NUMBER)
    assert "".join(user for _, user, _, _ in turns) == " ".join(words)
    assert [agent for _, _, agent, _ in turns if agent] == ["Go on.", "I see."]
    assert len(turns) == len({turn_id for turn_id, *_ in turns}) > 3


@pytest.mark.parametrize("odd", [b'"\\ud83d"', b"NaN", b"1e999", b"1" * 400])
def test_json_that_only_some_parsers_accept_costs_no_call(bridge: Any, odd: bytes) -> None:
    call_id = f"odd-{len(odd)}"
    body = encoded({"event": "call_ended", "call": retell_call(call_id, ("user", "hello"), start_timestamp="ODD")})
    assert bridge.post_retell("webhook", body.replace(b'"ODD"', odd)).status_code == 204
    assert [user for _, user, _, _ in bridge.read_saved_turns(call_id)] == ["hello"]


def test_half_an_emoji_in_a_transcript_costs_only_itself(bridge: Any) -> None:
    body = encoded({"event": "call_ended", "call": retell_call("emoji", ("user", "hello HALF"))})
    assert bridge.post_retell("webhook", body.replace(b"HALF", b"\\ud83d")).status_code == 204
    assert [user for _, user, _, _ in bridge.read_saved_turns("emoji")] == ["hello ?"]


def test_webhooks_accept_only_post_because_urls_are_logged(bridge: Any) -> None:
    for path in ("/twilio/voice", "/twilio/turn", "/vapi", "/retell/webhook", "/retell/function", "/elevenlabs/tool"):
        assert bridge.http.get(path).status_code in (403, 405)  # 403 for Twilio: its signature is checked first


def test_irrelevant_messages_are_acknowledged(bridge: Any) -> None:
    assert bridge.post_vapi(vapi_message("speech-update", "c-1", status="started")).status_code == 200
    assert bridge.post_retell("webhook", {"event": "transcript_updated", "call": retell_call("c-1")}).status_code == 204
    assert bridge.post_elevenlabs({"type": "post_call_audio", "data": {"full_audio": "AAAA"}}).status_code == 200


@pytest.mark.parametrize("turn", ["", "0", "-1", "x", "1001", "²", "9" * 5000])
def test_an_invalid_turn_number_is_answered_with_400(bridge: Any, turn: str) -> None:
    from urllib.parse import quote

    path = f"/twilio/turn?n={quote(turn)}"
    form = twilio_form("CA1", "hello", number="anonymous")
    assert bridge.post_twilio(path, form, **twilio_signature(path, form)).status_code == 400


def test_turns_with_impossible_times_are_saved(bridge: Any) -> None:
    call = retell_call("late", ("user", "hello"), start_timestamp=1e300)
    assert bridge.post_retell("webhook", {"event": "call_ended", "call": call}).status_code == 204
    report = vapi_report("late-2", ("user", "hello"))
    report["message"]["artifact"]["messages"][1]["time"] = 1e300
    report["message"]["call"]["startedAt"] = "yesterday"
    assert bridge.post_vapi(encoded(report)).status_code == 200
    event = elevenlabs_event("late-3", ("user", "hello"))
    event["data"]["metadata"]["start_time_unix_secs"] = 1e300
    assert bridge.post_elevenlabs(event).status_code == 200
    for call_id in ("late", "late-2", "late-3"):
        [(_, user_text, _, _)] = bridge.read_saved_turns(call_id)
        assert user_text == "hello"
