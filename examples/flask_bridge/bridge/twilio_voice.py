"""Twilio, for which the bridge is the agent: Twilio turns speech into text, asks what to say, and says it.

The number of a turn is part of the URL that Twilio requests. Twilio signs the whole URL, and uses the same one when it
tries again.
"""

from datetime import datetime, timezone
from urllib.parse import urlencode

from flask import Blueprint, Response, abort, request
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Gather, VoiceResponse

from bridge.answering import answer
from bridge.bodies import validate_call_id
from bridge.callers import make_caller_id
from bridge.memory import BridgeMemory
from bridge.settings import BridgeSettings
from bridge.turns import CallTurn

_GREETING = "Hello, this is Juno. What can I do for you?"
_ASK_AGAIN = "I did not hear you. Could you say that again?"
_GOODBYE = "I can't hear you. Goodbye."
_MAX_SILENCES = 2
_MAX_TURNS = 1_000
_MAX_SPOKEN_CHARS = 3_000  # Twilio speaks at most 4,096 characters


def blueprint(settings: BridgeSettings, memory: BridgeMemory) -> Blueprint:
    """Return the routes: ``POST /twilio/voice`` when the phone rings, ``POST /twilio/turn`` for each turn."""
    twilio = Blueprint("twilio", __name__, url_prefix="/twilio")
    validator = RequestValidator(settings.secret("TWILIO_AUTH_TOKEN").decode())

    @twilio.before_request
    def verify_signature() -> None:
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
        validate_call_id(request.form.get("CallSid", ""))
        memory.warm_up(_read_caller(settings))
        return _say_and_listen(settings, _GREETING, turn=1)

    @twilio.post("/turn")
    def turn() -> Response:
        number = _read_count("n", minimum=1)
        call, caller = validate_call_id(request.form.get("CallSid", "")), _read_caller(settings)
        user_text = request.form.get("SpeechResult", "").strip()
        if not user_text:
            silences = _read_count("silences") + 1
            if silences > _MAX_SILENCES:
                return _say_goodbye()
            return _say_and_listen(settings, _ASK_AGAIN, turn=number, silences=silences)
        reply = answer(user_text, memory.recall(caller, user_text))
        call_turn = CallTurn(f"{call}:{number}", user_text, reply, datetime.now(timezone.utc))
        if not memory.save(caller, "twilio", call, [call_turn], timeout_s=settings.save_timeout_ms / 1e3):
            memory.save_later(caller, call_turn)
        return _say_and_listen(settings, reply, turn=number + 1)

    return twilio


def _read_caller(settings: BridgeSettings) -> str | None:
    # In a call that we made, the caller is the person we called.
    is_outbound = request.form.get("Direction", "inbound").startswith("outbound")
    return make_caller_id(settings.caller_salt, request.form.get("To" if is_outbound else "From"))


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
