"""Reader of plain text: ``Speaker: text``, and the shapes that meeting tools and messengers write; one call per file.

A line may begin with a timestamp (``[2026-03-02 09:30:05]``) or an offset from the start of the call (``[00:12]``,
``(00:00:12.4)``). A speaker may also stand on a line of their own, with or without a time. A line in which nothing
looks like a speaker continues the text before it. The file may begin with a header: ``userId: caller_42``, and so on.
"""

from collections.abc import Iterator
from typing import BinaryIO

from memoair_protocol.timestamps import parse_local_timestamp
from memoair_transcripts._call_clock import CallClock
from memoair_transcripts._furniture import has_title, is_furniture, is_title_line, preamble_length
from memoair_transcripts._lines import TextLine, read_lines
from memoair_transcripts._pairing import TranscriptTurnAssembler
from memoair_transcripts._records import InvalidTurnError, Message, PartialTurn, Rejection, Side, TranscriptSource
from memoair_transcripts._speakers import (
    MAX_MESSAGE_CHARS,
    Speakers,
    TranscriptHeader,
    UnusableFileError,
    Utterance,
)
from memoair_transcripts._stamps import is_day_first


def read_plain_text(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read the turns of a call."""
    transcript, assembler = _TextTranscript(source), TranscriptTurnAssembler()
    for line in read_lines(stream):
        message = None
        if line.error is not None:
            yield source.reject(line.number, line.error)
            message = transcript.flush()
        elif line.text.strip():
            try:
                for completed in transcript.add_line(line):
                    yield from assembler.add(completed)
            except UnusableFileError as error:
                yield source.reject(0, str(error))
                return
            except InvalidTurnError as error:
                yield source.reject(line.number, str(error))
                message = transcript.flush()
        if message is not None:
            yield from assembler.add(message)
    last_message = transcript.flush()
    if last_message is not None:
        yield from assembler.add(last_message)
    yield from assembler.finish_all()


class _TextTranscript:
    """The lines of one call, added one at a time."""

    def __init__(self, source: TranscriptSource) -> None:
        head = source.head_text()
        self._source = source
        self._header = TranscriptHeader(source)
        self._speakers = Speakers(source.options, head)
        self._preamble_length = preamble_length(head)
        self._has_title = has_title(head)
        self._is_day_first = is_day_first(head)
        self._clock: CallClock | None = None  # None while the header is read
        self._current: Utterance | None = None
        self._has_spoken = False
        self._has_gap = False  # whether a line was rejected or skipped that the next one may continue
        self._pending_stamp: str | None = None  # a time on a line of its own

    def add_line(self, line: TextLine) -> Iterator[Message]:
        """Add a line. Yield the messages that it completes. Raises `InvalidTurnError`."""
        if self._clock is None:
            if self._header.add_line(line.text):
                return
            started_at = self._header.find_start(parse_local_timestamp)
            self._clock = CallClock(started_at, is_day_first=self._is_day_first)
        is_title = self._has_title and not self._has_spoken and is_title_line(line.text)
        if line.number <= self._preamble_length or is_title or is_furniture(line.text):
            yield from self._skip(line, "written by the tool, not said")
            return
        for part in self._speakers.read_line(line.text):
            if part.is_notice:
                yield from self._skip(line, "a notice of the messenger")
            elif part.label is not None and part.side is not None:
                yield from self._flush()
                self._start(part.label, part.side, part.stamp or self._pending_stamp, line.number)
                yield from self._continue(part.text.strip())
            elif part.text.strip():
                yield from self._continue_line(part.text.strip(), line)
            elif self._current is not None and not self._current.texts and part.stamp is not None:
                self._current.occurred_at = self._clock.resolve(part.stamp)  # a name, a time, and then the words
            else:  # a time on a line of its own: the next line says who speaks
                yield from self._flush()
                self._pending_stamp = part.stamp

    def flush(self) -> Message | None:
        """Return the last message. Text without a speaker is rejected from here on."""
        utterance, self._current, self._has_gap = self._current, None, True
        self._pending_stamp = None
        return self._header.make_message(utterance) if utterance is not None and utterance.texts else None

    def _flush(self) -> Iterator[Message]:
        pending_stamp = self._pending_stamp
        message = self.flush()
        self._pending_stamp = pending_stamp
        if message is not None:
            yield message

    def _start(self, label: str, side: Side, stamp: str | None, line: int) -> None:
        assert self._clock is not None  # noqa: S101 - the header is read
        occurred_at = self._clock.resolve(stamp) if stamp is not None else None
        self._current = Utterance(label, side, line, occurred_at)
        self._has_gap, self._has_spoken, self._pending_stamp = False, True, None

    def _skip(self, line: TextLine, reason: str) -> Iterator[Message]:
        yield from self._flush()
        self._source.skip(line.number, reason)

    def _continue_line(self, text: str, line: TextLine) -> Iterator[Message]:
        if self._current is None and not self._has_spoken and self._has_title:
            self._source.skip(line.number, "written by the tool, not said")
            return
        yield from self._continue(text)

    def _continue(self, text: str) -> Iterator[Message]:
        current = self._current
        if current is None:
            reason = "continues a line that was rejected" if self._has_gap else "no speaker is named for this text"
            raise InvalidTurnError(reason)
        if current.chars + len(text) >= MAX_MESSAGE_CHARS:
            yield self._header.make_message(current)
            current.texts, current.chars = [], 0
        current.add(text)
