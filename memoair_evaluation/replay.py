"""Compare what two states recall for a question of a past call: how much the context changes, and what of it.

Everything here is computed from what the engine has composed, without a clock and without chance.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import attrs

from memoair_protocol.context_format import SECTION_HEADERS
from memoair_runtime.preview import ComposedContext

_CHANGE_DIGITS = 6  # more would only be the noise of a division
_UNITS = 10**_CHANGE_DIGITS
_MAX_LISTED = 100
KINDS = ("document", "fact", "turn")
_SUMMARY_NAMES = {"document": "documents", "fact": "facts", "turn": "turns"}


@attrs.frozen(order=True)
class RecalledItem:
    """A document, a fact or a turn that was recalled.

    Attributes:
        kind: ``document``, ``fact`` or ``turn``.
        id: The id of the document or the fact, or the event of the turn.
        index_name: The index of a document; empty for the others.
        turn_id: The id of a turn, as the application calls it; empty for the others.
        session_id: The call of a turn; empty for the others.
        text: The text of a fact; empty for the others. Facts are compared by their id alone.
    """

    kind: str
    id: str
    index_name: str = ""
    turn_id: str = attrs.field(default="", eq=False)
    session_id: str = attrs.field(default="", eq=False)
    text: str = attrs.field(default="", eq=False, repr=False)

    def to_wire(self) -> dict[str, str]:
        """Return the item as JSON."""
        if self.kind == "document":
            return {"kind": self.kind, "document": self.id, "index": self.index_name}
        if self.kind == "fact":
            return {"kind": self.kind, "id": self.id, "fact": self.text}
        return {"kind": self.kind, "id": self.id, "turn": self.turn_id, "session": self.session_id}


def to_expectation(item: Mapping[str, str]) -> dict[str, str]:
    """Return the expectation of a case that an item must be recalled, or must not. It names a turn by its event.

    Args:
        item: An item as `RecalledItem.to_wire` writes it.
    """
    if item["kind"] == "turn":
        return {"turn": item["id"]}
    return {name: item[name] for name in ("document", "index", "fact") if item.get(name)}


@attrs.frozen
class CalledTurn:
    """Where a turn was said.

    Attributes:
        session_id: The call.
        turn_id: Its id, as the application calls it; empty if it has none.
    """

    session_id: str
    turn_id: str = ""


@attrs.frozen
class AskedContext:
    """What was recalled for a question.

    Attributes:
        text: The context for the language model.
        items: The documents, facts and turns that are in it.
    """

    text: str = attrs.field(repr=False)
    items: frozenset[RecalledItem] = frozenset()

    @classmethod
    def of(cls, context: ComposedContext, facts: Mapping[str, str], turns: Mapping[str, CalledTurn]) -> "AskedContext":
        """Return what a context recalls.

        Args:
            context: The context, as the engine has composed it.
            facts: The texts of the facts that are known, by id.
            turns: The turns that were said before, by event.
        """
        items = [
            _to_item(kind, id_, index_name or "", facts, turns)
            for kind, id_, index_name in context.sources
            if kind in KINDS
        ]
        return cls(context.text, frozenset(items))


def _to_item(
    kind: str, id_: str, index_name: str, facts: Mapping[str, str], turns: Mapping[str, CalledTurn]
) -> RecalledItem:
    if kind == "document":
        return RecalledItem(kind, id_, index_name)
    if kind == "fact":
        return RecalledItem(kind, id_, text=facts.get(id_, ""))
    turn = turns.get(id_, CalledTurn(""))
    return RecalledItem(kind, id_, turn_id=turn.turn_id, session_id=turn.session_id)


@attrs.frozen
class ContextChange:
    """How a context changes.

    Attributes:
        change: How much of it, from 0 to 1: see `measure_change`.
        appeared: What is recalled only afterwards, sorted.
        vanished: What was recalled only before, sorted.
    """

    change: float
    appeared: Sequence[RecalledItem] = ()
    vanished: Sequence[RecalledItem] = ()

    @property
    def is_changed(self) -> bool:
        """Whether the context says something else, or the same in another order."""
        return self.change > 0.0

    def to_wire(self) -> dict[str, Any]:
        """Return the change as JSON."""
        return {
            "change": self.change,
            "appeared": [item.to_wire() for item in self.appeared],
            "vanished": [item.to_wire() for item in self.vanished],
        }


def compare_contexts(before: AskedContext, after: AskedContext) -> ContextChange:
    """Return how a context changes."""
    return ContextChange(
        measure_change(before.text, after.text),
        tuple(sorted(after.items - before.items)),
        tuple(sorted(before.items - after.items)),
    )


def measure_change(before: str, after: str) -> float:
    """Return how much two contexts differ, from 0 (the same lines in the same order) to 1 (no line in common).

    It is the share of the lines of both contexts that are only in one of them. A line that is in both and has moved
    past others counts as a quarter of one that was replaced by another. The headers of sections do not count. The
    number is the same in both directions, and rounded to 6 digits.

    Args:
        before: A context, as the engine builds it.
        after: The other one.
    """
    first, second = _list_content_lines(before), _list_content_lines(after)
    total = len(first) + len(second)
    if not total:
        return 0.0
    place = {line: number for number, line in enumerate(second)}
    places = [place[line] for line in first if line in place]
    moved = len(places) - _count_ascending(places)
    share = 1.0 - (2 * len(places) - moved / 2) / total
    return max(round(share, _CHANGE_DIGITS), 1 / _UNITS) if share > 0.0 else 0.0


def _list_content_lines(context: str) -> list[tuple[str, str, int]]:
    """Return the lines with what was recalled: each with its section, and its number among equal ones there."""
    found: list[tuple[str, str, int]] = []
    counts: Counter[tuple[str, str]] = Counter()
    section = ""
    for text in _without_headers(context):
        if text.startswith("## "):
            section = text
        elif text:
            counts[section, text] += 1
            found.append((section, text, counts[section, text]))
    return found


_HEADERS = {tuple(header.split("\n")) for header in SECTION_HEADERS.values()}


def _without_headers(context: str) -> Iterator[str]:
    """Yield the lines of a context without the notes below the titles of its sections."""
    former = ""
    for line in context.split("\n"):
        if (former, line) not in _HEADERS:
            yield line
        former = line


def _count_ascending(numbers: Iterable[int]) -> int:
    """Return how many of some numbers, which are all different, are in order once the fewest are taken out."""
    ends: list[int] = []  # by length, the smallest number with which so many in order can end
    for number in numbers:
        position = bisect_left(ends, number)
        ends[position : position + 1] = [number]
    return len(ends)


@attrs.define
class ReplaySummary:
    """What the changes of a replay are together. Add them one by one, in any order.

    Attributes:
        questions: The number of questions.
        changed: How many of them get another context.
    """

    questions: int = 0
    changed: int = 0
    _total: int = 0  # in units of the last digit: the sum of floats would depend on their order
    _counts: dict[tuple[str, str], Counter[tuple[str, str]]] = attrs.field(factory=dict)

    def add(self, change: Mapping[str, Any], *, is_changed: bool) -> None:
        """Add the change of a question.

        Args:
            change: The change, as `ContextChange.to_wire` writes it; of one that is not changed, anything.
            is_changed: Whether the context changes.
        """
        self.questions += 1
        if not is_changed:
            return
        self.changed += 1
        self._total += round(change["change"] * _UNITS)
        for direction in ("appeared", "vanished"):
            for item in change[direction]:
                counter = self._counts.setdefault((item["kind"], direction), Counter())
                counter[item.get("index", ""), item.get("document", item.get("id", ""))] += 1

    def to_wire(self) -> dict[str, Any]:
        """Return the summary as JSON. It names documents, and of the callers' facts and turns only the numbers."""
        return {
            "questions": self.questions,
            "changed": self.changed,
            "changedShare": _divide(self.changed, self.questions),
            "meanChange": _divide(self._total / _UNITS, self.questions),
            "documents": {direction: self._list_documents(direction) for direction in ("appeared", "vanished")},
            "counts": {
                _SUMMARY_NAMES[kind]: {
                    direction: self._counts.get((kind, direction), Counter()).total()
                    for direction in ("appeared", "vanished")
                }
                for kind in KINDS
            },
        }

    def _list_documents(self, direction: str) -> list[dict[str, Any]]:
        counter = self._counts.get(("document", direction), Counter())
        ranked = sorted(counter.items(), key=lambda entry: (-entry[1], entry[0]))
        return [{"index": key[0], "document": key[1], "questions": count} for key, count in ranked[:_MAX_LISTED]]


def _divide(value: float, count: int) -> float:
    return round(value / count, _CHANGE_DIGITS) if count else 0.0


def split_evenly(total: int, parts: int) -> list[range]:
    """Return consecutive ranges that cover ``range(total)``, at most ``parts``, none empty, as equal as can be.

    Args:
        total: How many there are.
        parts: How many ranges there may be, at least 1.
    """
    count = min(total, parts)
    bounds = [number * total // count for number in range(count + 1)] if count else []
    return [range(begin, end) for begin, end in pairwise(bounds)]
