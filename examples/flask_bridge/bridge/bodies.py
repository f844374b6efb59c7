"""From the bytes of a request to a typed record of it, or to a refusal that tells nothing of what was in them."""

import re
from typing import TypeVar

import msgspec
from werkzeug.exceptions import BadRequest

R = TypeVar("R")

_CALL_ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def parse_body(body: bytes, record_type: type[R]) -> R:
    """A JSON body as ``kind``; fields that it does not name are passed over. 400 where it is something else."""
    try:
        return msgspec.json.decode(body, type=record_type)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadRequest("the body is not what this webhook takes") from None


def validate_call_id(value: str) -> str:
    """A platform's id of a call; 400 where it can't be one."""
    if not _CALL_ID_PATTERN.fullmatch(value):
        raise BadRequest("the call's id is missing, or can't be one")
    return value
