"""How many of the learned facts are true, and how many of the facts that were said are learned, by kind of talk.

The talks are beside the rules, in ``memoair_cloud/consolidation/english``. Those in ``corpus_held_back.txt`` were not
looked at while the rules were made, so their figures say what to expect of other words.

    python benchmarks/learning.py [--misses] [corpus ...]
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import attrs

from memoair_cloud.consolidation import CallTurn, Fact, RuleExtractor, merge_facts

CORPORA = Path(__file__).parents[1] / "memoair_cloud" / "consolidation" / "english"
SAID_AT = datetime(2026, 3, 2, 10, tzinfo=timezone.utc)


@attrs.frozen
class Talk:
    """One or more calls of a caller.

    Attributes:
        kind: The heading that it stands under.
        line: Its line, as written.
        calls: By call: what the caller and the agent said in each turn.
        expected: The attribute and value of each fact that should be current in the end.
    """

    kind: str
    line: str
    calls: tuple[tuple[tuple[str, str], ...], ...]
    expected: tuple[tuple[str, str], ...]


def read_corpus(path: Path) -> Iterator[Talk]:
    """Return the talks of a corpus in the format that ``corpus.txt`` describes."""
    kind = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith("[") and "=>" not in line:
            kind = line.strip("[]")
            continue
        said, _, facts = line.rpartition("=>")
        calls = tuple(tuple(_turns(call)) for call in said.split("##"))
        pairs = (fact.partition("=") for fact in facts.split(";") if fact.strip())
        yield Talk(kind, line, calls, tuple((attribute.strip(), value.strip()) for attribute, _, value in pairs))


def _turns(call: str) -> Iterator[tuple[str, str]]:
    caller = ""
    for part in call.split("||"):
        if part.strip().startswith("A:"):
            yield caller or "Hello.", part.strip().removeprefix("A:").strip()
            caller = ""
        else:
            if caller:
                yield caller, ""
            caller = part.strip()
    if caller:
        yield caller, ""


def learn(talk: Talk) -> list[Fact]:
    """Return the facts that are current after a talk and say that something holds."""
    facts: list[Fact] = []
    for position, call in enumerate(talk.calls):
        turns = [
            CallTurn(
                f"{position}-{number}",
                f"call-{position}",
                number,
                caller,
                agent,
                SAID_AT + timedelta(days=position, seconds=number),
            )
            for number, (caller, agent) in enumerate(call)
        ]
        extraction = RuleExtractor().extract(turns)
        facts += [*extraction.facts, *extraction.denials]
    return [fact for fact in merge_facts(facts) if fact.is_current and says_that_something_holds(fact)]


def says_that_something_holds(fact: Fact) -> bool:
    """Return whether a fact is more than the end of another."""
    return fact.value not in ("", "no") and not fact.value.startswith("not ")


def is_same(fact: Fact, expected: tuple[str, str]) -> bool:
    """Return whether a fact is an expected one."""
    attribute, value = expected
    kind, _, word = attribute.partition("~")
    names_it = word.casefold() in fact.attribute.casefold() if word else fact.attribute == attribute
    return names_it and (not word or fact.kind.value == kind) and fact.value == value


def measure(talks: list[Talk], *, shows_misses: bool = False) -> None:
    """Print precision and recall by kind, and of all talks."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for talk in talks:
        learned = learn(talk)
        right = sum(any(is_same(fact, expected) for expected in talk.expected) for fact in learned)
        found = sum(any(is_same(fact, expected) for fact in learned) for expected in talk.expected)
        for kind in (talk.kind, "all"):
            counts[kind].update(talks=1, learned=len(learned), right=right, expected=len(talk.expected), found=found)
        if shows_misses and (right < len(learned) or found < len(talk.expected)):
            print(f"{talk.kind}: {talk.line}\n    {[(fact.attribute, fact.value) for fact in learned]}")
    print(
        f"{'kind':16}{'talks':>6}{'learned':>9}{'right':>7}{'expected':>10}{'found':>7}{'precision':>11}{'recall':>8}"
    )
    for kind, count in sorted(counts.items(), key=lambda item: item[0] == "all"):
        precision = f"{count['right'] / count['learned']:.2f}" if count["learned"] else "-"
        recall = f"{count['found'] / count['expected']:.2f}" if count["expected"] else "-"
        numbers = f"{count['talks']:6}{count['learned']:9}{count['right']:7}{count['expected']:10}{count['found']:7}"
        print(f"{kind:16}{numbers}{precision:>11}{recall:>8}")


def main() -> int:
    """Measure the corpora that are named, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="*", type=Path, default=sorted(CORPORA.glob("corpus*.txt")))
    parser.add_argument("--misses", action="store_true", help="also print the talks that are not learned as expected")
    options = parser.parse_args()
    for path in options.corpus:
        print(f"{path.name}")
        measure(list(read_corpus(path)), shows_misses=options.misses)
    return 0


if __name__ == "__main__":
    sys.exit(main())
