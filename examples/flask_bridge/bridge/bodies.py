"""Parsing of request bodies. An error reply contains nothing of the body."""

import re
from typing import TypeVar

import msgspec
from werkzeug.exceptions import BadRequest

R = TypeVar("R")

_CALL_ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def parse_body(body: bytes, record_type: type[R]) -> R:
    """Return a JSON body as ``record_type``, ignoring unknown fields. Reply 400 if it does not match."""
    try:
        return msgspec.json.decode(body, type=record_type)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadRequest("the body does not have the shape that this webhook requires") from None


def validate_call_id(value: str) -> str:
    """Return a platform's id of a call. Reply 400 if it is invalid."""
    if not _CALL_ID_PATTERN.fullmatch(value):
        raise BadRequest("the id of the call is missing or invalid")
    return value
