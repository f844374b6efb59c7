"""Two contexts side by side: rows of lines, with the words that differ. Data for a page or a table, never HTML."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

import attrs

_WORD = re.compile(r"\S+\s*|\s+")
# Below this share of equal characters, two lines are different lines, and marking single words would only confuse.
_MIN_SIMILARITY = 0.4
# Comparing words takes time with the square of their number.
_MAX_WORDS = 400


@attrs.frozen
class DiffSpan:
    """A part of a line.

    Attributes:
        text: The part.
        is_changed: Whether the other line does not have it.
    """

    text: str
    is_changed: bool


@attrs.frozen
class DiffRow:
    """A row of two columns. The parts of a side together are its line.

    Attributes:
        kind: ``same``, ``changed``, ``removed`` (only before) or ``added`` (only afterwards).
        before: The line before; None for an added one.
        after: The line afterwards; None for a removed one.
    """

    kind: str
    before: Sequence[DiffSpan] | None
    after: Sequence[DiffSpan] | None

    def to_wire(self) -> dict[str, Any]:
        """Return the row as JSON."""
        return {"kind": self.kind, "before": _spans_to_wire(self.before), "after": _spans_to_wire(self.after)}


def diff_contexts(before: str, after: str) -> list[DiffRow]:
    """Return two contexts side by side. The rows have all lines of both, in order.

    Args:
        before: A context.
        after: The other one.
    """
    first, second = _split(before), _split(after)
    rows: list[DiffRow] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if tag == "equal":
            rows += [DiffRow("same", _whole(line), _whole(line)) for line in first[i1:i2]]
        else:
            rows += [_make_row(*pair) for pair in zip_longest(first[i1:i2], second[j1:j2])]
    return rows


def _split(context: str) -> list[str]:
    return context.split("\n") if context else []


def _make_row(before: str | None, after: str | None) -> DiffRow:
    if before is None:
        return DiffRow("added", None, _whole(after or "", is_changed=True))
    if after is None:
        return DiffRow("removed", _whole(before, is_changed=True), None)
    return DiffRow("changed", *_compare_words(before, after))


def _compare_words(before: str, after: str) -> tuple[list[DiffSpan], list[DiffSpan]]:
    first, second = _WORD.findall(before), _WORD.findall(after)
    if max(len(first), len(second)) <= _MAX_WORDS:
        blocks = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
        equal = sum(len(word) for start, _, size in blocks for word in first[start : start + size])
        if 2 * equal >= _MIN_SIMILARITY * (len(before) + len(after)):
            kept = [range(start, start + size) for start, _, size in blocks]
            kept_after = [range(start, start + size) for _, start, size in blocks]
            return list(_mark(first, kept)), list(_mark(second, kept_after))
    return _whole(before, is_changed=True), _whole(after, is_changed=True)


def _mark(words: Sequence[str], kept: Sequence[range]) -> Iterator[DiffSpan]:
    """Yield the words as spans: those in ``kept``, ranges in order, and those between them as changed."""
    position = 0
    for part in kept:  # the last one is empty and at the end
        if position < part.start:
            yield DiffSpan("".join(words[position : part.start]), is_changed=True)
        if part:
            yield DiffSpan("".join(words[part.start : part.stop]), is_changed=False)
        position = part.stop


def _whole(line: str, *, is_changed: bool = False) -> list[DiffSpan]:
    return [DiffSpan(line, is_changed)] if line else []


def _spans_to_wire(spans: Sequence[DiffSpan] | None) -> list[dict[str, Any]] | None:
    return None if spans is None else [{"text": span.text, "changed": span.is_changed} for span in spans]
