"""A call that is over, as an application hands it in, checked before anything of it is kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import memoair_voice_sync._arguments as check

_TURN = frozenset(["turn_id", "user_text", "assistant_text", "tool_calls", "metadata"])


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
            [_turn(f"turns[{number}]", turn) for number, turn in enumerate(check.items("turns", turns))],
            check.json_mapping("metadata", metadata),
        )


def _turn(name: str, value: object) -> dict[str, Any]:
    turn = check.mapping(name, value)
    unknown = set(turn) - _TURN
    if unknown:
        raise ValueError(f"{name} has no {', '.join(sorted(map(str, unknown)))}")
    return {
        "turn_id": check.identifier(f'{name}["turn_id"]', turn.get("turn_id")),
        "user_text": check.text(f'{name}["user_text"]', turn.get("user_text")),
        "assistant_text": check.text(f'{name}["assistant_text"]', turn.get("assistant_text")),
        "tool_calls": check.json_mappings(f'{name}["tool_calls"]', turn.get("tool_calls")),
        "metadata": check.heard(f'{name}["metadata"]', check.json_mapping(f'{name}["metadata"]', turn.get("metadata"))),
    }
