"""Readers of call exports: Twilio's sentences, and the calls and webhook payloads of Vapi and Retell.

The formats follow the public documentation of these platforms. Of a call, the readers take who calls, when it started,
and what was said. They ignore tools, system prompts, analyses and costs.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO

import attrs

from memoair_protocol.timestamps import parse_timestamp
from memoair_transcripts._documents import JsonDocument, read_documents
from memoair_transcripts._json_lines import type_name
from memoair_transcripts._pairing import TranscriptTurnAssembler
from memoair_transcripts._records import (
    InvalidTurnError,
    Message,
    PartialTurn,
    Rejection,
    Side,
    TranscriptSource,
    check_id,
)
from memoair_transcripts._speakers import Speakers

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MAX_CALL_S = 7 * 86_400.0
_MISSING_USER_ID = "userId is missing; add it, or set a user for the whole file (user_id, --user)"


@attrs.frozen
class _ExportedUtterance:
    """A part of a call, and its place in the document (``path``). Parts that are not speech have no ``side``."""

    path: str
    side: Side | None = None
    text: str = attrs.field(default="", repr=False)
    occurred_at: datetime | None = None
    error: str | None = None


@attrs.frozen
class _ExportedCall:
    """A call of an export."""

    session_id: str | None = attrs.field(repr=False)
    user_id: str | None = attrs.field(repr=False)
    user_name: str | None = attrs.field(repr=False)
    assistant_name: str | None
    utterances: Iterator[_ExportedUtterance]


def read_twilio(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read Conversational Intelligence sentences, the response to ``GET .../Transcripts/{sid}/Sentences``."""
    return _read_calls(stream, source, _parse_twilio_call)


def read_vapi(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read the calls of ``GET /call``, or end-of-call reports."""
    return _read_calls(stream, source, _parse_vapi_call)


def read_retell(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read the calls of ``get-call`` and ``list-calls``, or the webhooks that are sent after a call."""
    return _read_calls(stream, source, _parse_retell_call)


def _read_calls(
    stream: BinaryIO, source: TranscriptSource, parse_call: Callable[["_ExportFields", TranscriptSource], _ExportedCall]
) -> Iterator[PartialTurn | Rejection]:
    for document in _group_sentences(read_documents(stream), parse_call):
        prefix = "" if document.position is None else f"call {document.position}: "
        if document.error is not None:
            yield source.reject(document.line, prefix + document.error)
            continue
        try:
            call = parse_call(_ExportFields(document.content), source)
            user_id = call.user_id
            if user_id is None:
                raise InvalidTurnError(_MISSING_USER_ID)
            session_id = call.session_id or source.call_id
            assembler = TranscriptTurnAssembler()
            for utterance in call.utterances:
                if utterance.error is not None:
                    yield source.reject(document.line, f"{prefix}{utterance.path}: {utterance.error}")
                elif utterance.side is not None and utterance.text.strip():
                    message = Message(
                        user_id=check_id("userId", user_id),
                        session_id=check_id("sessionId", session_id),
                        side=utterance.side,
                        text=utterance.text.strip(),
                        line=document.line,
                        occurred_at=utterance.occurred_at,
                        user_name=source.options.user_name or call.user_name,
                        assistant_name=source.options.assistant_name or call.assistant_name,
                    )
                    yield from assembler.add(message)
            yield from assembler.finish_all()
        except InvalidTurnError as error:
            yield source.reject(document.line, prefix + str(error))


def _group_sentences(
    documents: Iterator[JsonDocument], parse_call: Callable[..., _ExportedCall]
) -> Iterator[JsonDocument]:
    """Yield the documents. Join Twilio sentences that come by themselves, in a list or one per line, into one call."""
    if parse_call is not _parse_twilio_call:
        yield from documents
        return
    sentences: list[JsonDocument] = []
    for document in documents:
        if document.error is None and "sentences" not in document.content and "transcript" in document.content:
            sentences.append(document)
        else:
            yield document
    if sentences:
        yield JsonDocument(sentences[0].line, {"sentences": [sentence.content for sentence in sentences]})


@attrs.frozen
class _ExportFields:
    """The fields of a JSON object. Each method checks the type of the field that it returns."""

    _values: Mapping[str, Any]
    _path: str = ""

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def _get(self, name: str, expected: type | tuple[type, ...], description: str) -> Any:
        value = self._values.get(name)
        if value is not None and (not isinstance(value, expected) or isinstance(value, bool)):
            raise InvalidTurnError(f"{self._path}{name} must be {description}, not {type_name(value)}")
        return value

    def text(self, name: str) -> str | None:
        value: str | None = self._get(name, str, "a string")
        return value or None

    def child(self, name: str) -> "_ExportFields":
        return _ExportFields(self._get(name, dict, "an object") or {}, f"{self._path}{name}.")

    def children(self, name: str) -> Iterator[tuple[str, "_ExportFields", str | None]]:
        """Yield the objects of a list with their paths. An item that is not an object comes with an error."""
        for position, item in enumerate(self._get(name, list, "a list") or ()):
            path = f"{self._path}{name}[{position}]"
            if isinstance(item, dict):
                yield path, _ExportFields(item), None
            else:
                yield path, _ExportFields({}), f"{type_name(item)}, not a JSON object"

    def number(self, name: str) -> float | None:
        """Return a number, which may be written as a string."""
        value = self._get(name, (int, float, str), "a number")
        try:
            return None if value is None else float(value)
        except ValueError:
            raise InvalidTurnError(f"{self._path}{name} must be a number") from None

    def iso_timestamp(self, name: str) -> datetime | None:
        """Return an ISO 8601 timestamp."""
        value = self.text(name)
        try:
            return None if value is None else parse_timestamp(value)
        except ValueError:
            raise InvalidTurnError(f"{self._path}{name} is not an ISO 8601 timestamp") from None

    def epoch_ms(self, name: str) -> datetime | None:
        """Return a timestamp in milliseconds since 1970."""
        value = self.number(name)
        try:
            return None if value is None else _EPOCH + timedelta(milliseconds=value)
        except (OverflowError, ValueError):
            raise InvalidTurnError(f"{self._path}{name} is not a timestamp in milliseconds since 1970") from None


def _add_offset(started_at: datetime | None, seconds: float | None) -> datetime | None:
    if started_at is None or seconds is None or not 0 <= seconds <= _MAX_CALL_S:
        return None
    try:
        return started_at + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _resolve_start(exported: datetime | None, source: TranscriptSource) -> datetime | None:
    started_at = exported or source.options.started_at
    return started_at.replace(tzinfo=timezone.utc) if started_at and started_at.tzinfo is None else started_at


def _resolve_user_id(metadata: _ExportFields, source: TranscriptSource, phone_number: str | None) -> str | None:
    """Return the caller's id: the userId in the call's metadata, else the user of the file, else the phone number."""
    return metadata.text("userId") or source.options.user_id or phone_number


def _parse_utterances(
    items: Iterator[tuple[str, _ExportFields, str | None]], parse: Callable[[str, _ExportFields], _ExportedUtterance]
) -> Iterator[_ExportedUtterance]:
    """Parse the utterances of a call. An invalid one comes with an error and does not affect the others."""
    for path, fields, error in items:
        try:
            yield _ExportedUtterance(path, error=error) if error else parse(path, fields)
        except InvalidTurnError as invalid:
            yield _ExportedUtterance(path, error=str(invalid))


def _parse_side(fields: _ExportFields, sides: Mapping[str, Side], ignored: frozenset[str]) -> Side | None:
    role = fields.text("role") or ""
    if role in ignored:
        return None
    if role not in sides:
        raise InvalidTurnError(f"role must be one of {', '.join(sides)}")
    return sides[role]


# Vapi

_VAPI_SIDES = {"user": Side.USER, "bot": Side.ASSISTANT, "assistant": Side.ASSISTANT}
_VAPI_IGNORED_ROLES = frozenset(
    ["system", "tool_calls", "tool_call_result", "tool", "function_call", "function_result"]
)


def _parse_vapi_call(document: _ExportFields, source: TranscriptSource) -> _ExportedCall:
    report = document.child("message") if "message" in document else document
    call = report.child("call") if "call" in report else report
    candidates = [report.child("artifact"), call.child("artifact"), report, call]
    container = next((fields for fields in candidates if "messages" in fields), None)
    if container is None:
        raise InvalidTurnError("not a Vapi call: artifact.messages and messages are missing")
    customer = next((part.child("customer") for part in (report, call) if "customer" in part), _ExportFields({}))
    assistant = next((part.child("assistant") for part in (report, call) if "assistant" in part), _ExportFields({}))
    started_at = _resolve_start(report.iso_timestamp("startedAt") or call.iso_timestamp("startedAt"), source)

    def parse_message(path: str, fields: _ExportFields) -> _ExportedUtterance:
        side = _parse_side(fields, _VAPI_SIDES, _VAPI_IGNORED_ROLES)
        if side is None:
            return _ExportedUtterance(path)
        occurred_at = fields.epoch_ms("time") or _add_offset(started_at, fields.number("secondsFromStart"))
        return _ExportedUtterance(path, side, fields.text("message") or fields.text("content") or "", occurred_at)

    return _ExportedCall(
        session_id=call.text("id") or source.options.session_id,
        user_id=_resolve_user_id(call.child("metadata"), source, customer.text("number")),
        user_name=customer.text("name"),
        assistant_name=assistant.text("name"),
        utterances=_parse_utterances(container.children("messages"), parse_message),
    )


# Retell

_RETELL_TRANSCRIPT_FIELDS = ("transcript_object", "transcript_with_tool_calls")
_RETELL_SIDES = {"user": Side.USER, "agent": Side.ASSISTANT}
_RETELL_IGNORED_ROLES = frozenset(["tool_call_invocation", "tool_call_result", "node_transition", "dtmf", "sms"])


def _parse_retell_call(document: _ExportFields, source: TranscriptSource) -> _ExportedCall:
    call = document.child("call") if "call" in document else document
    transcript_field = next((name for name in _RETELL_TRANSCRIPT_FIELDS if name in call), None)
    if transcript_field is None:
        raise InvalidTurnError("not a completed Retell call: transcript_object is missing")
    started_at = _resolve_start(call.epoch_ms("start_timestamp"), source)
    is_outbound = call.text("direction") == "outbound"

    def parse_message(path: str, fields: _ExportFields) -> _ExportedUtterance:
        side = _parse_side(fields, _RETELL_SIDES, _RETELL_IGNORED_ROLES)
        if side is None:
            return _ExportedUtterance(path)
        first_word = next((word for _, word, error in fields.children("words") if not error), _ExportFields({}))
        return _ExportedUtterance(
            path, side, fields.text("content") or "", _add_offset(started_at, first_word.number("start"))
        )

    return _ExportedCall(
        session_id=call.text("call_id") or source.options.session_id,
        user_id=_resolve_user_id(
            call.child("metadata"), source, call.text("to_number" if is_outbound else "from_number")
        ),
        user_name=None,
        assistant_name=call.text("agent_name"),
        utterances=_parse_utterances(call.children(transcript_field), parse_message),
    )


# Twilio

_CHANNEL_HINT = "set callers or assistants to the channels (--caller, --assistant)"


def _parse_twilio_call(document: _ExportFields, source: TranscriptSource) -> _ExportedCall:
    if "sentences" not in document:
        raise InvalidTurnError("not an export of Twilio's Conversational Intelligence: sentences is missing")
    transcript = document.child("transcript") if "transcript" in document else document
    started_at = _resolve_start(transcript.iso_timestamp("media_start_time"), source)
    speakers = Speakers(source.options)
    roles, names = _parse_participants(transcript)

    def side_of(channel: str) -> Side:
        if source.options.callers or source.options.assistants:
            return speakers.side_of(channel)
        side = roles.get(channel)
        if side is None:
            raise InvalidTurnError(f"media_channel does not say who speaks; {_CHANNEL_HINT}")
        return side

    def parse_sentence(path: str, fields: _ExportFields) -> _ExportedUtterance:
        channel = fields.number("media_channel")
        if channel is None or not channel.is_integer():
            raise InvalidTurnError("media_channel must be an integer")
        text = fields.text("transcript") or ""
        return _ExportedUtterance(
            path, side_of(f"{channel:.0f}"), text, _add_offset(started_at, fields.number("start_time"))
        )

    return _ExportedCall(
        session_id=transcript.text("sid") or source.options.session_id or _find_transcript_sid(document),
        user_id=source.options.user_id,
        user_name=names.get(Side.USER),
        assistant_name=names.get(Side.ASSISTANT),
        utterances=_parse_utterances(document.children("sentences"), parse_sentence),
    )


def _parse_participants(transcript: _ExportFields) -> tuple[dict[str, Side], dict[Side, str]]:
    """Return the side of each channel and the name of each side, as far as the transcript has them."""
    sides: dict[str, Side] = {}
    names: dict[Side, str] = {}
    for _, fields, _ in transcript.child("channel").children("participants"):
        role, channel = (fields.text("role") or "").lower(), fields.number("channel_participant")
        side = Side.USER if role in ("customer", "caller") else Side.ASSISTANT if "agent" in role else None
        if side is not None and channel is not None and channel.is_integer():
            sides[f"{channel:.0f}"] = side
            if name := fields.text("full_name"):
                names[side] = name
    return sides, names


def _find_transcript_sid(document: _ExportFields) -> str | None:
    """Return the transcript id that the sentences refer to."""
    return next(
        (sid for _, sentence, _ in document.children("sentences") if (sid := sentence.text("transcript_sid"))), None
    )
