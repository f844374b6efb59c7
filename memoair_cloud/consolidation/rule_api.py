"""What the rules of the default extractor read from, and how they write down what they find."""

from collections.abc import Callable, Iterable
from datetime import date
from itertools import chain

import attrs

from memoair_cloud.consolidation.date_expressions import DateRange
from memoair_cloud.consolidation.records import CALLER_SUBJECT, CallTurn, Fact, FactKind


@attrs.frozen
class Statement:
    """One statement of the caller, the turn it was said in, and what both had said right before."""

    clause: str
    turn: CallTurn
    agent_before: str = ""  # the agent's words of the turn before
    caller_before: str = ""  # the caller's own words of the turn before
    has_capitals: bool = True

    @property
    def caller_name(self) -> str:
        """How the caller is called in a sentence."""
        return self.turn.caller.split()[0] if self.turn.caller.split() else "The caller"

    @property
    def caller_possessive(self) -> str:
        """The same, as an owner."""
        return f"{self.caller_name}'s"

    @property
    def today(self) -> date:
        """The day it was said on."""
        return self.turn.said_at.date()


Rule = Callable[[Statement], Iterable[Fact]]


def make_fact(
    turn: CallTurn,
    kind: FactKind,
    text: str,
    attribute: str,
    value: str,
    *,
    subject: str = CALLER_SUBJECT,
    is_one_of_many: bool = False,
    dates: DateRange | None = None,
) -> Fact:
    """A fact that a turn tells."""
    return Fact(
        kind=kind,
        text=f"{text.strip(' .,')}.",
        subject=subject,
        attribute=attribute,
        value=value,
        event_id=turn.event_id,
        session_id=turn.session_id,
        number=turn.number,
        said_at=turn.said_at,
        holds_from=dates.first if dates else None,
        holds_until=dates.last if dates else None,
        is_one_of_many=is_one_of_many,
    )


def apply_rules(rules: Iterable[Rule], statement: Statement) -> list[Fact]:
    """What these rules find in a statement."""
    return list(chain.from_iterable(rule(statement) for rule in rules))
