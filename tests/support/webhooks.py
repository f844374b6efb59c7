"""Webhooks of telephony platforms: bodies as their documentation shows them, with their signatures."""

import hashlib
import hmac
import json
import time
from typing import Any
from urllib.parse import urlencode

from twilio.request_validator import RequestValidator

NUMBER, OTHER_NUMBER, OUR_NUMBER = "+14155550123", "+442071838750", "+18005550199"
STARTED_AT = 1_772_443_800  # 2026-03-02T09:30:00Z
PUBLIC_URL = "https://voice.example.com/bridge"
SECRETS = {
    "TWILIO_AUTH_TOKEN": "twilio-auth-token-of-the-tests",
    "VAPI_HMAC_SECRET": "vapi-hmac-secret-of-the-tests",
    "VAPI_SECRET": "vapi-secret-of-the-tests",
    "RETELL_API_KEY": "key_retell_of_the_tests",
    "ELEVENLABS_WEBHOOK_SECRET": "wsec_of_the_tests",
    "ELEVENLABS_TOOL_SECRET": "tool-secret-of-the-tests",
}
Headers = dict[str, str]


def twilio_form(call_id: str, text: str | None = None, number: str = NUMBER, **extra: str) -> dict[str, str]:
    """Return the fields of a voice webhook; with words, of the one after a Gather."""
    form = {
        "AccountSid": "AC" + "0" * 32,
        "ApiVersion": "2010-04-01",
        "CallSid": call_id,
        "CallStatus": "in-progress" if text is not None else "ringing",
        "Called": OUR_NUMBER,
        "Caller": number,
        "Direction": "inbound",
        "From": number,
        "FromCity": "",
        "To": OUR_NUMBER,
    }
    speech = {} if text is None else {"SpeechResult": text, "Confidence": "0.9128386", "Language": "en-US"}
    return {**form, **speech, **extra}


def twilio_signature(
    path: str, form: dict[str, str], token: str = SECRETS["TWILIO_AUTH_TOKEN"], base: str = PUBLIC_URL
) -> Headers:
    return {"X-Twilio-Signature": RequestValidator(token).compute_signature(base + path, form)}


def vapi_message(type_: str, call_id: str = "", number: str | None = NUMBER, **extra: Any) -> dict[str, Any]:
    """Return a server message of Vapi, with some of its surrounding fields."""
    vapi_call = {
        "id": call_id,
        "type": "inboundPhoneCall",
        "startedAt": "2026-03-02T09:30:00.000Z",
        "assistantId": "a-1",
    }
    if number is not None:
        vapi_call["customer"] = {"number": number}
    return {"message": {"timestamp": STARTED_AT * 1000, "type": type_, "call": vapi_call, "assistant": {}, **extra}}


def vapi_report(call_id: str, *turns: tuple[str, str], number: str | None = NUMBER) -> dict[str, Any]:
    """Return the report of a finished call; each line is a role and its words."""
    messages: list[dict[str, Any]] = [{"role": "system", "message": "You are Juno.", "time": STARTED_AT * 1000}]
    for position, (role, text) in enumerate(turns):
        message = {
            "role": role,
            "message": text,
            "time": (STARTED_AT + 10 * position) * 1000,
            "secondsFromStart": 10 * position,
        }
        messages.append({**message, "endTime": (STARTED_AT + 10 * position + 3) * 1000})
    artifact = {"messages": messages, "transcript": "AI: ..."}
    return vapi_message("end-of-call-report", call_id, number, endedReason="customer-ended-call", artifact=artifact)


def vapi_signature(body: bytes, secret: str = SECRETS["VAPI_HMAC_SECRET"], at: float | None = None) -> Headers:
    timestamp = str(int(time.time() if at is None else at))
    return {"X-Vapi-Signature": _hex(secret, timestamp.encode() + b"." + body), "X-Vapi-Timestamp": timestamp}


def retell_call(call_id: str, *turns: tuple[str, str], number: str | None = NUMBER, **extra: Any) -> dict[str, Any]:
    """Return Retell's record of a call."""
    transcript = [
        {
            "role": role,
            "content": text,
            "words": [{"word": text.split()[0], "start": 10.0 * position, "end": 10.0 * position + 1}],
        }
        for position, (role, text) in enumerate(turns)
    ]
    return {
        "call_type": "phone_call",
        "call_id": call_id,
        "agent_id": "agent_1",
        "from_number": number,
        "to_number": OUR_NUMBER,
        "direction": "inbound",
        "start_timestamp": STARTED_AT * 1000,
        "transcript": "Agent: ...",
        "transcript_object": transcript,
        **extra,
    }


def retell_signature(body: bytes, key: str = SECRETS["RETELL_API_KEY"], at: float | None = None) -> Headers:
    timestamp = str(int((time.time() if at is None else at) * 1000))
    return {"X-Retell-Signature": f"v={timestamp},d={_hex(key, body + timestamp.encode())}"}


def elevenlabs_event(call_id: str, *turns: tuple[str, str | None], number: str | None = NUMBER) -> dict[str, Any]:
    """Return the post-call webhook of a conversation."""
    transcript = [
        {"role": role, "message": text, "tool_calls": None, "time_in_call_secs": 10 * position}
        for position, (role, text) in enumerate(turns)
    ]
    phone = {"direction": "inbound", "external_number": number, "agent_number": OUR_NUMBER, "type": "twilio"}
    data = {
        "agent_id": "agent_1",
        "conversation_id": call_id,
        "status": "done",
        "transcript": transcript,
        "metadata": {"start_time_unix_secs": STARTED_AT, "call_duration_secs": 60, "phone_call": number and phone},
        "analysis": {"call_successful": "success"},
        "conversation_initiation_client_data": {"dynamic_variables": {"user_name": "angelo"}},
    }
    return {"type": "post_call_transcription", "event_timestamp": STARTED_AT + 70, "data": data}


def elevenlabs_signature(
    body: bytes, secret: str = SECRETS["ELEVENLABS_WEBHOOK_SECRET"], at: float | None = None
) -> Headers:
    timestamp = str(int(time.time() if at is None else at))
    return {"ElevenLabs-Signature": f"t={timestamp},v0={_hex(secret, timestamp.encode() + b'.' + body)}"}


def encoded(body: Any) -> bytes:
    """Return a body as it is sent. The signature covers these bytes."""
    return json.dumps(body, separators=(",", ":")).encode()


def form_encoded(form: dict[str, str]) -> bytes:
    return urlencode(form).encode()


def _hex(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
