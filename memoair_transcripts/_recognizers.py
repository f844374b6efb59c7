"""Readers of what speech recognizers return as JSON: Twilio, Deepgram, AssemblyAI and Rev.

A recognizer numbers speakers or channels, and does not know who they are. The options name the caller's or the agent's.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import attrs

from memoair_transcripts._call_exports import ExportFormat, read_calls
from memoair_transcripts._documents import JsonDocument
from memoair_transcripts._export_fields import (
    ExportedCall,
    ExportedUtterance,
    ExportFields,
    NoTranscriptError,
    add_offset,
    parse_utterances,
    resolve_start,
)
from memoair_transcripts._records import InvalidTurnError, PartialTurn, Rejection, Side, TranscriptSource
from memoair_transcripts._speakers import Speakers

_NO_SPEAKERS = "the transcript does not say who speaks; request {} from the recognizer"


def read_twilio(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read Conversational Intelligence sentences, the response to ``GET .../Transcripts/{sid}/Sentences``."""
    twilio = ExportFormat(lambda value: "sentences" in value, _parse_twilio_call, _group_sentences)
    return read_calls(stream, source, twilio)


def read_deepgram(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read responses of Deepgram with ``diarize`` or ``multichannel``."""
    return read_calls(stream, source, ExportFormat(_is_deepgram_call, _parse_deepgram_call))


def read_assemblyai(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read transcripts of AssemblyAI with ``speaker_labels`` or ``multichannel``."""
    return read_calls(stream, source, ExportFormat(lambda value: "utterances" in value, _parse_assemblyai_call))


def read_rev(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read transcripts of Rev."""
    return read_calls(stream, source, ExportFormat(lambda value: "monologues" in value, _parse_rev_call))


@attrs.frozen
class _Segment:
    """What one speaker says. ``labels`` are the spellings of the speaker's label, None if it is missing."""

    path: str
    labels: Sequence[str] | None
    text: str = attrs.field(repr=False)
    start_s: float | None


def _make_call(
    source: TranscriptSource, session_id: str | None, segments: Iterator[_Segment], parameter: str
) -> ExportedCall:
    speakers = Speakers(source.options)
    started_at = resolve_start(None, source)

    def utterances() -> Iterator[ExportedUtterance]:
        for segment in segments:
            if segment.labels is None:
                yield ExportedUtterance(segment.path, error=_NO_SPEAKERS.format(parameter))
                continue
            try:
                side = speakers.side_of(*segment.labels)
            except InvalidTurnError as error:
                yield ExportedUtterance(segment.path, error=str(error))
            else:
                yield ExportedUtterance(segment.path, side, segment.text, add_offset(started_at, segment.start_s))

    return ExportedCall(
        session_id=source.options.session_id or session_id,
        user_id=source.options.user_id,
        user_name=None,
        assistant_name=None,
        utterances=utterances(),
    )


def _spellings(kind: str, label: object) -> Sequence[str] | None:
    """Return how the options may write a speaker or channel: ``0``, ``Speaker 0``; or a name."""
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        return None
    return f"{kind} {label}", str(label)


# Deepgram


def _is_deepgram_call(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("results"), dict)


def _parse_deepgram_call(response: ExportFields, source: TranscriptSource) -> ExportedCall:
    results = response.child("results")
    channels = [(path, fields) for path, fields, error in results.children("channels") if error is None]
    has_channels = len(channels) > 1
    segments: list[_Segment] = []
    for path, fields, error in results.children("utterances"):
        if error is None:
            kind = "channel" if has_channels else "speaker"
            text, start_s = fields.text("transcript") or "", fields.number("start")
            segments.append(_Segment(path, _spellings(kind, fields.values.get(kind)), text, start_s))
    if not segments:
        for number, (path, channel) in enumerate(channels):
            alternative = next((item for _, item, error in channel.children("alternatives") if error is None), None)
            if alternative is not None:
                segments += _read_words(path, alternative, number if has_channels else None)
        segments.sort(key=lambda segment: segment.start_s or 0.0)
    if not segments:
        raise NoTranscriptError("the recording has no words")
    session_id = response.any_child("metadata").any_text("request_id")
    return _make_call(source, session_id, iter(segments), "diarize or multichannel")


def _read_words(path: str, alternative: ExportFields, channel: int | None) -> Iterator[_Segment]:
    """Yield runs of words of one speaker."""
    run: list[str] = []
    speaker: object = None
    start_s: float | None = None
    for _, word, error in alternative.children("words"):
        if error is not None:
            continue
        if run and channel is None and word.values.get("speaker") != speaker:
            yield _Segment(path, _spellings("speaker", speaker), " ".join(run), start_s)
            run = []
        if not run:
            speaker, start_s = word.values.get("speaker"), word.number("start")
        run.append(word.text("punctuated_word") or word.text("word") or "")
    if run:
        labels = _spellings("speaker", speaker) if channel is None else _spellings("channel", channel)
        yield _Segment(path, labels, " ".join(run), start_s)


# AssemblyAI


def _parse_assemblyai_call(transcript: ExportFields, source: TranscriptSource) -> ExportedCall:
    if not transcript.values.get("utterances"):
        raise NoTranscriptError("the transcript has no utterances; request speaker_labels or multichannel")

    def segments() -> Iterator[_Segment]:
        for path, fields, error in transcript.children("utterances"):
            if error is None:
                start_ms = fields.number("start")
                labels = [
                    *(_spellings("channel", fields.values.get("channel")) or ()),
                    *(_spellings("speaker", fields.values.get("speaker")) or ()),
                ]
                start_s = None if start_ms is None else start_ms / 1_000
                yield _Segment(path, labels or None, fields.text("text") or "", start_s)

    return _make_call(source, transcript.any_text("id"), segments(), "speaker_labels or multichannel")


# Rev


def _parse_rev_call(transcript: ExportFields, source: TranscriptSource) -> ExportedCall:
    names = {fields.values.get("id"): fields.any_text("name") for _, fields, _ in transcript.children("speakers")}

    def segments() -> Iterator[_Segment]:
        for path, fields, error in transcript.children("monologues"):
            if error is None:
                elements = [element for _, element, problem in fields.children("elements") if problem is None]
                speaker = fields.values.get("speaker")
                name = names.get(speaker) if isinstance(speaker, str | int) else None
                labels = _spellings("speaker", speaker)
                start_s = next((at for element in elements if (at := element.number("ts")) is not None), None)
                text = "".join(element.text("value") or "" for element in elements)
                yield _Segment(path, (name, *labels) if name and labels else labels, text, start_s)

    return _make_call(source, transcript.any_text("id"), segments(), "speakers")


# Twilio

_CHANNEL_HINT = "set callers or assistants to the channels (--caller, --assistant)"


def _parse_twilio_call(document: ExportFields, source: TranscriptSource) -> ExportedCall:
    transcript = document.child("transcript") if "transcript" in document else document
    started_at = resolve_start(transcript.iso_timestamp("media_start_time"), source)
    speakers = Speakers(source.options)
    roles, names = _parse_participants(transcript)

    def side_of(channel: str) -> Side:
        if source.options.callers or source.options.assistants:
            return speakers.side_of(channel)
        side = roles.get(channel)
        if side is None:
            raise InvalidTurnError(f"media_channel does not say who speaks; {_CHANNEL_HINT}")
        return side

    def parse_sentence(path: str, fields: ExportFields) -> ExportedUtterance:
        channel = fields.number("media_channel")
        if channel is None or not channel.is_integer():
            raise InvalidTurnError("media_channel must be an integer")
        text = fields.text("transcript") or ""
        return ExportedUtterance(
            path, side_of(f"{channel:.0f}"), text, add_offset(started_at, fields.number("start_time"))
        )

    return ExportedCall(
        session_id=transcript.text("sid") or source.options.session_id or _find_transcript_sid(document),
        user_id=source.options.user_id,
        user_name=names.get(Side.USER),
        assistant_name=names.get(Side.ASSISTANT),
        utterances=parse_utterances(document.children("sentences"), parse_sentence),
    )


def _parse_participants(transcript: ExportFields) -> tuple[dict[str, Side], dict[Side, str]]:
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


def _find_transcript_sid(document: ExportFields) -> str | None:
    """Return the transcript id that the sentences refer to."""
    return next(
        (sid for _, sentence, _ in document.children("sentences") if (sid := sentence.text("transcript_sid"))), None
    )


def _group_sentences(documents: Iterator[JsonDocument]) -> Iterator[JsonDocument]:
    """Yield the documents. Join sentences that come by themselves, in a list or one per line, into one call."""
    sentences: list[JsonDocument] = []
    for document in documents:
        if document.error is None and "sentences" not in document.content and "transcript" in document.content:
            sentences.append(document)
        else:
            yield document
    if sentences:
        yield JsonDocument(sentences[0].line, {"sentences": [sentence.content for sentence in sentences]})
