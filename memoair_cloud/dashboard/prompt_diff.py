"""A unified diff as a page shows it: lines, and in lines that replace others the words that differ."""

import difflib
import re
from collections.abc import Iterator, Sequence

import attrs

_WORDS = re.compile(r"\{\{[ \t]*\w+[ \t]*\}\}|\w+|\s+|[^\w\s]")  # a placeholder is one word
# Comparing words takes time that grows with the product of their numbers. This is about a second for a page.
_MAX_WORD_PAIRS = 1_000_000
_MAX_LINE_PAIRS = 40_000
_MIN_RATIO = 0.4  # lines that have less in common are shown without marks: nearly all of it differs
MAX_LINES = 4_000
_KINDS = {"+": "added", "-": "removed", "@": "place", "\\": "place"}


@attrs.define
class DiffLine:
    """A line of a diff.

    Attributes:
        kind: ``added``, ``removed``, ``place`` for where it is, or ``same``.
        text: The line, with the sign that it begins with.
        marks: The parts of the text that differ from the line that it replaces, as start and end.
    """

    kind: str
    text: str
    marks: Sequence[tuple[int, int]] = ()


def read_diff(diff: str) -> list[DiffLine]:
    """Return the lines of a diff, without its head, and at most `MAX_LINES` and one more.

    Args:
        diff: What `memoair_protocol.text_diff.diff_texts` returned.
    """
    lines = [
        DiffLine(_KINDS.get(line[:1], "same"), line) for line in diff.removesuffix("\n").split("\n")[2 : MAX_LINES + 3]
    ]
    budget = _MAX_WORD_PAIRS
    for removed, added in _find_replacements(lines):
        words = _WORDS.findall(removed.text[1:]), _WORDS.findall(added.text[1:])
        pairs = len(words[0]) * len(words[1])
        if pairs <= min(budget, _MAX_LINE_PAIRS):
            budget -= pairs
            _mark_words(removed, added, words[0], words[1])
    return lines


def _find_replacements(lines: Sequence[DiffLine]) -> Iterator[tuple[DiffLine, DiffLine]]:
    """Yield each removed line with the added line in its place."""
    removed: list[DiffLine] = []
    added_count = 0
    for line in lines:
        if line.text.startswith("\\"):
            continue
        if line.kind == "added":
            if added_count < len(removed):
                yield removed[added_count], line
            added_count += 1
        elif line.kind == "removed" and not added_count:
            removed.append(line)
        else:
            removed, added_count = [line] if line.kind == "removed" else [], 0


def _mark_words(removed: DiffLine, added: DiffLine, before: list[str], after: list[str]) -> None:
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    if matcher.ratio() < _MIN_RATIO:
        return
    changes = [opcode[1:] for opcode in matcher.get_opcodes() if opcode[0] != "equal"]
    removed.marks = _to_spans(before, [(start, end) for start, end, _, _ in changes])
    added.marks = _to_spans(after, [(start, end) for _, _, start, end in changes])


def _to_spans(words: Sequence[str], ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return where ranges of words are in a line, which begins with its sign."""
    starts = [1]
    for word in words:
        starts.append(starts[-1] + len(word))
    return [(starts[start], starts[end]) for start, end in ranges if start < end]
