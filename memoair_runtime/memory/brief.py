"""The working brief: a call in a few lines, for whoever looks at the folder; made from the log, never read back."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from memoair_runtime.memory.turn import StoredTurn
from memoair_runtime.timeutil import iso

_MAX_TURNS = 4


def encode_brief(session_id: str, turns: Sequence[StoredTurn], now: datetime) -> bytes:
    """The content of ``working_brief.json``: how the call opened, and its last turns."""
    return msgspec.json.encode(
        {
            "sessionId": session_id,
            "updatedAt": iso(now),
            "turnCount": len(turns),
            "openedWith": turns[0].user_text if turns else "",
            "lastTurns": [
                {
                    "turnId": turn.turn_id,
                    "occurredAt": iso(turn.occurred_at),
                    "userText": turn.user_text,
                    "assistantText": turn.assistant_text,
                }
                for turn in turns[-_MAX_TURNS:]
            ],
        }
    )
