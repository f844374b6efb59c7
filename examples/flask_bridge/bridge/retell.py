"""Retell: it has the model. A custom function asks for what is known, a webhook tells of the call once it is over."""

import time
from datetime import datetime, timezone

import msgspec
from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue

from bridge import signatures
from bridge.bodies import call_id, parse
from bridge.callers import caller_id
from bridge.memory import Memory
from bridge.settings import Settings
from bridge.turns import Line, Side, turns_of

_SIDES = {"user": Side.CALLER, "agent": Side.AGENT}
_KEEP_S = 8.0  # Retell waits 10 s, and tries three times
# Both have the whole transcript; which of them comes first, or alone, is all the same.
_OVER = ("call_ended", "call_analyzed")


class _Word(msgspec.Struct):
    start: float | None = None  # seconds into the call


class _Spoken(msgspec.Struct):
    role: str = ""
    content: str | None = None
    words: list[_Word] = []


class _Call(msgspec.Struct):
    call_id: str = ""
    direction: str | None = None
    from_number: str | None = None
    to_number: str | None = None
    start_timestamp: float | None = None  # milliseconds since 1970
    transcript_object: list[_Spoken] = []


class _Arguments(msgspec.Struct):
    query: str | None = None


class _Function(msgspec.Struct):
    call: _Call
    args: _Arguments = msgspec.field(default_factory=_Arguments)


class _Event(msgspec.Struct):
    event: str
    call: _Call = msgspec.field(default_factory=_Call)


def blueprint(settings: Settings, memory: Memory) -> Blueprint:
    """``POST /retell/function`` for what is known, ``POST /retell/webhook`` for the events of calls."""
    retell = Blueprint("retell", __name__, url_prefix="/retell")

    def signed_body() -> bytes:
        body = request.get_data(cache=False)
        header = request.headers.get("X-Retell-Signature", "")
        key = settings.secret("RETELL_API_KEY")
        if not settings.is_unsigned and not signatures.is_retells(body, header, key, time.time()):
            abort(401)
        return body

    @retell.post("/function")
    def function() -> ResponseReturnValue:
        told = parse(signed_body(), _Function)
        said = (each.content or "" for each in reversed(told.call.transcript_object) if each.role == "user")
        asked = told.args.query or next(said, "")
        return jsonify(memory=memory.recall(_caller(settings, told.call), asked))

    @retell.post("/webhook")
    def webhook() -> ResponseReturnValue:
        told = parse(signed_body(), _Event)
        caller = _caller(settings, told.call)
        if told.event == "call_started":
            memory.warm_up(caller)
        if told.event in _OVER:
            call = call_id(told.call.call_id)
            if not memory.keep(caller, "retell", call, turns_of(call, _lines(told.call)), within_s=_KEEP_S):
                abort(503)
        return "", 204

    return retell


def _caller(settings: Settings, call: _Call) -> str | None:
    return caller_id(settings.caller_salt, call.to_number if call.direction == "outbound" else call.from_number)


def _lines(call: _Call) -> list[Line]:
    return [
        Line(_SIDES[each.role], each.content or "", _when(call, each))
        for each in call.transcript_object
        if each.role in _SIDES  # the others are those whom the call was passed on to
    ]


def _when(call: _Call, spoken: _Spoken) -> datetime | None:
    if call.start_timestamp is None:
        return None
    into_call_s = next((word.start for word in spoken.words if word.start is not None), 0.0)
    try:
        return datetime.fromtimestamp(call.start_timestamp / 1e3 + into_call_s, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
