"""Interrupted answers: only the part that the caller heard is recalled and learned from.

The rule is applied where a turn enters: a runtime applies it when it saves a turn. The cloud stores turns as they were
sent, and some of them were not sent by a runtime. So it is also applied to turns of the cloud: when a runtime adds them
to the user's memory, and when the cloud learns from them.
"""

from collections.abc import Mapping
from typing import Any

# The key of the whole answer. It is in the log and in the cloud, and never recalled.
FULL_TEXT_KEY = "assistantFullText"


def truncate_to_heard(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Truncate an interrupted answer to the part that the caller heard, as ``heard`` in the metadata says.

    The whole answer is kept under `FULL_TEXT_KEY`, if it was longer. A payload whose ``heard`` is not a text is
    returned unchanged: it does not come from a runtime.

    Args:
        payload: The payload of a turn.

    Returns:
        The payload with the heard text as ``assistantText``.
    """
    metadata = payload.get("metadata")
    heard = metadata.get("heard") if isinstance(metadata, dict) else None
    if not isinstance(heard, str):
        return payload
    full_text = payload.get("assistantText")
    return {
        **payload,
        "assistantText": heard,
        "metadata": {name: value for name, value in metadata.items() if name != "heard"},  # type: ignore[union-attr]
        **({FULL_TEXT_KEY: full_text} if full_text != heard else {}),
    }
