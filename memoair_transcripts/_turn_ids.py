"""Turn ids: the one from the file, or one that is the same whenever the same turn is read.

A generated id is a hash of the content and the time. If a call has the very same turn again, the id also counts the
repetitions. Consecutive numbers would be shorter, but wrong: a file with the second half of a call would reuse the ids
of the first half, and its turns would count as already saved.
"""

import hashlib
from collections import OrderedDict

from memoair_transcripts._records import InvalidTurnError, PartialTurn, TranscriptTurn

# The number of earlier turns that are compared. Beyond it, two equal turns without a time count as one.
_MAX_REMEMBERED = 16_384


class TurnIds:
    """Assigns ids to the turns of one file."""

    def __init__(self) -> None:
        # Key: digest of the call and the id. Value: digest of the content, and the number of occurrences.
        self._seen: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()

    def assign_id(self, turn: PartialTurn) -> TranscriptTurn:
        """Return the turn with its id. Raise `InvalidTurnError` if two different turns of a call have the same id."""
        content = _digest(str(turn.occurred_at), turn.user_text, turn.assistant_text)
        turn_id = turn.turn_id or f"t-{content.hex()}"
        key = _digest(turn.user_id, turn.session_id, turn_id)
        earlier_content, times = self._seen.get(key, (content, 0))
        if earlier_content != content:
            raise InvalidTurnError("another turn of this call has the same turnId")
        self._seen[key] = content, times + 1
        self._seen.move_to_end(key)
        if len(self._seen) > _MAX_REMEMBERED:
            self._seen.popitem(last=False)
        if times and turn.turn_id is None:
            turn_id = f"{turn_id}-{times + 1}"
        return TranscriptTurn(
            user_id=turn.user_id,
            session_id=turn.session_id,
            turn_id=turn_id,
            occurred_at=turn.occurred_at,
            user_text=turn.user_text,
            assistant_text=turn.assistant_text,
            user_name=turn.user_name,
            assistant_name=turn.assistant_name,
            metadata=turn.metadata,
            line=turn.line,
        )


def _digest(first: str, second: str, third: str) -> bytes:
    # With lengths, so that different parts never form the same text.
    return hashlib.blake2b(f"{len(first)} {len(second)} {first}{second}{third}".encode(), digest_size=12).digest()
