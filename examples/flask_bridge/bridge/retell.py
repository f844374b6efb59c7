"""Retell: it has the model. A custom function asks for what is known, a webhook tells of the call once it is over."""

import time
from datetime import datetime, timezone

import msgspec
from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue

from bridge import signatures
from bridge.bodies import parse_body, validate_call_id
from bridge.callers import make_caller_id
from bridge.memory import BridgeMemory
from bridge.settings import BridgeSettings
from bridge.turns import Speaker, Utterance, group_turns

_SPEAKERS = {"user": Speaker.CALLER, "agent": Speaker.AGENT}
_SAVE_TIMEOUT_S = 8.0  # Retell waits 10 s, and tries three times
# Both have the whole transcript; which of them comes first, or alone, is all the same.
_END_EVENTS = ("call_ended", "call_analyzed")


class _TimedWord(msgspec.Struct):
    start: float | None = None  # seconds into the call


class _TranscriptItem(msgspec.Struct):
    role: str = ""
    content: str | None = None
    words: list[_TimedWord] = []


class _RetellCall(msgspec.Struct):
    call_id: str = ""
    direction: str | None = None
    from_number: str | None = None
    to_number: str | None = None
    start_timestamp: float | None = None  # milliseconds since 1970
    transcript_object: list[_TranscriptItem] = []


class _FunctionArguments(msgspec.Struct):
    query: str | None = None


class _FunctionRequest(msgspec.Struct):
    call: _RetellCall
    args: _FunctionArguments = msgspec.field(default_factory=_FunctionArguments)


class _CallEvent(msgspec.Struct):
    event: str
    call: _RetellCall = msgspec.field(default_factory=_RetellCall)


def blueprint(settings: BridgeSettings, memory: BridgeMemory) -> Blueprint:
    """``POST /retell/function`` for what is known, ``POST /retell/webhook`` for the events of calls."""
    retell = Blueprint("retell", __name__, url_prefix="/retell")

    def verified_body() -> bytes:
        body = request.get_data(cache=False)
        header = request.headers.get("X-Retell-Signature", "")
        key = settings.secret("RETELL_API_KEY")
        if not settings.accepts_unsigned and not signatures.is_signed_by_retell(body, header, key, time.time()):
            abort(401)
        return body

    @retell.post("/function")
    def function() -> ResponseReturnValue:
        body = parse_body(verified_body(), _FunctionRequest)
        user_texts = (each.content or "" for each in reversed(body.call.transcript_object) if each.role == "user")
        query = body.args.query or next(user_texts, "")
        return jsonify(memory=memory.recall(_caller_of(settings, body.call), query))

    @retell.post("/webhook")
    def webhook() -> ResponseReturnValue:
        event = parse_body(verified_body(), _CallEvent)
        caller = _caller_of(settings, event.call)
        if event.event == "call_started":
            memory.warm_up(caller)
        if event.event in _END_EVENTS:
            call = validate_call_id(event.call.call_id)
            if not memory.save(
                caller, "retell", call, group_turns(call, _utterances(event.call)), timeout_s=_SAVE_TIMEOUT_S
            ):
                abort(503)
        return "", 204

    return retell


def _caller_of(settings: BridgeSettings, call: _RetellCall) -> str | None:
    return make_caller_id(settings.caller_salt, call.to_number if call.direction == "outbound" else call.from_number)


def _utterances(call: _RetellCall) -> list[Utterance]:
    return [
        Utterance(_SPEAKERS[each.role], each.content or "", _spoken_at(call, each))
        for each in call.transcript_object
        if each.role in _SPEAKERS  # the others are those whom the call was passed on to
    ]


def _spoken_at(call: _RetellCall, item: _TranscriptItem) -> datetime | None:
    if call.start_timestamp is None:
        return None
    offset_s = next((word.start for word in item.words if word.start is not None), 0.0)
    try:
        return datetime.fromtimestamp(call.start_timestamp / 1e3 + offset_s, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
