"""Plain text: ``Speaker: text``, a call a file.

A line may begin with when it was said: ``[2026-03-02 09:30:05]``, or how far into the call: ``[00:12]``,
``(00:00:12.4)``. A line without a speaker goes on with what was said before it. What stands before the first word may
be a header: ``userId: caller_42``, and so on.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

import attrs

from memoair_voice_sync.transcripts._call_clock import CallClock
from memoair_voice_sync.transcripts._identifiers import Unfit, check_id
from memoair_voice_sync.transcripts._lines import Line, read_lines
from memoair_voice_sync.transcripts._moments import parse_local_moment
from memoair_voice_sync.transcripts._pairing import Pairing
from memoair_voice_sync.transcripts._records import Draft, Message, Refusal, Side, Source, TranscriptOptions

_COLON = re.compile(r"[:\uff1a]")
_LONGEST_LABEL = 60
# A name is short, and its later words are written large: "The options are: ..." names nobody.
_NAME = re.compile(r"[^\W_][\w.'-]{0,30}(?: [A-Z0-9][\w.'-]{0,30}){0,3}")
_USUAL = {
    **dict.fromkeys(("caller", "customer", "user"), Side.USER),
    **dict.fromkeys(("agent", "assistant", "bot"), Side.ASSISTANT),
}
_NAMELESS = re.compile(r"speaker[ _]?\w{1,2}", re.IGNORECASE)  # as recognisers number them
_HEADER = {name.lower(): name for name in ("userId", "sessionId", "occurredAt", "userName", "assistantName")}
# One side's words before they are passed on, so that a file without line breaks in it is not held whole.
_MOST_CHARS = 100_000


def read_plain_text(stream: BinaryIO, source: Source) -> Iterator[Draft | Refusal]:
    """Read the turns of a call."""
    script, pairing = _Script(source), Pairing()
    for line in read_lines(stream):
        if line.problem is not None:
            yield source.refuse(line.number, line.problem)
            script.lose()
        elif line.text.strip():
            try:
                message = script.hear(line)
            except _NoCaller as unfit:
                yield source.refuse(0, str(unfit))
                return
            except Unfit as unfit:
                yield source.refuse(line.number, str(unfit))
                message = script.lose()
            if message is not None:
                yield from pairing.say(message)
    last = script.lose()
    if last is not None:
        yield from pairing.say(last)
    yield from pairing.finish_all()


class _NoCaller(Unfit):
    """Nothing in this file can be kept."""


@attrs.define
class _Utterance:
    """What one speaker says until another one does."""

    label: str
    side: Side
    line: int
    occurred_at: datetime | None
    words: list[str]
    chars: int = 0

    @property
    def name(self) -> str | None:
        """How the speaker is called, if the label tells."""
        return None if self.label.casefold() in _USUAL or _NAMELESS.fullmatch(self.label) else self.label

    def say(self, text: str) -> None:
        """Go on."""
        if text:
            self.words.append(text)
            self.chars += len(text) + 1


def _labelled(text: str) -> tuple[str | None, str]:
    """What stands before a line's first colon, if that comes early enough, and what behind it."""
    text = text.lstrip()
    colon = _COLON.search(text, 1, _LONGEST_LABEL)
    return (None, text) if colon is None else (text[: colon.start()].rstrip(), text[colon.end() :])


class _Speakers:
    """Whose words stand behind which label."""

    def __init__(self, options: TranscriptOptions) -> None:
        told = {
            **{label.casefold(): Side.USER for label in options.callers},
            **{label.casefold(): Side.ASSISTANT for label in options.assistants},
        }
        self._known = told or _USUAL
        # Whoever names one side only says with it that everybody else is the other.
        self._others: Side | None = None
        if bool(options.callers) is not bool(options.assistants):
            self._others = Side.ASSISTANT if options.callers else Side.USER

    def split(self, text: str) -> tuple[str, Side, str] | None:
        """A line's label, its side, and the words behind it; None where the line has no label."""
        label, words = _labelled(text)
        if label is None:
            return None
        side = self._known.get(label.casefold())
        if side is not None:
            return label, side, words
        if not _NAME.fullmatch(label) or words.lstrip() == words != "":  # "10:30", "https://..."
            return None
        if self._others is None:
            raise Unfit("the speaker is neither the caller nor the agent; say who is who (callers, assistants)")
        return label, self._others, words


class _Script:
    """The lines of a call, as they come."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._options = source.options
        self._header: dict[str, str] = {}
        self._speakers = _Speakers(source.options)
        self._clock: CallClock | None = None  # from the first word on
        self._current: _Utterance | None = None
        self._is_lost = False  # whether a line was refused that this one may go on with

    def hear(self, line: Line) -> Message | None:
        """Take in a line; gives what was said before it, once somebody else speaks. Raises `Unfit`."""
        if self._clock is None:
            if self._is_header(line.text):
                return None
            self._clock = self._begin()
        occurred_at, text = self._clock.split(line.text)
        begun = self._speakers.split(text)
        if begun is None:
            return self._go_on(text.strip())
        label, side, words = begun
        message = self.lose()
        self._current = _Utterance(label, side, line.number, occurred_at, [])
        self._current.say(words.strip())
        self._is_lost = False
        return message

    def lose(self) -> Message | None:
        """What was said last; what comes now without a speaker is nobody's."""
        said, self._current, self._is_lost = self._current, None, True
        return self._message(said) if said is not None and said.words else None

    def _go_on(self, text: str) -> Message | None:
        current = self._current
        if current is None:
            why = "goes on with a line that was refused" if self._is_lost else "nobody is named who says this"
            raise Unfit(why)
        if current.chars + len(text) < _MOST_CHARS:
            current.say(text)
            return None
        message = self._message(current)
        current.words, current.chars = [], 0
        current.say(text)
        return message

    def _is_header(self, text: str) -> bool:
        label, value = _labelled(text)
        name = _HEADER.get(re.sub("[ _-]", "", label or "").lower())
        if name is None:
            return False
        if name in self._header:
            raise Unfit(f"{name} stands twice in the header")
        value = value.strip()
        self._header[name] = check_id(name, value) if name in ("userId", "sessionId") else value
        return True

    def _begin(self) -> CallClock:
        if self._header.get("userId", self._options.user_id) is None:
            raise _NoCaller("userId is missing, and nobody said who calls in this file")
        told = self._header.get("occurredAt")
        try:
            return CallClock(parse_local_moment(told) if told else self._options.started_at)
        except ValueError:
            raise _NoCaller("occurredAt is not an ISO 8601 moment, as 2026-03-02T09:30:00Z is") from None

    def _message(self, said: _Utterance) -> Message:
        options, header, name = self._options, self._header, said.name
        is_user = said.side is Side.USER
        return Message(
            user_id=header.get("userId") or options.user_id or "",
            session_id=header.get("sessionId") or self._source.call_id,
            side=said.side,
            text=" ".join(said.words),
            line=said.line,
            occurred_at=said.occurred_at,
            user_name=header.get("userName") or options.user_name or (name if is_user else None),
            assistant_name=header.get("assistantName") or options.assistant_name or (None if is_user else name),
        )
