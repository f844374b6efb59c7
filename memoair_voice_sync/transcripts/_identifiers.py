"""Ids in transcripts: what both a runtime and a cloud take for one."""

import re

MAX_ID_BYTES = 512
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


class InvalidTurnError(ValueError):
    """A line, or an id, is not what it should be; the message says why, without what it holds."""


def check_id(name: str, value: str) -> str:
    """The id itself; raises `InvalidTurnError` that names the field."""
    if not value:
        raise InvalidTurnError(f"{name} is empty")
    if _CONTROL_CHARACTERS.search(value):
        raise InvalidTurnError(f"{name} holds a control character")
    if value != value.strip():  # a header loses it on its way, and then it is another id
        raise InvalidTurnError(f"{name} begins or ends with white space")
    if len(value.encode()) > MAX_ID_BYTES:
        raise InvalidTurnError(f"{name} is longer than {MAX_ID_BYTES} bytes")
    return value
