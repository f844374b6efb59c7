"""Reader of JSON lines: one turn or one message per line. A file may contain both."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NoReturn

import attrs

from memoair_protocol.timestamps import parse_timestamp
from memoair_transcripts._lines import read_lines
from memoair_transcripts._pairing import TranscriptTurnAssembler
from memoair_transcripts._records import (
    InvalidTurnError,
    Message,
    PartialTurn,
    Rejection,
    Side,
    TranscriptSource,
    check_id,
)

_FIELDS = (
    "userId", "sessionId", "turnId", "occurredAt", "userText", "assistantText", "userName", "assistantName",
    "metadata", "role", "text", "content",
)  # fmt: skip
# The request to a runtime and the batch to a cloud nest it deeper still; their limits are 64 and 80 levels.
_MAX_DEPTH = 32
_MAX_DIGITS = 20
_TYPE_NAMES = {
    type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list",
}  # fmt: skip


def read_json_lines(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read turns as they are, and combine messages into turns."""
    assembler = TranscriptTurnAssembler()
    for line in read_lines(stream):
        if line.error is not None:
            yield source.reject(line.number, line.error)
        elif line.text.strip():
            try:
                item = _parse_line(_LineFields(_parse_object(line.text)), source, line.number)
            except InvalidTurnError as error:
                yield source.reject(line.number, str(error))
                continue
            if isinstance(item, Message):
                yield from assembler.add(item)
            else:
                yield from assembler.finish(item.user_id, item.session_id)
                yield item
    yield from assembler.finish_all()


def _parse_object(text: str) -> dict[str, Any]:
    parsed = read_json(text, "not JSON; expected one object per line")
    if not isinstance(parsed, dict):
        raise InvalidTurnError(f"{type_name(parsed)}, not a JSON object")
    return parsed


def read_json(text: str, default_reason: str = "not JSON") -> Any:
    """Parse JSON within the limits of runtimes and clouds.

    Raises:
        InvalidTurnError: The text is invalid, with ``default_reason`` if there is no more specific one.
    """
    try:
        parsed = _decode(text)
        if "\\u" in text:
            json.dumps(parsed, ensure_ascii=False).encode()
    except RecursionError:
        raise InvalidTurnError(f"nested deeper than {_MAX_DEPTH} levels") from None
    except UnicodeEncodeError:  # a broken transcriber may write half of a surrogate pair
        raise InvalidTurnError("not valid Unicode: half of a surrogate pair") from None
    except InvalidTurnError:
        raise
    except ValueError:
        raise InvalidTurnError(default_reason) from None
    return parsed


def _reject_constant(_: str) -> NoReturn:
    raise InvalidTurnError("NaN and Infinity are not valid JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidTurnError("a number is too large")
    return number


def _parse_integer(text: str) -> int:
    # Most JSON readers do not accept larger integers, and parsing a very long one takes very long.
    if len(text) > _MAX_DIGITS or not -(1 << 63) <= int(text) < 1 << 63:
        raise InvalidTurnError("a number is too large")
    return int(text)


_decode = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_float, parse_int=_parse_integer).decode


@attrs.frozen
class _LineFields:
    """The fields of a line. Each method checks the type of the field that it returns."""

    _values: Mapping[str, Any]

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str | None:
        """Return a string, or None if it is missing."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidTurnError(f"{name} must be a string, not {type_name(value)}")
        return value

    def required_text(self, name: str) -> str:
        """Return a string, which may be empty but not missing."""
        value = self.text(name)
        if value is None:
            raise InvalidTurnError(f"{name} is {'null' if name in self else 'missing'}")
        return value

    def identifier(self, name: str, default: str | None) -> str | None:
        """Return an id, or the default if the line has none."""
        value = self.text(name)
        return default if value is None else check_id(name, value)

    def metadata(self) -> dict[str, Any]:
        """Return the metadata, which may be empty."""
        value = self._values.get("metadata")
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidTurnError(f"metadata must be an object, not {type_name(value)}")
        if _exceeds_depth(value, _MAX_DEPTH):
            raise InvalidTurnError(f"metadata is nested deeper than {_MAX_DEPTH} levels")
        for name in ("assistantName", "heard"):  # a runtime uses these, and would reject the call because of them
            if not isinstance(value.get(name, ""), str):
                raise InvalidTurnError(f"metadata.{name} must be a string")
        return value

    def check_spelling(self) -> None:
        """Raise `InvalidTurnError` for a misspelled field, which would otherwise be ignored silently."""
        for name in self._values:
            if name not in _FIELDS and (correct_name := _FIELD_BY_NORMALIZED_NAME.get(_normalize_name(name))):
                raise InvalidTurnError(f"misspelled field; the correct name is {correct_name}")


def _normalize_name(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


_FIELD_BY_NORMALIZED_NAME = {_normalize_name(name): name for name in _FIELDS}


def _parse_line(fields: _LineFields, source: TranscriptSource, line: int) -> PartialTurn | Message:
    fields.check_spelling()
    is_turn = "userText" in fields or "assistantText" in fields
    if not is_turn and "role" not in fields:
        raise InvalidTurnError("neither a turn (userText, assistantText) nor a message (role, text)")
    if is_turn and "role" in fields:
        raise InvalidTurnError("both a turn (userText, assistantText) and a message (role)")
    options = source.options
    user_id = fields.identifier("userId", options.user_id)
    if user_id is None:
        raise InvalidTurnError("userId is missing; add it, or set a user for the whole file (user_id, --user)")
    session_id = fields.identifier("sessionId", options.session_id if is_turn else source.call_id)
    if session_id is None:
        raise InvalidTurnError("sessionId is missing")
    common = {
        "user_id": user_id,
        "session_id": session_id,
        "turn_id": fields.identifier("turnId", None),
        "occurred_at": _parse_occurred_at(fields),
        "user_name": fields.text("userName") or options.user_name,
        "assistant_name": fields.text("assistantName") or options.assistant_name,
        "metadata": fields.metadata(),
        "line": line,
    }
    if not is_turn:
        return Message(side=_parse_side(fields), text=_parse_text(fields), **common)
    user_text, assistant_text = fields.required_text("userText"), fields.required_text("assistantText")
    if not user_text and not assistant_text:
        raise InvalidTurnError("userText and assistantText are both empty")
    return PartialTurn(user_text=user_text, assistant_text=assistant_text, **common)


def _parse_occurred_at(fields: _LineFields) -> Any:
    value = fields.text("occurredAt")
    try:
        return None if value is None else parse_timestamp(value)
    except ValueError:
        raise InvalidTurnError("occurredAt is not an ISO 8601 timestamp such as 2026-03-02T09:30:00Z") from None


def _parse_side(fields: _LineFields) -> Side:
    try:
        return Side(fields.text("role"))
    except ValueError:
        raise InvalidTurnError("role must be user or assistant") from None


def _parse_text(fields: _LineFields) -> str:
    if "text" in fields and "content" in fields:
        raise InvalidTurnError("both text and content; use one of them")
    text = fields.required_text("content" if "content" in fields else "text")
    if not text:
        raise InvalidTurnError("the message is empty")
    return text


def _exceeds_depth(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_exceeds_depth(child, levels - 1) for child in children)


def type_name(value: object) -> str:
    """Return what error messages call the JSON type of a value."""
    return _TYPE_NAMES.get(type(value), "an object")
