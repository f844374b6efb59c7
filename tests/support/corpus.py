"""The talks beside the rules, and what the rules learn from them; for tests and ``benchmarks/learning.py``."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from memoair_cloud.consolidation import CallTurn, Fact, RuleExtractor, merge_facts

CORPORA = Path(__file__).parents[2] / "memoair_cloud" / "consolidation" / "english"
SAID_AT = datetime(2026, 3, 2, 10, tzinfo=timezone.utc)


class Talk(NamedTuple):
    """One or more calls of a caller: by call what the caller and the agent said in each turn.

    ``expected`` has the attribute and value of each fact that should be current in the end.
    """

    kind: str
    line: str
    calls: tuple[tuple[tuple[str, str], ...], ...]
    expected: tuple[tuple[str, str], ...]


class Counts(NamedTuple):
    """How many facts were learned and how many of them are right; how many were expected and how many of them found."""

    learned: int
    right: int
    expected: int
    found: int


def read_corpus(path: Path) -> Iterator[Talk]:
    """Return the talks of a corpus in the format that ``corpus.txt`` describes."""
    kind = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith("[") and "=>" not in line:
            kind = line.strip("[]")
        else:
            yield read_talk(kind, line)


def read_talk(kind: str, line: str) -> Talk:
    """Return the talk of a line."""
    said, _, facts = line.rpartition("=>")
    calls = tuple(tuple(_read_turns(call)) for call in said.split("##"))
    pairs = (fact.partition("=") for fact in facts.split(";") if fact.strip())
    return Talk(kind, line, calls, tuple((attribute.strip(), value.strip()) for attribute, _, value in pairs))


def _read_turns(call: str) -> Iterator[tuple[str, str]]:
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


def learn_from(talk: Talk) -> list[Fact]:
    """Return the facts that are current after a talk and say that something holds."""
    facts: list[Fact] = []
    for position, call in enumerate(talk.calls):
        at = SAID_AT + timedelta(days=position)
        turns = [
            CallTurn(f"{position}-{number}", f"call-{position}", number, caller, agent, at + timedelta(seconds=number))
            for number, (caller, agent) in enumerate(call)
        ]
        extraction = RuleExtractor().extract(turns)
        facts += [*extraction.facts, *extraction.denials]
    return [fact for fact in merge_facts(facts) if fact.is_current and _says_that_something_holds(fact)]


def count_facts(talk: Talk) -> Counts:
    """Count the facts that are learned from a talk."""
    learned = learn_from(talk)
    right = sum(any(_is_same(fact, expected) for expected in talk.expected) for fact in learned)
    found = sum(any(_is_same(fact, expected) for fact in learned) for expected in talk.expected)
    return Counts(len(learned), right, len(talk.expected), found)


def _says_that_something_holds(fact: Fact) -> bool:
    """Return whether a fact is more than the end of another."""
    return fact.value not in ("", "no") and not fact.value.startswith("not ")


def _is_same(fact: Fact, expected: tuple[str, str]) -> bool:
    attribute, value = expected
    subject, slash, rest = attribute.partition("/")
    if slash:
        return fact.subject == subject and _is_same(fact, (rest, value))
    kind, _, word = attribute.partition("~")
    names_it = word.casefold() in fact.attribute.casefold() if word else fact.attribute == attribute
    return names_it and (not word or fact.kind.value == kind) and fact.value == value
