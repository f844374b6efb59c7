"""Who may call the bridge."""

import time
from typing import Any, NamedTuple

import pytest
from support.webhooks import (
    SECRETS,
    Headers,
    elevenlabs_event,
    elevenlabs_signature,
    encoded,
    retell_call,
    retell_signature,
    twilio_form,
    twilio_signature,
    vapi_message,
    vapi_signature,
)


class Signed(NamedTuple):
    """A webhook whose body is signed with a time."""

    path: str
    body: bytes
    sign: Any
    window_s: float
    status: int


SIGNED = [
    pytest.param(Signed("/vapi", encoded(vapi_message("hang", "c-1")), vapi_signature, 300, 200), id="vapi"),
    pytest.param(
        Signed(
            "/retell/webhook", encoded({"event": "call_other", "call": retell_call("c-1")}), retell_signature, 300, 204
        ),
        id="retell-webhook",
    ),
    pytest.param(
        Signed("/retell/function", encoded({"call": retell_call("c-1", number=None)}), retell_signature, 300, 200),
        id="retell-function",
    ),
    pytest.param(
        Signed("/elevenlabs/post-call", encoded(elevenlabs_event("c-1")), elevenlabs_signature, 1800, 200),
        id="elevenlabs",
    ),
]


def status(bridge: Any, path: str, body: bytes, headers: Headers) -> int:
    answered = bridge.http.post(path, data=body, headers=headers, content_type="application/json")
    return int(answered.status_code)


@pytest.mark.parametrize("webhook", SIGNED)
def test_a_signed_body_is_taken_and_any_other_is_not(bridge: Any, webhook: Signed) -> None:
    path, body, sign, _, good = webhook
    assert status(bridge, path, body, sign(body)) == good
    assert status(bridge, path, body, {}) == 401
    assert status(bridge, path, body + b" ", sign(body)) == 401
    assert status(bridge, path, body, sign(body, "another secret")) == 401
    assert status(bridge, path, body, sign(body, "")) == 401


@pytest.mark.parametrize("webhook", SIGNED)
def test_an_old_body_is_not_taken_and_neither_is_one_of_the_future(bridge: Any, webhook: Signed) -> None:
    path, body, sign, window_s, good = webhook
    for age, expected in ((window_s - 30, good), (window_s + 30, 401), (-window_s - 30, 401)):
        assert status(bridge, path, body, sign(body, at=time.time() - age)) == expected


@pytest.mark.parametrize("webhook", SIGNED)
@pytest.mark.parametrize("rubbish", ["", "rubbish", "t=,v0=", "v=,d=", "t=1e9,v0=x", "v=٣,d=x", "\xff\xfe", "," * 500])
def test_rubbish_in_the_place_of_a_signature_is_refused_and_no_more(bridge: Any, webhook: Signed, rubbish: str) -> None:
    headers = [(name, rubbish.encode()) for name in webhook.sign(b"")]
    answered = bridge.http.post(
        webhook.path, data=webhook.body, headers=[(name, value.decode("latin-1")) for name, value in headers]
    )
    assert answered.status_code == 401


@pytest.mark.parametrize("webhook", SIGNED)
def test_the_time_is_signed_too(bridge: Any, webhook: Signed) -> None:
    old = webhook.sign(webhook.body, at=time.time() - 86_400)
    now = webhook.sign(webhook.body)
    stamps = [
        (name, told.partition(",")[0], new.partition(",")[0])
        for (name, told), new in zip(old.items(), now.values(), strict=True)
    ]
    forged = {
        name: old[name].replace(old_stamp, new_stamp) if "," in old[name] or "Timestamp" in name else old[name]
        for name, old_stamp, new_stamp in stamps
    }
    assert status(bridge, webhook.path, webhook.body, forged) == 401


def test_elevenlabs_may_sign_with_two_keys_while_one_is_changed(bridge: Any) -> None:
    body = encoded(elevenlabs_event("c-1"))
    [ours] = elevenlabs_signature(body).values()
    [theirs] = elevenlabs_signature(body, "the next secret").values()
    both = f"{theirs},{ours.partition(',')[2]}"
    assert status(bridge, "/elevenlabs/post-call", body, {"ElevenLabs-Signature": both}) == 200


def test_vapi_may_send_a_secret_but_not_beside_a_wrong_signature(bridge: Any) -> None:
    body = encoded(vapi_message("hang", "c-1"))
    secret = {"X-Vapi-Secret": SECRETS["VAPI_SECRET"]}
    assert status(bridge, "/vapi", body, secret) == 200
    assert status(bridge, "/vapi", body, {**secret, "X-Vapi-Signature": "0" * 64}) == 401
    assert status(bridge, "/vapi", body, {"X-Vapi-Secret": "another"}) == 401
    assert status(bridge, "/vapi", body, {"X-Vapi-Secret": "\xe9"}) == 401


def test_vapi_without_a_shared_secret_takes_none(new_bridge: Any) -> None:
    bridge = new_bridge(VAPI_SECRET="")
    body = encoded(vapi_message("hang", "c-1"))
    assert status(bridge, "/vapi", body, {"X-Vapi-Secret": ""}) == 401
    assert status(bridge, "/vapi", body, vapi_signature(body)) == 200


def test_an_empty_secret_signs_nothing(new_bridge: Any) -> None:
    bridge = new_bridge(VAPI_HMAC_SECRET="")
    body = encoded(vapi_message("hang", "c-1"))
    assert status(bridge, "/vapi", body, vapi_signature(body, "")) == 401
    assert status(bridge, "/vapi", body, {"X-Vapi-Secret": SECRETS["VAPI_SECRET"]}) == 200


def test_a_tool_brings_a_secret(bridge: Any) -> None:
    body = encoded({"query": "anything", "caller_id": None})
    good = SECRETS["ELEVENLABS_TOOL_SECRET"]
    assert status(bridge, "/elevenlabs/tool", body, {"Authorization": f"Bearer {good}"}) == 200
    for wrong in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {good}x"}):
        assert status(bridge, "/elevenlabs/tool", body, wrong) == 401


def test_twilio_signs_the_public_address_whatever_the_proxy_makes_of_it(bridge: Any) -> None:
    form = twilio_form("CA1", number="anonymous")
    assert bridge.twilio("/twilio/voice", form).status_code == 200
    inside = twilio_signature("/twilio/voice", form, base="http://10.0.0.7:8000")
    assert bridge.twilio("/twilio/voice", form, **inside).status_code == 403


def test_twilio_signs_the_form_and_the_number_of_the_turn(bridge: Any) -> None:
    form = twilio_form("CA1", "hello", number="anonymous")
    signed = twilio_signature("/twilio/turn?n=1", form)
    assert bridge.twilio("/twilio/turn?n=1", form, **signed).status_code == 200
    assert bridge.twilio("/twilio/turn?n=2", form, **signed).status_code == 403
    assert bridge.twilio("/twilio/turn?n=1", {**form, "From": "+14155550199"}, **signed).status_code == 403
    assert bridge.twilio("/twilio/turn?n=1", {**form, "Added": ""}, **signed).status_code == 403


@pytest.mark.parametrize("signature", ["", "rubbish", "\xff"])
def test_twilio_without_a_signature_is_refused(bridge: Any, signature: str) -> None:
    form = twilio_form("CA1", number="anonymous")
    assert bridge.twilio("/twilio/voice", form, **{"X-Twilio-Signature": signature}).status_code == 403
    other = twilio_signature("/twilio/voice", form, token="another token")
    assert bridge.twilio("/twilio/voice", form, **other).status_code == 403


def test_the_forwarded_host_of_a_stranger_counts_for_nothing(bridge: Any) -> None:
    form = twilio_form("CA1", number="anonymous")
    signed = twilio_signature("/twilio/voice", form, base="https://evil.example")
    forwarded = {**signed, "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    assert bridge.twilio("/twilio/voice", form, **forwarded).status_code == 403
