"""Twilio, for which the bridge is the agent: Twilio turns speech into text, asks what to say, and says it.

The number of a turn is part of the URL that Twilio requests. Twilio signs the whole URL, and uses the same one when it
tries again: it then gets the same answer again.
"""

from urllib.parse import urlencode

from flask import Blueprint, Response, abort, request
from flask.typing import ResponseReturnValue
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Gather, VoiceResponse

from bridge.answering import answer, voicemail_message
from bridge.bodies import require_call_id
from bridge.call_store import CallStore, KnownCall
from bridge.callers import identify_caller
from bridge.memory import BridgeMemory
from bridge.outcomes import Outcome, record
from bridge.settings import BridgeSettings
from bridge.turns import MACHINE_TEXT, CallTurn, make_turn_id

_GREETING = "Hello, this is Juno. What can I do for you?"
_ASK_AGAIN = "I did not hear you. Could you say that again?"
_GOODBYE = "I can't hear you. Goodbye."
_MAX_SILENCES = 2
_MAX_TURNS = 1_000
_MAX_SPOKEN_CHARS = 3_000  # Twilio speaks at most 4,096 characters
_MAX_FORM_BYTES = 256 * 1024
_ANSWER_TIMEOUT_S = 8.0  # Twilio waits 15 s
_ENDED = ("completed", "busy", "failed", "no-answer", "canceled")


def blueprint(settings: BridgeSettings, memory: BridgeMemory, store: CallStore) -> Blueprint:
    """Return the routes: ``/twilio/voice`` when the phone rings, ``/turn`` for each turn, ``/status`` at the end."""
    twilio = Blueprint("twilio", __name__, url_prefix="/twilio")
    validator = RequestValidator(settings.secret("TWILIO_AUTH_TOKEN").decode())

    @twilio.before_request
    def verify_signature() -> None:
        request.max_content_length = _MAX_FORM_BYTES
        # Behind a proxy, the host, scheme and port of the request differ from those that Twilio signed. Anyone can send
        # the headers of a proxy, so the URL is built from the settings.
        query = request.query_string.decode("latin-1")
        url = f"{settings.public_url}{request.path}" + (f"?{query}" if query else "")
        signature = request.headers.get("X-Twilio-Signature", "")
        if not settings.accepts_unsigned and not (
            signature.isascii() and validator.validate(url, request.form, signature)
        ):
            abort(403)

    @twilio.post("/voice")
    def ring() -> Response:
        call_id, known = note_call()
        if known.is_machine:
            return leave_message(call_id, known.caller)
        memory.warm_up(known.caller, call_id)
        record("twilio", Outcome.IGNORED, call_id=call_id)
        return _say_and_listen(settings, _GREETING, turn=1)

    @twilio.post("/turn")
    def turn() -> Response:
        number = _read_count("n", minimum=1)
        call_id, known = note_call()
        if known.is_machine:
            return leave_message(call_id, known.caller)
        user_text = request.form.get("SpeechResult", "").strip()
        if not user_text:
            record("twilio", Outcome.IGNORED, call_id=call_id)
            silences = _read_count("silences") + 1
            if silences > _MAX_SILENCES:
                return _say_goodbye()
            return _say_and_listen(settings, _ASK_AGAIN, turn=number, silences=silences)
        return _say_and_listen(settings, answer_turn(call_id, known.caller, number, user_text), turn=number + 1)

    @twilio.post("/status")
    def status() -> ResponseReturnValue:
        call_id, known = note_call()
        call_status = request.form.get("CallStatus", "")
        if _is_machine():
            take_back(call_id, known.caller)
        if call_status in _ENDED:
            memory.end_call(known.caller, call_id, call_status)
        if not _is_machine():
            is_known = call_status in _ENDED or "AnsweredBy" in request.form
            record("twilio", Outcome.IGNORED if is_known else Outcome.UNKNOWN_TYPE, call_id=call_id, detail=call_status)
        return "", 204

    def note_call() -> tuple[str, KnownCall]:
        """Return the call and what is known of it. Not every request names the caller."""
        call_id = require_call_id(request.form.get("CallSid", ""))
        caller = identify_caller(settings.caller_salt, "twilio", request.form)
        return call_id, store.mark_call(f"twilio:{call_id}", caller=caller, is_machine=_is_machine())

    def answer_turn(call_id: str, caller: str | None, number: int, user_text: str) -> str:
        turn_id = make_turn_id(call_id, number)
        reply = store.answer_once(
            f"twilio:{call_id}",
            number,
            user_text,
            lambda: answer(
                user_text, memory.recall(caller, user_text, call_id=call_id, turn_id=turn_id, origin="hook")
            ),
            timeout_s=_ANSWER_TIMEOUT_S,
        )
        if caller is None:
            record("twilio", Outcome.NO_CALLER, call_id=call_id)
            return reply.text
        # Also if the answer is not new: the worker that made it may have ended before the turn was saved.
        call_turn = CallTurn(turn_id, number, user_text, reply.text, reply.at)
        outcome = memory.save_turn(caller, "twilio", call_id, call_turn)
        if outcome is Outcome.KEPT and not reply.is_new:
            outcome = Outcome.DUPLICATE
        record("twilio", outcome, call_id=call_id, turns=1)
        return reply.text

    def leave_message(call_id: str, caller: str | None) -> Response:
        take_back(call_id, caller)
        twiml = VoiceResponse()
        if message := voicemail_message():
            twiml.say(_make_speakable(message))
        twiml.hangup()
        return Response(str(twiml), mimetype="text/xml")

    def take_back(call_id: str, caller: str | None) -> None:
        """Keep what the machine has said from being taken for the caller's, also if that was saved already."""
        turns = [
            CallTurn(make_turn_id(call_id, number), number, MACHINE_TEXT, reply.text, reply.at)
            for number, reply in store.list_answers(f"twilio:{call_id}")
        ]
        outcome = Outcome.MACHINE
        if caller is not None and turns:
            saved = memory.save_report(caller, "twilio", call_id, turns, timeout_s=settings.save_timeout_ms / 1e3)
            outcome = Outcome.MACHINE if saved is Outcome.KEPT else saved
        record("twilio", outcome, call_id=call_id, turns=len(turns))

    return twilio


def _is_machine() -> bool:
    return request.form.get("AnsweredBy", "").startswith(("machine", "fax"))


def _read_count(name: str, minimum: int = 0) -> int:
    text = request.args.get(name, "0")
    if not (text.isascii() and text.isdecimal() and minimum <= int(text[:5]) <= _MAX_TURNS):
        abort(400)
    return int(text[:5])


def _say_and_listen(settings: BridgeSettings, text: str, *, turn: int, silences: int = 0) -> Response:
    parameters = {"n": turn, **({"silences": silences} if silences else {})}
    gather = Gather(
        input="speech",
        action=f"{settings.public_url}/twilio/turn?{urlencode(parameters)}",
        method="POST",
        speech_timeout="auto",
        action_on_empty_result=True,
    )
    gather.say(_make_speakable(text))
    twiml = VoiceResponse()
    twiml.append(gather)
    return Response(str(twiml), mimetype="text/xml")


def _say_goodbye() -> Response:
    twiml = VoiceResponse()
    twiml.say(_GOODBYE)
    twiml.hangup()
    return Response(str(twiml), mimetype="text/xml")


def _make_speakable(text: str) -> str:
    # The library escapes characters with a meaning in XML. Characters that XML does not allow would end the call.
    return "".join(char if char.isprintable() else " " for char in text)[:_MAX_SPOKEN_CHARS]
