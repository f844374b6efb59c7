"""Vapi: it has the model. It asks for what is known (a custom knowledge base), and tells of a call that is over."""

import time
from datetime import datetime, timedelta, timezone

import msgspec
from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue

from bridge import signatures
from bridge.bodies import call_id, parse
from bridge.callers import caller_id
from bridge.memory import Memory
from bridge.settings import Settings
from bridge.turns import Line, Side, turns_of

_SIDES = {"user": Side.CALLER, "bot": Side.AGENT, "assistant": Side.AGENT}
_KEEP_S = 15.0  # Vapi waits 20 s, and does not try again


class _Customer(msgspec.Struct):
    number: str | None = None


class _Call(msgspec.Struct, rename="camel"):
    id: str = ""
    customer: _Customer | None = None
    started_at: str | None = None


class _Spoken(msgspec.Struct, rename="camel"):
    role: str = ""
    message: str | None = None
    content: object = None  # in requests for knowledge; may be a list of parts
    time: float | None = None  # milliseconds since 1970
    seconds_from_start: float | None = None

    @property
    def text(self) -> str:
        return self.message or (self.content if isinstance(self.content, str) else "")


class _Artifact(msgspec.Struct):
    messages: list[_Spoken] = []


class _Message(msgspec.Struct, rename="camel"):
    type: str
    call: _Call = msgspec.field(default_factory=_Call)
    customer: _Customer | None = None
    status: str | None = None
    messages: list[_Spoken] = []
    artifact: _Artifact = msgspec.field(default_factory=_Artifact)
    started_at: str | None = None


class _Body(msgspec.Struct):
    message: _Message


def blueprint(settings: Settings, memory: Memory) -> Blueprint:
    """``POST /vapi``: all of Vapi's server messages, told apart by their type."""
    vapi = Blueprint("vapi", __name__, url_prefix="/vapi")

    @vapi.post("")
    def message() -> ResponseReturnValue:
        body = request.get_data(cache=False)
        if not settings.is_unsigned and not _is_vapis(settings, body):
            abort(401)
        told = parse(body, _Body).message
        caller = caller_id(settings.caller_salt, _number(told))
        if told.type == "knowledge-base-request":
            asked = next((each.text for each in reversed(told.messages) if each.role == "user"), "")
            known = memory.recall(caller, asked)
            return jsonify(documents=[{"content": known, "similarity": 1.0}] if known else [])
        if told.type == "status-update" and told.status in ("ringing", "in-progress"):
            memory.warm_up(caller)
        if told.type == "end-of-call-report":
            call = call_id(told.call.id)
            if not memory.keep(caller, "vapi", call, turns_of(call, _lines(told)), within_s=_KEEP_S):
                abort(503)
        return jsonify({})

    return vapi


def _is_vapis(settings: Settings, body: bytes) -> bool:
    signature, stamp = request.headers.get("X-Vapi-Signature", ""), request.headers.get("X-Vapi-Timestamp", "")
    if signature:
        return signatures.is_vapis(body, signature, stamp, settings.secret("VAPI_HMAC_SECRET"), time.time())
    # A knowledge base of Vapi's can only be given a secret, which comes as it is.
    return signatures.is_secret(request.headers.get("X-Vapi-Secret", ""), settings.secret("VAPI_SECRET"))


def _number(told: _Message) -> str | None:
    return next((each.number for each in (told.call.customer, told.customer) if each and each.number), None)


def _lines(told: _Message) -> list[Line]:
    started_at = _moment(told.call.started_at or told.started_at)
    return [
        Line(_SIDES[each.role], each.text, _when(each, started_at))
        for each in told.artifact.messages
        if each.role in _SIDES  # the others are the system's, and of tools
    ]


def _when(spoken: _Spoken, started_at: datetime | None) -> datetime | None:
    try:
        if spoken.time is not None:
            return datetime.fromtimestamp(spoken.time / 1e3, timezone.utc)
        if started_at is not None and spoken.seconds_from_start is not None:
            return started_at + timedelta(seconds=spoken.seconds_from_start)
    except (ValueError, OverflowError, OSError):
        pass
    return started_at


def _moment(told: str | None) -> datetime | None:
    try:
        return None if told is None else msgspec.convert(told, datetime)
    except msgspec.ValidationError:
        return None
