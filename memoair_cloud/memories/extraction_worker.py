"""Consolidate ended calls: one worker per call at a time, retried if the worker dies, repeated for late events."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import attrs
from sqlalchemy import ColumnElement, Engine, Select, and_, or_, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from memoair_cloud.calls.corrected_turns import drop_corrected
from memoair_cloud.calls.users import lock_user
from memoair_cloud.consolidation import CallTurn, ChatExtractor, Extraction, Extractor
from memoair_cloud.database.leases import is_before, is_over
from memoair_cloud.database.models import CallEvent, CallSession, EndUser
from memoair_cloud.identifiers import sanitize_text
from memoair_cloud.memories.learnable import find_redacted_kinds
from memoair_cloud.memories.model_usage import BUDGET_SPENT, ModelAccounting
from memoair_cloud.memories.reconcile import MemoryReconciler
from memoair_cloud.memories.speaker_time import SpeakerTime
from memoair_cloud.tenancy.access import Tenant, find_project_tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.backoff import Backoff
from memoair_protocol.enums import EventType
from memoair_protocol.interruption import truncate_to_heard
from memoair_protocol.names import clean_name, is_role_name
from memoair_protocol.starvation import is_starved
from memoair_protocol.timestamps import utc_now

log = logging.getLogger(__name__)

# After this time, a worker counts as dead and its call is claimed again. A language model has four minutes per call.
_CLAIM_DURATION = timedelta(minutes=5)
# After this many consecutive failures, a call is not retried until it gets new events or an operator intervenes.
MAX_FAILURES = 5
_MAX_TAG_CHARS = 35
# In the metadata of a turn
_SPEAKER_KEYS = ("speakerName", "speaker", "speakerId")
_BACKOFF = Backoff(30.0, max_s=3_600.0, jitter=0)


class ExtractionOutcome(str, Enum):
    """The outcome of consolidating a call."""

    DONE = "done"
    FELL_BACK = "fell_back"  # the model failed, so the rules extracted the facts
    FAILED = "failed"
    SUPERSEDED = "overtaken"  # the user was erased, or another worker took over


@attrs.frozen
class _CallClaim:
    """One worker's exclusive right to consolidate a call, until a deadline."""

    user_id: str
    session_id: str
    until: datetime


@attrs.frozen
class ExtractionWorker:
    """Consolidates calls that have ended or gone silent. Thread-safe.

    Attributes:
        engine: The database of the server.
        extractor: Finds the facts in the turns of a call.
        idle_timeout: How long without a new event until a call counts as ended.
        speaker_time: The time zones in which callers count days.
        accounting: Counts what a language model costs, and limits it.
        now: Returns the current time.
    """

    engine: Engine
    extractor: Extractor
    idle_timeout: timedelta
    speaker_time: SpeakerTime = attrs.field(factory=SpeakerTime)
    accounting: ModelAccounting = attrs.field(factory=ModelAccounting)
    now: Callable[[], datetime] = utc_now

    def process_next_call(self, project_id: str) -> ExtractionOutcome | None:
        """Consolidate the call of a project that has been due longest.

        Args:
            project_id: The project.

        Returns:
            The outcome; None if no call is due.
        """
        tenant = find_project_tenant(self.engine, project_id)
        claim = None if tenant is None else _claim_next_call(tenant, self.now(), self.idle_timeout)
        if tenant is None or claim is None:
            return None
        started_at = time.monotonic()
        try:
            outcome, extraction = self._process(tenant, claim)
        except (OperationalError, InterfaceError, PoolTimeout):
            raise  # no database: the failure cannot be recorded, and the claim expires
        except Exception as error:  # noqa: BLE001 - one unreadable call must not block the calls behind it
            _record_failure(tenant, claim, error, self.now())
            outcome, extraction = ExtractionOutcome.FAILED, None
        fields: dict[str, Any] = {"outcome": outcome.value, "ms": round((time.monotonic() - started_at) * 1e3)}
        if extraction is not None:
            fields |= {"extractor": extraction.extractor, "failure": extraction.failure, "facts": len(extraction.facts)}
            if extraction.usage is not None:
                fields["tokens"] = extraction.usage.prompt_tokens + extraction.usage.completion_tokens
                fields["dropped"] = extraction.usage.dropped.total()
        log.info("consolidated a call", extra={"action": "learned", "fields": fields})
        return outcome

    def find_due_projects(self) -> list[str]:
        """Return the projects that have calls to consolidate."""
        with Session(self.engine) as session:
            statement = select(CallSession.project_id).where(due_condition(self.now(), self.idle_timeout)).distinct()
            return list(session.scalars(statement.order_by(CallSession.project_id)))

    def _process(self, tenant: Tenant, claim: _CallClaim) -> tuple[ExtractionOutcome, Extraction]:
        with tenant.begin_read() as session:
            turns, event_count = _load_turns(session, claim, self.speaker_time)
            is_spent = self.accounting.is_spent(session, self.now().date())
        # May take minutes, so outside of a transaction.
        if is_spent and isinstance(self.extractor, ChatExtractor):
            extraction = self.extractor.fall_back(turns, BUDGET_SPENT)
        else:
            extraction = self.extractor.extract(turns)
        self.accounting.record(tenant, extraction, self.now().date())  # also if the result is not wanted any more
        with tenant.begin_write() as session:
            user = lock_user(session, claim.user_id)
            call = session.scalar(_select_claimed(claim).with_for_update(key_share=True))
            if user is None or call is None:
                return ExtractionOutcome.SUPERSEDED, extraction
            MemoryReconciler(session, user, self.now(), extraction.extractor).replace_session_facts(
                claim.session_id, (*extraction.facts, *extraction.denials), find_redacted_kinds(turns)
            )
            call.learned_count, call.claimed_until = event_count, None
            call.failures, call.retry_at, call.failure = 0, None, extraction.failure
            call.model_usage = self.accounting.describe(extraction.usage)
        return (ExtractionOutcome.FELL_BACK if extraction.failure else ExtractionOutcome.DONE), extraction


def due_condition(now: datetime, idle_timeout: timedelta) -> ColumnElement[bool]:
    """Return the SQL condition that selects the calls to consolidate now."""
    return and_(
        CallSession.learned_count < CallSession.event_count,
        or_(CallSession.ended_at.is_not(None), is_before(CallSession.received_at, now - idle_timeout, now)),
        is_over(CallSession.claimed_until, now, _CLAIM_DURATION),
        is_over(CallSession.retry_at, now + timedelta(microseconds=1), timedelta(seconds=_BACKOFF.max_s)),
        CallSession.failures < MAX_FAILURES,
    )


def _claim_next_call(tenant: Tenant, now: datetime, idle_timeout: timedelta) -> _CallClaim | None:
    due = due_condition(now, idle_timeout)
    with tenant.begin_write() as session:
        oldest_first = select(CallSession).where(due).order_by(CallSession.received_at, CallSession.id).limit(1)
        call = session.scalar(oldest_first.with_for_update(skip_locked=True, key_share=True))
        if call is None:
            return None
        if call.claimed_until is not None:  # the claim expired: its worker is too slow or died, perhaps of this call
            call.failures, call.failure = call.failures + 1, "Lost"
        call.claimed_until = now + _CLAIM_DURATION
        return _CallClaim(call.user_id, call.id, call.claimed_until)


def _select_claimed(claim: _CallClaim) -> "Select[CallSession]":
    """Select the call if the claim still holds."""
    statement = select(CallSession).where(CallSession.user_id == claim.user_id, CallSession.id == claim.session_id)
    return statement.where(CallSession.claimed_until == claim.until)


def _load_turns(session: ScopedSession, claim: _CallClaim, speaker_time: SpeakerTime) -> tuple[Sequence[CallTurn], int]:
    """Return all turns of a call so far, and its number of events."""
    call = session.scalar(_select_claimed(claim))
    user = session.get(EndUser, (session.scope.project_id, claim.user_id))
    if call is None or user is None:
        return (), 0
    statement = select(CallEvent).where(
        CallEvent.user_id == claim.user_id,
        CallEvent.session_id == claim.session_id,
        CallEvent.type == EventType.TURN.value,
    )
    # Two machines that take part in a call at the same moment may give one number to two events.
    in_order = statement.order_by(CallEvent.seq, CallEvent.occurred_at, CallEvent.id)
    events = drop_corrected(session.scalars(in_order).all())
    caller, agent = _sanitize_name(user.name), _sanitize_name(call.details.get("assistantName"))
    if is_role_name(caller):  # a caller who goes by "System" is not quoted as one
        caller = ""
    turns = [_to_turn(event, number, caller, agent) for number, event in enumerate(events)]
    project_id, details = session.scope.project_id, (call.details, user.details)
    said_at = [
        speaker_time.localize(turn.said_at, project_id, event.payload.get("metadata"), *details)
        for turn, event in zip(turns, events, strict=True)
    ]
    languages = [_named_language(event.payload.get("metadata"), *details) for event in events]
    return [
        attrs.evolve(turn, said_at=at, language=language)
        for turn, at, language in zip(turns, said_at, languages, strict=True)
    ], call.event_count


def _to_turn(event: CallEvent, number: int, caller: str, agent: str) -> CallTurn:
    payload = truncate_to_heard(event.payload)  # not every turn was sent by a runtime, which would have done it
    metadata = payload.get("metadata")
    return CallTurn(
        event_id=event.id,
        session_id=event.session_id,
        number=number,
        user_text=sanitize_text(payload["userText"]),
        assistant_text=sanitize_text(payload["assistantText"]),
        said_at=event.occurred_at,
        caller=caller,
        agent=_sanitize_name(metadata.get("assistantName") if isinstance(metadata, dict) else None) or agent,
        speaker=_speaker_of(metadata) if isinstance(metadata, dict) else "",
    )


def _named_language(*metadata: object) -> str:
    """Return the tag of a language that the metadata of a turn, its call or its user name first; empty if none does."""
    tags = (details.get("language") for details in metadata if isinstance(details, dict))
    return next((tag[:_MAX_TAG_CHARS] for tag in tags if isinstance(tag, str) and tag.strip()), "")


def _speaker_of(metadata: Mapping[str, Any]) -> str:
    """Return how the transcript labels who spoke: by name, else by a label such as "S2"."""
    labels = (_sanitize_name(metadata.get(key)).strip() for key in _SPEAKER_KEYS)
    return next((label for label in labels if label), "")


def _sanitize_name(value: object) -> str:
    return clean_name(sanitize_text(value)) if isinstance(value, str) else ""


def _record_failure(tenant: Tenant, claim: _CallClaim, error: Exception, now: datetime) -> None:
    # Only the type: a message may quote a caller.
    failure = type(error).__name__
    log.error("a call could not be consolidated", extra={"action": "learning_failed", "fields": {"error": failure}})
    with tenant.begin_write() as session:
        call = session.scalar(_select_claimed(claim).with_for_update(key_share=True))
        if call is not None:
            call.failures += not is_starved(error)  # the call is not to blame
            call.claimed_until, call.failure = None, failure
            call.retry_at = now + timedelta(seconds=_BACKOFF.pause_s(max(1, call.failures)))
