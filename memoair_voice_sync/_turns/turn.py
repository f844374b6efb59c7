"""One turn, validated before any of it is saved."""

from collections.abc import Mapping
from typing import Any

import memoair_voice_sync._arguments as check

_FIELDS = frozenset(["turn_id", "user_text", "assistant_text", "tool_calls", "metadata"])


def validate_turn(turn: Mapping[str, Any], path: str | None = None) -> dict[str, Any]:
    """Return a turn whose fields can all be sent; raise ValueError or TypeError that names the field in ``path``."""

    def field_path(field: str) -> str:
        return field if path is None else f'{path}["{field}"]'

    if unknown := set(turn) - _FIELDS:
        raise ValueError(f"{path} has no {', '.join(sorted(map(str, unknown)))}")
    metadata = check.json_mapping(field_path("metadata"), turn.get("metadata"))
    return {
        "turn_id": check.identifier(field_path("turn_id"), turn.get("turn_id")),
        "user_text": check.text(field_path("user_text"), turn.get("user_text")),
        "assistant_text": check.text(field_path("assistant_text"), turn.get("assistant_text")),
        "tool_calls": check.json_mappings(field_path("tool_calls"), turn.get("tool_calls")),
        "metadata": check.turn_metadata(field_path("metadata"), metadata),
    }
