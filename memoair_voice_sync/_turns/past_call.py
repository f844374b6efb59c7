"""A call that is over, validated before any of it is saved."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import memoair_voice_sync._arguments as check
from memoair_voice_sync._turns.turn import validate_turn


@attrs.frozen
class PastCall:
    """The session id, the turns (as arguments of `MemoAirVoiceMemorySync.after_turn`), and the metadata of a call."""

    session_id: str
    turns: Sequence[Mapping[str, Any]] = attrs.field(repr=False)
    metadata: Mapping[str, Any] = attrs.field(repr=False)

    @classmethod
    def parse(
        cls, session_id: str, turns: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any] | None
    ) -> "PastCall":
        """Validate a call; raise ValueError or TypeError that names the invalid field."""
        return cls(
            check.identifier("session_id", session_id),
            [_validate_turn(position, turn) for position, turn in enumerate(check.items("turns", turns))],
            check.json_mapping("metadata", metadata),
        )


def _validate_turn(position: int, turn: object) -> dict[str, Any]:
    return validate_turn(check.mapping(f"turns[{position}]", turn), f"turns[{position}]")
