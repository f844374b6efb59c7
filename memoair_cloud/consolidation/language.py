"""Load what is known of a language: how it is spoken, its words, and the rules that find facts.

A language is a folder beside this module: ``speech.yaml``, ``forms.yaml``, ``words.yaml``, ``rules.yaml`` and
``plans.yaml``, each of which explains itself, and ``days.yaml`` where days are not named in English. Another folder is
another language.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import yaml

from memoair_cloud.consolidation.days import DayGrammar, EnglishDays, compile_days
from memoair_cloud.consolidation.forms import Forms, compile_forms
from memoair_cloud.consolidation.polarity import Denial, find_denied
from memoair_cloud.consolidation.records import CALLER_SUBJECT, FactKind
from memoair_cloud.consolidation.slots import PATTERNS
from memoair_index.languages import stop_words

# The one in C takes a tenth of the time.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ENGLISH = "english"
_TOKEN = re.compile(r"<(?:(\w+):)?([A-Z_]+)>")


@attrs.frozen
class Expression:
    """One expression of a rule.

    Attributes:
        pattern: Matches a whole clause.
        slot_types: The type of each slot by its group in the pattern.
    """

    pattern: re.Pattern[str]
    slot_types: Mapping[str, str]

    def slots(self, match: re.Match[str]) -> dict[str, tuple[str, str]]:
        """Return type and text of each slot that is there, by its name."""
        return {
            group.partition("_")[2]: (slot_type, match[group])
            for group, slot_type in self.slot_types.items()
            if match[group] is not None
        }


@attrs.frozen
class FactRule:
    """How a fact is said, answered, taken back and denied. The fields are those of ``rules.yaml``."""

    kind: FactKind
    attribute: str
    value: str
    text: str
    subject: str = CALLER_SUBJECT
    ended: str = ""
    says: tuple[Expression, ...] = ()
    answers: tuple[Expression, ...] = ()
    ends: tuple[Expression, ...] = ()
    denies: tuple[Expression, ...] = ()
    asked: re.Pattern[str] | None = None
    asked_slots: Mapping[str, str] = attrs.field(factory=dict)
    not_asked: re.Pattern[str] | None = None
    context: str = ""
    many: bool = False
    single_list: str = ""
    when: str = "any"
    first: bool = False
    defaults: Mapping[str, str] = attrs.field(factory=dict)
    examples: tuple[str, ...] = ()


@attrs.frozen
class Speech:
    """What stands around statements, and what makes them doubtful. The fields are those of ``speech.yaml``."""

    lead: re.Pattern[str]
    whole_turn: re.Pattern[str]
    handed_over: re.Pattern[str]
    came_back: re.Pattern[str]
    whole_sentence: re.Pattern[str]
    doubt: re.Pattern[str]
    request: re.Pattern[str]
    reported: re.Pattern[str]
    confirm: re.Pattern[str]
    courtesy: re.Pattern[str]
    question: re.Pattern[str]
    tag: re.Pattern[str]
    renamed: re.Pattern[str] | None = None
    ended_object: re.Pattern[str] | None = None
    ended_subject: re.Pattern[str] | None = None
    not_ended: re.Pattern[str] | None = None


@attrs.frozen
class Language:
    """A language that facts are learned from.

    Attributes:
        name: The name of its folder, which is that of the search engine, too.
        speech: How it is spoken.
        forms: What is no statement by itself.
        days: How it names days.
        lists: Its lists of words: by name, each word in lower case and what it is written as in a fact.
        reads: How slots.py reads a type that is defined by the language.
        rules: The rules.
        shown: How a value that is the same in all languages is written in this one.
    """

    name: str
    speech: Speech
    forms: Forms
    days: DayGrammar
    lists: Mapping[str, Mapping[str, str]]
    reads: Mapping[str, str]
    rules: tuple[FactRule, ...]
    shown: Mapping[str, str]

    def find_denied(self, clause: str) -> Denial | None:
        """Return what a clause denies; None if it is not negative."""
        if self.name == ENGLISH:
            return find_denied(clause)
        for rewriting in self.forms.denied:
            if rewriting.pattern.search(clause):
                return Denial(re.sub(r"\s+", " ", rewriting.apply(clause)).strip(), rewriting.held_before)
        return None


def available_languages() -> tuple[str, ...]:
    """Return the languages that have rules, English first."""
    names = sorted(path.parent.name for path in Path(__file__).parent.glob("*/rules.yaml"))
    return (ENGLISH, *(name for name in names if name != ENGLISH))


@cache
def load_forms(name: str) -> Forms:
    """Load the forms of a language alone, which takes a hundredth of the time. The result is cached.

    Raises:
        OSError: There is no such folder.
        ValueError: The file is invalid; the message names the field.
    """
    return compile_forms(_read_yaml(Path(__file__).with_name(name) / "forms.yaml"))


@cache
def load_language(name: str = "english") -> Language:
    """Load a language from its folder. The result is cached.

    Raises:
        OSError: There is no such folder.
        ValueError: A file is not as the format demands; the message names the rule.
    """
    folder = Path(__file__).with_name(name)
    speech, words, rules, plans = (
        _read_yaml(folder / f"{part}.yaml") for part in ("speech", "words", "rules", "plans")
    )
    days_file = folder / "days.yaml"
    days = compile_days(_read_yaml(days_file)) if days_file.exists() else EnglishDays()
    lists = {name: _read_list(entries) for name, entries in words.items()}
    if name != ENGLISH:
        lists["FUNCTION_WORD"] = dict.fromkeys(stop_words(name), "")
    types = {name: str(entry["matches"]) for name, entry in plans["types"].items()}
    patterns = {**PATTERNS, **{name: _alternatives(entries) for name, entries in lists.items()}, **types}
    tail = f"(?:,?\\s*(?:{'|'.join(speech.pop('tail'))}))*"
    compiler = _Compiler(patterns, tail)
    reads = {name: entry["reads"] for name, entry in plans["types"].items() if "reads" in entry}
    forms = load_forms(name)
    shown: dict[str, str] = {}
    for part in forms.shown_lists:
        for word, value in words[part].items():
            shown.setdefault(str(value), str(word))  # the first word of a value is the one that is written
    return Language(
        name,
        _compile_speech(speech),
        forms,
        days,
        lists,
        reads,
        tuple(map(compiler.compile_rule, [*rules, *plans["rules"]])),
        shown,
    )


def _read_yaml(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - safe


def _read_list(entries: Any) -> dict[str, str]:
    if isinstance(entries, dict):
        return {str(word).casefold(): str(written) for word, written in entries.items()}
    words = entries.split("|") if "|" in entries else entries.replace('"', "").split()
    return {re.sub(r"\s+", " ", word).strip().casefold(): re.sub(r"\s+", " ", word).strip() for word in words}


def _alternatives(entries: Mapping[str, str]) -> str:
    return "|".join(sorted(map(re.escape, entries), key=len, reverse=True))


def _compile_speech(lists: Mapping[str, Sequence[str]]) -> Speech:
    compiled = {name: re.compile("|".join(entries), re.IGNORECASE) for name, entries in lists.items() if name != "lead"}
    lead = re.compile(rf"(?:(?:{'|'.join(lists['lead'])})(?:\s*[,!.:]+\s*|\s+|$))+", re.IGNORECASE)
    return Speech(lead=lead, **compiled)


@attrs.frozen
class _Compiler:
    """Compiles rules.

    Attributes:
        patterns: What each type matches.
        tail: What may follow a statement.
    """

    patterns: Mapping[str, str]
    tail: str

    def compile_rule(self, entry: Mapping[str, Any]) -> FactRule:
        """Compile one entry of ``rules.yaml``."""
        fields = dict(entry)
        try:
            is_open = fields.pop("open", False)
            for name in ("says", "answers", "ends", "denies"):
                expressions = (self._compile(text, is_open=is_open) for text in fields.get(name, ()))
                fields[name] = tuple(expressions)
            if "asked" in fields:
                fields["asked"], fields["asked_slots"] = self._expand(fields["asked"])
                fields["asked"] = re.compile(fields["asked"], re.IGNORECASE)
            if "not_asked" in fields:
                fields["not_asked"] = re.compile(fields["not_asked"], re.IGNORECASE)
            many = fields.get("many", False)
            if isinstance(many, str):
                fields["many"], fields["single_list"] = True, many.removeprefix("unless ")
            fields["examples"] = tuple(fields.get("examples", ()))
            return FactRule(**{**fields, "kind": FactKind(fields["kind"])})
        except (TypeError, KeyError, ValueError, re.error) as error:
            raise ValueError(f"rule {entry.get('text')!r}: {error}") from error

    def _compile(self, text: str, *, is_open: bool) -> Expression:
        expanded, slot_types = self._expand(text)
        end = "" if is_open else self.tail
        return Expression(re.compile(rf"(?:{expanded}){end}[\s,.!]*", re.IGNORECASE), slot_types)

    def _expand(self, text: str) -> tuple[str, dict[str, str]]:
        slot_types: dict[str, str] = {}

        def replace(match: re.Match[str]) -> str:
            slot, slot_type = match[1], match[2]
            pattern = self.patterns[slot_type]
            while _TOKEN.search(pattern):
                pattern = _TOKEN.sub(lambda inner: f"(?:{self.patterns[inner[2]]})", pattern)
            if slot is None:
                return f"(?:{pattern})"
            group = f"s{len(slot_types)}_{slot}"
            slot_types[group] = slot_type
            return f"(?P<{group}>{pattern})"

        return _TOKEN.sub(replace, text), slot_types


def iterate_examples(language: Language) -> Iterator[tuple[FactRule, str]]:
    """Return each example of the rules of a language, with its rule."""
    for rule in language.rules:
        for example in rule.examples:
            yield rule, example
