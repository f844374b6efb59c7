"""The input of the default extractor's rules, and a constructor for the facts that they return."""

from collections.abc import Callable, Iterable
from datetime import date
from itertools import chain

import attrs

from memoair_cloud.consolidation.date_expressions import DateRange
from memoair_cloud.consolidation.records import CALLER_SUBJECT, CallTurn, Fact, FactKind


@attrs.frozen
class Statement:
    """One clause that the caller said, with its context.

    Attributes:
        clause: The clause.
        turn: The turn that contains it.
        agent_before: What the agent said in the previous turn.
        caller_before: What the caller said in the previous turn.
        has_capitals: Whether the turn's text has capitals, so that a name can be recognized by them.
    """

    clause: str
    turn: CallTurn
    agent_before: str = ""
    caller_before: str = ""
    has_capitals: bool = True

    @property
    def caller_name(self) -> str:
        """The caller's first name, as the subject of a sentence."""
        return self.turn.caller.split()[0] if self.turn.caller.split() else "The caller"

    @property
    def caller_possessive(self) -> str:
        """The caller's first name in the possessive."""
        return f"{self.caller_name}'s"

    @property
    def today(self) -> date:
        """The day on which the statement was made."""
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
    """Create a fact from a turn."""
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
    """Return the facts that the rules find in a statement."""
    return list(chain.from_iterable(rule(statement) for rule in rules))
