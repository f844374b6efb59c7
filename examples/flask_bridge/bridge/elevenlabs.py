"""ElevenLabs, which runs the model. A server tool asks for memories; a post-call webhook delivers what was said."""

import time

from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from bridge import signatures
from bridge.bodies import find_call_id, receive_body
from bridge.callers import identify_caller
from bridge.memory import BridgeMemory
from bridge.outcomes import Outcome, record
from bridge.reported_calls import ReportedCalls
from bridge.settings import BridgeSettings

_SAVE_TIMEOUT_S = 8.0
_IGNORED_TYPES = ("post_call_audio", "call_initiation_failure")


def blueprint(settings: BridgeSettings, memory: BridgeMemory, reports: ReportedCalls) -> Blueprint:
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
        with receive_body(settings.max_body_bytes) as body:
            payload = body.parse()
        query = payload.get("query") or ""
        if not isinstance(query, str) or not isinstance(payload.get("caller_id"), str | int | None):
            raise BadRequest("query and caller_id must be strings")
        caller = identify_caller(settings.caller_salt, "elevenlabs", payload)
        record("elevenlabs", Outcome.NO_CALLER if caller is None else Outcome.RECALLED, detail="tool")
        call_id = find_call_id(payload.get("conversation_id"))
        return jsonify(memory=memory.recall(caller, query, call_id=call_id))

    @elevenlabs.post("/post-call")
    def post_call() -> ResponseReturnValue:
        header, secret = request.headers.get("ElevenLabs-Signature", ""), settings.secret("ELEVENLABS_WEBHOOK_SECRET")
        with receive_body(settings.max_body_bytes) as body:
            if not settings.accepts_unsigned and not signatures.is_signed_by_elevenlabs(
                body.chunks(), header, secret, time.time()
            ):
                abort(401)
            payload = body.parse()
        type_ = payload.get("type")
        if not isinstance(type_, str):
            raise BadRequest("the event has no type")
        if type_ != "post_call_transcription":
            record("elevenlabs", Outcome.IGNORED if type_ in _IGNORED_TYPES else Outcome.UNKNOWN_TYPE, detail=type_)
        elif reports.keep("elevenlabs", payload, timeout_s=_SAVE_TIMEOUT_S) is Outcome.UNAVAILABLE:
            abort(503)
        return jsonify({})  # ElevenLabs requires 200 and no other status

    return elevenlabs
