"""Vapi, which runs the model. It asks for memories (a custom knowledge base) and delivers the call after its end."""

import time
from datetime import datetime, timedelta, timezone

import msgspec
from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue

from bridge import signatures
from bridge.bodies import parse_body, validate_call_id
from bridge.callers import make_caller_id
from bridge.memory import BridgeMemory
from bridge.settings import BridgeSettings
from bridge.turns import Speaker, Utterance, group_turns

_SPEAKERS = {"user": Speaker.CALLER, "bot": Speaker.AGENT, "assistant": Speaker.AGENT}
_SAVE_TIMEOUT_S = 15.0  # Vapi waits 20 s and does not try again


class _Customer(msgspec.Struct):
    number: str | None = None


class _VapiCall(msgspec.Struct, rename="camel"):
    id: str = ""
    customer: _Customer | None = None
    started_at: str | None = None


class _VapiMessage(msgspec.Struct, rename="camel"):
    role: str = ""
    message: str | None = None
    content: object = None  # in knowledge base requests; may be a list of parts
    time: float | None = None  # milliseconds since 1970
    seconds_from_start: float | None = None

    @property
    def text(self) -> str:
        return self.message or (self.content if isinstance(self.content, str) else "")


class _Artifact(msgspec.Struct):
    messages: list[_VapiMessage] = []


class _ServerMessage(msgspec.Struct, rename="camel"):
    type: str
    call: _VapiCall = msgspec.field(default_factory=_VapiCall)
    customer: _Customer | None = None
    status: str | None = None
    messages: list[_VapiMessage] = []
    artifact: _Artifact = msgspec.field(default_factory=_Artifact)
    started_at: str | None = None


class _RequestBody(msgspec.Struct):
    message: _ServerMessage


def blueprint(settings: BridgeSettings, memory: BridgeMemory) -> Blueprint:
    """Return the route ``POST /vapi``, which receives all server messages of Vapi."""
    vapi = Blueprint("vapi", __name__, url_prefix="/vapi")

    @vapi.post("")
    def message() -> ResponseReturnValue:
        body = request.get_data(cache=False)
        if not settings.accepts_unsigned and not _is_authentic(settings, body):
            abort(401)
        server_message = parse_body(body, _RequestBody).message
        caller = make_caller_id(settings.caller_salt, _caller_number(server_message))
        if server_message.type == "knowledge-base-request":
            query = next((entry.text for entry in reversed(server_message.messages) if entry.role == "user"), "")
            context = memory.recall(caller, query)
            return jsonify(documents=[{"content": context, "similarity": 1.0}] if context else [])
        if server_message.type == "status-update" and server_message.status in ("ringing", "in-progress"):
            memory.warm_up(caller)
        if server_message.type == "end-of-call-report":
            call_id = validate_call_id(server_message.call.id)
            turns = group_turns(call_id, _utterances(server_message))
            if not memory.save(caller, "vapi", call_id, turns, timeout_s=_SAVE_TIMEOUT_S):
                abort(503)
        return jsonify({})

    return vapi


def _is_authentic(settings: BridgeSettings, body: bytes) -> bool:
    signature, timestamp = request.headers.get("X-Vapi-Signature", ""), request.headers.get("X-Vapi-Timestamp", "")
    if signature:
        return signatures.is_signed_by_vapi(
            body, signature, timestamp, settings.secret("VAPI_HMAC_SECRET"), time.time()
        )
    # A knowledge base of Vapi cannot sign. It sends a secret in a header.
    return signatures.matches_secret(request.headers.get("X-Vapi-Secret", ""), settings.secret("VAPI_SECRET"))


def _caller_number(message: _ServerMessage) -> str | None:
    return next(
        (customer.number for customer in (message.call.customer, message.customer) if customer and customer.number),
        None,
    )


def _utterances(message: _ServerMessage) -> list[Utterance]:
    started_at = _parse_time(message.call.started_at or message.started_at)
    return [
        Utterance(_SPEAKERS[entry.role], entry.text, _spoken_at(entry, started_at))
        for entry in message.artifact.messages
        if entry.role in _SPEAKERS  # others are of the system and of tools
    ]


def _spoken_at(entry: _VapiMessage, started_at: datetime | None) -> datetime | None:
    try:
        if entry.time is not None:
            return datetime.fromtimestamp(entry.time / 1e3, timezone.utc)
        if started_at is not None and entry.seconds_from_start is not None:
            return started_at + timedelta(seconds=entry.seconds_from_start)
    except (ValueError, OverflowError, OSError):
        pass  # no date can hold this offset: the start of the call is the best estimate
    return started_at


def _parse_time(text: str | None) -> datetime | None:
    try:
        return None if text is None else msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
