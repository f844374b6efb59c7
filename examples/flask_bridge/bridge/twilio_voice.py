"""Twilio: the bridge is the agent. Twilio turns speech into text, asks what to say, and says it.

The number of a turn stands in the address that Twilio calls with it: signed as all of the address is, and the same when
Twilio tries again.
"""

from datetime import datetime, timezone
from urllib.parse import urlencode

from flask import Blueprint, Response, abort, request
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Gather, VoiceResponse

from bridge.answering import answer
from bridge.bodies import call_id
from bridge.callers import caller_id
from bridge.memory import Memory
from bridge.settings import Settings
from bridge.turns import Turn

_GREETING = "Hello, this is Juno. What can I do for you?"
_SAY_AGAIN = "I did not hear you. Could you say that again?"
_GOODBYE = "I can't hear you. Goodbye."
_MOST_SILENCES = 2
_MOST_TURNS = 1_000
_LONGEST_SAID = 3_000  # Twilio says 4,096 characters at most


def blueprint(settings: Settings, memory: Memory) -> Blueprint:
    """``POST /twilio/voice`` when the phone rings, ``POST /twilio/turn`` with what the caller said."""
    twilio = Blueprint("twilio", __name__, url_prefix="/twilio")
    validator = RequestValidator(settings.secret("TWILIO_AUTH_TOKEN").decode())

    @twilio.before_request
    def refuse_strangers() -> None:
        # Behind a proxy we see another host, scheme or port than Twilio signed. Headers of a proxy anybody can send; so
        # the address is the one we were told.
        query = request.query_string.decode("latin-1")
        url = f"{settings.public_url}{request.path}" + (f"?{query}" if query else "")
        signature = request.headers.get("X-Twilio-Signature", "")
        if not settings.is_unsigned and not (signature.isascii() and validator.validate(url, request.form, signature)):
            abort(403)

    @twilio.post("/voice")
    def ring() -> Response:
        call_id(request.form.get("CallSid", ""))
        memory.warm_up(_caller(settings))
        return _listen(settings, _GREETING, turn=1)

    @twilio.post("/turn")
    def turn() -> Response:
        number = _count("n", least=1)
        call, caller = call_id(request.form.get("CallSid", "")), _caller(settings)
        said = request.form.get("SpeechResult", "").strip()
        if not said:
            silences = _count("silences") + 1
            if silences > _MOST_SILENCES:
                return _hang_up()
            return _listen(settings, _SAY_AGAIN, turn=number, silences=silences)
        words = answer(said, memory.recall(caller, said))
        spoken = Turn(f"{call}:{number}", said, words, datetime.now(timezone.utc))
        if not memory.keep(caller, "twilio", call, [spoken], within_s=settings.keep_ms / 1e3):
            memory.keep_later(caller, spoken)
        return _listen(settings, words, turn=number + 1)

    return twilio


def _caller(settings: Settings) -> str | None:
    # Of a call that we made, the caller is whom we called.
    is_ours = request.form.get("Direction", "inbound").startswith("outbound")
    return caller_id(settings.caller_salt, request.form.get("To" if is_ours else "From"))


def _count(name: str, least: int = 0) -> int:
    told = request.args.get(name, "0")
    if not (told.isascii() and told.isdecimal() and least <= int(told[:5]) <= _MOST_TURNS):
        abort(400)
    return int(told[:5])


def _listen(settings: Settings, words: str, *, turn: int, silences: int = 0) -> Response:
    counts = {"n": turn, **({"silences": silences} if silences else {})}
    gather = Gather(
        input="speech",
        action=f"{settings.public_url}/twilio/turn?{urlencode(counts)}",
        method="POST",
        speech_timeout="auto",
        action_on_empty_result=True,
    )
    gather.say(_speakable(words))
    twiml = VoiceResponse()
    twiml.append(gather)
    return Response(str(twiml), mimetype="text/xml")


def _hang_up() -> Response:
    twiml = VoiceResponse()
    twiml.say(_GOODBYE)
    twiml.hangup()
    return Response(str(twiml), mimetype="text/xml")


def _speakable(words: str) -> str:
    # The library escapes what XML gives a meaning; what XML can't hold at all would end the call.
    return "".join(sign if sign.isprintable() else " " for sign in words)[:_LONGEST_SAID]
