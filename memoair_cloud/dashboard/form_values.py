"""Values that people type into forms: numbers, and JSON."""

import json
from collections.abc import Mapping
from typing import Any

from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.identifiers import sanitize_text


def clean_text(value: Any) -> str:
    """Return the text of a field without spaces around it; empty if it was not sent, or is a file."""
    # Browsers end lines with two characters, whatever the text had.
    return sanitize_text(value.replace("\r\n", "\n").strip()) if isinstance(value, str) else ""


def parse_number(field: str, text: str, most: int, least: int = 1) -> int | None:
    """Return a number; None if nothing was typed.

    Args:
        field: The name of the field, for the message.
        text: What was typed.
        most: The largest number.
        least: The smallest one.

    Raises:
        InvalidRequestError: If it is not such a number.
    """
    if not text.strip():
        return None
    if not text.strip().isdecimal() or not least <= int(text) <= most:
        raise InvalidRequestError(f"{field}: use a number from {least} to {most:,}", field=field)
    return int(text)


def parse_share(field: str, text: str) -> float | None:
    """Return a number from 0 to 1; None if nothing was typed.

    Raises:
        InvalidRequestError: If it is not such a number.
    """
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InvalidRequestError(f"{field}: use a number from 0 to 1, such as 0.3", field=field)
    return value


def parse_filter(text: str) -> Mapping[str, Any] | None:
    """Return a condition on metadata; None if nothing was typed.

    Raises:
        InvalidRequestError: If it is not a JSON object.
    """
    if not text.strip():
        return None
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidRequestError('filter: use a JSON object such as {"plan": "premium"}', field="filter")
    return parsed
