"""Redaction of JSON values: also of field names, and of numbers that are split over list items and fields."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs

from memoair_redaction.findings import KINDS, PLACEHOLDERS, find_all, find_together, replace_findings
from memoair_redaction.spoken_text import has_numbers

# A value that is longer is a text of its own, and no part of a number.
_MAX_PART_CHARS = 64
_MAX_PART_DIGITS = 19
# Fields whose numbers say when, how long, how many or which; they are no parts of another number.
_MEASURES = frozenset(
    "start end begin time times timestamp ts ms at offset duration latency sec seconds confidence score scores "
    "speaker channel count total quantity qty hits index id ids price amount year month day hour minute date version "
    "extension ext room size order page port status code".split()
)
_MAX_DIGIT = 9
# A number with a fraction has no other number in it below this.
_MIN_WHOLE = 1_000_000
# From here on it is no number that someone has: a card has 19 digits at most.
_MAX_WHOLE = 10**20
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.]+")


@attrs.define
class _Leaf:
    """A text or number in a structure, with the way to replace it there."""

    value: str | int
    replace: Callable[[str], None]

    @property
    def text(self) -> str:
        return str(self.value)


def redact_value(kinds: frozenset[str], value: Any, name: str = "") -> Any:
    """Return a JSON value without what is found in its texts, numbers and names of fields.

    Numbers that are split over neighboring values are found, too: the first of them becomes the placeholder, the others
    lose their part. Names of fields count as words before their value.

    Args:
        kinds: What to redact, of `KINDS`.
        value: The value. It is not changed.
        name: The name of its field.
    """
    # Numbers that are split first: of two parts, one may look like another kind of number.
    root = [_copy(value)]
    _redact_split(kinds, root, name)
    return _redact_each(kinds, root[0], name)


def digits_of(value: Any) -> str | None:
    """Return the digits of a number before its point; None for what is no number, or too small a fraction to hide one.

    A telephone number may arrive as 4155550123.0. A confidence such as 0.4155550123 holds no number, nor does a
    coordinate.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if isinstance(value, int):
        return str(value)
    try:
        whole = int(value)
    except (ValueError, OverflowError):  # not a number, or infinite
        return None
    is_whole = whole == value or abs(whole) >= _MIN_WHOLE
    return str(whole) if is_whole and abs(whole) < _MAX_WHOLE else None


def redact_keys(value: Mapping[Any, Any], redact: Callable[[str], str]) -> Iterator[tuple[Any, Any]]:
    """Yield the names of a mapping's fields as they are and redacted; no two of the latter are equal."""
    taken = set(value)
    for name in value:
        redacted = redact(name) if isinstance(name, str) else name
        if redacted != name:
            plain, number = redacted, 2
            while redacted in taken:
                redacted, number = f"{plain} {number}", number + 1
            taken.add(redacted)
        yield name, redacted


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value


def _redact_each(kinds: frozenset[str], value: Any, name: str) -> Any:
    """Return a value in which each text, number and name of a field is redacted by itself."""
    if isinstance(value, str):
        return _redact_text(kinds, value, name)
    if isinstance(value, dict):
        keys = redact_keys(value, lambda key: _redact_key(kinds, key))
        return {redacted: _redact_each(kinds, value[key], str(key)) for key, redacted in keys}
    if isinstance(value, list):
        return [_redact_each(kinds, item, name) for item in value]
    digits = digits_of(value)
    redacted = digits if digits is None else _redact_text(kinds, digits, name)
    return value if redacted == digits else redacted


def _redact_key(kinds: frozenset[str], key: str) -> str:
    # Nearly no name of a field has what is looked for.
    return _redact_text(kinds, key, "") if "@" in key or any(map(str.isdigit, key)) else key


def _redact_text(kinds: frozenset[str], text: str, name: str) -> str:
    if text.lstrip()[:1] in ("{", "["):
        try:
            parsed = json.loads(text)
        except ValueError:
            parsed = None
        if isinstance(parsed, dict | list):
            redacted = redact_value(kinds, parsed, name)
            return text if redacted == parsed else json.dumps(redacted, ensure_ascii=False)
    words = _words_of(name)
    # What its name says of a value counts: an order number is no telephone number.
    has_name = words and len(text) <= _MAX_PART_CHARS
    findings = find_together([words, text], 1) if has_name else find_all(text)
    return replace_findings(text, [finding for finding in findings if finding.kind in kinds])


def _words_of(name: str) -> str:
    """Return the name of a field as words: "dateOfBirth" is "date Of Birth:"."""
    words = _CAMEL.sub(" ", name).strip()
    return f"{words}:" if words else ""


def _is_measure(name: str) -> bool:
    words = _words_of(name).rstrip(":").lower().split()
    return any(word in _MEASURES or word.removesuffix("s") in _MEASURES for word in words)


def _redact_split(kinds: frozenset[str], container: Any, name: str) -> None:
    """Redact numbers that are split over the values of a container, and of those within it, in place."""
    for row, possible in _rows(container, name):
        if len(row) > 1 and kinds & possible:
            _redact_row(kinds & possible, row, name)
    items = container.items() if isinstance(container, dict) else ((name, item) for item in container)
    for key, item in list(items):
        if isinstance(item, dict | list):
            _redact_split(kinds, item, str(key))


def _redact_row(kinds: frozenset[str], row: Sequence[_Leaf], name: str) -> None:
    """Redact what is found in the texts of several leaves together; what one of them has alone is found without it."""
    if sum(has_numbers(leaf.text) for leaf in row) < 2:
        return
    text = _words_of(name)
    spans = []
    for leaf in row:
        text += " "
        spans.append((len(text), len(text) + len(leaf.text)))
        text += leaf.text
    texts = [leaf.text for leaf in row]
    for finding in reversed(find_all(text)):
        touched = [place for place, (begin, end) in enumerate(spans) if begin < finding.end and finding.begin < end]
        if finding.kind not in kinds or (len(touched) < 2 and not name):
            continue
        for place in touched:
            begin = max(0, finding.begin - spans[place][0])
            instead = PLACEHOLDERS[finding.kind] if place == touched[0] else ""
            texts[place] = texts[place][:begin] + instead + texts[place][finding.end - spans[place][0] :]
    for leaf, redacted in zip(row, texts, strict=True):
        if redacted != leaf.text:
            leaf.replace(redacted)


def _rows(container: Any, name: str) -> Iterator[tuple[list[_Leaf], frozenset[str]]]:
    """Yield the leaves of a container that may be parts of one number, and the kinds that it may be of.

    They are neighbors, or equal fields of neighbors.
    """
    every = frozenset(KINDS)
    if isinstance(container, dict):
        yield [leaf for key in container if not _is_measure(str(key)) for leaf in _leaves(container, key)], every
        yield [leaf for key in container for leaf in _leaves(container, key)], frozenset(["birth_date"])
        return
    if not _is_measure(name):
        yield list(_flat_leaves(container)), every
    records = [item for item in container if isinstance(item, dict)]
    for key in dict.fromkeys(key for record in records for key in record):
        leaves = [leaf for record in records if key in record for leaf in _leaves(record, key)]
        yield [leaf for leaf in leaves if isinstance(leaf.value, str) or leaf.value <= _MAX_DIGIT], every


def _flat_leaves(items: list[Any]) -> Iterator[_Leaf]:
    for place, item in enumerate(items):
        if isinstance(item, list):
            yield from _flat_leaves(item)
        else:
            yield from _leaves(items, place)


def _leaves(container: Any, key: Any) -> Iterator[_Leaf]:
    value = container[key]
    if isinstance(value, float | Decimal) and digits_of(value) is not None:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return
    if isinstance(value, str) and (len(value) > _MAX_PART_CHARS or value[:1] in ("{", "[")):
        return
    if isinstance(value, int) and (value < 0 or len(str(value)) > _MAX_PART_DIGITS):
        return

    def replace(text: str) -> None:
        container[key] = text

    yield _Leaf(value, replace)
