"""Authentication of webhooks: signatures, shared secrets and time windows."""

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


class SignedWebhook(NamedTuple):
    """A webhook whose body is signed together with a timestamp."""

    path: str
    body: bytes
    sign: Any
    window_s: float
    accepted_status: int


SIGNED_WEBHOOKS = [
    pytest.param(SignedWebhook("/vapi", encoded(vapi_message("hang", "c-1")), vapi_signature, 300, 200), id="vapi"),
    pytest.param(
        SignedWebhook(
            "/retell/webhook", encoded({"event": "call_other", "call": retell_call("c-1")}), retell_signature, 300, 204
        ),
        id="retell-webhook",
    ),
    pytest.param(
        SignedWebhook(
            "/retell/function", encoded({"call": retell_call("c-1", number=None)}), retell_signature, 300, 200
        ),
        id="retell-function",
    ),
    pytest.param(
        SignedWebhook("/elevenlabs/post-call", encoded(elevenlabs_event("c-1")), elevenlabs_signature, 1800, 200),
        id="elevenlabs",
    ),
]


def post_webhook(bridge: Any, path: str, body: bytes, headers: Headers) -> int:
    reply = bridge.http.post(path, data=body, headers=headers, content_type="application/json")
    return int(reply.status_code)


@pytest.mark.parametrize("webhook", SIGNED_WEBHOOKS)
def test_a_signed_body_is_accepted_and_any_other_is_refused(bridge: Any, webhook: SignedWebhook) -> None:
    path, body, sign, _, accepted = webhook
    assert post_webhook(bridge, path, body, sign(body)) == accepted
    assert post_webhook(bridge, path, body, {}) == 401
    assert post_webhook(bridge, path, body + b" ", sign(body)) == 401
    assert post_webhook(bridge, path, body, sign(body, "another secret")) == 401
    assert post_webhook(bridge, path, body, sign(body, "")) == 401


@pytest.mark.parametrize("webhook", SIGNED_WEBHOOKS)
def test_a_body_signed_too_long_ago_or_in_the_future_is_refused(bridge: Any, webhook: SignedWebhook) -> None:
    path, body, sign, window_s, accepted = webhook
    for age, expected in ((window_s - 30, accepted), (window_s + 30, 401), (-window_s - 30, 401)):
        assert post_webhook(bridge, path, body, sign(body, at=time.time() - age)) == expected


@pytest.mark.parametrize("webhook", SIGNED_WEBHOOKS)
@pytest.mark.parametrize(
    "malformed", ["", "rubbish", "t=,v0=", "v=,d=", "t=1e9,v0=x", "v=٣,d=x", "\xff\xfe", "," * 500]
)
def test_a_malformed_signature_is_answered_with_401(bridge: Any, webhook: SignedWebhook, malformed: str) -> None:
    headers = [(name, malformed.encode()) for name in webhook.sign(b"")]
    reply = bridge.http.post(
        webhook.path, data=webhook.body, headers=[(name, value.decode("latin-1")) for name, value in headers]
    )
    assert reply.status_code == 401


@pytest.mark.parametrize("webhook", SIGNED_WEBHOOKS)
def test_the_signature_covers_the_time(bridge: Any, webhook: SignedWebhook) -> None:
    old = webhook.sign(webhook.body, at=time.time() - 86_400)
    now = webhook.sign(webhook.body)
    timestamps = [
        (name, old_header.partition(",")[0], new_header.partition(",")[0])
        for (name, old_header), new_header in zip(old.items(), now.values(), strict=True)
    ]
    forged = {
        name: old[name].replace(old_time, new_time) if "," in old[name] or "Timestamp" in name else old[name]
        for name, old_time, new_time in timestamps
    }
    assert post_webhook(bridge, webhook.path, webhook.body, forged) == 401


def test_elevenlabs_may_sign_with_two_keys_while_one_is_replaced(bridge: Any) -> None:
    body = encoded(elevenlabs_event("c-1"))
    [ours] = elevenlabs_signature(body).values()
    [theirs] = elevenlabs_signature(body, "the next secret").values()
    both = f"{theirs},{ours.partition(',')[2]}"
    assert post_webhook(bridge, "/elevenlabs/post-call", body, {"ElevenLabs-Signature": both}) == 200


def test_vapi_may_send_a_shared_secret_but_not_with_a_wrong_signature(bridge: Any) -> None:
    body = encoded(vapi_message("hang", "c-1"))
    secret = {"X-Vapi-Secret": SECRETS["VAPI_SECRET"]}
    assert post_webhook(bridge, "/vapi", body, secret) == 200
    assert post_webhook(bridge, "/vapi", body, {**secret, "X-Vapi-Signature": "0" * 64}) == 401
    assert post_webhook(bridge, "/vapi", body, {"X-Vapi-Secret": "another"}) == 401
    assert post_webhook(bridge, "/vapi", body, {"X-Vapi-Secret": "\xe9"}) == 401


def test_without_a_shared_secret_vapi_must_sign(make_bridge: Any) -> None:
    bridge = make_bridge(VAPI_SECRET="")
    body = encoded(vapi_message("hang", "c-1"))
    assert post_webhook(bridge, "/vapi", body, {"X-Vapi-Secret": ""}) == 401
    assert post_webhook(bridge, "/vapi", body, vapi_signature(body)) == 200


def test_a_signature_with_an_empty_secret_is_refused(make_bridge: Any) -> None:
    bridge = make_bridge(VAPI_HMAC_SECRET="")
    body = encoded(vapi_message("hang", "c-1"))
    assert post_webhook(bridge, "/vapi", body, vapi_signature(body, "")) == 401
    assert post_webhook(bridge, "/vapi", body, {"X-Vapi-Secret": SECRETS["VAPI_SECRET"]}) == 200


def test_a_tool_request_requires_the_secret(bridge: Any) -> None:
    body = encoded({"query": "anything", "caller_id": None})
    secret = SECRETS["ELEVENLABS_TOOL_SECRET"]
    assert post_webhook(bridge, "/elevenlabs/tool", body, {"Authorization": f"Bearer {secret}"}) == 200
    for wrong in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {secret}x"}):
        assert post_webhook(bridge, "/elevenlabs/tool", body, wrong) == 401


def test_twilio_signatures_cover_the_public_url_and_not_the_internal_one(bridge: Any) -> None:
    form = twilio_form("CA1", number="anonymous")
    assert bridge.post_twilio("/twilio/voice", form).status_code == 200
    internal = twilio_signature("/twilio/voice", form, base="http://10.0.0.7:8000")
    assert bridge.post_twilio("/twilio/voice", form, **internal).status_code == 403


def test_twilio_signatures_cover_the_form_and_the_turn_number(bridge: Any) -> None:
    form = twilio_form("CA1", "hello", number="anonymous")
    signed = twilio_signature("/twilio/turn?n=1", form)
    assert bridge.post_twilio("/twilio/turn?n=1", form, **signed).status_code == 200
    assert bridge.post_twilio("/twilio/turn?n=2", form, **signed).status_code == 403
    assert bridge.post_twilio("/twilio/turn?n=1", {**form, "From": "+14155550199"}, **signed).status_code == 403
    assert bridge.post_twilio("/twilio/turn?n=1", {**form, "Added": ""}, **signed).status_code == 403


@pytest.mark.parametrize("signature", ["", "rubbish", "\xff"])
def test_twilio_without_a_valid_signature_is_refused(bridge: Any, signature: str) -> None:
    form = twilio_form("CA1", number="anonymous")
    assert bridge.post_twilio("/twilio/voice", form, **{"X-Twilio-Signature": signature}).status_code == 403
    other = twilio_signature("/twilio/voice", form, token="another token")
    assert bridge.post_twilio("/twilio/voice", form, **other).status_code == 403


def test_forwarded_host_headers_are_ignored(bridge: Any) -> None:
    form = twilio_form("CA1", number="anonymous")
    signed = twilio_signature("/twilio/voice", form, base="https://evil.example")
    forwarded = {**signed, "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    assert bridge.post_twilio("/twilio/voice", form, **forwarded).status_code == 403
