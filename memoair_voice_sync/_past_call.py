"""A call that is over, as an application hands it in, checked before anything of it is kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import memoair_voice_sync._arguments as check
from memoair_voice_sync._turn import checked_turn


@attrs.frozen
class PastCall:
    """Its own id, its turns as `MemoAirVoiceMemorySync.after_turn` takes them, and what else is known of it."""

    session_id: str
    turns: Sequence[Mapping[str, Any]] = attrs.field(repr=False)
    metadata: Mapping[str, Any] = attrs.field(repr=False)

    @classmethod
    def of(cls, session_id: str, turns: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any] | None) -> "PastCall":
        """Check a call; raises ValueError or TypeError that names what is wrong."""
        return cls(
            check.identifier("session_id", session_id),
            [_turn(number, turn) for number, turn in enumerate(check.items("turns", turns))],
            check.json_mapping("metadata", metadata),
        )


def _turn(number: int, turn: object) -> dict[str, Any]:
    return checked_turn(check.mapping(f"turns[{number}]", turn), f"turns[{number}]")
