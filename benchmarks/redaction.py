"""Measure the precision and recall of the included redaction, by kind, and its false positives in real conversations.

    python benchmarks/redaction.py
    python benchmarks/redaction.py --misses               # every line of the corpus that is not as it should be
    python benchmarks/redaction.py --conversations FILE   # also count the lines of conversations that change
    python benchmarks/redaction.py --conversations FILE --show   # and print them (never commit what it prints)

The corpus is in ``tests/fixtures/redaction``: lines with something to redact, lines that must stay, and numbers that
are split over the values of a structure or over turns. Recall is the share of marked numbers of which no digit and no
word remains. Precision is the share of changed lines in which nothing else was changed. Conversations are JSON, JSON
Lines, either of them with gzip: every string that is a ``text`` or ``content`` counts as one line.
"""

import argparse
import gzip
import json
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from memoair_voice_sync.redaction import KINDS, redactor

CORPUS = Path(__file__).resolve().parents[1] / "tests/fixtures/redaction"
PLACEHOLDER = re.compile(r"\[(?:IBAN|card number|phone number|e-mail address|date of birth|security code)\]")
redact_all_kinds = redactor(*KINDS)


class Line(NamedTuple):
    """A line of the corpus: its section, the text between the numbers, and the numbers."""

    section: str
    kept: list[str]
    removed: list[str]

    @property
    def text(self) -> str:
        """What is said."""
        return self.kept[0] + "".join(number + text for number, text in zip(self.removed, self.kept[1:], strict=True))


class Outcome(NamedTuple):
    """What became of a line: how many of its numbers were removed, and whether the rest of it stayed."""

    found: int
    is_rest_kept: bool


def read_corpus(name: str) -> Iterator[Line]:
    """Yield the lines of a file of the corpus."""
    section = ""
    for line in (CORPUS / name).read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"\[([^\]]+)\]", line):
            section = header[1]
        elif line and not line.startswith("#"):
            pieces = re.split("[«»]", line)
            yield Line(section, pieces[::2], pieces[1::2])


def judge(line: Line, redacted: str) -> Outcome:
    """Compare the redacted text of a line with what should remain of it."""
    remaining = PLACEHOLDER.split(redacted)
    if remaining == line.kept:
        return Outcome(len(line.removed), is_rest_kept=True)
    found = sum(number not in redacted and not _shares_a_word(number, redacted, line) for number in line.removed)
    place, is_rest_kept = 0, True
    for text in line.kept:  # what should remain does, in its order
        place = redacted.find(text.strip(), place)
        is_rest_kept = is_rest_kept and place >= 0
    return Outcome(found, is_rest_kept)


def _shares_a_word(number: str, redacted: str, line: Line) -> bool:
    """Return whether a digit or a word of the number remains."""
    around = Counter(re.findall(r"[^\W\d_]+|\d", " ".join(line.kept)))
    remaining = Counter(re.findall(r"[^\W\d_]+|\d", PLACEHOLDER.sub(" ", redacted))) - around
    return any(remaining[each] for each in re.findall(r"[^\W\d_]+|\d", number))


def measure_corpus(table: Table) -> list[str]:
    """Add a row for each kind to the table; return the lines that are not as they should be."""
    numbers, found, changed, exact = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    lines, wrong = Counter[str](), list[str]()
    for line in (*read_corpus("removed.txt"), *read_corpus("kept.txt")):
        redacted = redact_all_kinds(line.text)
        outcome = judge(line, redacted)
        kind = line.section.partition(".")[0] + (".words" if ".words" in line.section else "")
        lines[kind] += 1
        numbers[kind] += len(line.removed)
        found[kind] += outcome.found
        changed[kind] += redacted != line.text
        exact[kind] += redacted != line.text and outcome.is_rest_kept and bool(line.removed)
        if outcome != (len(line.removed), True):
            wrong.append(f"{line.section}: {line.text}  ->  {redacted}")
    for kind in lines:
        table.add_row(kind, *map(str, (lines[kind], numbers[kind])), *_shares(kind, numbers, found, changed, exact))
    total = Counter({"all": sum(lines.values())})
    sums = [Counter({"all": sum(each.values())}) for each in (numbers, found, changed, exact)]
    table.add_row("all", str(total["all"]), str(sums[0]["all"]), *_shares("all", *sums), style="bold")
    return wrong


def _shares(kind: str, numbers: Any, found: Any, changed: Any, exact: Any) -> tuple[str, str]:
    recall = f"{found[kind] / numbers[kind]:.3f}" if numbers[kind] else ""
    return recall, f"{exact[kind] / changed[kind]:.3f}" if changed[kind] else ""


def read_conversations(path: Path) -> Iterator[str]:
    """Yield each text of a file of conversations."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as stream:
        is_lines = ".jsonl" in path.name
        for item in map(json.loads, stream) if is_lines else [json.load(stream)]:
            yield from _texts_in(item)


def _texts_in(item: Any) -> Iterator[str]:
    if isinstance(item, dict):
        for name, value in item.items():
            if isinstance(value, str) and name in ("text", "content"):
                yield from filter(None, value.splitlines())
            else:
                yield from _texts_in(value)
    elif isinstance(item, list):
        for value in item:
            yield from _texts_in(value)


def measure_conversations(path: Path, table: Table, *, show: bool) -> None:
    """Add the number of changed lines to the table."""
    lines, changed, kinds, took_s = 0, 0, Counter[str](), []
    for text in dict.fromkeys(read_conversations(path)):
        began_at = time.perf_counter()
        redacted = redact_all_kinds(text)
        took_s.append(time.perf_counter() - began_at)
        lines += 1
        changed += redacted != text
        kinds.update(PLACEHOLDER.findall(redacted) if redacted != text else ())
        if show and redacted != text:
            print(f"{path.name}\n  {text[:400]}\n  {redacted[:400]}")
    share = f"{100 * changed / lines:.3f} %"
    by_kind = ", ".join(f"{count} {kind[1:-1]}" for kind, count in kinds.most_common())
    speed = f"{statistics.median(took_s) * 1e6:.0f} / {statistics.quantiles(took_s, n=100)[-1] * 1e6:.0f}"
    table.add_row(path.name, str(lines), str(changed), share, by_kind, speed)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--misses", action="store_true", help="print the lines that are not as they should be")
    parser.add_argument("--conversations", type=Path, nargs="*", default=[], help="files of real conversations")
    parser.add_argument("--show", action="store_true", help="print the lines of conversations that change")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    corpus = Table("kind", "lines", "numbers", "recall", "precision")
    wrong = measure_corpus(corpus)
    console.print(corpus)
    if options.misses:
        print(*wrong, sep="\n")
    if options.conversations:
        table = Table("conversations", "lines", "changed", "share", "placeholders", "µs, median / p99")
        for path in options.conversations:
            measure_conversations(path, table, show=options.show)
        console.print(table)


if __name__ == "__main__":
    main()
