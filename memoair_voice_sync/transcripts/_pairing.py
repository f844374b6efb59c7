"""From messages to turns: what the caller says, and then what he is answered."""

from collections import OrderedDict
from collections.abc import Iterator

import attrs

from memoair_voice_sync.transcripts._records import Message, PartialTurn, Side

# Calls of which a turn may be unfinished at a time. Whoever writes the messages of more calls at once than this into
# one file gets some turns in two parts; no word is lost.
_MOST_OPEN = 4_096
# In one turn. Who speaks longer than this, as in a file that never names the other side, gets another turn.
_MOST_CHARS = 200_000


@attrs.define
class _Pending:
    """A turn that may not be over yet."""

    first: Message
    latest: Message
    said: dict[Side, list[str]] = attrs.field(factory=lambda: {Side.USER: [], Side.ASSISTANT: []})
    chars: int = 0

    def add(self, message: Message) -> None:
        self.said[message.side].append(message.text)
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

    def takes(self, message: Message) -> bool:
        """Whether a message belongs to this turn: the caller has not begun to speak again."""
        begins_anew = message.side is Side.USER and self.latest.side is Side.ASSISTANT
        is_another = None not in (message.turn_id, self.first.turn_id) and message.turn_id != self.first.turn_id
        return not begins_anew and not is_another and self.chars + len(message.text) <= _MOST_CHARS

    def draft(self) -> PartialTurn:
        first = self.first
        return PartialTurn(
            user_id=first.user_id,
            session_id=first.session_id,
            turn_id=first.turn_id,
            occurred_at=first.occurred_at,
            user_text="\n".join(self.said[Side.USER]),
            assistant_text="\n".join(self.said[Side.ASSISTANT]),
            user_name=first.user_name,
            assistant_name=first.assistant_name,
            metadata=first.metadata,
            line=first.line,
        )


class TranscriptTurnAssembler:
    """Puts the messages of many calls together to turns, each call by itself."""

    def __init__(self) -> None:
        self._pending: OrderedDict[tuple[str, str], _Pending] = OrderedDict()

    def say(self, message: Message) -> Iterator[PartialTurn]:
        """Take in a message; gives the turns that are over by it."""
        call = (message.user_id, message.session_id)
        pending = self._pending.get(call)
        if pending is not None and not pending.takes(message):
            yield self._pending.pop(call).draft()
            pending = None
        if pending is None:
            pending = self._pending[call] = _Pending(message, message)
        pending.add(message)
        self._pending.move_to_end(call)
        if len(self._pending) > _MOST_OPEN:
            yield self._pending.popitem(last=False)[1].draft()

    def finish(self, user_id: str, session_id: str) -> Iterator[PartialTurn]:
        """Take the turn of one call as over."""
        pending = self._pending.pop((user_id, session_id), None)
        if pending is not None:
            yield pending.draft()

    def finish_all(self) -> Iterator[PartialTurn]:
        """Take every turn as over, in the order in which they were spoken in last."""
        while self._pending:
            yield self._pending.popitem(last=False)[1].draft()
