"""An id for every turn: the file's own, or one that the same turn gets whenever it is read again.

An id that is made is a hash of what was said and when, and, where a call has the very same turn again, of how often it
had it before. Numbers alone would be shorter, and wrong: a file that is the second half of a call would give its turns
the ids of the first half, and they would count as kept.
"""

import hashlib
from collections import OrderedDict

from memoair_voice_sync.transcripts._identifiers import InvalidTurnError
from memoair_voice_sync.transcripts._records import PartialTurn, TranscriptTurn

# So many turns back, one that comes again is known. Beyond that, two equal ones without a time count as one.
_MAX_REMEMBERED = 16_384


class TurnIds:
    """Gives ids to the turns of one file."""

    def __init__(self) -> None:
        # By a digest of the call and the id: the digest of what was said, and how often.
        self._seen: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()

    def assign_id(self, turn: PartialTurn) -> TranscriptTurn:
        """The turn with its id; raises `InvalidTurnError` where the file gives one id to two different turns of a call."""
        content = _digest(str(turn.occurred_at), turn.user_text, turn.assistant_text)
        turn_id = turn.turn_id or f"t-{content.hex()}"
        key = _digest(turn.user_id, turn.session_id, turn_id)
        earlier_content, times = self._seen.get(key, (content, 0))
        if earlier_content != content:
            raise InvalidTurnError("the turnId stands for another turn of this call already")
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


def _digest(one: str, two: str, three: str) -> bytes:
    # With their lengths, so that no two lists of parts make one text.
    return hashlib.blake2b(f"{len(one)} {len(two)} {one}{two}{three}".encode(), digest_size=12).digest()
