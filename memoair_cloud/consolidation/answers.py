"""Read the answer of a language model: find the facts in it, however they are wrapped, and check their form.

Repaired is what can be read in one way only; each fact is repaired or refused by itself. Whatever is read is still
compared with the turn that it quotes (`evidence`), so a repair cannot make up a fact.
"""

import ast
import importlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import date
from typing import Any

import attrs

from memoair_cloud.consolidation.records import DENIED, FactKind
from memoair_cloud.identifiers import sanitize_text

MALFORMED = "malformed"
MAX_ANSWER_CHARS = 500_000
MAX_FACTS = 400
_MAX_TEXT_CHARS, _MAX_VALUE_CHARS, _MAX_QUOTE_CHARS, _MAX_ATTRIBUTE_CHARS = 400, 200, 1_000, 80
_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)
_THOUGHT_START = re.compile(r"<(?:think|thinking|reasoning)>", re.IGNORECASE)
# Facts are flat objects, so no nesting has to be followed in an answer that is no JSON.
_FLAT_OBJECT = re.compile(r"\{[^{}]*\}")
_EMPTY_LIST = re.compile(r"[\"']?facts[\"']?\s*:\s*\[\s*\]")
# json_repair takes quadratic time for some texts: 70 s for 40,000 characters, a millisecond for a fact.
_MAX_REPAIRED_CHARS, _MAX_REPAIRS = 2_000, 40
_BOOLS = {"true": True, "false": False}
_DUPLICATE = object()


@attrs.frozen
class SuggestedFact:
    """A fact as a model suggests it. Nothing in it is verified.

    Attributes:
        kind: The kind of the fact.
        quote: The words of the turn that say so.
        turn: The position of the turn in the call.
        text: The sentence.
        attribute: The attribute, in lower case.
        value: The value; empty if nothing holds any longer.
        replaces: The value that no longer holds; empty if none is named.
        is_one_of_many: Whether several values hold at the same time.
        holds_from: The first day that it holds.
        holds_until: The last day that it holds.
    """

    kind: FactKind
    quote: str
    turn: int
    text: str
    attribute: str
    value: str
    replaces: str = ""
    is_one_of_many: bool = False
    holds_from: date | None = None
    holds_until: date | None = None


@attrs.frozen
class ParsedAnswer:
    """What an answer holds.

    Attributes:
        facts: The facts in the right form.
        dropped: The number of others by reason.
    """

    facts: tuple[SuggestedFact, ...]
    dropped: Mapping[str, int] = attrs.field(factory=dict)


def parse_answer(content: str, *, is_truncated: bool = False) -> ParsedAnswer:
    """Return the facts of an answer that have the right form.

    Args:
        content: The text of the answer.
        is_truncated: Whether the model was stopped at its limit: then an unfinished fact is nothing.

    Raises:
        ValueError: The answer holds no list of facts, or none in the right form.
    """
    if len(content) > MAX_ANSWER_CHARS:
        raise ValueError("the answer is too long")
    text = _without_thoughts(content).strip("\ufeff \t\r\n")
    rows = _find_rows(text, is_truncated=is_truncated)
    facts: dict[SuggestedFact, None] = {}
    malformed = max(0, len(rows) - MAX_FACTS)
    for row in rows[:MAX_FACTS]:
        try:
            facts[_parse_fact(row)] = None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            malformed += 1
    if malformed and not facts:
        raise ValueError("the answer does not match the schema")
    return ParsedAnswer(tuple(facts), Counter({MALFORMED: malformed}) if malformed else {})


def _without_thoughts(content: str) -> str:
    text = _THOUGHT.sub("", content)
    ends = [match.end() for match in _THOUGHT_END.finditer(text)]
    if ends:  # some servers cut the opening mark off
        text = text[ends[-1] :]
    if start := _THOUGHT_START.search(text):  # thoughts that never came to an end
        text = text[: start.start()]
    return text


def _find_rows(text: str, *, is_truncated: bool) -> list[Any]:
    try:
        answer = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        answer = None
    rows = _rows_of(answer)
    if rows is not None:
        return rows
    repairs_left = _MAX_REPAIRS
    found: list[Any] = []
    for piece in _FLAT_OBJECT.findall(text):
        row = _read_json(piece)
        if not isinstance(row, dict) and repairs_left and len(piece) <= _MAX_REPAIRED_CHARS:
            repairs_left -= 1
            row = _read_python(piece) or _repair(piece)
        if isinstance(row, dict) and ("quote" in row or "kind" in row):
            found.append(row)
    if not found and (is_truncated or not _EMPTY_LIST.search(text)):
        raise ValueError("the answer holds no facts in JSON")
    return found


def _rows_of(answer: Any) -> list[Any] | None:
    """Return the facts of parsed JSON; None if it is something else."""
    if isinstance(answer, dict):
        facts = answer.get("facts")
        if isinstance(facts, list):
            return facts
        return [answer] if "quote" in answer and "kind" in answer else None
    is_list = isinstance(answer, list) and answer and all(isinstance(row, dict) and "quote" in row for row in answer)
    return answer if is_list else None


def _read_json(piece: str) -> Any:
    try:
        return json.loads(piece, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _read_python(piece: str) -> Any:
    """Read an object as Python writes it: single quotes, True, None."""
    try:
        return ast.literal_eval(piece)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _repair(piece: str) -> Any:
    """Read an object with trailing commas, keys without quotes, or quotes within strings."""
    try:
        return importlib.import_module("json_repair").loads(piece)
    except (ValueError, RecursionError, IndexError, TypeError, ImportError):
        return None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in pairs:
        row[name] = value if name not in row or row[name] == value else _DUPLICATE
    return row


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _parse_fact(row: Mapping[str, Any]) -> SuggestedFact:
    kind = FactKind(row["kind"])
    attribute = _parse_line(row["attribute"], _MAX_ATTRIBUTE_CHARS).casefold()
    text = _parse_line(row["text"], _MAX_TEXT_CHARS)
    quote = _parse_line(row["quote"], _MAX_QUOTE_CHARS)
    value = row["value"]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    value = _parse_line(value, _MAX_VALUE_CHARS)
    if not text or not attribute or not quote or value.startswith(DENIED) or attribute.startswith("end of "):
        raise ValueError("a fact must have a quote, a text and an attribute")
    return SuggestedFact(
        kind=kind,
        quote=quote,
        turn=_parse_turn(row["turn"]),
        text=text,
        attribute=attribute,
        value=value,
        replaces=_parse_line(row.get("replaces") or "", _MAX_VALUE_CHARS),
        is_one_of_many=_parse_bool(row.get("many", False)),
        holds_from=_parse_day(row.get("holds_from")),
        holds_until=_parse_day(row.get("holds_until")),
    )


def _parse_line(value: Any, max_chars: int) -> str:
    if not isinstance(value, str) or len(value) > max_chars:
        raise ValueError("a field must be a single line")
    return sanitize_text(" ".join(value.split()))


def _parse_turn(value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        return int(value)
    if type(value) is not int:
        raise ValueError("a turn is a number")
    return value


def _parse_bool(value: Any) -> bool:
    parsed = _BOOLS.get(value.strip().casefold()) if isinstance(value, str) else value
    if not isinstance(parsed, bool):
        raise ValueError("neither true nor false")
    return parsed


def _parse_day(value: Any) -> date | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError("a day is written YYYY-MM-DD")
    return date.fromisoformat(value[:10] if len(value) > 10 and value[10] in "T " else value)
