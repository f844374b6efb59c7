"""ElevenLabs, which runs the model. A server tool asks for memories; a post-call webhook delivers what was said."""

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
_SAVE_TIMEOUT_S = 8.0


class _ToolRequest(msgspec.Struct):
    query: str = ""
    caller_id: str | None = None  # the dynamic variable system__caller_id


class _TranscriptEntry(msgspec.Struct):
    role: str = ""
    message: str | None = None
    time_in_call_secs: float = 0.0


class _PhoneCall(msgspec.Struct):
    external_number: str | None = None  # the caller's number, for inbound and outbound calls


class _ConversationMetadata(msgspec.Struct):
    start_time_unix_secs: float | None = None
    phone_call: _PhoneCall | None = None


class _DynamicVariables(msgspec.Struct):
    caller_id: object = msgspec.field(default=None, name="system__caller_id")


class _InitiationData(msgspec.Struct):
    dynamic_variables: _DynamicVariables | None = None


class _Conversation(msgspec.Struct):
    conversation_id: str = ""
    transcript: list[_TranscriptEntry] = []
    metadata: _ConversationMetadata = msgspec.field(default_factory=_ConversationMetadata)
    conversation_initiation_client_data: _InitiationData | None = None


class _PostCallEvent(msgspec.Struct):
    type: str
    data: _Conversation = msgspec.field(default_factory=_Conversation)


def blueprint(settings: BridgeSettings, memory: BridgeMemory) -> Blueprint:
    """Return the routes: ``POST /elevenlabs/tool`` recalls, ``POST /elevenlabs/post-call`` saves."""
    elevenlabs = Blueprint("elevenlabs", __name__, url_prefix="/elevenlabs")

    @elevenlabs.post("/tool")
    def tool() -> ResponseReturnValue:
        # Tool requests are not signed. They have a header whose value is one of ElevenLabs' secrets.
        secret = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not settings.accepts_unsigned and not signatures.matches_secret(
            secret, settings.secret("ELEVENLABS_TOOL_SECRET")
        ):
            abort(401)
        body = parse_body(request.get_data(cache=False), _ToolRequest)
        return jsonify(memory=memory.recall(make_caller_id(settings.caller_salt, body.caller_id), body.query))

    @elevenlabs.post("/post-call")
    def post_call() -> ResponseReturnValue:
        body = request.get_data(cache=False)
        header, secret = request.headers.get("ElevenLabs-Signature", ""), settings.secret("ELEVENLABS_WEBHOOK_SECRET")
        if not settings.accepts_unsigned and not signatures.is_signed_by_elevenlabs(body, header, secret, time.time()):
            abort(401)
        event = parse_body(body, _PostCallEvent)
        if event.type == "post_call_transcription":
            call_id = validate_call_id(event.data.conversation_id)
            caller = make_caller_id(settings.caller_salt, _caller_number(event.data))
            turns = group_turns(call_id, _utterances(event.data))
            if not memory.save(caller, "elevenlabs", call_id, turns, timeout_s=_SAVE_TIMEOUT_S):
                abort(503)
        return jsonify({})  # ElevenLabs requires 200 and no other status

    return elevenlabs


def _caller_number(conversation: _Conversation) -> str | None:
    if conversation.metadata.phone_call and conversation.metadata.phone_call.external_number:
        return conversation.metadata.phone_call.external_number
    initiation = conversation.conversation_initiation_client_data
    number = initiation and initiation.dynamic_variables and initiation.dynamic_variables.caller_id
    return number if isinstance(number, str) else None


def _utterances(conversation: _Conversation) -> list[Utterance]:
    return [
        Utterance(_SPEAKERS[entry.role], entry.message or "", _spoken_at(conversation.metadata, entry))
        for entry in conversation.transcript
        if entry.role in _SPEAKERS
    ]


def _spoken_at(metadata: _ConversationMetadata, entry: _TranscriptEntry) -> datetime | None:
    if metadata.start_time_unix_secs is None:
        return None
    try:
        return datetime.fromtimestamp(metadata.start_time_unix_secs + entry.time_in_call_secs, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
