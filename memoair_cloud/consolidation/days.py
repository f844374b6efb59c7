"""The days that a language names. There is one grammar of days, the English one; other languages are read into it."""

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Protocol

import attrs

from memoair_cloud.consolidation import date_expressions
from memoair_cloud.consolidation.date_expressions import DateRange
from memoair_index.dates import MONTHS, WEEKDAYS

_MEANT = re.compile(r"<(\w+)>")
_SLOT = re.compile(r"<(?:(\w+):)?([A-Z_]+)>")


class DayGrammar(Protocol):
    """How a language names days."""

    def find_range(self, text: str, today: date, *, is_past: bool) -> DateRange | None:
        """Return the first days that a text names; see `date_expressions.find_date_range`."""

    def find_expression(self, text: str) -> re.Match[str] | None:
        """Return the first expression of a text that names a day, or when something recurs."""

    def describe(self, days: DateRange) -> str:
        """Return days in words of the language that stay true later."""


class EnglishDays:
    """The grammar of `date_expressions`."""

    def find_range(self, text: str, today: date, *, is_past: bool) -> DateRange | None:
        """Return the first days that a text names."""
        return date_expressions.find_date_range(text, today, is_past=is_past)

    def find_expression(self, text: str) -> re.Match[str] | None:
        """Return the first expression of a text that names a day."""
        return date_expressions.find_time_expression(text)

    def describe(self, days: DateRange) -> str:
        """Return days in English."""
        return days.description


@attrs.frozen
class TranslatedDays:
    """The days of a language whose ``days.yaml`` says what each expression means in English.

    Attributes:
        pattern: Matches all expressions; the group of an expression is ``e`` and its position.
        meanings: By expression what it means, a template of its slots; empty if it names no day.
        words: What each word of a slot means, by the name of its list.
        slot_lists: The list of each slot by its group.
        weekdays: The names of the weekdays in texts, from Monday.
        months: The names of the months in texts.
        templates: How days are written: ``day``, ``month``, ``year`` and ``range``.
    """

    pattern: re.Pattern[str]
    meanings: tuple[str, ...]
    words: Mapping[str, Mapping[str, str]]
    slot_lists: Mapping[str, str]
    weekdays: tuple[str, ...]
    months: tuple[str, ...]
    templates: Mapping[str, str]

    def find_range(self, text: str, today: date, *, is_past: bool) -> DateRange | None:
        """Return the first days that a text names."""
        for match in self.pattern.finditer(text):
            meaning = self._translate(match)
            found = date_expressions.find_date_range(meaning, today, is_past=is_past) if meaning else None
            if found:
                return attrs.evolve(found, start=match.start(), end=match.end())
        return None

    def find_expression(self, text: str) -> re.Match[str] | None:
        """Return the first expression of a text that names a day, or when something recurs."""
        return self.pattern.search(text)

    def describe(self, days: DateRange) -> str:
        """Return days in words of the language."""
        first, last = days.first, days.last
        form = "range"
        if first == last:
            form = "day"
        elif days.description.startswith("in "):
            form = "year" if days.description == f"in {first.year}" else "month"
        return self.templates[form].format(
            weekday=self.weekdays[first.weekday()], first=self._write(first), last=self._write(last),
            month=self.months[first.month - 1], year=first.year,
        )  # fmt: skip

    def _write(self, day: date) -> str:
        return self.templates["date"].format(day=day.day, month=self.months[day.month - 1], year=day.year)

    def _translate(self, match: re.Match[str]) -> str:
        position = next(n for n in range(len(self.meanings)) if match[f"e{n}"] is not None)
        slots = {}
        for group, name in self.slot_lists.items():
            owner, _, slot = group.partition("_")
            if owner == f"e{position}" and match[group] is not None:
                text = re.sub(r"\s+", " ", match[group].casefold())
                slots[slot] = self.words[name][text] if name in self.words else text
        meaning = _MEANT.sub(lambda slot: slots.get(slot[1], ""), self.meanings[position])
        return re.sub(r"\s+", " ", meaning).strip()


# Slots that are numbers in digits, beside the lists of words.
_NUMBERS = {"NUMBER": r"\d{1,2}", "YEAR": r"(?:19|20)\d\d"}


def compile_days(entries: Mapping[str, Any]) -> TranslatedDays:
    """Return the days of a parsed ``days.yaml``.

    Raises:
        KeyError: A list or a template is missing.
        ValueError: An expression is invalid; the message has it.
    """
    lists = {
        name: {str(word).casefold(): str(means) for word, means in words.items()}
        for name, words in entries["words"].items()
    }
    lists["WEEKDAY"] = lists["WEEKDAY"] | {
        word.casefold(): day for word, day in zip(entries["weekdays"], WEEKDAYS, strict=True)
    }
    lists["MONTH"] = lists.get("MONTH", {}) | {
        word.casefold(): month for word, month in zip(entries["months"], MONTHS, strict=True)
    }
    patterns = _NUMBERS | {
        name: "|".join(sorted(map(re.escape, words), key=len, reverse=True)) for name, words in lists.items()
    }
    slot_lists: dict[str, str] = {}
    alternatives = []
    for position, (expression, _) in enumerate(entries["expressions"]):

        def expand(match: re.Match[str], position: int = position) -> str:
            if match[1] is None:
                return f"(?:{patterns[match[2]]})"
            slot_lists[f"e{position}_{match[1]}"] = match[2]
            return f"(?P<e{position}_{match[1]}>{patterns[match[2]]})"

        alternatives.append(f"(?P<e{position}>{_SLOT.sub(expand, expression)})")
    try:
        pattern = re.compile(rf"\b(?:{'|'.join(alternatives)})(?!\w)(?!-\w)", re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"days: {error}") from error
    return TranslatedDays(
        pattern,
        tuple(meaning for _, meaning in entries["expressions"]),
        lists,
        slot_lists,
        tuple(entries["weekdays"]),
        tuple(entries["months"]),
        entries["templates"],
    )
