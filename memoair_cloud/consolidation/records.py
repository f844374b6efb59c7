"""What consolidation speaks of: turns go in, facts about the caller and his profile come out."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from hashlib import blake2b
from typing import Protocol

import attrs

# The value of a fact that says that nothing holds any more: "I don't have a dog any more".
NO_VALUE = ""
# Whom a fact is about, where it is not one of his people or animals.
CALLER_SUBJECT, AGENT_SUBJECT = "caller", "agent"


class FactKind(str, Enum):
    """What a fact tells of."""

    IDENTITY = "identity"  # who the caller is and where he is reached
    PREFERENCE = "preference"  # what he likes, cannot bear, or wants to be done in his way
    PLAN = "plan"  # what he is going to do
    EVENT = "event"  # what he did, or what happened to him
    COMMITMENT = "commitment"  # what the agent has promised or done for him
    RELATION = "relation"  # his people and his animals


@attrs.frozen
class CallTurn:
    """The caller spoke, the agent answered. ``number`` counts the session's turns; names are empty where unknown."""

    event_id: str
    session_id: str
    number: int
    user_text: str
    assistant_text: str
    said_at: datetime
    caller: str = ""
    agent: str = ""


@attrs.frozen
class Fact:
    """One plain sentence in the third person, with where it comes from.

    Facts of the same subject and attribute speak of the same thing. ``corrects`` is the value that was put right.
    The days are those of the time that was told, both ends included; None where none was.
    ``closed_by`` and ``repeats`` are ids of other facts, and merging alone sets them.
    """

    kind: FactKind
    text: str
    subject: str
    attribute: str
    value: str
    event_id: str
    session_id: str
    number: int
    said_at: datetime
    holds_from: date | None = None
    holds_until: date | None = None
    is_one_of_many: bool = False  # the attribute may have several values at once: likings, children
    corrects: str | None = None
    absorbs: tuple[str, ...] | None = None  # of a correction by hand: whoever said these before meant what it says
    closed_by: str | None = None  # history: that one has taken its place
    repeats: str | None = None  # that one had said the same already, and still stood

    @property
    def id(self) -> str:
        """The same for the same statement in the same turn, on every machine and in every run."""
        parts = (self.session_id, self.event_id, self.kind.value, self.subject, self.attribute, self.value)
        encoded = "".join(f"{len(part)}:{part}" for part in parts)
        return f"fact_{blake2b(encoded.encode(errors='replace'), digest_size=12).hexdigest()}"

    @property
    def is_current(self) -> bool:
        """Whether it belongs in the projection: it stands, and nothing else says it already."""
        return self.closed_by is None and self.repeats is None


@attrs.frozen
class ProfileSummary:
    """The caller in a few lines, and by attribute."""

    summary: str = ""
    attributes: Mapping[str, str | list[str]] = attrs.field(factory=dict)


@attrs.frozen
class Extraction:
    """What an extractor found, which one it was, and why it was not the one that was asked (None if it was)."""

    facts: tuple[Fact, ...]
    extractor: str
    failure: str | None = None


class Extractor(Protocol):
    """Finds facts in the turns of one session, which stand in the order in which they were spoken. Never fails."""

    def extract(self, turns: Sequence[CallTurn]) -> Extraction:
        """The facts that these turns tell."""
        ...
