"""Turns, and past calls made of them: validated once, before any of it is saved."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import memoair_voice_sync._arguments as check


@attrs.frozen
class Turn:
    """A turn whose fields can all be sent. The ``repr`` does not show what was said."""

    turn_id: str
    user_text: str = attrs.field(repr=False)
    assistant_text: str = attrs.field(repr=False)
    tool_calls: Sequence[Mapping[str, Any]] = attrs.field(repr=False)
    metadata: Mapping[str, Any] = attrs.field(repr=False)

    @classmethod
    def parse(cls, fields: Mapping[str, Any], path: str | None = None) -> "Turn":
        """Validate the fields of a turn; raise ValueError or TypeError that names the field in ``path``."""

        def field_path(field: str) -> str:
            return field if path is None else f'{path}["{field}"]'

        if unknown := set(fields) - {field.name for field in attrs.fields(cls)}:
            raise ValueError(f"{path} has no {', '.join(sorted(map(str, unknown)))}")
        metadata = check.json_mapping(field_path("metadata"), fields.get("metadata"))
        check.optional_text(f'{field_path("metadata")}["heard"]', metadata.get("heard"))
        return cls(
            turn_id=check.turn_identifier(field_path("turn_id"), fields.get("turn_id")),
            user_text=check.text(field_path("user_text"), fields.get("user_text")),
            assistant_text=check.text(field_path("assistant_text"), fields.get("assistant_text")),
            tool_calls=check.json_mappings(field_path("tool_calls"), fields.get("tool_calls")),
            metadata=metadata,
        )


@attrs.frozen
class PastCall:
    """A call that is over. The ``repr`` does not show what was said."""

    session_id: str
    turns: Sequence[Turn] = attrs.field(repr=False)
    metadata: Mapping[str, Any] = attrs.field(repr=False)

    @classmethod
    def parse(
        cls, session_id: str, turns: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any] | None
    ) -> "PastCall":
        """Validate a call; raise ValueError or TypeError that names the invalid field."""
        paths = [(f"turns[{position}]", turn) for position, turn in enumerate(check.items("turns", turns))]
        return cls(
            check.identifier("session_id", session_id),
            [Turn.parse(check.mapping(path, turn), path) for path, turn in paths],
            check.json_mapping("metadata", metadata),
        )
