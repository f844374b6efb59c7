"""What is said in one turn, as an application hands it in, checked before anything of it is kept."""

from collections.abc import Mapping
from typing import Any

import memoair_voice_sync._arguments as check

_FIELDS = frozenset(["turn_id", "user_text", "assistant_text", "tool_calls", "metadata"])


def checked_turn(turn: Mapping[str, Any], within: str | None = None) -> dict[str, Any]:
    """A turn of which every field can be sent; raises ValueError or TypeError by the name of the field ``within``."""

    def named(field: str) -> str:
        return field if within is None else f'{within}["{field}"]'

    if unknown := set(turn) - _FIELDS:
        raise ValueError(f"{within} has no {', '.join(sorted(map(str, unknown)))}")
    metadata = check.json_mapping(named("metadata"), turn.get("metadata"))
    return {
        "turn_id": check.identifier(named("turn_id"), turn.get("turn_id")),
        "user_text": check.text(named("user_text"), turn.get("user_text")),
        "assistant_text": check.text(named("assistant_text"), turn.get("assistant_text")),
        "tool_calls": check.json_mappings(named("tool_calls"), turn.get("tool_calls")),
        "metadata": check.heard(named("metadata"), metadata),
    }
