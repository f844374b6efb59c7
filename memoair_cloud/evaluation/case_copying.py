"""Copy a case from a turn of a call: the question as it was asked, with what was known at that moment.

Numbers of all kinds are redacted. Calls and turns get new ids, so that a case that is kept as given text names neither.
A turn that has to be recalled is named by its event, or by its id in its call.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from memoair_cloud.audit.log import AuditAction, record_change
from memoair_cloud.calls.users import lock_user
from memoair_cloud.consolidation import Fact
from memoair_cloud.database.evaluation_models import SuiteCase
from memoair_cloud.errors import ConflictError, InvalidRequestError, NotFoundError
from memoair_cloud.evaluation.cases import (
    check_size,
    find_next_position,
    make_case_row,
    measure_content,
    note_change,
    parse_content,
)
from memoair_cloud.evaluation.known_then import KnownThen, SaidTurn, load_known_then
from memoair_cloud.evaluation.suites import load_suite
from memoair_cloud.identifiers import new_id
from memoair_cloud.tenancy.access import Tenant
from memoair_evaluation.case import RecallCase
from memoair_evaluation.redaction import redact_case
from memoair_protocol.limits import MAX_CASE_BYTES, MAX_QUERY_CHARS
from memoair_protocol.timestamps import format_utc

# What people and programs add to a copied case until the limit.
_SPARE_BYTES = 64 << 10


@attrs.frozen
class CaseDraft:
    """What is copied, and what must be recalled for it.

    Attributes:
        user_id: The caller.
        session_id: The call.
        event_id: The event of the turn with which the question was asked.
        case_id: The id of the new case; None for a new one.
        must: What must be recalled, as in a case. A turn is named by its event, or by its id in its call.
        must_not: What must not be recalled.
        expected_answer: The answer that a judge compares with; empty for none.
        tags: For reading.
        notes: For reading.
        keeps_text: Whether the case stays when the caller is erased: then it is text that was given.
    """

    user_id: str
    session_id: str
    event_id: str
    case_id: str | None = None
    must: Sequence[Mapping[str, Any]] = ()
    must_not: Sequence[Mapping[str, Any]] = ()
    expected_answer: str = ""
    tags: Sequence[str] = ()
    notes: str = ""
    keeps_text: bool = False


@attrs.frozen
class CopiedCase:
    """A case that was copied from a call.

    Attributes:
        row: The case.
        left_out: How many of the caller's oldest turns it does not have, because there are too many.
    """

    row: SuiteCase
    left_out: int


def copy_case_from_turn(tenant: Tenant, suite_id: str, draft: CaseDraft) -> CopiedCase:
    """Copy a case from a turn of a call to a suite.

    Args:
        tenant: The agent of the suite. The call may be one of another agent of the project.
        suite_id: The suite.
        draft: What is copied.

    Raises:
        NotFoundError: If the agent has no such suite, or the caller no such turn.
        ConflictError: If the suite has a case with this id, or another event corrects the turn.
        InvalidRequestError: If the caller said nothing in the turn, or what must be recalled is invalid.
        BatchTooLargeError: If the suite would be too large.
    """
    with tenant.begin_write() as session:
        user = lock_user(session, draft.user_id)  # before the suite, in the order of all locks
        suite = load_suite(session, suite_id, lock=True)
        if user is None:
            raise NotFoundError("unknown caller", resource="user")
        case, left_out = _make_case(load_known_then(session, draft.user_id, draft.session_id, draft.event_id), draft)
        if session.get(SuiteCase, (session.scope.project_id, suite_id, case.id)) is not None:
            raise ConflictError("the suite has a case with this id already", field="caseId")
        row = make_case_row(session, suite_id, case, find_next_position(session, suite_id))
        if not draft.keeps_text:
            row.user_id = draft.user_id
            row.source = {"sessionId": draft.session_id, "eventId": draft.event_id}
        session.add(row)
        note_change(suite)
        record_change(session, AuditAction.COPIED_CASE, draft.user_id, draft.session_id)
        session.flush()
        check_size(session, suite_id)
        return CopiedCase(row, left_out)


def preview_case_from_turn(tenant: Tenant, draft: CaseDraft) -> CopiedCase:
    """Return the case that `copy_case_from_turn` would add, without adding it to any suite.

    Raises:
        NotFoundError: If the caller has no such turn.
        ConflictError: If another event corrects the turn.
        InvalidRequestError: If the caller said nothing in the turn, or what must be recalled is invalid.
    """
    with tenant.begin_read() as session:
        case, left_out = _make_case(load_known_then(session, draft.user_id, draft.session_id, draft.event_id), draft)
        return CopiedCase(make_case_row(session, "", case, 0), left_out)


def _make_case(known: KnownThen, draft: CaseDraft) -> tuple[RecallCase, int]:
    question = known.turn.user_text[:MAX_QUERY_CHARS]
    if not question.strip():
        raise InvalidRequestError("the caller says nothing in this turn", field="eventId")
    names = _Names.of([*known.earlier, *known.talk])
    profile = {name: value for name, value in known.profile.items() if value}
    if draft.keeps_text:
        profile.pop("metadata", None)  # what an application states of a caller: mostly ids
    content: dict[str, Any] = {
        "id": draft.case_id or new_id("case"),
        "question": question,
        "at": format_utc(known.turn.occurred_at),
        "given": {
            "profile": profile,
            "facts": [_fact_to_wire(fact) for fact in known.facts if fact.text.strip()],
            "turns": [names.to_wire(turn, draft, with_call=True) for turn in known.earlier if _says_something(turn)],
        },
        "talk": [names.to_wire(turn, draft, with_call=False) for turn in known.talk if _says_something(turn)],
        "must": [names.translate(item, "must") for item in draft.must],
        "mustNot": [names.translate(item, "mustNot") for item in draft.must_not],
        "expectedAnswer": draft.expected_answer,
        "tags": list(draft.tags),
        "notes": draft.notes,
    }
    dropped = _shorten(content)
    return redact_case(parse_content(content)), known.left_out + dropped


def _shorten(content: dict[str, Any]) -> int:
    """Drop the oldest turns until a case is within its limit; return how many."""
    turns = [*content["given"]["turns"], *content["talk"]]
    excess = measure_content(content) - (MAX_CASE_BYTES - _SPARE_BYTES)
    dropped = 0
    for turn in turns:
        if excess <= 0:
            break
        excess -= measure_content(turn)
        dropped += 1
    earlier = len(content["given"]["turns"])
    content["given"]["turns"] = content["given"]["turns"][dropped:]
    content["talk"] = content["talk"][max(0, dropped - earlier) :]
    return dropped


def _fact_to_wire(fact: Fact) -> dict[str, Any]:
    return {
        "text": fact.text,
        "kind": fact.kind.value,
        "subject": fact.subject,
        "saidAt": format_utc(fact.said_at),
    }


def _says_something(turn: SaidTurn) -> bool:
    return bool(turn.user_text.strip() or turn.assistant_text.strip())


@attrs.frozen
class _Names:
    """New ids for calls and turns, which say nothing of the old ones."""

    sessions: Mapping[str, str]
    events: Mapping[str, str]
    turn_ids: Mapping[tuple[str, str], str]  # by call and id of the application; without a call, the latest one counts

    @classmethod
    def of(cls, turns: Sequence[SaidTurn]) -> "_Names":
        session_ids = dict.fromkeys(turn.session_id for turn in turns)
        events = {turn.event_id: f"turn-{number}" for number, turn in enumerate(turns, 1)}
        named = {(call, turn.turn_id): events[turn.event_id] for turn in turns for call in ("", turn.session_id)}
        sessions = {session_id: f"call-{number}" for number, session_id in enumerate(session_ids, 1)}
        return cls(sessions, events, named)

    def to_wire(self, turn: SaidTurn, draft: CaseDraft, *, with_call: bool) -> dict[str, Any]:
        """Return a turn as a case has it."""
        wire: dict[str, Any] = {
            "turnId": self.events[turn.event_id],
            "user": turn.user_text,
            "assistant": turn.assistant_text,
            "metadata": {} if draft.keeps_text else turn.metadata,
        }
        if with_call:
            wire |= {"sessionId": self.sessions[turn.session_id], "occurredAt": format_utc(turn.occurred_at)}
        return wire

    def translate(self, expectation: Mapping[str, Any], field: str) -> dict[str, Any]:
        """Return an expectation with the new id of its turn."""
        turn_id, session_id = expectation.get("turn"), expectation.get("session") or ""
        if not isinstance(turn_id, str):
            return dict(expectation)
        new = self.events.get(turn_id) or self.turn_ids.get((str(session_id), turn_id))
        if new is None:
            raise InvalidRequestError(f"{field}: the caller had not said such a turn before this one", field=field)
        return {**expectation, "turn": new, "session": None}
