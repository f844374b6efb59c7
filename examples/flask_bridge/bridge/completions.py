"""A custom model for Vapi and ElevenLabs: an OpenAI-compatible interface in front of the operator's model.

What is remembered of the caller is put into the messages, the answer is passed on while it is made, and the turn is
kept afterwards, as far as the caller can have heard it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from flask import Blueprint, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from bridge import signatures
from bridge.bodies import find_call_id, receive_body
from bridge.call_store import CallStore
from bridge.callers import identify_caller
from bridge.chat import ChatTurn, is_heard_part, list_turns, make_model_request
from bridge.memory import BridgeMemory
from bridge.model_client import AnswerCollector, ModelClient, ModelError, ModelReply
from bridge.outcomes import Outcome, record
from bridge.settings import BridgeSettings
from bridge.turns import CallTurn, make_turn_id

# The messages contain this call already.
_LANES = ("profile", "permanent", "org")
_UNAUTHORIZED = (401, 403)  # of the model: the bridge's key is wrong, not the platform's


@dataclass(frozen=True)
class _Request:
    """A request for an answer.

    Attributes:
        call_id: The platform's id of the call; empty if it is unknown.
        caller: The caller's id; None if they are unknown.
        turns: The turns that the messages contain; the last one is to be answered.
        number: The number of the last turn within the call.
        attempt: The number of this attempt to answer it.
        at: When it arrived.
        is_cut: Whether the messages have fewer turns than were kept: they do not go back to the beginning of the call.
    """

    platform: str
    call_id: str
    caller: str | None
    turns: list[ChatTurn] = field(repr=False)
    number: int
    attempt: int
    at: datetime
    is_cut: bool

    @property
    def call(self) -> str:
        """The name of the call in the store."""
        return f"{self.platform}:{self.call_id}"


def blueprint(
    platform: str, settings: BridgeSettings, model: ModelClient, memory: BridgeMemory, store: CallStore
) -> Blueprint:
    """Return the route ``POST /PLATFORM/v1/chat/completions``. The base URL of the model is ``/PLATFORM/v1``."""
    completions = Blueprint(f"{platform}-model", __name__, url_prefix=f"/{platform}/v1")
    keeper = _TurnKeeper(memory, store)

    @completions.post("/chat/completions")
    def complete() -> ResponseReturnValue:
        secret = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not settings.accepts_unsigned and not signatures.matches_secret(secret, model.settings.secret):
            abort(401)
        with receive_body(settings.max_body_bytes) as received:
            body = received.parse()
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise BadRequest("messages must be a list of objects")
        turns = list_turns(messages)
        caller = identify_caller(settings.caller_salt, platform, _with_headers(body))
        asked = keeper.begin(platform, _call_id_of(platform, body), caller, turns)
        turn_id = make_turn_id(asked.call_id, asked.number) if asked.call_id and asked.number else None
        memories = memory.recall(
            caller,
            turns[-1].user_text,
            call_id=asked.call_id or None,
            lanes=_LANES,
            turn_id=turn_id,
            origin="hook",
        )
        try:
            reply = model.ask(make_model_request(body, model.settings.name, memories))
        except ModelError as error:
            record(platform, Outcome.MODEL_FAILED, call_id=asked.call_id, detail=error.code)
            keeper.keep(asked, AnswerCollector())
            return _render_error(error.code, error.status)
        return _pass_on(reply, asked, keeper)

    return completions


def _pass_on(reply: ModelReply, asked: _Request, keeper: "_TurnKeeper") -> ResponseReturnValue:
    collector = AnswerCollector()
    if reply.status == 200 and reply.is_stream:
        # The proxy must not collect the answer: the caller hears its first words while the last ones are made.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        stream = _stream(reply, asked, collector, keeper)
        return Response(stream, mimetype="text/event-stream", headers=headers)
    try:
        content = reply.read()
    except ModelError as error:
        record(asked.platform, Outcome.MODEL_FAILED, call_id=asked.call_id, detail=error.code)
        keeper.keep(asked, collector)
        return _render_error(error.code, error.status)
    finally:
        reply.close()
    if reply.status == 200:
        collector.add_reply(content)
    else:
        record(asked.platform, Outcome.MODEL_FAILED, call_id=asked.call_id, detail=f"status_{reply.status}")
    keeper.keep(asked, collector)
    if reply.status in _UNAUTHORIZED:
        return _render_error("the model refuses the key of the bridge", 502)
    return Response(content, reply.status, mimetype=reply.content_type)


def _stream(reply: ModelReply, asked: _Request, collector: AnswerCollector, keeper: "_TurnKeeper") -> Iterator[bytes]:
    """Pass a stream on, and keep the turn: also if the platform hangs up in the middle, or the model stops."""
    try:
        for line in reply.lines():
            collector.add_line(line)
            yield line
    except ModelError as error:
        record(asked.platform, Outcome.MODEL_FAILED, call_id=asked.call_id, detail=error.code)
        yield b'data: {"error": {"message": "the model stopped", "type": "server_error", "code": "%s"}}\n\n' % (
            error.code.encode()
        )
    finally:
        reply.close()
        keeper.keep(asked, collector, is_interrupted=not collector.is_complete)


class _TurnKeeper:
    """Keeps the turns that the messages of a call show.

    Args:
        memory: Where they are kept.
        store: Which turns are known.
    """

    def __init__(self, memory: BridgeMemory, store: CallStore) -> None:
        self._memory = memory
        self._store = store

    def begin(self, platform: str, call_id: str, caller: str | None, turns: list[ChatTurn]) -> _Request:
        """Return a request, with the number of the turn that it is about."""
        number, attempt, is_cut = len(turns) - 1, 0, False
        if caller is None:
            record(platform, Outcome.NO_CALLER, call_id=call_id, detail="chat-completions")
        elif not call_id:
            record(platform, Outcome.NO_CALL_ID, detail="chat-completions")
        else:
            record(platform, Outcome.RECALLED)
            call = f"{platform}:{call_id}"
            self._store.mark_call(call, caller=caller)
            attempt = self._store.begin_turn(call, number)
            is_cut = self._is_passed(call, number)
        return _Request(platform, call_id, caller, turns, number, attempt, datetime.now(timezone.utc), is_cut)

    def keep(self, asked: _Request, collector: AnswerCollector, *, is_interrupted: bool = False) -> None:
        """Keep the turn that was answered, and of the one before it what the caller has heard."""
        if asked.caller is None or not asked.call_id or not asked.number:
            return
        if asked.is_cut:
            record(asked.platform, Outcome.CUT_HISTORY, call_id=asked.call_id)
            return
        is_latest = self._store.is_latest(asked.call, asked.number, asked.attempt)
        if not is_latest or self._is_passed(asked.call, asked.number):
            # The caller went on speaking, or the platform asked again: the later request keeps this turn, as heard.
            record(asked.platform, Outcome.SUPERSEDED, call_id=asked.call_id)
            return
        self._correct_last_turn(asked, asked.caller)
        turn = asked.turns[-1]
        text = " ".join(part for part in (turn.assistant_text, collector.text.strip()) if part)
        metadata = {"interrupted": True} if is_interrupted else {}
        self._save(asked, asked.caller, asked.number, turn.user_text, text, asked.at, collector.tool_calls, metadata)

    def _is_passed(self, call: str, number: int) -> bool:
        return any(saved > number for saved in self._store.list_saved(call))

    def _correct_last_turn(self, asked: _Request, caller: str) -> None:
        """Keep the turn before as the messages show it, if the caller has interrupted it or it is not kept yet."""
        number = asked.number - 1
        if number < 1:
            return
        turn, kept = asked.turns[number], self._store.list_saved(asked.call).get(number)
        if kept is None:
            self._save(asked, caller, number, turn.user_text, turn.assistant_text, asked.at, [], {})
        elif is_heard_part(turn.assistant_text, kept):
            heard = {"interrupted": True, "heard": turn.assistant_text}
            self._save(asked, caller, number, turn.user_text, kept, asked.at, [], heard)

    def _save(
        self,
        asked: _Request,
        caller: str,
        number: int,
        user_text: str,
        assistant_text: str,
        at: datetime,
        tool_calls: list[dict[str, Any]],
        metadata: Mapping[str, Any],
    ) -> None:
        turn_id = make_turn_id(asked.call_id, number)
        turn = CallTurn(turn_id, number, user_text, assistant_text, at, tool_calls, metadata)
        outcome = self._memory.save_turn(caller, asked.platform, asked.call_id, turn)
        if outcome in (Outcome.KEPT, Outcome.DEFERRED):
            heard = metadata.get("heard", assistant_text)
            self._store.mark_saved(asked.call, [(number, heard)])
        record(asked.platform, outcome, call_id=asked.call_id, turns=1)


def _call_id_of(platform: str, body: Mapping[str, Any]) -> str:
    """Return the id of the call: of Vapi's call, or what an agent of ElevenLabs is set up to send."""
    if platform == "vapi":
        call = body.get("call")
        candidates: list[object] = [call.get("id") if isinstance(call, dict) else None]
    else:
        extra = body.get("elevenlabs_extra_body")
        extra = extra if isinstance(extra, dict) else {}
        candidates = [
            request.headers.get("X-Conversation-Id"),
            extra.get("conversation_id"),
            extra.get("system__conversation_id"),
        ]
    for candidate in candidates:
        if call_id := find_call_id(candidate):
            return call_id
    return ""


def _with_headers(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the body, with the caller that a header names, which agents of ElevenLabs can be set up to send."""
    caller = request.headers.get("X-Caller-Id")
    return {"caller_id": caller, **body} if caller else body


def _render_error(message: str, status: int) -> ResponseReturnValue:
    """Return an error as OpenAI does."""
    return jsonify(error={"message": message, "type": "server_error", "code": None, "param": None}), status
