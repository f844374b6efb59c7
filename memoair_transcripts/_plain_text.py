"""Reader of plain text: ``Speaker: text``, one call per file.

A line may begin with a timestamp (``[2026-03-02 09:30:05]``) or an offset from the start of the call (``[00:12]``,
``(00:00:12.4)``). A line without a speaker continues the text before it. The file may begin with a header:
``userId: caller_42``, and so on.
"""

from collections.abc import Iterator
from typing import BinaryIO

from memoair_protocol.timestamps import parse_local_timestamp
from memoair_transcripts._call_clock import CallClock
from memoair_transcripts._lines import TextLine, read_lines
from memoair_transcripts._pairing import TranscriptTurnAssembler
from memoair_transcripts._records import InvalidTurnError, Message, PartialTurn, Rejection, TranscriptSource
from memoair_transcripts._speakers import (
    MAX_MESSAGE_CHARS,
    Speakers,
    TranscriptHeader,
    UnusableFileError,
    Utterance,
)


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
                message = transcript.add_line(line)
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
        self._header = TranscriptHeader(source)
        self._speakers = Speakers(source.options)
        self._clock: CallClock | None = None  # None while the header is read
        self._current: Utterance | None = None
        self._has_gap = False  # whether a line was rejected that the next one may continue

    def add_line(self, line: TextLine) -> Message | None:
        """Add a line. Return the message that it completes, if it does. Raises `InvalidTurnError`."""
        if self._clock is None:
            if self._header.add_line(line.text):
                return None
            self._clock = CallClock(self._header.find_start(parse_local_timestamp))
        occurred_at, text = self._clock.split_timestamp(line.text)
        speaker = self._speakers.split(text)
        if speaker is None:
            return self._continue(text.strip())
        label, side, words = speaker
        message = self.flush()
        self._current = Utterance(label, side, line.number, occurred_at)
        self._current.add(words.strip())
        self._has_gap = False
        return message

    def flush(self) -> Message | None:
        """Return the last message. Text without a speaker is rejected from here on."""
        utterance, self._current, self._has_gap = self._current, None, True
        return self._header.make_message(utterance) if utterance is not None and utterance.texts else None

    def _continue(self, text: str) -> Message | None:
        current = self._current
        if current is None:
            reason = "continues a line that was rejected" if self._has_gap else "no speaker is named for this text"
            raise InvalidTurnError(reason)
        if current.chars + len(text) < MAX_MESSAGE_CHARS:
            current.add(text)
            return None
        message = self._header.make_message(current)
        current.texts, current.chars = [], 0
        current.add(text)
        return message
