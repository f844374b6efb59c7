"""Save outcomes that applications report: each one once, in any order, before its call arrives or after."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import select

from memoair_cloud.calls.erased_events import MAX_CLOCK_SKEW
from memoair_cloud.calls.users import find_erased_sessions, find_erasure, find_sessions_of_erased_users
from memoair_cloud.database.models import CallSession, EndUser
from memoair_cloud.database.outcome_models import CallOutcome
from memoair_cloud.errors import ApiError, ConflictError, UserErasedError
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.grants import Action
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.hashes import hash_user_id
from memoair_protocol.timestamps import utc_now

# A transaction locks the users of these calls against erasures: it must be short.
_ROWS_PER_TRANSACTION = 500
_SHARED_ID = "several users have a session with this id: pass userId"
_ERASED_SESSION = "a user with a session of this id was erased: if this is the session of another user, pass userId"


@attrs.frozen
class ReportedOutcome:
    """An outcome as an application reports it, validated.

    Attributes:
        session_id: The session.
        outcome: The name of the outcome, such as ``resolved``.
        user_id: Whose session it is; None if the application does not say.
        score: A number, if there is one.
        occurred_at: When it happened; None for now.
        outcome_id: Distinguishes several outcomes of the same name in one session; None: there is one of each name.
    """

    session_id: str
    outcome: str
    user_id: str | None = None
    score: float | None = None
    occurred_at: datetime | None = None
    outcome_id: str | None = None


@attrs.frozen
class OutcomeRejection:
    """An outcome that was not saved.

    Attributes:
        index: Its place in the batch, from 0.
        reason: Why.
    """

    index: int
    reason: str


@attrs.define
class OutcomeReceipt:
    """What became of a batch.

    Attributes:
        accepted: The number of outcomes that were saved, or would be.
        unknown_sessions: How many of them are of sessions that have not arrived.
        rejected: Those that were not saved.
        began_at: When the known sessions began.
    """

    accepted: int = 0
    unknown_sessions: int = 0
    rejected: list[OutcomeRejection] = attrs.field(factory=list)
    began_at: set[datetime] = attrs.field(factory=set)


def report_outcomes(
    tenant: Tenant, outcomes: Sequence[ReportedOutcome], *, is_dry_run: bool = False, now: datetime | None = None
) -> OutcomeReceipt:
    """Save outcomes. One that was reported before is replaced.

    A session has one outcome of each name, and one of each outcome id. Outcomes are rejected one by one; the others are
    saved, in transactions of some hundred: after a failure, send all of them again.

    Args:
        tenant: The project, and the agent that reports, if any.
        outcomes: The outcomes.
        is_dry_run: Save nothing, and return what would become of them.
        now: When they arrive; by default the current time.
    """
    receipt = OutcomeReceipt()
    now = now or utc_now()
    numbered = list(enumerate(outcomes))
    for start in range(0, len(numbered), _ROWS_PER_TRANSACTION):
        with tenant.begin_write(Action.INGEST) as session:
            _store(session, numbered[start : start + _ROWS_PER_TRANSACTION], receipt, now, is_dry_run=is_dry_run)
    return receipt


def hash_outcome(user_digest: str | None, session_id: str, outcome: str, outcome_id: str | None) -> str:
    """Return the id of an outcome: what a report replaces has the same.

    It has only the hash of the user, so that it stays when their call arrives.
    """
    name = None if outcome_id is not None else outcome
    return hashlib.sha256(json.dumps([user_digest, session_id, outcome_id, name]).encode()).hexdigest()


def _store(
    session: ScopedSession,
    batch: Sequence[tuple[int, ReportedOutcome]],
    receipt: OutcomeReceipt,
    now: datetime,
    *,
    is_dry_run: bool,
) -> None:
    owners = _find_owners(session, {outcome.session_id for _, outcome in batch})
    erased = _ErasedSessions(session, [outcome for _, outcome in batch])
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for index, outcome in batch:
        try:
            sessions = owners.get(outcome.session_id, {})
            user_id = _resolve_user(outcome, list(sessions))
            if user_id is None:
                erased.check(outcome, now)
            else:
                receipt.began_at.add(sessions[user_id])
        except ApiError as error:
            receipt.rejected.append(OutcomeRejection(index, error.message))
            continue
        row = _outcome_row(session, outcome, user_id, now)
        rows[outcome.session_id, row["id"]] = row  # of two in a batch, the last one counts
        receipt.accepted += 1
        receipt.unknown_sessions += user_id is None
    if not is_dry_run:
        in_order = [rows[key] for key in sorted(rows)]  # so that two reports of the same outcomes cannot deadlock
        session.insert_or_replace(CallOutcome, in_order, ["project_id", "session_id", "id"])


def _find_owners(session: ScopedSession, session_ids: Iterable[str]) -> dict[str, dict[str, datetime]]:
    """Return the users of each known session, with when it began.

    They are locked until the end of the transaction: none of them is erased.
    """
    columns = CallSession.id, CallSession.user_id, CallSession.started_at
    statement = select(*columns).where(CallSession.id.in_(set(session_ids)))
    user_ids = {row.user_id for row in session.execute(statement)}
    if not user_ids:
        return {}
    # In one order, so that two reports cannot deadlock; other writers lock one user only.
    locked = select(EndUser.id).where(EndUser.id.in_(user_ids)).order_by(EndUser.id).with_for_update(read=True)
    session.execute(locked).all()
    owners: dict[str, dict[str, datetime]] = {}
    for row in session.execute(statement.where(CallSession.user_id.in_(user_ids))):
        owners.setdefault(row.id, {})[row.user_id] = row.started_at
    return owners


def _resolve_user(outcome: ReportedOutcome, owners: Sequence[str]) -> str | None:
    """Return whose session it is; None if the session has not arrived."""
    if outcome.user_id is not None:
        return outcome.user_id if outcome.user_id in owners else None
    if len(owners) > 1:
        raise ConflictError(_SHARED_ID)
    return owners[0] if owners else None


class _ErasedSessions:
    """Tells which outcomes of unknown sessions are of users who were erased."""

    def __init__(self, session: ScopedSession, outcomes: Sequence[ReportedOutcome]) -> None:
        self._session = session
        self._by_user: dict[str, tuple[datetime | None, set[str]]] = {}
        self._sessions_of: dict[str, set[str]] = {}
        for outcome in outcomes:
            if outcome.user_id is not None:
                self._sessions_of.setdefault(outcome.user_id, set()).add(outcome.session_id)
        without_user = {outcome.session_id for outcome in outcomes if outcome.user_id is None}
        self._without_user = find_sessions_of_erased_users(session, without_user)

    def check(self, outcome: ReportedOutcome, now: datetime) -> None:
        """Raise `UserErasedError` if an outcome is of a user who was erased after it."""
        if outcome.user_id is None:
            if outcome.session_id in self._without_user:
                raise UserErasedError(_ERASED_SESSION)
            return
        erased_at, sessions = self._load(outcome.user_id)
        occurred_at = outcome.occurred_at or now
        if outcome.session_id in sessions or (erased_at is not None and occurred_at <= erased_at):
            raise UserErasedError("the user was erased after this call")

    def _load(self, user_id: str) -> tuple[datetime | None, set[str]]:
        if user_id not in self._by_user:
            erasure = find_erasure(self._session, user_id)
            sessions = set[str]()
            if erasure is not None:
                sessions = find_erased_sessions(self._session, user_id, self._sessions_of[user_id])
            self._by_user[user_id] = (erasure.forgotten_at if erasure else None, sessions)
        return self._by_user[user_id]


def _outcome_row(
    session: ScopedSession, outcome: ReportedOutcome, user_id: str | None, now: datetime
) -> dict[str, Any]:
    known_id = user_id or outcome.user_id
    digest = None if known_id is None else hash_user_id(session.scope.project_id, known_id)
    reported_at = outcome.occurred_at or now
    return {
        "session_id": outcome.session_id,
        "id": hash_outcome(digest, outcome.session_id, outcome.outcome, outcome.outcome_id),
        "user_id": user_id,
        "user_digest": digest,
        "agent_id": session.scope.agent_id,
        "outcome": outcome.outcome,
        "outcome_id": outcome.outcome_id,
        "score": outcome.score,
        "reported_at": reported_at if reported_at <= now + MAX_CLOCK_SKEW else now,
        "received_at": now,
    }
