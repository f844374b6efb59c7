"""Vapi, which runs the model. It asks for memories (a custom knowledge base) and delivers the call after its end."""

import time
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from bridge import signatures
from bridge.bodies import ReceivedBody, find_call_id, receive_body
from bridge.callers import identify_caller
from bridge.chat import text_of
from bridge.memory import BridgeMemory
from bridge.outcomes import Outcome, record
from bridge.reported_calls import ReportedCalls
from bridge.settings import BridgeSettings

_SAVE_TIMEOUT_S = 15.0  # Vapi waits 20 s and does not try again
# Messages without words that the report of the call does not have, too.
_IGNORED_TYPES = frozenset(
    """assistant-request assistant.speechStarted call.endpointing.request conversation-update function-call hang
    handoff-destination-request language-change-detected model-output phone-call-control speech-update status-update
    tool-calls tool.completed transcript transfer-destination-request transfer-update user-interrupted voice-input
    voice-request""".split()
)


def blueprint(settings: BridgeSettings, memory: BridgeMemory, reports: ReportedCalls) -> Blueprint:
    """Return the route ``POST /vapi``, which receives all server messages of Vapi."""
    vapi = Blueprint("vapi", __name__, url_prefix="/vapi")

    @vapi.post("")
    def message() -> ResponseReturnValue:
        with receive_body(settings.max_body_bytes) as body:
            if not settings.accepts_unsigned and not _is_authentic(settings, body):
                abort(401)
            payload = body.parse()
        server_message = payload.get("message")
        if not isinstance(server_message, dict) or not isinstance(server_message.get("type"), str):
            raise BadRequest("the message has no type")
        type_ = server_message["type"]
        if type_ == "end-of-call-report":
            if reports.keep("vapi", payload, timeout_s=_SAVE_TIMEOUT_S) is Outcome.UNAVAILABLE:
                abort(503)
        elif type_ == "knowledge-base-request":
            return jsonify(documents=_recall(settings, memory, server_message))
        else:
            if type_ == "status-update":
                _follow_status(settings, memory, server_message)
            is_known = type_ in _IGNORED_TYPES or type_.startswith("transcript[")
            record("vapi", Outcome.IGNORED if is_known else Outcome.UNKNOWN_TYPE, detail=type_)
        return jsonify({})

    return vapi


def _follow_status(settings: BridgeSettings, memory: BridgeMemory, message: Mapping[str, Any]) -> None:
    caller, call_id = identify_caller(settings.caller_salt, "vapi", message), _find_call_id(message)
    if message.get("status") in ("ringing", "in-progress"):
        memory.warm_up(caller, call_id)
    elif message.get("status") == "ended" and call_id is not None:
        memory.end_call(caller, call_id, "ended")


def _find_call_id(message: Mapping[str, Any]) -> str | None:
    call = message.get("call")
    return find_call_id(call.get("id")) if isinstance(call, dict) else None


def _recall(settings: BridgeSettings, memory: BridgeMemory, message: Mapping[str, Any]) -> list[dict[str, Any]]:
    caller = identify_caller(settings.caller_salt, "vapi", message)
    record("vapi", Outcome.NO_CALLER if caller is None else Outcome.RECALLED, detail="knowledge-base-request")
    messages = message.get("messages")
    entries = [entry for entry in messages if isinstance(entry, dict)] if isinstance(messages, list) else []
    query = next((text_of(entry) for entry in reversed(entries) if entry.get("role") == "user"), "")
    context = memory.recall(caller, query, call_id=_find_call_id(message))
    return [{"content": context, "similarity": 1.0}] if context else []


def _is_authentic(settings: BridgeSettings, body: ReceivedBody) -> bool:
    signature, timestamp = request.headers.get("X-Vapi-Signature", ""), request.headers.get("X-Vapi-Timestamp", "")
    if signature:
        return signatures.is_signed_by_vapi(
            body.chunks(), signature, timestamp, settings.secret("VAPI_HMAC_SECRET"), time.time()
        )
    # A knowledge base of Vapi cannot sign. It sends a secret in a header.
    return signatures.matches_secret(request.headers.get("X-Vapi-Secret", ""), settings.secret("VAPI_SECRET"))
