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
_MOST_KNOWN = 16_384


class TurnIds:
    """Gives ids to the turns of one file."""

    def __init__(self) -> None:
        # By a digest of the call and the id: the digest of what was said, and how often.
        self._known: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()

    def identified(self, draft: PartialTurn) -> TranscriptTurn:
        """The turn with its id; raises `InvalidTurnError` where the file gives one id to two different turns of a call."""
        said = _digest(str(draft.occurred_at), draft.user_text, draft.assistant_text)
        turn_id = draft.turn_id or f"t-{said.hex()}"
        key = _digest(draft.user_id, draft.session_id, turn_id)
        before, times = self._known.get(key, (said, 0))
        if before != said:
            raise InvalidTurnError("the turnId stands for another turn of this call already")
        self._known[key] = said, times + 1
        self._known.move_to_end(key)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        if times and draft.turn_id is None:
            turn_id = f"{turn_id}-{times + 1}"
        return TranscriptTurn(
            user_id=draft.user_id,
            session_id=draft.session_id,
            turn_id=turn_id,
            occurred_at=draft.occurred_at,
            user_text=draft.user_text,
            assistant_text=draft.assistant_text,
            user_name=draft.user_name,
            assistant_name=draft.assistant_name,
            metadata=draft.metadata,
            line=draft.line,
        )


def _digest(one: str, two: str, three: str) -> bytes:
    # With their lengths, so that no two lists of parts make one text.
    return hashlib.blake2b(f"{len(one)} {len(two)} {one}{two}{three}".encode(), digest_size=12).digest()
