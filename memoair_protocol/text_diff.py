"""The difference between two texts, line by line, as ``diff -u`` shows it."""

import difflib
from collections import Counter
from collections.abc import Sequence

# `difflib` compares each line with all equal ones, for each piece that it finds. Above this, which is about a second of
# work, what differs is shown as one piece.
_MAX_WORK = 5_000_000
_NO_NEWLINE = "\\ No newline at end of file\n"


def diff_texts(before: str, after: str, before_name: str, after_name: str, context_lines: int = 3) -> str:
    r"""Return how a text differs from another one, as a unified diff that ``patch`` accepts; empty if they are equal.

    It takes about a second at most, whatever the texts are. Of texts with thousands of lines that differ everywhere,
    all lines between the first and the last difference are shown as removed and added.

    Args:
        before: The text to compare with.
        after: The text that is compared.
        before_name: What the head calls them.
        after_name: The same for the other.
        context_lines: How many equal lines are shown around what differs.

    Example:
        >>> print(diff_texts("Hello\n", "Good morning\n", "version 1", "version 2"), end="")
        --- version 1
        +++ version 2
        @@ -1 +1 @@
        -Hello
        +Good morning
    """
    lines = split_lines(before), split_lines(after)
    found: list[str] = []
    for group in _LineMatcher(*lines).get_grouped_opcodes(context_lines):
        if not found:
            found += [f"--- {before_name}\n", f"+++ {after_name}\n"]
        first, last = group[0], group[-1]
        found.append(f"@@ -{_format_range(first[1], last[2])} +{_format_range(first[3], last[4])} @@\n")
        for tag, *(start, end, other_start, other_end) in group:
            if tag == "equal":
                found += [f" {line}" for line in lines[0][start:end]]
                continue
            found += [f"-{line}" for line in lines[0][start:end]]
            found += [f"+{line}" for line in lines[1][other_start:other_end]]
    return "".join(line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}" for line in found)


def split_lines(text: str) -> list[str]:
    """Return the lines of a text with their line feeds. Other characters that may separate lines are part of them."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


class _LineMatcher(difflib.SequenceMatcher[str]):
    """Finds what two texts have in common: first at their ends, then in between, if that takes not too long."""

    def __init__(self, before: Sequence[str], after: Sequence[str]) -> None:
        super().__init__(None, (), ())
        self.a, self.b = before, after

    def get_matching_blocks(self) -> list[difflib.Match]:
        sizes = len(self.a), len(self.b)
        start, end = _count_common_ends(self.a, self.b)
        before, after = self.a[start : sizes[0] - end], self.b[start : sizes[1] - end]
        blocks = [difflib.Match(0, 0, start)] if start else []
        if _is_comparable(before, after):
            matcher = difflib.SequenceMatcher(None, before, after)
            found = matcher.get_matching_blocks()[:-1]  # without the mark of the end
            blocks += [difflib.Match(start + a, start + b, size) for a, b, size in found]
        blocks += [difflib.Match(sizes[0] - end, sizes[1] - end, end)] if end else []
        return [*blocks, difflib.Match(*sizes, 0)]


def _is_comparable(before: Sequence[str], after: Sequence[str]) -> bool:
    counts, other_counts = Counter(before), Counter(after)
    # As `difflib` does: in a long text, what is there too often (an empty line) is not looked for.
    most = len(after) // 100 + 1 if len(after) >= 200 else len(after)
    pairs = sum(count * other_counts[line] for line, count in counts.items() if other_counts[line] <= most)
    return pairs * min(len(before), len(after)) <= _MAX_WORK


def _count_common_ends(before: Sequence[str], after: Sequence[str]) -> tuple[int, int]:
    """Return how many lines two texts have in common at the start, and after that at the end."""
    shorter = min(len(before), len(after))
    start = next((number for number in range(shorter) if before[number] != after[number]), shorter)
    ends = range(shorter - start)
    return start, next((number for number in ends if before[-1 - number] != after[-1 - number]), shorter - start)


def _format_range(start: int, end: int) -> str:
    """Return a range of lines as `diff -u` writes it: from 1, and an empty one by the line before it."""
    length = end - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"
