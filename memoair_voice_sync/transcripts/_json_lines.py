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
_MOST_DIGITS = 20
_KINDS = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}


def read_json_lines(stream: BinaryIO, source: TranscriptSource) -> Iterator[PartialTurn | Rejection]:
    """Read turns as they stand, and messages put together to turns."""
    pairing = TranscriptTurnAssembler()
    for line in read_lines(stream):
        if line.problem is not None:
            yield source.refuse(line.number, line.problem)
        elif line.text.strip():
            try:
                read = _read(_LineFields(_parse(line.text)), source, line.number)
            except InvalidTurnError as unfit:
                yield source.refuse(line.number, str(unfit))
                continue
            if isinstance(read, Message):
                yield from pairing.say(read)
            else:
                yield from pairing.finish(read.user_id, read.session_id)
                yield read
    yield from pairing.finish_all()


def _parse(text: str) -> dict[str, Any]:
    parsed = read_json(text, "not JSON; one object on each line is wanted")
    if not isinstance(parsed, dict):
        raise InvalidTurnError(f"{kind_of(parsed)}, not a JSON object")
    return parsed


def read_json(text: str, otherwise: str = "not JSON") -> Any:
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
        raise InvalidTurnError(otherwise) from None
    return parsed


def _not_json(_: str) -> NoReturn:
    raise InvalidTurnError("NaN and Infinity are no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidTurnError("a number is too large")
    return number


def _whole(text: str) -> int:
    # What is larger is no number to most who read JSON; and to read a very long one takes very long.
    if len(text) > _MOST_DIGITS or not -(1 << 63) <= int(text) < 1 << 63:
        raise InvalidTurnError("a number is too large")
    return int(text)


_decode = json.JSONDecoder(parse_constant=_not_json, parse_float=_finite, parse_int=_whole).decode


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
            raise InvalidTurnError(f"{name} must be a text, not {kind_of(value)}")
        return value

    def said(self, name: str) -> str:
        """Words, which may be none, but must be told."""
        value = self.text(name)
        if value is None:
            raise InvalidTurnError(f"{name} is {'null' if name in self else 'missing'}")
        return value

    def identifier(self, name: str, otherwise: str | None) -> str | None:
        """An id, or the one that holds where the line has none."""
        value = self.text(name)
        return otherwise if value is None else check_id(name, value)

    def metadata(self) -> dict[str, Any]:
        """The metadata; empty where there is none."""
        value = self._values.get("metadata")
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidTurnError(f"metadata must be an object, not {kind_of(value)}")
        if _is_deeper(value, _MAX_DEPTH):
            raise InvalidTurnError(f"metadata is nested deeper than {_MAX_DEPTH} levels")
        for name in ("assistantName", "heard"):  # a runtime reads them, and would refuse the call for them
            if not isinstance(value.get(name, ""), str):
                raise InvalidTurnError(f"metadata.{name} must be a text")
        return value

    def misspelt(self) -> None:
        """Raise `InvalidTurnError` for a field that is one of ours in another spelling: it would be passed over in silence."""
        for name in self._values:
            if name not in _FIELDS and (meant := _SPELLINGS.get(_plain(name))):
                raise InvalidTurnError(f"the field {meant} is spelt another way; it is written {meant}")


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


_SPELLINGS = {_plain(name): name for name in _FIELDS}


def _read(fields: _LineFields, source: TranscriptSource, line: int) -> PartialTurn | Message:
    fields.misspelt()
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
        "occurred_at": _moment(fields),
        "user_name": fields.text("userName") or options.user_name,
        "assistant_name": fields.text("assistantName") or options.assistant_name,
        "metadata": fields.metadata(),
        "line": line,
    }
    if not is_turn:
        return Message(side=_side(fields), text=_words(fields), **common)
    user_text, assistant_text = fields.said("userText"), fields.said("assistantText")
    if not user_text and not assistant_text:
        raise InvalidTurnError("neither side says anything")
    return PartialTurn(user_text=user_text, assistant_text=assistant_text, **common)


def _moment(fields: _LineFields) -> Any:
    told = fields.text("occurredAt")
    try:
        return None if told is None else parse_moment(told)
    except ValueError:
        raise InvalidTurnError("occurredAt is not an ISO 8601 moment, as 2026-03-02T09:30:00Z is") from None


def _side(fields: _LineFields) -> Side:
    try:
        return Side(fields.text("role"))
    except ValueError:
        raise InvalidTurnError("role is neither user nor assistant") from None


def _words(fields: _LineFields) -> str:
    if "text" in fields and "content" in fields:
        raise InvalidTurnError("text and content: only one of them can be what was said")
    words = fields.said("content" if "content" in fields else "text")
    if not words:
        raise InvalidTurnError("the message says nothing")
    return words


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


def kind_of(value: object) -> str:
    return _KINDS.get(type(value), "an object")
