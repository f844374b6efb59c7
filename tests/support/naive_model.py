"""What models answer for the talks of the corpus: a careful one what the rules learn, a naive one whatever it reads.

The naive one takes words for facts wherever they stand, as a small model does that overlooks the negation, the joke or
the other speaker. Its quotes are real or invented.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from memoair_cloud.consolidation import CallTurn, RuleExtractor
from memoair_cloud.consolidation.records import NAME, OTHER_CALLER

Row = dict[str, Any]
_PATTERNS = [
    ("identity", "home", r"\b(?:live|lives|lived|live in|from) (?:in |at )?([A-Z]\w+)"),
    ("identity", "name", r"(?:name is|name's|this is|calls me|called) ([A-Z]\w+)"),
    ("identity", "employer", r"\bworks? (?:for|at) (?:the )?(\w+)"),
    ("identity", "phone", r"(\d[\d -]{4,}\d)"),
    ("identity", "email", r"([\w.]+@[\w.]+\w)"),
    ("identity", "birthday", r"\bthe ((?:third|fifth|\d+th) of \w+)"),
    ("preference", "allergy to {}", r"(?:allergic to|any allergies\W+) ?(\w+)"),
    ("preference", "is {}", r"\b(vegan|vegetarian|diabetic|pregnant|coeliac|retired|married|lactose intolerant)\b"),
    ("preference", "takes {}", r"\b(warfarin|insulin|statins|ritalin)\b"),
    ("preference", "liking of {}", r"\b(?:love|loves|like|enjoy) (?:to )?(\w+)"),
    ("identity", "job", r"\b(?:I'm|I am|is) an? ([a-z]+)"),
    ("plan", "plan: {}", r"\b((?:fly|flying|going|moving) to [A-Z]\w+)"),
    ("plan", "plan: appointment", r"\b(appointment[\w ]*)"),
    ("relation", "{}", r"\b(?:dog|cat) called ([A-Z]\w+)"),
]


def naive_rows(turns: Sequence[CallTurn], *, quoting: str) -> Iterator[Row]:
    """Return the facts of a model that overlooks what surrounds the words.

    Args:
        turns: The turns.
        quoting: How it quotes: "turn" all words, "words" only those of the fact, "invented" ones that were not said.
    """
    for position, turn in enumerate(turns):
        found = [
            (kind, attribute, match)
            for kind, attribute, pattern in _PATTERNS
            for match in re.finditer(pattern, turn.user_text, re.IGNORECASE if kind == "preference" else 0)
        ]
        for kind, attribute, match in found:
            value = match[1].strip()
            quote = {"turn": turn.user_text, "words": match[0].strip(), "invented": f"I can confirm {value} is right"}
            yield make_row(kind, attribute.format(value.lower()), value, quote[quoting], position)
        answers = position and turns[position - 1].assistant_text.endswith("?")
        if not found and answers:
            asked = turns[position - 1].assistant_text.lower()
            named = {"name": ("identity", "name"), "allerg": ("preference", "allergy"), "number": ("identity", "phone")}
            for word, (kind, attribute) in named.items():
                if word in asked:
                    value = turn.user_text.strip(" .?!")
                    quote = {"invented": f"It is {value} indeed"}.get(quoting, turn.user_text)
                    yield make_row(kind, attribute, value, quote, position)


def careful_rows(turns: Sequence[CallTurn]) -> Iterator[Row]:
    """Return what the rules learn, as a model would say it."""
    for fact in RuleExtractor().extract(turns).facts:
        position = next(number for number, turn in enumerate(turns) if turn.event_id == fact.event_id)
        turn = turns[position]
        quote = turn.assistant_text if fact.kind.value == "commitment" else turn.user_text
        # A model does not know who began the call: whose name it is, is found out from the turns.
        is_other = fact.attribute == OTHER_CALLER
        attribute, text = (NAME, "") if is_other else (fact.attribute, fact.text)
        row = make_row(fact.kind.value, attribute, fact.value, quote, position, text)
        days = {"holds_from": fact.holds_from, "holds_until": fact.holds_until}
        yield {**row, "many": fact.is_one_of_many, **{name: day and day.isoformat() for name, day in days.items()}}


def make_row(kind: str, attribute: str, value: str, quote: str, turn: int, text: str = "") -> Row:
    """Return a fact in the form of the schema."""
    return {
        "turn": turn,
        "quote": quote,
        "kind": kind,
        "text": text or f"The caller's {attribute} is {value}.",
        "attribute": attribute,
        "value": value,
        "replaces": None,
        "many": False,
        "holds_from": None,
        "holds_until": None,
    }
