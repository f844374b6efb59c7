"""Learning from calls that are over: one worker at a call, whatever dies, and again where something came late."""

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import attrs
from sqlalchemy import ColumnElement, Engine, Select, and_, or_, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from memoair_cloud.calls.event_parsing import IncomingEventType
from memoair_cloud.calls.users import locked_caller
from memoair_cloud.consolidation import CallTurn, Extraction, Extractor
from memoair_cloud.database.models import CallEvent, CallSession, EndUser
from memoair_cloud.identifiers import MAX_NAME_CHARS, sound_text
from memoair_cloud.memories.reconcile import MemoryReconciler
from memoair_cloud.tenancy.access import Tenant, tenant_of_project
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_cloud.timeutil import utc_now

log = logging.getLogger(__name__)

# A worker that has not come back by then has died. A language model has a minute for a call.
_CLAIM = timedelta(minutes=5)
# After so many failures one after another a call is let alone, until something new comes in it or an operator says so.
MOST_FAILURES = 5
_FIRST_PAUSE = timedelta(seconds=30)


class ExtractionOutcome(str, Enum):
    """What became of a call that was to be learned from."""

    DONE = "done"
    FELL_BACK = "fell_back"  # by the rules, since the model failed
    FAILED = "failed"
    OVERTAKEN = "overtaken"  # the caller was forgotten meanwhile, or another worker took over


@attrs.frozen
class _Claim:
    """The right of one worker to learn from one call, until a moment."""

    user_id: str
    session_id: str
    until: datetime


@attrs.frozen
class ExtractionWorker:
    """Learns from calls that have ended, or in which nothing has come for ``idle``. Safe to use from any thread."""

    engine: Engine
    extractor: Extractor
    idle: timedelta

    def learn_one(self, project_id: str) -> ExtractionOutcome | None:
        """Learn from a call of a project that is due; None where there is none."""
        tenant = tenant_of_project(self.engine, project_id)
        claim = None if tenant is None else _claim(tenant, is_due(utc_now(), self.idle))
        if tenant is None or claim is None:
            return None
        began_at = time.monotonic()
        try:
            outcome, extraction = self._learn(tenant, claim)
        except (OperationalError, InterfaceError, PoolTimeout):
            raise  # the database is gone: nothing can be noted, and the claim runs out
        except Exception as error:  # noqa: BLE001 - one call that can't be read must not stop those behind it
            _note_failure(tenant, claim, error)
            outcome, extraction = ExtractionOutcome.FAILED, None
        fields: dict[str, Any] = {"outcome": outcome.value, "ms": round((time.monotonic() - began_at) * 1e3)}
        if extraction is not None:
            fields |= {"extractor": extraction.extractor, "failure": extraction.failure, "facts": len(extraction.facts)}
        log.info("learned", extra={"action": "learned", "fields": fields})
        return outcome

    def projects_due(self) -> list[str]:
        """The projects in which there is something to learn from."""
        with Session(self.engine) as session:
            due = select(CallSession.project_id).where(is_due(utc_now(), self.idle)).distinct()
            return list(session.scalars(due.order_by(CallSession.project_id)))

    def _learn(self, tenant: Tenant, claim: _Claim) -> tuple[ExtractionOutcome, Extraction]:
        with tenant.reading() as session:
            turns, events = _turns(session, claim)
        extraction = self.extractor.extract(turns)  # may take a minute, so in no transaction
        with tenant.writing() as session:
            user = locked_caller(session, claim.user_id)
            call = session.scalar(_claimed(claim).with_for_update(key_share=True))
            if user is None or call is None:
                return ExtractionOutcome.OVERTAKEN, extraction
            MemoryReconciler(session, user, utc_now(), extraction.extractor).relearn(claim.session_id, extraction.facts)
            call.learned_count, call.claimed_until = events, None
            call.failures, call.retry_at, call.failure = 0, None, extraction.failure
        return (ExtractionOutcome.FELL_BACK if extraction.failure else ExtractionOutcome.DONE), extraction


def is_due(now: datetime, idle: timedelta) -> ColumnElement[bool]:
    """What is to be learned from now."""
    return and_(
        CallSession.learned_count < CallSession.event_count,
        or_(CallSession.ended_at.is_not(None), CallSession.received_at < now - idle),
        or_(CallSession.claimed_until.is_(None), CallSession.claimed_until < now),
        or_(CallSession.retry_at.is_(None), CallSession.retry_at <= now),
        CallSession.failures < MOST_FAILURES,
    )


def _claim(tenant: Tenant, due: ColumnElement[bool]) -> _Claim | None:
    with tenant.writing() as session:
        first = select(CallSession).where(due).order_by(CallSession.received_at, CallSession.id).limit(1)
        call = session.scalar(first.with_for_update(skip_locked=True, key_share=True))
        if call is None:
            return None
        if call.claimed_until is not None:  # whoever had it did not come back: died of it, or needs too long
            call.failures, call.failure = call.failures + 1, "Lost"
        call.claimed_until = utc_now() + _CLAIM
        return _Claim(call.user_id, call.id, call.claimed_until)


def _claimed(claim: _Claim) -> "Select[CallSession]":
    """The call, if the claim still holds."""
    mine = select(CallSession).where(CallSession.user_id == claim.user_id, CallSession.id == claim.session_id)
    return mine.where(CallSession.claimed_until == claim.until)


def _turns(session: ScopedSession, claim: _Claim) -> tuple[Sequence[CallTurn], int]:
    """All that was said in a call so far, and how many events that is."""
    call = session.scalar(_claimed(claim))
    user = session.get(EndUser, (session.scope.project_id, claim.user_id))
    if call is None or user is None:
        return (), 0
    wanted = select(CallEvent).where(
        CallEvent.user_id == claim.user_id,
        CallEvent.session_id == claim.session_id,
        CallEvent.type == IncomingEventType.TURN.value,
    )
    turns = session.scalars(wanted.order_by(CallEvent.seq, CallEvent.id))
    caller, agent = _name(user.name), _name(call.details.get("assistantName"))
    return [_turn(event, number, caller, agent) for number, event in enumerate(turns)], call.event_count


def _turn(event: CallEvent, number: int, caller: str, agent: str) -> CallTurn:
    told = event.payload.get("metadata")
    metadata = told if isinstance(told, dict) else {}
    # A runtime puts what was heard into the place of what was meant; what is imported comes as it was told.
    heard = metadata.get("heard")
    return CallTurn(
        event_id=event.id,
        session_id=event.session_id,
        number=number,
        user_text=sound_text(event.payload["userText"]),
        assistant_text=sound_text(heard if isinstance(heard, str) else event.payload["assistantText"]),
        said_at=event.occurred_at,
        caller=caller,
        agent=_name(metadata.get("assistantName")) or agent,
    )


def _name(value: object) -> str:
    return sound_text(value)[:MAX_NAME_CHARS] if isinstance(value, str) else ""


def _note_failure(tenant: Tenant, claim: _Claim, error: Exception) -> None:
    # Its kind only: a message may quote what was said.
    kind = type(error).__name__
    log.error("a call can't be learned from", extra={"action": "learning_failed", "fields": {"error": kind}})
    with tenant.writing() as session:
        call = session.scalar(_claimed(claim).with_for_update(key_share=True))
        if call is not None:
            call.failures += 1
            call.claimed_until, call.failure = None, kind
            call.retry_at = utc_now() + _FIRST_PAUSE * 2 ** (call.failures - 1)
