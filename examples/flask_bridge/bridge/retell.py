"""Retell, which runs the model. A custom function asks for memories; a webhook delivers the call after its end."""

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
_SAVE_TIMEOUT_S = 8.0  # Retell waits 10 s and tries three times
# Both contain the whole transcript. They may arrive in any order, or only one of them.
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
    """Return the routes: ``POST /retell/function`` recalls, ``POST /retell/webhook`` receives events of calls."""
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
        user_texts = (item.content or "" for item in reversed(body.call.transcript_object) if item.role == "user")
        query = body.args.query or next(user_texts, "")
        return jsonify(memory=memory.recall(_caller_of(settings, body.call), query))

    @retell.post("/webhook")
    def webhook() -> ResponseReturnValue:
        event = parse_body(verified_body(), _CallEvent)
        caller = _caller_of(settings, event.call)
        if event.event == "call_started":
            memory.warm_up(caller)
        if event.event in _END_EVENTS:
            call_id = validate_call_id(event.call.call_id)
            turns = group_turns(call_id, _utterances(event.call))
            if not memory.save(caller, "retell", call_id, turns, timeout_s=_SAVE_TIMEOUT_S):
                abort(503)
        return "", 204

    return retell


def _caller_of(settings: BridgeSettings, call: _RetellCall) -> str | None:
    return make_caller_id(settings.caller_salt, call.to_number if call.direction == "outbound" else call.from_number)


def _utterances(call: _RetellCall) -> list[Utterance]:
    return [
        Utterance(_SPEAKERS[item.role], item.content or "", _spoken_at(call, item))
        for item in call.transcript_object
        if item.role in _SPEAKERS  # other roles are people who took over a transferred call
    ]


def _spoken_at(call: _RetellCall, item: _TranscriptItem) -> datetime | None:
    if call.start_timestamp is None:
        return None
    offset_s = next((word.start for word in item.words if word.start is not None), 0.0)
    try:
        return datetime.fromtimestamp(call.start_timestamp / 1e3 + offset_s, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
