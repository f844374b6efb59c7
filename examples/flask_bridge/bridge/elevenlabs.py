"""ElevenLabs: it has the model. A server tool asks for what is known, a post-call webhook tells what was said."""

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
_KEEP_S = 8.0


class _Tool(msgspec.Struct):
    query: str = ""
    caller_id: str | None = None  # the dynamic variable system__caller_id


class _Spoken(msgspec.Struct):
    role: str = ""
    message: str | None = None
    time_in_call_secs: float = 0.0


class _PhoneCall(msgspec.Struct):
    external_number: str | None = None  # the caller's, whoever called whom


class _Metadata(msgspec.Struct):
    start_time_unix_secs: float | None = None
    phone_call: _PhoneCall | None = None


class _Variables(msgspec.Struct):
    caller_id: object = msgspec.field(default=None, name="system__caller_id")


class _Initiation(msgspec.Struct):
    dynamic_variables: _Variables | None = None


class _Conversation(msgspec.Struct):
    conversation_id: str = ""
    transcript: list[_Spoken] = []
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    conversation_initiation_client_data: _Initiation | None = None


class _Event(msgspec.Struct):
    type: str
    data: _Conversation = msgspec.field(default_factory=_Conversation)


def blueprint(settings: Settings, memory: Memory) -> Blueprint:
    """``POST /elevenlabs/tool`` for what is known, ``POST /elevenlabs/post-call`` for what was said."""
    elevenlabs = Blueprint("elevenlabs", __name__, url_prefix="/elevenlabs")

    @elevenlabs.post("/tool")
    def tool() -> ResponseReturnValue:
        # Tools are not signed: they bring a header whose value is one of ElevenLabs' secrets.
        told = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not settings.is_unsigned and not signatures.is_secret(told, settings.secret("ELEVENLABS_TOOL_SECRET")):
            abort(401)
        asked = parse(request.get_data(cache=False), _Tool)
        return jsonify(memory=memory.recall(caller_id(settings.caller_salt, asked.caller_id), asked.query))

    @elevenlabs.post("/post-call")
    def post_call() -> ResponseReturnValue:
        body = request.get_data(cache=False)
        header, secret = request.headers.get("ElevenLabs-Signature", ""), settings.secret("ELEVENLABS_WEBHOOK_SECRET")
        if not settings.is_unsigned and not signatures.is_elevenlabs(body, header, secret, time.time()):
            abort(401)
        told = parse(body, _Event)
        if told.type == "post_call_transcription":
            call, caller = call_id(told.data.conversation_id), caller_id(settings.caller_salt, _number(told.data))
            if not memory.keep(caller, "elevenlabs", call, turns_of(call, _lines(told.data)), within_s=_KEEP_S):
                abort(503)
        return jsonify({})  # they want a 200, and no other

    return elevenlabs


def _number(told: _Conversation) -> str | None:
    if told.metadata.phone_call and told.metadata.phone_call.external_number:
        return told.metadata.phone_call.external_number
    told_at_start = told.conversation_initiation_client_data
    number = told_at_start and told_at_start.dynamic_variables and told_at_start.dynamic_variables.caller_id
    return number if isinstance(number, str) else None


def _lines(told: _Conversation) -> list[Line]:
    return [
        Line(_SIDES[each.role], each.message or "", _when(told.metadata, each))
        for each in told.transcript
        if each.role in _SIDES
    ]


def _when(metadata: _Metadata, spoken: _Spoken) -> datetime | None:
    if metadata.start_time_unix_secs is None:
        return None
    try:
        return datetime.fromtimestamp(metadata.start_time_unix_secs + spoken.time_in_call_secs, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
