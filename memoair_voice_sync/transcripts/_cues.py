"""WebVTT and SRT: cues with the times at which they are shown, a call a file.

A cue is read by webvtt-py, each by itself: so a file is a stream, and what is wrong with a cue costs that cue only.
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, BinaryIO

import attrs

from memoair_voice_sync.transcripts._identifiers import InvalidTurnError
from memoair_voice_sync.transcripts._lines import TextLine, read_lines
from memoair_voice_sync.transcripts._moments import parse_local_moment
from memoair_voice_sync.transcripts._pairing import TranscriptTurnAssembler
from memoair_voice_sync.transcripts._records import Message, PartialTurn, Rejection, Side, TranscriptSource
from memoair_voice_sync.transcripts._speakers import (
    MOST_CHARS,
    MissingUserIdError,
    Speakers,
    TranscriptHeader,
    Utterance,
)

_NOT_INSTALLED = "to read it takes webvtt-py: pip install 'memoair-voice[subtitles]'"
_SILENT = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")  # a block of WebVTT that says nothing
_SRT_TIMES = re.compile(r"(\d:\d{1,2}:\d{1,2}),(\d)")
_VOICE = re.compile(r"(?=<v[ .\t])")


def read_webvtt(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read the turns of a call in WebVTT: speakers are voices (``<v Dana>``), or stand before a colon."""
    return _read(stream, source, is_srt=False)


def read_srt(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read the turns of a call in SRT: speakers stand before a colon."""
    return _read(stream, source, is_srt=True)


def _read(stream: BinaryIO, source: TranscriptSource, *, is_srt: bool) -> Iterator[PartialTurn | Rejection]:
    try:
        import html

        import webvtt
    except ImportError:
        yield source.refuse(0, _NOT_INSTALLED)
        return
    show, pairing = (
        _SubtitleTranscript(source, partial(_captions, webvtt.from_string, html.unescape), is_srt=is_srt),
        TranscriptTurnAssembler(),
    )
    for block in _blocks(stream):
        if block.problem is not None:
            yield source.refuse(block.line, block.problem)
            show.miss()
            continue
        try:
            for message in show.hear(block):
                yield from pairing.say(message)
        except MissingUserIdError as unfit:
            yield source.refuse(0, str(unfit))
            return
        except InvalidTurnError as unfit:
            yield source.refuse(block.line, str(unfit))
    last = show.lose()
    if last is not None:
        yield from pairing.say(last)
    yield from pairing.finish_all()


@attrs.frozen
class _Block:
    """Lines up to an empty one. ``problem`` says why they can't be read."""

    line: int
    lines: list[str]
    problem: str | None = None


def _blocks(stream: BinaryIO) -> Iterator[_Block]:
    lines: list[TextLine] = []
    chars = 0
    for line in read_lines(stream):
        if line.problem is not None:
            yield _Block(line.number, [], line.problem)
            lines, chars = [], MOST_CHARS + 1  # what stands around it belongs to it
        elif line.text.strip():
            chars += len(line.text)
            lines.append(line)
            if chars > MOST_CHARS:
                if len(lines) > 1 or chars == len(line.text):
                    yield _Block(lines[0].number, [], f"the cue is longer than {MOST_CHARS} characters")
                lines = []
        else:
            if lines:
                yield _Block(lines[0].number, [each.text for each in lines])
            lines, chars = [], 0
    if lines:
        yield _Block(lines[0].number, [each.text for each in lines])


@attrs.frozen
class _Caption:
    """A part of a cue: who says it, if it tells, and how far into the call."""

    voice: str  # may be empty
    text: str
    into_call: timedelta


def _captions(
    from_string: Callable[[str], Any], unescape: Callable[[str], str], times: str, payload: list[str]
) -> Iterator[_Caption]:
    """The parts of a cue, one for each voice."""
    for part in _VOICE.split("\n".join(payload)):
        if not part.strip():
            continue
        try:
            captions = from_string(f"WEBVTT\n\n{times}\n{part.strip()}\n").captions
        except Exception:  # noqa: BLE001 - the library's errors quote the cue
            captions = []
        if not captions:
            raise InvalidTurnError("the cue can't be read")
        for caption in captions:
            words = " ".join(unescape(caption.text).split())
            if words:
                yield _Caption(unescape(caption.voice or "").strip(), words, _into_call(caption.start))


def _into_call(start: str) -> timedelta:
    hours, minutes, seconds = start.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes), milliseconds=int(seconds.replace(".", "")))


class _SubtitleTranscript:
    """The cues of a call, as they come."""

    def __init__(
        self, source: TranscriptSource, captions: Callable[[str, list[str]], Iterator[_Caption]], *, is_srt: bool
    ) -> None:
        self._captions = captions
        self._is_srt = is_srt
        self._header = TranscriptHeader(source)
        self._speakers = Speakers(source.options)
        self._has_begun = False
        self._is_first = not is_srt  # a file in WebVTT begins with a block that says so
        self._began_at: datetime | None = None
        self._current: Utterance | None = None
        self._is_lost = False  # whether a cue was refused that this one may go on with

    def hear(self, block: _Block) -> Iterator[Message]:
        """Take in a block; gives what was said before it, once somebody else speaks. Raises `InvalidTurnError`."""
        is_head, self._is_first = self._is_first, False
        if is_head or (not self._is_srt and _SILENT.match(block.lines[0])):
            self._take_header(block.lines, is_head=is_head)
            return
        place = next((place for place, line in enumerate(block.lines[:2]) if "-->" in line), None)
        if place is None:
            raise self._lost("no times stand over it")
        if not self._has_begun:
            self._began_at = self._header.began_at(parse_local_moment)
            self._has_begun = True
        times = block.lines[place]
        if self._is_srt:
            times = _SRT_TIMES.sub(r"\1.\2", times)
        try:
            parts = list(self._captions(times, block.lines[place + 1 :] or [" "]))
        except InvalidTurnError as unfit:
            raise self._lost(str(unfit)) from None
        for part in parts:
            yield from self._say(part, block.line)

    def lose(self) -> Message | None:
        """What was said last; what comes now without a speaker is nobody's."""
        said, self._current, self._is_lost = self._current, None, True
        return self._header.message(said) if said is not None and said.words else None

    def miss(self) -> None:
        """Something could not be read: what comes now without a speaker may be anybody's."""
        self._is_lost = True

    def _lost(self, why: str) -> InvalidTurnError:
        self.miss()
        return InvalidTurnError(why)

    def _take_header(self, lines: list[str], *, is_head: bool) -> None:
        if is_head and not lines[0].startswith("WEBVTT"):
            raise MissingUserIdError("the file does not begin with WEBVTT")
        if not self._has_begun:
            for line in lines[1:] if is_head else [lines[0].partition(" ")[2], *lines[1:]]:
                self._header.takes(line)

    def _say(self, part: _Caption, line: int) -> Iterator[Message]:
        try:
            begun = self._begun(part)
        except InvalidTurnError as unfit:
            raise self._lost(str(unfit)) from None
        current = self._current
        label, side, words = begun or (None, None, part.text)
        if label is None and (current is None or self._is_lost):
            raise InvalidTurnError(
                "goes on with a cue that was refused" if self._is_lost else "nobody is named who says this"
            )
        goes_on = current is not None and (label is None or (label, side) == (current.label, current.side))
        if current is None or not goes_on or current.chars + len(words) > MOST_CHARS:
            said = self.lose()
            if said is not None:
                yield said
            label, side = (label or current.label, side or current.side) if current else (label, side)
            assert label is not None  # noqa: S101 - who goes on goes on with somebody
            assert side is not None  # noqa: S101
            current = self._current = Utterance(label, side, line, self._moment(part.into_call))
        self._is_lost = False
        current.say(words.strip())

    def _begun(self, part: _Caption) -> tuple[str, Side, str] | None:
        if part.voice:
            return part.voice, self._speakers.side_of(part.voice), part.text
        return self._speakers.split(part.text)

    def _moment(self, into_call: timedelta) -> datetime | None:
        if self._began_at is None:
            return None
        began_at = self._began_at if self._began_at.tzinfo else self._began_at.replace(tzinfo=timezone.utc)
        try:
            return (began_at + into_call).astimezone(timezone.utc)
        except OverflowError:
            return None
