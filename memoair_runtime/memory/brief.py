"""The working brief: a short summary of a session for people who look at the folder. It is never read back."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from memoair_protocol.timestamps import format_utc
from memoair_runtime.memory.turn import StoredTurn

_MAX_TURNS = 4


def encode_brief(session_id: str, turns: Sequence[StoredTurn], now: datetime) -> bytes:
    """Return the content of ``working_brief.json``: how the session opened, and its last turns.

    Args:
        session_id: The session.
        turns: All of its turns, oldest first.
        now: The time of writing.
    """
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
                for turn in turns[-_MAX_TURNS:]
            ],
        }
    )
