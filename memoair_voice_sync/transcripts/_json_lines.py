"""JSON lines: a turn a line, or a message a line; a file may hold both."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NoReturn

import attrs

from memoair_voice_sync.transcripts._identifiers import InvalidTurnError, check_id
from memoair_voice_sync.transcripts._lines import read_lines
from memoair_voice_sync.transcripts._moments import parse_moment
from memoair_voice_sync.transcripts._pairing import TranscriptTurnAssembler
from memoair_voice_sync.transcripts._records import Message, PartialTurn, Rejection, Side, TranscriptSource

_FIELDS = (
    "userId", "sessionId", "turnId", "occurredAt", "userText", "assistantText", "userName", "assistantName",
    "metadata", "role", "text", "content",
)  # fmt: skip
# A runtime's request and a cloud's batch are nested deeper still, and have limits of 64 and 80.
_MAX_DEPTH = 32
_MAX_DIGITS = 20
_TYPE_NAMES = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}


def read_json_lines(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read turns as they stand, and messages put together to turns."""
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
    parsed = read_json(text, "not JSON; one object on each line is wanted")
    if not isinstance(parsed, dict):
        raise InvalidTurnError(f"{type_name(parsed)}, not a JSON object")
    return parsed


def read_json(text: str, default_reason: str = "not JSON") -> Any:
    """Read a JSON text as both a runtime and a cloud can keep it; raises `InvalidTurnError`, and ``otherwise`` is why mostly."""
    try:
        parsed = _decode(text)
        if "\\u" in text:
            json.dumps(parsed, ensure_ascii=False).encode()
    except RecursionError:
        raise InvalidTurnError(f"nested deeper than {_MAX_DEPTH} levels") from None
    except UnicodeEncodeError:  # half of a pair, as a broken transcriber may write it
        raise InvalidTurnError("not valid Unicode: half of a surrogate pair") from None
    except InvalidTurnError:
        raise
    except ValueError:
        raise InvalidTurnError(default_reason) from None
    return parsed


def _reject_constant(_: str) -> NoReturn:
    raise InvalidTurnError("NaN and Infinity are no JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidTurnError("a number is too large")
    return number


def _parse_integer(text: str) -> int:
    # What is larger is no number to most who read JSON; and to read a very long one takes very long.
    if len(text) > _MAX_DIGITS or not -(1 << 63) <= int(text) < 1 << 63:
        raise InvalidTurnError("a number is too large")
    return int(text)


_decode = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_float, parse_int=_parse_integer).decode


@attrs.frozen
class _LineFields:
    """The fields of a line, each asked for with the type that it must have."""

    _values: Mapping[str, Any]

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str | None:
        """A text; None where there is none."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidTurnError(f"{name} must be a text, not {type_name(value)}")
        return value

    def required_text(self, name: str) -> str:
        """Words, which may be none, but must be told."""
        value = self.text(name)
        if value is None:
            raise InvalidTurnError(f"{name} is {'null' if name in self else 'missing'}")
        return value

    def identifier(self, name: str, default: str | None) -> str | None:
        """An id, or the one that holds where the line has none."""
        value = self.text(name)
        return default if value is None else check_id(name, value)

    def metadata(self) -> dict[str, Any]:
        """The metadata; empty where there is none."""
        value = self._values.get("metadata")
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidTurnError(f"metadata must be an object, not {type_name(value)}")
        if _exceeds_depth(value, _MAX_DEPTH):
            raise InvalidTurnError(f"metadata is nested deeper than {_MAX_DEPTH} levels")
        for name in ("assistantName", "heard"):  # a runtime reads them, and would refuse the call for them
            if not isinstance(value.get(name, ""), str):
                raise InvalidTurnError(f"metadata.{name} must be a text")
        return value

    def check_spelling(self) -> None:
        """Raise `InvalidTurnError` for a field that is one of ours in another spelling: it would be passed over in silence."""
        for name in self._values:
            if name not in _FIELDS and (correct_name := _FIELD_BY_NORMALIZED_NAME.get(_normalize_name(name))):
                raise InvalidTurnError(f"the field {correct_name} is spelt another way; it is written {correct_name}")


def _normalize_name(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


_FIELD_BY_NORMALIZED_NAME = {_normalize_name(name): name for name in _FIELDS}


def _parse_line(fields: _LineFields, source: TranscriptSource, line: int) -> PartialTurn | Message:
    fields.check_spelling()
    is_turn = "userText" in fields or "assistantText" in fields
    if not is_turn and "role" not in fields:
        raise InvalidTurnError("neither a turn (userText, assistantText) nor a message (role, text)")
    if is_turn and "role" in fields:
        raise InvalidTurnError("a turn (userText, assistantText) and a message (role) in one")
    options = source.options
    user_id = fields.identifier("userId", options.user_id)
    if user_id is None:
        raise InvalidTurnError("userId is missing, and nobody said who calls in this file")
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
        raise InvalidTurnError("neither side says anything")
    return PartialTurn(user_text=user_text, assistant_text=assistant_text, **common)


def _parse_occurred_at(fields: _LineFields) -> Any:
    value = fields.text("occurredAt")
    try:
        return None if value is None else parse_moment(value)
    except ValueError:
        raise InvalidTurnError("occurredAt is not an ISO 8601 moment, as 2026-03-02T09:30:00Z is") from None


def _parse_side(fields: _LineFields) -> Side:
    try:
        return Side(fields.text("role"))
    except ValueError:
        raise InvalidTurnError("role is neither user nor assistant") from None


def _parse_text(fields: _LineFields) -> str:
    if "text" in fields and "content" in fields:
        raise InvalidTurnError("text and content: only one of them can be what was said")
    text = fields.required_text("content" if "content" in fields else "text")
    if not text:
        raise InvalidTurnError("the message says nothing")
    return text


def _exceeds_depth(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_exceeds_depth(child, levels - 1) for child in children)


def type_name(value: object) -> str:
    return _TYPE_NAMES.get(type(value), "an object")
