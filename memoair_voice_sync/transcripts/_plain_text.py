"""Plain text: ``Speaker: text``, a call a file.

A line may begin with when it was said: ``[2026-03-02 09:30:05]``, or how far into the call: ``[00:12]``,
``(00:00:12.4)``. A line without a speaker goes on with what was said before it. What stands before the first word may
be a header: ``userId: caller_42``, and so on.
"""

from collections.abc import Iterator
from typing import BinaryIO

from memoair_voice_sync.transcripts._call_clock import CallClock
from memoair_voice_sync.transcripts._identifiers import InvalidTurnError
from memoair_voice_sync.transcripts._lines import TextLine, read_lines
from memoair_voice_sync.transcripts._moments import parse_local_moment
from memoair_voice_sync.transcripts._pairing import TranscriptTurnAssembler
from memoair_voice_sync.transcripts._records import Message, PartialTurn, Rejection, TranscriptSource
from memoair_voice_sync.transcripts._speakers import (
    MOST_CHARS,
    MissingUserIdError,
    Speakers,
    TranscriptHeader,
    Utterance,
)


def read_plain_text(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read the turns of a call."""
    script, pairing = _TextTranscript(source), TranscriptTurnAssembler()
    for line in read_lines(stream):
        message = None
        if line.problem is not None:
            yield source.refuse(line.number, line.problem)
            message = script.lose()
        elif line.text.strip():
            try:
                message = script.hear(line)
            except MissingUserIdError as unfit:
                yield source.refuse(0, str(unfit))
                return
            except InvalidTurnError as unfit:
                yield source.refuse(line.number, str(unfit))
                message = script.lose()
        if message is not None:
            yield from pairing.say(message)
    last = script.lose()
    if last is not None:
        yield from pairing.say(last)
    yield from pairing.finish_all()


class _TextTranscript:
    """The lines of a call, as they come."""

    def __init__(self, source: TranscriptSource) -> None:
        self._header = TranscriptHeader(source)
        self._speakers = Speakers(source.options)
        self._clock: CallClock | None = None  # from the first word on
        self._current: Utterance | None = None
        self._is_lost = False  # whether a line was refused that this one may go on with

    def hear(self, line: TextLine) -> Message | None:
        """Take in a line; gives what was said before it, once somebody else speaks. Raises `InvalidTurnError`."""
        if self._clock is None:
            if self._header.takes(line.text):
                return None
            self._clock = CallClock(self._header.began_at(parse_local_moment))
        occurred_at, text = self._clock.split(line.text)
        begun = self._speakers.split(text)
        if begun is None:
            return self._go_on(text.strip())
        label, side, words = begun
        message = self.lose()
        self._current = Utterance(label, side, line.number, occurred_at)
        self._current.say(words.strip())
        self._is_lost = False
        return message

    def lose(self) -> Message | None:
        """What was said last; what comes now without a speaker is nobody's."""
        said, self._current, self._is_lost = self._current, None, True
        return self._header.message(said) if said is not None and said.words else None

    def _go_on(self, text: str) -> Message | None:
        current = self._current
        if current is None:
            why = "goes on with a line that was refused" if self._is_lost else "nobody is named who says this"
            raise InvalidTurnError(why)
        if current.chars + len(text) < MOST_CHARS:
            current.say(text)
            return None
        message = self._header.message(current)
        current.words, current.chars = [], 0
        current.say(text)
        return message
