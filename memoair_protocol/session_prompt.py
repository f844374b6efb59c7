"""The prompt of a session: what the SDK records in its metadata, and what runtime and cloud read there."""

from collections.abc import Mapping
from typing import Any

# The reserved key of a session's metadata. Its value is ``{"version", "label"}``.
PROMPT_METADATA = "prompt"
_MAX_VERSION = 2**53 - 1


def describe_prompt(version: int, label: str | None) -> dict[str, Any]:
    """Return what the metadata of a session says about its prompt.

    Args:
        version: The version.
        label: The label that it was found by; None if the version was asked for.
    """
    return {PROMPT_METADATA: {"version": version, **({} if label is None else {"label": label})}}


def find_prompt_version(metadata: Mapping[str, Any] | None) -> int | None:
    """Return the version in the metadata of a session; None without one.

    Applications may have used the key for something else before it was reserved, so other values are no errors.

    Args:
        metadata: The metadata, as it was sent.
    """
    about = (metadata or {}).get(PROMPT_METADATA)
    version = about.get("version") if isinstance(about, Mapping) else None
    if not isinstance(version, int) or isinstance(version, bool):
        return None
    return version if 0 < version <= _MAX_VERSION else None
