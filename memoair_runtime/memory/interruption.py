"""What of an answer was heard: whoever is interrupted has said no more than that."""

from collections.abc import Mapping
from typing import Any

# Where the whole answer stands, as it was meant: in the log and in the cloud, and in nothing that is recalled.
FULL_TEXT_KEY = "assistantFullText"


def truncate_to_heard(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """A turn's payload with what was heard, if its metadata tells it as ``heard``, for what the agent said.

    The whole answer stands apart then, where it was another. What is no text is none of ours, and left alone.
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
