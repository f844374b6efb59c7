"""What telephone platforms tell of a call: Twilio its sentences, Vapi and Retell all of it, also what they post.

The shapes are those of their public documentation. Of a call is read who calls, when it began, and what was said;
tools, system prompts, analyses and costs are passed over.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO

import attrs

from memoair_voice_sync.transcripts._documents import JsonDocument, read_documents
from memoair_voice_sync.transcripts._identifiers import InvalidTurnError, check_id
from memoair_voice_sync.transcripts._json_lines import kind_of
from memoair_voice_sync.transcripts._moments import parse_moment
from memoair_voice_sync.transcripts._pairing import TranscriptTurnAssembler
from memoair_voice_sync.transcripts._records import Message, PartialTurn, Rejection, Side, TranscriptSource
from memoair_voice_sync.transcripts._speakers import Speakers

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LONGEST_CALL_S = 7 * 86_400.0
_NOBODY = "userId is missing, and nobody said who calls in this file"


@attrs.frozen
class _ExportedUtterance:
    """A part of a call: ``side`` is None for what nobody has said. ``place`` names it in a refusal."""

    place: str
    side: Side | None = None
    text: str = attrs.field(default="", repr=False)
    at: datetime | None = None
    problem: str | None = None


@attrs.frozen
class _ExportedCall:
    """What a document tells of a call."""

    session_id: str | None = attrs.field(repr=False)
    user_id: str | None = attrs.field(repr=False)
    user_name: str | None = attrs.field(repr=False)
    assistant_name: str | None
    said: Iterator[_ExportedUtterance]


def read_twilio(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read sentences of Conversational Intelligence: the answer to ``GET .../Transcripts/{sid}/Sentences``."""
    return _read(stream, source, _twilio)


def read_vapi(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read calls as ``GET /call`` tells them, or end-of-call reports."""
    return _read(stream, source, _vapi)


def read_retell(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read calls as ``get-call`` and ``list-calls`` tell them, or what is posted when a call has ended."""
    return _read(stream, source, _retell)


def _read(
    stream: BinaryIO, source: TranscriptSource, call_of: Callable[["_ExportFields", TranscriptSource], _ExportedCall]
) -> Iterator[PartialTurn | Rejection]:
    for document in _together(read_documents(stream), call_of):
        before = "" if document.number is None else f"call {document.number}: "
        if document.problem is not None:
            yield source.refuse(document.line, before + document.problem)
            continue
        try:
            call = call_of(_ExportFields(document.content), source)
            user_id = call.user_id
            if user_id is None:
                raise InvalidTurnError(_NOBODY)
            session_id = call.session_id or source.call_id
            pairing = TranscriptTurnAssembler()
            for said in call.said:
                if said.problem is not None:
                    yield source.refuse(document.line, f"{before}{said.place}: {said.problem}")
                elif said.side is not None and said.text.strip():
                    message = Message(
                        user_id=check_id("userId", user_id),
                        session_id=check_id("sessionId", session_id),
                        side=said.side,
                        text=said.text.strip(),
                        line=document.line,
                        occurred_at=said.at,
                        user_name=source.options.user_name or call.user_name,
                        assistant_name=source.options.assistant_name or call.assistant_name,
                    )
                    yield from pairing.say(message)
            yield from pairing.finish_all()
        except InvalidTurnError as unfit:
            yield source.refuse(document.line, before + str(unfit))


def _together(documents: Iterator[JsonDocument], call_of: Callable[..., _ExportedCall]) -> Iterator[JsonDocument]:
    """The documents; sentences of Twilio's that stand alone, in a list or a line each, are one call."""
    if call_of is not _twilio:
        yield from documents
        return
    alone: list[JsonDocument] = []
    for document in documents:
        if document.problem is None and "sentences" not in document.content and "transcript" in document.content:
            alone.append(document)
        else:
            yield document
    if alone:
        yield JsonDocument(alone[0].line, {"sentences": [each.content for each in alone]})


@attrs.frozen
class _ExportFields:
    """The fields of an object, each asked for with the type that it must have."""

    _values: Mapping[str, Any]
    _place: str = ""

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def _get(self, name: str, wanted: type | tuple[type, ...], called: str) -> Any:
        value = self._values.get(name)
        if value is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise InvalidTurnError(f"{self._place}{name} must be {called}, not {kind_of(value)}")
        return value

    def text(self, name: str) -> str | None:
        told: str | None = self._get(name, str, "a text")
        return told or None

    def inner(self, name: str) -> "_ExportFields":
        return _ExportFields(self._get(name, dict, "an object") or {}, f"{self._place}{name}.")

    def items(self, name: str) -> Iterator[tuple[str, "_ExportFields", str | None]]:
        """The objects of a list with their places; what is none has a problem."""
        for number, each in enumerate(self._get(name, list, "a list") or ()):
            place = f"{self._place}{name}[{number}]"
            if isinstance(each, dict):
                yield place, _ExportFields(each), None
            else:
                yield place, _ExportFields({}), f"{kind_of(each)}, not a JSON object"

    def number(self, name: str) -> float | None:
        """A number, which may be written as a text."""
        told = self._get(name, (int, float, str), "a number")
        try:
            return None if told is None else float(told)
        except ValueError:
            raise InvalidTurnError(f"{self._place}{name} must be a number, not a text") from None

    def moment(self, name: str) -> datetime | None:
        """A moment in ISO 8601."""
        told = self.text(name)
        try:
            return None if told is None else parse_moment(told)
        except ValueError:
            raise InvalidTurnError(f"{self._place}{name} is not an ISO 8601 moment") from None

    def since_1970(self, name: str) -> datetime | None:
        """A moment in milliseconds since 1970."""
        told = self.number(name)
        try:
            return None if told is None else _EPOCH + timedelta(milliseconds=told)
        except (OverflowError, ValueError):
            raise InvalidTurnError(f"{self._place}{name} is no moment in milliseconds since 1970") from None


def _into(began_at: datetime | None, seconds: float | None) -> datetime | None:
    if began_at is None or seconds is None or not 0 <= seconds <= _LONGEST_CALL_S:
        return None
    try:
        return began_at + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _began_at(told: datetime | None, source: TranscriptSource) -> datetime | None:
    began_at = told or source.options.started_at
    return began_at.replace(tzinfo=timezone.utc) if began_at and began_at.tzinfo is None else began_at


def _whose(metadata: _ExportFields, source: TranscriptSource, number: str | None) -> str | None:
    """Who calls: as the application has noted it with the call, as it is said here, or by his number."""
    return metadata.text("userId") or source.options.user_id or number


def _each(
    items: Iterator[tuple[str, _ExportFields, str | None]], said: Callable[[str, _ExportFields], _ExportedUtterance]
) -> Iterator[_ExportedUtterance]:
    """What was said, each refused by itself."""
    for place, fields, problem in items:
        try:
            yield _ExportedUtterance(place, problem=problem) if problem else said(place, fields)
        except InvalidTurnError as unfit:
            yield _ExportedUtterance(place, problem=str(unfit))


def _role(fields: _ExportFields, sides: Mapping[str, Side], silent: frozenset[str]) -> Side | None:
    role = fields.text("role") or ""
    if role in silent:
        return None
    if role not in sides:
        raise InvalidTurnError(f"role is none of {', '.join(sides)}")
    return sides[role]


# Vapi

_VAPI_SIDES = {"user": Side.USER, "bot": Side.ASSISTANT, "assistant": Side.ASSISTANT}
_VAPI_SILENT = frozenset(["system", "tool_calls", "tool_call_result", "tool", "function_call", "function_result"])


def _vapi(document: _ExportFields, source: TranscriptSource) -> _ExportedCall:
    report = document.inner("message") if "message" in document else document
    call = report.inner("call") if "call" in report else report
    holders = [report.inner("artifact"), call.inner("artifact"), report, call]
    holder = next((each for each in holders if "messages" in each), None)
    if holder is None:
        raise InvalidTurnError("neither artifact.messages nor messages: no call of Vapi")
    customer = next((each.inner("customer") for each in (report, call) if "customer" in each), _ExportFields({}))
    assistant = next((each.inner("assistant") for each in (report, call) if "assistant" in each), _ExportFields({}))
    began_at = _began_at(report.moment("startedAt") or call.moment("startedAt"), source)

    def said(place: str, fields: _ExportFields) -> _ExportedUtterance:
        side = _role(fields, _VAPI_SIDES, _VAPI_SILENT)
        if side is None:
            return _ExportedUtterance(place)
        at = fields.since_1970("time") or _into(began_at, fields.number("secondsFromStart"))
        return _ExportedUtterance(place, side, fields.text("message") or fields.text("content") or "", at)

    return _ExportedCall(
        session_id=call.text("id") or source.options.session_id,
        user_id=_whose(call.inner("metadata"), source, customer.text("number")),
        user_name=customer.text("name"),
        assistant_name=assistant.text("name"),
        said=_each(holder.items("messages"), said),
    )


# Retell

_RETELL_SIDES = {"user": Side.USER, "agent": Side.ASSISTANT}
_RETELL_SILENT = frozenset(["tool_call_invocation", "tool_call_result", "node_transition", "dtmf", "sms"])


def _retell(document: _ExportFields, source: TranscriptSource) -> _ExportedCall:
    call = document.inner("call") if "call" in document else document
    name = next((each for each in ("transcript_object", "transcript_with_tool_calls") if each in call), None)
    if name is None:
        raise InvalidTurnError("transcript_object is missing: no call of Retell that has ended")
    began_at = _began_at(call.since_1970("start_timestamp"), source)
    is_outbound = call.text("direction") == "outbound"

    def said(place: str, fields: _ExportFields) -> _ExportedUtterance:
        side = _role(fields, _RETELL_SIDES, _RETELL_SILENT)
        if side is None:
            return _ExportedUtterance(place)
        first = next((word for _, word, problem in fields.items("words") if not problem), _ExportFields({}))
        return _ExportedUtterance(place, side, fields.text("content") or "", _into(began_at, first.number("start")))

    return _ExportedCall(
        session_id=call.text("call_id") or source.options.session_id,
        user_id=_whose(call.inner("metadata"), source, call.text("to_number" if is_outbound else "from_number")),
        user_name=None,
        assistant_name=call.text("agent_name"),
        said=_each(call.items(name), said),
    )


# Twilio

_CHANNELS = "say which channel is whose (callers, assistants)"


def _twilio(document: _ExportFields, source: TranscriptSource) -> _ExportedCall:
    if "sentences" not in document:
        raise InvalidTurnError("sentences is missing: no sentences of Twilio's Conversational Intelligence")
    transcript = document.inner("transcript") if "transcript" in document else document
    began_at = _began_at(transcript.moment("media_start_time"), source)
    speakers = Speakers(source.options)
    roles, names = _participants(transcript)

    def side_of(channel: str) -> Side:
        if source.options.callers or source.options.assistants:
            return speakers.side_of(channel)
        side = roles.get(channel)
        if side is None:
            raise InvalidTurnError(f"media_channel does not tell who speaks; {_CHANNELS}")
        return side

    def said(place: str, fields: _ExportFields) -> _ExportedUtterance:
        channel = fields.number("media_channel")
        if channel is None or not channel.is_integer():
            raise InvalidTurnError("media_channel must be a whole number")
        text = fields.text("transcript") or ""
        return _ExportedUtterance(place, side_of(f"{channel:.0f}"), text, _into(began_at, fields.number("start_time")))

    return _ExportedCall(
        session_id=transcript.text("sid") or source.options.session_id or _transcript_of(document),
        user_id=source.options.user_id,
        user_name=names.get(Side.USER),
        assistant_name=names.get(Side.ASSISTANT),
        said=_each(document.items("sentences"), said),
    )


def _participants(transcript: _ExportFields) -> tuple[dict[str, Side], dict[Side, str]]:
    """By channel whose it is, and how the two are called, as far as the transcript tells."""
    sides: dict[str, Side] = {}
    names: dict[Side, str] = {}
    for _, fields, _ in transcript.inner("channel").items("participants"):
        role, channel = (fields.text("role") or "").lower(), fields.number("channel_participant")
        side = Side.USER if role in ("customer", "caller") else Side.ASSISTANT if "agent" in role else None
        if side is not None and channel is not None and channel.is_integer():
            sides[f"{channel:.0f}"] = side
            if name := fields.text("full_name"):
                names[side] = name
    return sides, names


def _transcript_of(document: _ExportFields) -> str | None:
    """The transcript's id, as its sentences name it."""
    return next((sid for _, each, _ in document.items("sentences") if (sid := each.text("transcript_sid"))), None)
