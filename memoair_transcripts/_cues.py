"""Readers of WebVTT and SRT: cues with the times at which they are shown, one call per file.

webvtt-py parses each cue separately, so that a file can be streamed and an invalid cue costs only that cue.
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, BinaryIO

import attrs

from memoair_protocol.installing import install_command
from memoair_protocol.timestamps import parse_local_timestamp
from memoair_transcripts._lines import TextLine, read_lines
from memoair_transcripts._pairing import TranscriptTurnAssembler
from memoair_transcripts._records import InvalidTurnError, Message, PartialTurn, Rejection, TranscriptSource
from memoair_transcripts._speakers import (
    MAX_MESSAGE_CHARS,
    Speakers,
    SpokenPart,
    TranscriptHeader,
    UnusableFileError,
    Utterance,
)

_MISSING_LIBRARY = f"subtitles require webvtt-py: {install_command('transcripts')}"
_NON_CUE_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")  # a WebVTT block without speech
_SRT_TIMES = re.compile(r"(\d:\d{1,2}:\d{1,2}),(\d)")
_VOICE = re.compile(r"(?=<v[ .\t])")


def read_webvtt(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read the turns of a WebVTT file. Speakers are voices (``<v Dana>``), or labels before a colon."""
    return _read_subtitles(stream, source, is_srt=False)


def read_srt(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read the turns of an SRT file. Speakers are labels before a colon."""
    return _read_subtitles(stream, source, is_srt=True)


def _read_subtitles(stream: BinaryIO, source: TranscriptSource, *, is_srt: bool) -> Iterator[PartialTurn | Rejection]:
    try:
        import html

        import webvtt
    except ImportError:
        yield source.reject(0, _MISSING_LIBRARY)
        return
    parse_captions = partial(_parse_captions, webvtt.from_string, html.unescape)
    transcript, assembler = _SubtitleTranscript(source, parse_captions, is_srt=is_srt), TranscriptTurnAssembler()
    for block in _read_blocks(stream):
        if block.error is not None:
            yield source.reject(block.line, block.error)
            transcript.mark_gap()
            continue
        try:
            for item in transcript.add_block(block):
                if isinstance(item, Rejection):
                    yield item
                else:
                    yield from assembler.add(item)
        except UnusableFileError as error:
            yield source.reject(0, str(error))
            return
        except InvalidTurnError as error:
            yield source.reject(block.line, str(error))
    last_message = transcript.flush()
    if last_message is not None:
        yield from assembler.add(last_message)
    yield from assembler.finish_all()


@attrs.frozen
class _Block:
    """The lines up to an empty one. ``error`` says why they are unreadable."""

    line: int
    lines: list[str]
    error: str | None = None


def _read_blocks(stream: BinaryIO) -> Iterator[_Block]:
    lines: list[TextLine] = []
    chars = 0
    for line in read_lines(stream):
        if line.error is not None:
            yield _Block(line.number, [], line.error)
            lines, chars = [], MAX_MESSAGE_CHARS + 1  # drops the rest of this block
        elif line.text.strip():
            chars += len(line.text)
            lines.append(line)
            if chars > MAX_MESSAGE_CHARS:
                if len(lines) > 1 or chars == len(line.text):
                    yield _Block(lines[0].number, [], f"the cue is longer than {MAX_MESSAGE_CHARS} characters")
                lines = []
        else:
            if lines:
                yield _Block(lines[0].number, [line.text for line in lines])
            lines, chars = [], 0
    if lines:
        yield _Block(lines[0].number, [line.text for line in lines])


@attrs.frozen
class _Caption:
    """A part of a cue: its speaker, if it names one, its lines, and its offset from the start of the call."""

    voice: str  # may be empty
    lines: list[str]
    offset: timedelta
    is_outside: bool = False  # of the voices that the rest of the cue is in


def _parse_captions(
    from_string: Callable[[str], Any], unescape: Callable[[str], str], timing_line: str, payload: list[str]
) -> Iterator[_Caption]:
    """Yield the parts of a cue: one per voice, and what no voice says."""
    text = "\n".join(payload)
    parts = [part for part in _VOICE.split(text) if part.strip()]
    has_voices = any(_VOICE.match(part) for part in parts)
    for part in parts:
        voiced, _, behind = part.partition("</v>") if _VOICE.match(part) else ("", "", part)
        for markup in (voiced, behind):
            if not markup.strip():
                continue
            try:
                captions = from_string(f"WEBVTT\n\n{timing_line}\n{markup.strip()}\n").captions
            except Exception:  # noqa: BLE001 - the library's errors quote the cue
                captions = []
            if not captions:
                raise InvalidTurnError("the cue cannot be parsed")
            for caption in captions:
                lines = [" ".join(unescape(line).split()) for line in caption.text.split("\n")]
                lines = [line for line in lines if line]
                if lines:
                    voice = unescape(caption.voice or "").strip()
                    yield _Caption(voice, lines, _parse_offset(caption.start), has_voices and not voice)


def _parse_offset(start: str) -> timedelta:
    hours, minutes, seconds = start.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes), milliseconds=int(seconds.replace(".", "")))


class _SubtitleTranscript:
    """The cues of one call, added one block at a time."""

    def __init__(
        self, source: TranscriptSource, parse_captions: Callable[[str, list[str]], Iterator[_Caption]], *, is_srt: bool
    ) -> None:
        self._source = source
        self._parse_captions = parse_captions
        self._is_srt = is_srt
        self._header = TranscriptHeader(source)
        self._speakers = Speakers(source.options, source.head_text())
        self._has_started = False
        self._expects_file_header = not is_srt  # a WebVTT file begins with a WEBVTT block
        self._started_at: datetime | None = None
        self._current: Utterance | None = None
        self._has_gap = False  # whether a cue was rejected that the next one may continue

    def add_block(self, block: _Block) -> Iterator[Message | Rejection]:
        """Add a block. Yield the messages that it completes, and its rejected lines. Raises `InvalidTurnError`."""
        is_file_header, self._expects_file_header = self._expects_file_header, False
        if is_file_header or (not self._is_srt and _NON_CUE_BLOCK.match(block.lines[0])):
            self._read_header(block.lines, is_file_header=is_file_header)
            return
        position = next((index for index, line in enumerate(block.lines[:2]) if "-->" in line), None)
        if position is None:
            raise self._gap_error("the cue has no timing line")
        if not self._has_started:
            self._started_at = self._header.find_start(parse_local_timestamp)
            self._has_started = True
        timing_line = block.lines[position]
        if self._is_srt:
            timing_line = _SRT_TIMES.sub(r"\1.\2", timing_line)
        try:
            captions = list(self._parse_captions(timing_line, block.lines[position + 1 :] or [" "]))
        except InvalidTurnError as error:
            raise self._gap_error(str(error)) from None
        for caption in captions:
            yield from self._add_caption(caption, block.line)

    def flush(self) -> Message | None:
        """Return the last message. Text without a speaker is rejected from here on."""
        utterance, self._current, self._has_gap = self._current, None, True
        return self._header.make_message(utterance) if utterance is not None and utterance.texts else None

    def mark_gap(self) -> None:
        """Record that a block was unreadable: text without a speaker that follows may be from anyone."""
        self._has_gap = True

    def _gap_error(self, reason: str) -> InvalidTurnError:
        self.mark_gap()
        return InvalidTurnError(reason)

    def _read_header(self, lines: list[str], *, is_file_header: bool) -> None:
        if is_file_header and not lines[0].startswith("WEBVTT"):
            raise UnusableFileError("the file does not begin with WEBVTT")
        if not self._has_started:
            for line in lines[1:] if is_file_header else [lines[0].partition(" ")[2], *lines[1:]]:
                self._header.add_line(line)

    def _add_caption(self, caption: _Caption, line: int) -> Iterator[Message | Rejection]:
        """Add the lines of a part of a cue. A line that is rejected does not affect the ones that name a speaker."""
        current = self._current
        if caption.is_outside and current is not None:
            yield from self._end_utterance()
            self.mark_gap()
        for number, text in enumerate(caption.lines):
            try:
                for part in self._read_line(caption, number, text):
                    yield from self._add_part(part, line, caption.offset)
            except InvalidTurnError as error:
                self.mark_gap()
                yield self._source.reject(line, str(error))

    def _read_line(self, caption: _Caption, number: int, text: str) -> list[SpokenPart]:
        if not caption.voice:
            return self._speakers.read_cue_line(text)
        label, side = caption.voice, self._speakers.side_of(caption.voice)
        if number > 0:
            return self._speakers.read_cue_line(text, has_voice=True)
        parts = self._speakers.read_cue_line(text.lstrip("-\u2013\u2014 ") or text, has_voice=True)
        if parts[0].label is None:
            return [SpokenPart(parts[0].text or text, label, side), *parts[1:]]
        if parts[0].side is not side:
            raise InvalidTurnError("the voice and the label name two speakers")
        return parts

    def _add_part(self, part: SpokenPart, line: int, offset: timedelta) -> Iterator[Message]:
        current, text = self._current, part.text.strip()
        if part.is_notice or (part.label is None and not text):
            yield from self._end_utterance()
            self.mark_gap()
            return
        if part.label is None and (current is None or self._has_gap):
            raise InvalidTurnError(
                "continues a cue that was rejected" if self._has_gap else "no speaker is named for this text"
            )
        continues = current is not None and (
            part.label is None or (part.label, part.side) == (current.label, current.side)
        )
        if current is None or not continues or current.chars + len(text) > MAX_MESSAGE_CHARS:
            yield from self._end_utterance()
            label, side = part.label, part.side
            if current is not None:
                label, side = label or current.label, side or current.side
            assert label is not None  # noqa: S101 - a continuation has a current speaker
            assert side is not None  # noqa: S101
            current = self._current = Utterance(label, side, line, self._resolve_offset(offset))
        self._has_gap = False
        current.add(text)

    def _end_utterance(self) -> Iterator[Message]:
        message = self.flush()
        if message is not None:
            yield message

    def _resolve_offset(self, offset: timedelta) -> datetime | None:
        if self._started_at is None:
            return None
        started_at = self._started_at if self._started_at.tzinfo else self._started_at.replace(tzinfo=timezone.utc)
        try:
            return (started_at + offset).astimezone(timezone.utc)
        except OverflowError:
            return None
