"""Combine messages into turns: what the caller says, and what the agent answers."""

from collections import OrderedDict
from collections.abc import Iterator

import attrs

from memoair_transcripts._records import Message, PartialTurn, Side

# The number of calls with an open turn. If a file mixes the messages of more calls than this, some turns are split in
# two; no text is lost.
_MAX_OPEN_TURNS = 4_096
# The length of a turn. Beyond it, as in a file that never names the other side, a new turn starts.
_MAX_TURN_CHARS = 200_000


@attrs.define
class _OpenTurn:
    """A turn that may not be complete yet."""

    first: Message
    latest: Message
    texts: dict[Side, list[str]] = attrs.field(factory=lambda: {Side.USER: [], Side.ASSISTANT: []})
    chars: int = 0

    def add(self, message: Message) -> None:
        self.texts[message.side].append(message.text)
        self.chars += len(message.text)
        first = self.first
        self.first = attrs.evolve(
            first,
            turn_id=first.turn_id or message.turn_id,
            occurred_at=first.occurred_at or message.occurred_at,
            user_name=first.user_name or message.user_name,
            assistant_name=first.assistant_name or message.assistant_name,
            metadata={**first.metadata, **message.metadata},
        )
        self.latest = message

    def accepts(self, message: Message) -> bool:
        """Return whether a message belongs to this turn: the caller has not started to speak again."""
        starts_next_turn = message.side is Side.USER and self.latest.side is Side.ASSISTANT
        has_other_id = None not in (message.turn_id, self.first.turn_id) and message.turn_id != self.first.turn_id
        return not starts_next_turn and not has_other_id and self.chars + len(message.text) <= _MAX_TURN_CHARS

    def to_turn(self) -> PartialTurn:
        first = self.first
        return PartialTurn(
            user_id=first.user_id,
            session_id=first.session_id,
            turn_id=first.turn_id,
            occurred_at=first.occurred_at,
            user_text="\n".join(self.texts[Side.USER]),
            assistant_text="\n".join(self.texts[Side.ASSISTANT]),
            user_name=first.user_name,
            assistant_name=first.assistant_name,
            metadata=first.metadata,
            line=first.line,
        )


class TranscriptTurnAssembler:
    """Combines the messages of many calls into turns, each call separately."""

    def __init__(self) -> None:
        self._open_turns: OrderedDict[tuple[str, str], _OpenTurn] = OrderedDict()

    def add(self, message: Message) -> Iterator[PartialTurn]:
        """Add a message and yield the turns that it completes."""
        call = (message.user_id, message.session_id)
        turn = self._open_turns.get(call)
        if turn is not None and not turn.accepts(message):
            yield self._open_turns.pop(call).to_turn()
            turn = None
        if turn is None:
            turn = self._open_turns[call] = _OpenTurn(message, message)
        turn.add(message)
        self._open_turns.move_to_end(call)
        if len(self._open_turns) > _MAX_OPEN_TURNS:
            yield self._open_turns.popitem(last=False)[1].to_turn()

    def finish(self, user_id: str, session_id: str) -> Iterator[PartialTurn]:
        """Complete the open turn of a call and yield it."""
        turn = self._open_turns.pop((user_id, session_id), None)
        if turn is not None:
            yield turn.to_turn()

    def finish_all(self) -> Iterator[PartialTurn]:
        """Complete all open turns and yield them, the least recently active first."""
        while self._open_turns:
            yield self._open_turns.popitem(last=False)[1].to_turn()
