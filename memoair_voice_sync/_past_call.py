"""A call that is over, as an application hands it in, checked before anything of it is kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import memoair_voice_sync._arguments as check
from memoair_voice_sync._turn import validate_turn


@attrs.frozen
class PastCall:
    """Its own id, its turns as `MemoAirVoiceMemorySync.after_turn` takes them, and what else is known of it."""

    session_id: str
    turns: Sequence[Mapping[str, Any]] = attrs.field(repr=False)
    metadata: Mapping[str, Any] = attrs.field(repr=False)

    @classmethod
    def parse(
        cls, session_id: str, turns: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any] | None
    ) -> "PastCall":
        """Check a call; raises ValueError or TypeError that names what is wrong."""
        return cls(
            check.identifier("session_id", session_id),
            [_validate_turn(position, turn) for position, turn in enumerate(check.items("turns", turns))],
            check.json_mapping("metadata", metadata),
        )


def _validate_turn(position: int, turn: object) -> dict[str, Any]:
    return validate_turn(check.mapping(f"turns[{position}]", turn), f"turns[{position}]")
