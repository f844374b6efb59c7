"""The records of consolidation: turns go in, facts and a profile come out."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from hashlib import blake2b
from typing import Protocol

import attrs

from memoair_cloud.consolidation.usage import ModelUsage

# The value of a fact that says that nothing holds any longer: "I don't have a dog any more".
NO_VALUE = ""
# How the value of a denial begins: it closes what it denies, and says nothing else.
DENIED = "denied: "
# The attribute of a fact that ends others: those of a kind with a value ("end of relation"), or plans by their name.
END_OF_RELATION, END_OF_PLAN = "end of relation", "end of plan: "
# ... or those that its words name, of a relative if the attribute goes on with one.
END_OF_FACT = "end of fact: "
# The subject of a fact, unless it is one of the caller's people or animals.
CALLER_SUBJECT, AGENT_SUBJECT = "caller", "agent"
# The subject of a statement on a shared number whose speaker is unknown, and what texts call a caller without a name.
UNNAMED_SUBJECT, UNNAMED_CALLER = "unnamed caller", "The caller"
# The attributes of the name of a caller, and of the name of another person on the line.
NAME, OTHER_CALLER = "name", "other caller"
OTHER_CALLER_TEXT = "{name} has also been on the line."
# As the value that a fact corrects: whatever the value was. "My name is now Dana Doyle."
ANY_VALUE = "*"


class FactKind(str, Enum):
    """The kind of a fact."""

    IDENTITY = "identity"  # who the caller is and how to reach them
    PREFERENCE = "preference"  # likes, dislikes, needs, and how they want things done
    PLAN = "plan"  # what they are going to do
    EVENT = "event"  # what they did, or what happened to them
    COMMITMENT = "commitment"  # what the agent has promised or done for them
    RELATION = "relation"  # their people and animals


@attrs.frozen
class CallTurn:
    """What the caller said and what the agent answered.

    Attributes:
        event_id: The id of the turn's event.
        session_id: The session that it belongs to.
        number: The position of the turn in the session, from 0.
        user_text: What the caller said.
        assistant_text: What the caller heard of the agent's answer.
        said_at: When it was said, in the time zone of the speaker: the days that they name are counted in it.
        caller: The caller's name; empty if unknown.
        agent: The agent's name; empty if unknown.
        language: The tag of the language that the caller is said to speak: "de-DE"; empty if unknown.
        speaker: Who spoke for the caller's side, as the transcript labels them: a name or a label; empty if unknown.
    """

    event_id: str
    session_id: str
    number: int
    user_text: str
    assistant_text: str
    said_at: datetime
    caller: str = ""
    agent: str = ""
    language: str = ""
    speaker: str = ""


@attrs.frozen
class Fact:
    """One plain sentence in the third person, and its source.

    Facts with the same subject and attribute are about the same thing. Merging alone sets ``closed_by`` and
    ``repeats``.

    Attributes:
        kind: The kind of the fact.
        text: The sentence.
        subject: Who or what it is about: `CALLER_SUBJECT`, `AGENT_SUBJECT`, or a person or animal.
        attribute: What it says about the subject, as a short key.
        value: The value of the attribute; `NO_VALUE` if nothing holds any longer.
        event_id: The turn that it comes from.
        session_id: The session of that turn.
        number: The position of that turn in the session.
        said_at: When it was said.
        holds_from: The first day of the time that was named; None if none was.
        holds_until: The last day of that time, included.
        is_one_of_many: Whether the attribute can have several values at the same time, such as likes or children.
        corrects: The value that this fact corrects.
        absorbs: For a correction by hand: values that earlier facts gave by mistake. Those facts count as repeats of
            it.
        closed_by: The id of the fact that replaced this one, which is now history.
        repeats: The id of an earlier current fact that says the same.
        speaker: The name of the caller who said it, where the talk or the transcript names one; empty otherwise.
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
    is_one_of_many: bool = False
    corrects: str | None = None
    absorbs: tuple[str, ...] | None = None
    closed_by: str | None = None
    repeats: str | None = None
    speaker: str = ""

    @property
    def own_subject(self) -> str:
        """The subject as it was extracted, when it was not known yet that several people call."""
        is_marked = self.subject == UNNAMED_SUBJECT or (self.speaker != "" and self.subject == self.speaker)
        return CALLER_SUBJECT if is_marked else self.subject

    @property
    def id(self) -> str:
        """The id, which is the same for the same statement in the same turn, on every machine and in every run."""
        parts = (self.session_id, self.event_id, self.kind.value, self.own_subject, self.attribute, self.value)
        encoded = "".join(f"{len(part)}:{part}" for part in parts)
        return f"fact_{blake2b(encoded.encode(errors='replace'), digest_size=12).hexdigest()}"

    @property
    def is_denial(self) -> bool:
        """Whether the fact only closes others, and is never current itself."""
        return self.value.startswith(DENIED)

    @property
    def is_current(self) -> bool:
        """Whether the fact belongs in the projection: nothing has replaced it, and it repeats no other current fact."""
        return self.closed_by is None and self.repeats is None


@attrs.frozen
class ProfileSummary:
    """The profile of a caller.

    Attributes:
        summary: A few lines of text.
        attributes: Values by attribute; a list where an attribute has several.
    """

    summary: str = ""
    attributes: Mapping[str, str | list[str]] = attrs.field(factory=dict)


@attrs.frozen
class Extraction:
    """The facts that an extractor found.

    Attributes:
        facts: The facts.
        extractor: The name of the extractor that found them.
        failure: Why another extractor than the configured one was used, as the type of the error; None if it was not.
        denials: What was said not to hold, without that it ever did: "I'm not married". It closes what was learned in
            other calls, and is no fact by itself.
        usage: What a language model used; None if none was asked.
    """

    facts: tuple[Fact, ...]
    extractor: str
    failure: str | None = None
    denials: tuple[Fact, ...] = ()
    usage: ModelUsage | None = None


class Extractor(Protocol):
    """Finds facts in the turns of one session. Implementations must not raise."""

    def extract(self, turns: Sequence[CallTurn]) -> Extraction:
        """Return the facts in the turns of one session.

        Args:
            turns: The turns in the order in which they were spoken.
        """
        ...
