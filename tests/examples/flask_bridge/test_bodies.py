"""What a platform, or somebody with its secret, may send: none of it is an error of ours."""

from typing import Any

import pytest
from support.webhooks import (
    SECRETS,
    elevenlabs_event,
    encoded,
    retell_call,
    twilio_form,
    twilio_signature,
    vapi_message,
    vapi_report,
)

WRONG = [
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


@pytest.mark.parametrize("body", WRONG, ids=lambda body: repr(body[:20]))
def test_a_body_of_another_shape_is_told_so(bridge: Any, body: bytes) -> None:
    answers = [
        bridge.vapi(body),
        bridge.retell("webhook", body),
        bridge.retell("function", body),
        bridge.elevenlabs(body),
    ]
    assert {(each.status_code, each.json["error"]) for each in answers} == {(400, "Bad Request")}


def test_a_tools_body_of_another_shape_is_told_so(bridge: Any) -> None:
    headers = {"Authorization": f"Bearer {SECRETS['ELEVENLABS_TOOL_SECRET']}"}
    for body in (b"", b"[]", b'{"query": 1}', b'{"caller_id": {}}'):
        assert bridge.http.post("/elevenlabs/tool", data=body, headers=headers).status_code == 400


@pytest.mark.parametrize("call", ["", "a b", "../../etc", "x" * 129, "c\0", "c\n", "ä"])
def test_an_id_that_can_be_none_is_refused(bridge: Any, call: str) -> None:
    said = ("user", "hello")
    answers = [
        bridge.vapi(vapi_report(call, said)),
        bridge.retell("webhook", {"event": "call_ended", "call": retell_call(call, said)}),
        bridge.elevenlabs(elevenlabs_event(call, said)),
        bridge.twilio("/twilio/voice", twilio_form(call)),
    ]
    assert [each.status_code for each in answers] == [400] * 4


def test_what_is_too_large_is_not_read(bridge: Any) -> None:
    large = b" " * (2 * 1024 * 1024 + 1)
    answers = [bridge.vapi(large), bridge.retell("webhook", large), bridge.elevenlabs(large)]
    form = twilio_form("CA1", "x" * (2 * 1024 * 1024))
    answers.append(bridge.twilio("/twilio/turn?n=1", form))
    assert [each.status_code for each in answers] == [413] * 4


def test_only_what_is_posted_counts_since_addresses_are_logged(bridge: Any) -> None:
    for path in ("/twilio/voice", "/twilio/turn", "/vapi", "/retell/webhook", "/retell/function", "/elevenlabs/tool"):
        assert bridge.http.get(path).status_code in (403, 405)  # Twilio's is not even asked what it wants


def test_messages_that_are_nobodys_business_are_acknowledged(bridge: Any) -> None:
    assert bridge.vapi(vapi_message("speech-update", "c-1", status="started")).status_code == 200
    assert bridge.retell("webhook", {"event": "transcript_updated", "call": retell_call("c-1")}).status_code == 204
    assert bridge.elevenlabs({"type": "post_call_audio", "data": {"full_audio": "AAAA"}}).status_code == 200


@pytest.mark.parametrize("number", ["", "0", "-1", "x", "1001", "²", "9" * 5000])
def test_a_turn_without_a_number_is_refused(bridge: Any, number: str) -> None:
    from urllib.parse import quote

    path = f"/twilio/turn?n={quote(number)}"
    form = twilio_form("CA1", "hello", number="anonymous")
    assert bridge.twilio(path, form, **twilio_signature(path, form)).status_code == 400


def test_times_that_no_calendar_has_do_no_harm(bridge: Any) -> None:
    call = retell_call("late", ("user", "hello"), start_timestamp=1e300)
    assert bridge.retell("webhook", {"event": "call_ended", "call": call}).status_code == 204
    report = vapi_report("late-2", ("user", "hello"))
    report["message"]["artifact"]["messages"][1]["time"] = 1e300
    report["message"]["call"]["startedAt"] = "yesterday"
    assert bridge.vapi(encoded(report)).status_code == 200
    event = elevenlabs_event("late-3", ("user", "hello"))
    event["data"]["metadata"]["start_time_unix_secs"] = 1e300
    assert bridge.elevenlabs(event).status_code == 200
    for each in ("late", "late-2", "late-3"):
        [(_, said, _, _)] = bridge.kept(each)
        assert said == "hello"
