"""Retell, which runs the model. A custom function asks for memories; a webhook delivers the call after its end."""

import time
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from bridge import signatures
from bridge.bodies import find_call_id, receive_body
from bridge.callers import identify_caller
from bridge.chat import text_of
from bridge.memory import BridgeMemory
from bridge.outcomes import Outcome, record
from bridge.reported_calls import ReportedCalls
from bridge.settings import BridgeSettings

_SAVE_TIMEOUT_S = 8.0  # Retell waits 10 s and tries three times
# Both contain the whole transcript. They may arrive in any order, or only one of them.
_END_EVENTS = ("call_ended", "call_analyzed")
_IGNORED_EVENTS = frozenset(
    "call_started transcript_updated transfer_started transfer_bridged transfer_cancelled transfer_ended".split()
)


def blueprint(settings: BridgeSettings, memory: BridgeMemory, reports: ReportedCalls) -> Blueprint:
    """Return the routes: ``POST /retell/function`` recalls, ``POST /retell/webhook`` receives events of calls."""
    retell = Blueprint("retell", __name__, url_prefix="/retell")

    def verified_payload() -> Mapping[str, Any]:
        header = request.headers.get("X-Retell-Signature", "")
        key = settings.secret("RETELL_API_KEY")
        with receive_body(settings.max_body_bytes) as body:
            if not settings.accepts_unsigned and not signatures.is_signed_by_retell(
                body.chunks(), header, key, time.time()
            ):
                abort(401)
            return body.parse()

    @retell.post("/function")
    def function() -> ResponseReturnValue:
        payload = verified_payload()
        call, arguments = payload.get("call"), payload.get("args")
        if not isinstance(call, dict):
            raise BadRequest('the request has no call; leave "args only" off')
        caller = identify_caller(settings.caller_salt, "retell", call)
        record("retell", Outcome.NO_CALLER if caller is None else Outcome.RECALLED, detail="function")
        query = arguments.get("query") if isinstance(arguments, dict) else None
        if not isinstance(query, str) or not query.strip():
            query = _last_words(call)
        return jsonify(memory=memory.recall(caller, query, call_id=find_call_id(call.get("call_id"))))

    @retell.post("/webhook")
    def webhook() -> ResponseReturnValue:
        payload = verified_payload()
        event = payload.get("event")
        if not isinstance(event, str):
            raise BadRequest("the event has no name")
        if event in _END_EVENTS:
            if reports.keep("retell", payload, timeout_s=_SAVE_TIMEOUT_S) is Outcome.UNAVAILABLE:
                abort(503)
        else:
            if event == "call_started":
                call = payload.get("call")
                call_id = find_call_id(call.get("call_id")) if isinstance(call, dict) else None
                memory.warm_up(identify_caller(settings.caller_salt, "retell", payload), call_id)
            record("retell", Outcome.IGNORED if event in _IGNORED_EVENTS else Outcome.UNKNOWN_TYPE, detail=event)
        return "", 204

    return retell


def _last_words(call: Mapping[str, Any]) -> str:
    transcript = call.get("transcript_object")
    items = [item for item in transcript if isinstance(item, dict)] if isinstance(transcript, list) else []
    return next((text_of(item) for item in reversed(items) if item.get("role") == "user"), "")
