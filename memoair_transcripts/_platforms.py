"""The calls and webhook payloads of the platforms that run voice agents: Vapi, Retell and ElevenLabs."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from memoair_transcripts._call_exports import ExportFormat, find_calls, read_calls
from memoair_transcripts._callers import find_caller
from memoair_transcripts._export_fields import (
    ExportedCall,
    ExportedUtterance,
    ExportFields,
    NoTranscriptError,
    add_offset,
    parse_utterances,
    resolve_start,
)
from memoair_transcripts._records import (
    InvalidTurnError,
    PartialTurn,
    Rejection,
    Side,
    TranscriptOptions,
    TranscriptSource,
)
from memoair_transcripts._speakers import Speakers

# Roles of people and texts that are heard in a call, but are neither the caller nor the agent.
_OTHER_ROLES = {
    "transfer_target": "said by a person the call was transferred to",
    "injected": "put into the conversation by a program",
}
_UNKNOWN_ROLE = "the role is unknown"


def parse_call(
    platform: str, payload: Mapping[str, Any], *, on_invalid: Callable[[str], None] | None = None
) -> ExportedCall:
    """Return the call in a webhook or an export of a platform.

    Only the words are needed. A field that is missing, null or of an invalid type costs nothing else: the time of an
    utterance, the caller, the id of the call. Whatever wraps the call is ignored, and so are further calls.

    Args:
        platform: ``vapi``, ``retell`` or ``elevenlabs``.
        payload: What the platform sends, as decoded JSON.
        on_invalid: Called with the path of each field of an invalid type.

    Raises:
        NoTranscriptError: There are no words. The message says why, and quotes nothing.
        ValueError: The platform is unknown.
    """
    export_format = _FORMATS.get(platform)
    if export_format is None:
        raise ValueError(f"unknown platform {platform!r}; the platforms are {', '.join(_FORMATS)}")
    call = next(find_calls(payload, export_format.is_call), None)
    if call is None:
        raise NoTranscriptError("no call is found in it")
    source = TranscriptSource("", "", TranscriptOptions())
    return export_format.parse(ExportFields(call, "", on_invalid or _ignore), source)


def _ignore(path: str) -> None:
    """Accept an invalid field."""


def read_vapi(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read the calls of ``GET /call`` and pages of them, or end-of-call reports."""
    return read_calls(stream, source, _FORMATS["vapi"])


def read_retell(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read the calls of ``get-call`` and ``list-calls``, or the webhooks that are sent after a call."""
    return read_calls(stream, source, _FORMATS["retell"])


def read_elevenlabs(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read conversations of ElevenLabs' agents, or the webhooks that are sent after a call."""
    return read_calls(stream, source, _FORMATS["elevenlabs"])


def _parse_side(fields: ExportFields, sides: Mapping[str, Side], ignored: frozenset[str]) -> Side | str | None:
    """Return the side of a role, None if it is not speech, or why it is passed over."""
    role = fields.text("role")
    if role is None:
        raise InvalidTurnError(f"role must be one of {', '.join(sides)}")
    if role in ignored:
        return None
    return sides.get(role) or _OTHER_ROLES.get(role, _UNKNOWN_ROLE)


def _parse_transcript(
    text: str, callers: tuple[str, ...], assistants: tuple[str, ...], path: str
) -> Iterator[ExportedUtterance]:
    """Yield what is said in a transcript that is one text. A line without a label goes on with the one before it."""
    speakers = Speakers(TranscriptOptions(callers=callers, assistants=assistants))
    side: Side | None = None
    for line in text.splitlines():
        try:
            parts = speakers.read_line(line) if line.strip() else []
        except InvalidTurnError:
            side = None
            yield ExportedUtterance(path, skipped=_UNKNOWN_ROLE)
            continue
        for part in parts:
            side = part.side or side
            if side is None:
                yield ExportedUtterance(path, skipped=_UNKNOWN_ROLE)
            else:
                yield ExportedUtterance(path, side, part.text)


# Vapi

_VAPI_SIDES = {"user": Side.USER, "bot": Side.ASSISTANT, "assistant": Side.ASSISTANT}
_VAPI_IGNORED_ROLES = frozenset(
    ["system", "tool_calls", "tool_call_result", "tool", "function_call", "function_result"]
)
_VAPI_MESSAGES = ("messages", "messagesOpenAIFormatted")


def _is_vapi_call(value: Mapping[str, Any]) -> bool:
    has_call = isinstance(value.get("call"), dict)
    has_words = isinstance(value.get("artifact"), dict) or any(name in value for name in _VAPI_MESSAGES)
    return has_call or has_words or ("id" in value and "orgId" in value)


def _parse_vapi_call(report: ExportFields, source: TranscriptSource) -> ExportedCall:
    call = report.child("call") if "call" in report else report
    candidates = [report.child("artifact"), call.child("artifact"), report, call]
    found = next(((fields, name) for name in _VAPI_MESSAGES for fields in candidates if fields.has_list(name)), None)
    found = found or next(((fields, name) for name in _VAPI_MESSAGES for fields in candidates if name in fields), None)
    transcript = next((text for fields in candidates if (text := fields.any_text("transcript"))), None)
    if found is None and transcript is None:
        raise NoTranscriptError("the call has no messages; GET /call/{id} returns them", call.text("id"))
    customer = next((part.child("customer") for part in (report, call) if "customer" in part), ExportFields({}))
    assistant = next((part.child("assistant") for part in (report, call) if "assistant" in part), ExportFields({}))
    started_at = resolve_start(report.iso_timestamp("startedAt") or call.iso_timestamp("startedAt"), source)

    def parse_message(path: str, fields: ExportFields) -> ExportedUtterance:
        side = _parse_side(fields, _VAPI_SIDES, _VAPI_IGNORED_ROLES)
        if not isinstance(side, Side):
            return ExportedUtterance(path, skipped=side)
        occurred_at = fields.epoch_ms("time") or add_offset(started_at, fields.number("secondsFromStart"))
        return ExportedUtterance(path, side, fields.speech("message", "content"), occurred_at)

    if found is not None:
        utterances = parse_utterances(found[0].children(found[1]), parse_message)
    else:
        utterances = _parse_transcript(transcript or "", ("User", "Customer"), ("AI", "Bot", "Assistant"), "transcript")
    return ExportedCall(
        session_id=call.text("id") or source.options.session_id,
        user_id=find_caller("vapi", report.values, default=source.options.user_id),
        user_name=customer.text("name"),
        assistant_name=assistant.text("name"),
        utterances=utterances,
        is_answered_by_machine="voicemail" in (report.any_text("endedReason"), call.any_text("endedReason")),
    )


# Retell

# The scrubbed ones are the only ones of calls whose storage leaves personal data out.
_RETELL_TRANSCRIPTS = ("transcript_object", "transcript_with_tool_calls", "scrubbed_transcript_with_tool_calls")
_RETELL_TEXTS = ("transcript", "scrubbed_transcript")
_RETELL_SIDES = {"user": Side.USER, "agent": Side.ASSISTANT}
# Beside those of today, a value that older calls have.
_RETELL_MACHINES = ("voicemail_reached", "ivr_reached", "machine_detected")
_RETELL_IGNORED_ROLES = frozenset(["tool_call_invocation", "tool_call_result", "node_transition", "dtmf", "sms"])


def _is_retell_call(value: Mapping[str, Any]) -> bool:
    return any(name in value for name in ("call_id", "call_type", *_RETELL_TRANSCRIPTS))


def _parse_retell_call(call: ExportFields, source: TranscriptSource) -> ExportedCall:
    list_name = next((name for name in _RETELL_TRANSCRIPTS if call.has_list(name)), None)
    text_name = next((name for name in _RETELL_TEXTS if call.any_text(name)), None)
    if list_name is None and text_name is None:
        for name in _RETELL_TRANSCRIPTS:
            list(call.children(name))  # one that is not a list is an error
        raise NoTranscriptError(
            "the call has no transcript; get-call returns it, if it is stored", call.text("call_id")
        )
    started_at = resolve_start(call.epoch_ms("start_timestamp"), source)

    def parse_message(path: str, fields: ExportFields) -> ExportedUtterance:
        side = _parse_side(fields, _RETELL_SIDES, _RETELL_IGNORED_ROLES)
        if not isinstance(side, Side):
            return ExportedUtterance(path, skipped=side)
        first_word = next((word for _, word, error in fields.children("words") if not error), ExportFields({}))
        return ExportedUtterance(
            path, side, fields.speech("content"), add_offset(started_at, first_word.number("start"))
        )

    if list_name is not None:
        utterances = parse_utterances(call.children(list_name), parse_message)
    else:
        text = call.text(text_name or "") or ""
        utterances = _parse_transcript(text, ("User",), ("Agent",), text_name or "")
    return ExportedCall(
        session_id=call.text("call_id") or source.options.session_id,
        user_id=find_caller("retell", call.values, default=source.options.user_id),
        user_name=None,
        assistant_name=call.text("agent_name"),
        utterances=utterances,
        is_answered_by_machine=call.any_text("disconnection_reason") in _RETELL_MACHINES
        or call.any_child("call_analysis").flag("in_voicemail"),
    )


# ElevenLabs

_ELEVENLABS_SIDES = {"user": Side.USER, "agent": Side.ASSISTANT, "assistant": Side.ASSISTANT}
_ELEVENLABS_IGNORED_ROLES = frozenset(["tool", "system"])
_INITIATION = "conversation_initiation_client_data"
_VOICEMAIL_TOOL = "voicemail_detection"


def _is_elevenlabs_call(value: Mapping[str, Any]) -> bool:
    return "conversation_id" in value or isinstance(value.get("transcript"), list)


def _parse_elevenlabs_call(call: ExportFields, source: TranscriptSource) -> ExportedCall:
    if not call.has_list("transcript"):
        list(call.children("transcript"))  # one that is not a list is an error
        raise NoTranscriptError(
            "the conversation has no transcript; GET /v1/convai/conversations/{id} returns it",
            call.text("conversation_id"),
        )
    started_at = resolve_start(call.any_child("metadata").epoch_s("start_time_unix_secs"), source)
    variables = call.any_child(_INITIATION).any_child("dynamic_variables")

    def parse_message(path: str, fields: ExportFields) -> ExportedUtterance:
        side = _parse_side(fields, _ELEVENLABS_SIDES, _ELEVENLABS_IGNORED_ROLES)
        if not isinstance(side, Side):
            return ExportedUtterance(path, skipped=side)
        if fields.flag("ignored_as_backchannel"):
            return ExportedUtterance(path, skipped="a backchannel, which the agent did not answer")
        if "contextual_update_info" in fields:
            return ExportedUtterance(path, skipped=_OTHER_ROLES["injected"])
        # An agent with several voices says a message in parts.
        voices = [part for _, part, error in fields.any_child("multivoice_message").children("parts") if not error]
        text = " ".join(part for voice in voices if (part := voice.text("text"))) or fields.speech("message")
        return ExportedUtterance(path, side, text, add_offset(started_at, fields.number("time_in_call_secs")))

    return ExportedCall(
        session_id=call.text("conversation_id") or source.options.session_id,
        user_id=find_caller("elevenlabs", call.values, default=source.options.user_id),
        user_name=variables.any_text("user_name"),
        assistant_name=call.any_text("agent_name"),
        utterances=parse_utterances(call.children("transcript"), parse_message),
        is_answered_by_machine=_reached_voicemail(call),
    )


def _reached_voicemail(call: ExportFields) -> bool:
    """Return whether the carrier, or the agent with its tool, found an answering machine."""
    metadata = call.any_child("metadata")
    if metadata.any_child("phone_call").any_text("call_result") == "voicemail":
        return True
    if metadata.any_child("features_usage").any_child(_VOICEMAIL_TOOL).flag("used"):
        return True
    results = [
        result
        for _, entry, error in call.children("transcript")
        if not error and entry.has_list("tool_results")
        for _, result, invalid in entry.children("tool_results")
        if not invalid
    ]
    return any(
        (result.any_text("tool_name") == _VOICEMAIL_TOOL and not result.flag("is_error"))
        or result.any_child("result").any_text("result_type") == f"{_VOICEMAIL_TOOL}_success"
        for result in results
    )


_FORMATS: Mapping[str, ExportFormat] = {
    "vapi": ExportFormat(_is_vapi_call, _parse_vapi_call),
    "retell": ExportFormat(_is_retell_call, _parse_retell_call),
    "elevenlabs": ExportFormat(_is_elevenlabs_call, _parse_elevenlabs_call),
}
