"""Ids in transcripts: the rules that both runtimes and clouds apply."""

import re

MAX_ID_BYTES = 512
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


class InvalidTurnError(ValueError):
    """A line or an id is invalid. The message says why, without quoting it."""


def check_id(name: str, value: str) -> str:
    """Return the id. Raise `InvalidTurnError`, with the name of the field, if it is invalid."""
    if not value:
        raise InvalidTurnError(f"{name} is empty")
    if _CONTROL_CHARACTERS.search(value):
        raise InvalidTurnError(f"{name} contains a control character")
    if value != value.strip():  # HTTP headers lose outer whitespace, which would make it another id
        raise InvalidTurnError(f"{name} begins or ends with whitespace")
    if len(value.encode()) > MAX_ID_BYTES:
        raise InvalidTurnError(f"{name} is longer than {MAX_ID_BYTES} bytes")
    return value
