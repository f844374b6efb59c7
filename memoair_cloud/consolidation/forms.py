"""The forms of a language around its statements: short forms, joints of clauses, hesitations, corrections, denials."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

_NEVER = "(?!)"


@attrs.frozen
class Rewriting:
    """An expression and what its matches become.

    Attributes:
        pattern: The expression.
        becomes: A template of `str.format` with the groups of the expression.
        held_before: For a denial: whether it says that what it denies held before.
    """

    pattern: re.Pattern[str]
    becomes: str
    held_before: bool = False

    def apply(self, text: str) -> str:
        """Return a text with all matches rewritten."""
        return self.pattern.sub(lambda match: self.becomes.format(**match.groupdict(default="")), text)


@attrs.frozen
class Forms:
    """The fields of ``forms.yaml``, which explains them. Expressions that a language does not have match nothing."""

    tags: tuple[str, ...]
    marks: frozenset[str]
    boundary: re.Pattern[str]
    own_clause: re.Pattern[str]
    announcing: re.Pattern[str]
    and_i: re.Pattern[str]
    shared_subject: re.Pattern[str]
    shared_verb: re.Pattern[str]
    abbreviation: re.Pattern[str]
    filler: re.Pattern[str]
    correction: re.Pattern[str]
    correction_clause: re.Pattern[str]
    not_but: re.Pattern[str]
    name_preposition: re.Pattern[str]
    day_preposition: re.Pattern[str]
    day_own_preposition: re.Pattern[str]
    word: re.Pattern[str]
    after_correction: re.Pattern[str]
    not_a_corrected_name: re.Pattern[str]
    contractions: tuple[tuple[re.Pattern[str], str], ...]
    rewritings: tuple[Rewriting, ...]
    denied: tuple[Rewriting, ...]
    digits: Mapping[str, str]
    caller: str
    shown_lists: tuple[str, ...]

    def expand_contractions(self, text: str) -> str:
        """Return a text with its contractions written out: "I'm" as "I am"."""
        for pattern, full in self.contractions:
            text = pattern.sub(full, text)
        return text

    def join_asked_back(self, text: str) -> str:
        """Return a text whose corrections come first: "Did I say cat? I meant dog." is "not cat, dog"."""
        for rewriting in self.rewritings:
            text = rewriting.apply(text)
        return text

    def write_digits(self, text: str) -> str:
        """Return a text in which six or more digits that were said as words are written as digits."""
        if not self.digits:
            return text
        word = "|".join(sorted(self.digits, key=len, reverse=True))
        run = re.compile(rf"\b(?:{word})(?:[\s,-]+(?:{word})){{5,}}\b", re.IGNORECASE)
        return run.sub(lambda match: "".join(self.digits[w] for w in re.findall(r"\w+", match[0].lower())), text)


def compile_forms(entries: Mapping[str, Any]) -> Forms:
    """Return the forms of a parsed ``forms.yaml``.

    Raises:
        ValueError: An expression or a field is invalid; the message names it.
    """
    unknown = set(entries) - set(_FIELDS) - {field.name for field in attrs.fields(Forms)}
    if unknown:
        raise ValueError(f"unknown forms: {', '.join(sorted(unknown))}")
    compiled = {name: _compile(name, entries.get(name, default), flags) for name, (default, flags) in _FIELDS.items()}
    return Forms(
        **{**compiled, **{name: re.compile(f"(?:{compiled[name].pattern}) ", re.IGNORECASE) for name in _PREPOSITIONS}},
        tags=tuple(entries.get("tags", ())),
        marks=frozenset(str(entries.get("marks", "")).casefold().split()),
        contractions=tuple(
            (_compile("contractions", pattern, re.IGNORECASE), full)
            for pattern, full in entries.get("contractions", ())
        ),
        rewritings=tuple(_rewriting("rewritings", entry) for entry in entries.get("rewritings", ())),
        denied=tuple(_rewriting("denied", entry) for entry in entries.get("denied", ())),
        digits={str(word).casefold(): str(digit) for word, digit in entries.get("digits", {}).items()},
        caller=str(entries.get("caller", "The caller")),
        shown_lists=tuple(str(entries.get("shown_lists", "")).split()),
    )


_PREPOSITIONS = ("name_preposition", "day_preposition")
_OPTIONAL = (
    *("own_clause", "announcing", "and_i", "shared_subject", "shared_verb", "abbreviation", "filler", "correction"),
    *("correction_clause", "not_but", "day_own_preposition", *_PREPOSITIONS),
)
# By field: what it is if a language does not have it, and the flags of the expression.
_FIELDS: Mapping[str, tuple[str, re.RegexFlag]] = {
    **dict.fromkeys(_OPTIONAL, (_NEVER, re.IGNORECASE)),
    "boundary": (r"(?P<colon>:\s+)|(?P<stop>;\s+|\s+-+\s+)", re.IGNORECASE),
    "word": (r"([^\W\d_]+(?: [^\W\d_]+)?)", re.IGNORECASE),
    "after_correction": ("", re.IGNORECASE),
    "not_a_corrected_name": (_NEVER, re.RegexFlag(0)),
}


def _compile(name: str, expression: str, flags: re.RegexFlag) -> re.Pattern[str]:
    try:
        return re.compile(expression, flags)
    except re.error as error:
        raise ValueError(f"form {name!r}: {error}") from error


def _rewriting(name: str, entry: Sequence[Any]) -> Rewriting:
    pattern, becomes, *held_before = entry
    return Rewriting(_compile(name, pattern, re.IGNORECASE), str(becomes), bool(held_before and held_before[0]))
