"""The working brief: a call in a few lines, for whoever looks at the folder; made from the log, never read back."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from memoair_runtime.memory.turn import StoredTurn
from memoair_runtime.timeutil import format_utc

_LAST_TURNS = 4


def brief(session_id: str, turns: Sequence[StoredTurn], now: datetime) -> bytes:
    """The content of ``working_brief.json``: how the call opened, and its last turns."""
    return msgspec.json.encode(
        {
            "sessionId": session_id,
            "updatedAt": format_utc(now),
            "turnCount": len(turns),
            "openedWith": turns[0].user_text if turns else "",
            "lastTurns": [
                {
                    "turnId": turn.turn_id,
                    "occurredAt": format_utc(turn.occurred_at),
                    "userText": turn.user_text,
                    "assistantText": turn.assistant_text,
                }
                for turn in turns[-_LAST_TURNS:]
            ],
        }
    )
