"""The records of cases, and their JSON. `memoair_evaluation.case` reads it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from memoair_protocol.enums import LaneName
from memoair_protocol.hashes import hash_content
from memoair_protocol.timestamps import format_utc

# The session in which a case asks its question; the turns of `RecallCase.talk` belong to it.
CURRENT_SESSION = "evaluation:current"


@attrs.frozen
class GivenTurn:
    """A turn that the caller and the agent have spoken before.

    Attributes:
        user: What the caller said.
        assistant: What the agent answered; empty for nothing.
        turn_id: Its id, unique in its session; empty for "given-1", "given-2" and so on, by its position.
        session_id: The earlier call that it belongs to; empty for "earlier".
        occurred_at: When it was spoken; None for a minute after the turn before.
        metadata: Metadata, which a filter compares.
    """

    user: str
    assistant: str = ""
    turn_id: str = ""
    session_id: str = ""
    occurred_at: datetime | None = None
    metadata: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class GivenFact:
    """A fact that was learned about the caller. In JSON, a fact that has nothing but its text is that text.

    Attributes:
        text: The fact, a sentence.
        kind: Its kind, such as ``preference``.
        subject: The person or thing that it is about; empty for the caller.
        said_at: When it was said; None for the time of the first turn that is given, or a day before the question.
    """

    text: str
    kind: str = ""
    subject: str = ""
    said_at: datetime | None = None


@attrs.frozen
class Given:
    """What is known of the caller before the question.

    Attributes:
        profile: Their profile: ``name``, ``summary``, ``attributes`` and ``metadata``, all optional.
        facts: Facts about them.
        turns: The turns of earlier calls.
    """

    profile: Mapping[str, Any] = attrs.field(factory=dict)
    facts: Sequence[GivenFact] = ()
    turns: Sequence[GivenTurn] = ()


@attrs.frozen
class Expectation:
    """Something that must, or must not, be recalled: exactly one of fact, document, turn and text.

    Attributes:
        fact: Words of a fact about the caller, or of what was said: a phrase in any section but that of the documents.
        document: The id of a document.
        index: The named index of that document; None for any.
        turn: The id of a turn that was given, or of the talk ("talk-1", "talk-2" and so on unless it has one).
        session: The session of that turn; None for any.
        text: A phrase anywhere in the context.
    """

    fact: str | None = None
    document: str | None = None
    index: str | None = None
    turn: str | None = None
    session: str | None = None
    text: str | None = None

    def to_wire(self) -> dict[str, str]:
        """Return the expectation in JSON."""
        return {name: value for name, value in attrs.asdict(self).items() if value is not None}


@attrs.frozen
class RecallCase:
    """A case of a suite.

    Attributes:
        id: Its id, unique in its suite.
        question: The question that the caller asks.
        given: What is known of the caller; None for an unknown caller.
        talk: The turns of this call before the question.
        at: When the question is asked, so that no score depends on today. None for a day after the last turn that is
            given, or for a fixed day without turns.
        must: What must be recalled.
        must_not: What must not be recalled.
        expected_answer: The answer that a judge compares with; empty for none.
        filter: A condition on metadata, as in a search of the SDK.
        lanes: The lanes that the agent asks; None for all.
        tags: For reading: a case can be found by them.
        notes: For reading.
    """

    id: str
    question: str
    given: Given | None = None
    talk: Sequence[GivenTurn] = ()
    at: datetime | None = None
    must: Sequence[Expectation] = ()
    must_not: Sequence[Expectation] = ()
    expected_answer: str = ""
    filter: Mapping[str, Any] | None = None
    lanes: Sequence[LaneName] | None = None
    tags: Sequence[str] = ()
    notes: str = ""


def case_to_wire(case: RecallCase) -> dict[str, Any]:
    """Return a case in JSON, without the fields that say nothing: `parse_case` makes an equal case of it."""
    wire: dict[str, Any] = {
        "id": case.id,
        "question": case.question,
        "given": None if case.given is None else _given_to_wire(case.given),
        "talk": [_turn_to_wire(turn) for turn in case.talk],
        "at": None if case.at is None else format_utc(case.at),
        "must": [expectation.to_wire() for expectation in case.must],
        "mustNot": [expectation.to_wire() for expectation in case.must_not],
        "expectedAnswer": case.expected_answer,
        "filter": case.filter or None,
        "tags": list(case.tags),
        "notes": case.notes,
    }
    wire = {name: value for name, value in wire.items() if value not in (None, "", [])}
    # No lane at all is a choice: nothing is recalled.
    return wire if case.lanes is None else {**wire, "lanes": [lane.value for lane in case.lanes]}


def hash_case(case: RecallCase) -> str:
    """Return the SHA-256 of all that may change the scores of a case: of its JSON without tags and notes."""
    wire = case_to_wire(case)
    return hash_content({name: value for name, value in wire.items() if name not in ("tags", "notes")})


def _given_to_wire(given: Given) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "profile": dict(given.profile),
        "facts": [_fact_to_wire(fact) for fact in given.facts],
        "turns": [_turn_to_wire(turn) for turn in given.turns],
    }
    return {name: value for name, value in wire.items() if value}


def _fact_to_wire(fact: GivenFact) -> str | dict[str, Any]:
    said_at = None if fact.said_at is None else format_utc(fact.said_at)
    details = {"kind": fact.kind, "subject": fact.subject, "saidAt": said_at}
    known = {name: value for name, value in details.items() if value}
    return {"text": fact.text, **known} if known else fact.text


def _turn_to_wire(turn: GivenTurn) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "turnId": turn.turn_id,
        "sessionId": turn.session_id,
        "occurredAt": None if turn.occurred_at is None else format_utc(turn.occurred_at),
        "user": turn.user,
        "assistant": turn.assistant,
        "metadata": dict(turn.metadata),
    }
    return {name: value for name, value in wire.items() if value or name == "user"}
