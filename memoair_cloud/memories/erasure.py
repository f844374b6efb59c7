"""Erase a user: delete all their data, return a receipt, and make sure that none of it comes back."""

from datetime import datetime

import attrs
from sqlalchemy import delete, func, select

from memoair_cloud.audit.log import AuditAction, forget_user_in_audit, record_change
from memoair_cloud.calls.users import find_erasure, lock_or_create_user, lock_user, record_erased_sessions
from memoair_cloud.database.caller_tables import CALLER_TABLES
from memoair_cloud.database.engine import purge_wal
from memoair_cloud.database.models import CallSession, EndUser, ForgottenUser
from memoair_cloud.errors import NotFoundError
from memoair_cloud.evaluation.locking import lock_suites_of_user
from memoair_cloud.outcomes.resolving import erase_waiting_outcomes
from memoair_cloud.recall_traces.erasure import erase_traces
from memoair_cloud.retention.holds import check_not_held, is_held
from memoair_cloud.retention.policy import lock_project
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.erasure_marks import ErasureMark
from memoair_protocol.hashes import hash_user_id
from memoair_protocol.timestamps import format_utc, parse_timestamp, utc_now


@attrs.frozen
class ErasureReceipt:
    """The receipt for an erased user.

    Attributes:
        digest: The hash of the ids of project and user. The receipt can be read again by it.
        forgotten_at: Up to when the user was erased.
        erased_at: When that was done.
        version: The version of the project's list of erasures, by which machines learn of this one.
        reason: ``"request"``, or ``"retention"`` if the user was not heard of for longer than the project's period.
        removed: The number of removed rows by kind.
        user_id: The id of the user; None in a receipt that is read again.
        erasure: The mark of what a machine logs after it has carried out the erasure; None in a receipt that is read
            again. See `memoair_protocol.erasure_marks`.
    """

    digest: str
    forgotten_at: datetime
    erased_at: datetime
    version: int
    reason: str
    removed: dict[str, int]
    user_id: str | None = None
    erasure: str | None = None


def erase_user(tenant: Tenant, user_id: str) -> ErasureReceipt:
    """Delete all data of a user, including work that is queued for it. Erasing twice is harmless.

    From now on, events from before this moment and events of known calls are rejected, whenever they arrive. An unknown
    user is recorded, too, because a machine may have been offline. Only hashes of the ids of the user and of their
    calls are recorded, and the receipt.

    Args:
        tenant: The project.
        user_id: The user.

    Raises:
        LegalHoldError: If a hold covers the user.
    """
    with tenant.begin_write() as session:
        user = lock_or_create_user(session, user_id, utc_now())  # unknown users, too: concurrent writers must wait
        now = utc_now()
        session_ids = session.scalars(select(CallSession.id).where(CallSession.user_id == user_id)).all()
        record_erased_sessions(session, user_id, session_ids)
        # A machine's clock may be slightly ahead, and this one's may have been set back since events arrived.
        received = select(func.max(CallSession.received_at)).where(CallSession.user_id == user_id)
        last_received_at: datetime | None = session.scalar(received)
        up_to = max(now, user.last_seen_at, last_received_at or now)
        receipt = _erase(session, user, up_to, now, "request")
    purge_wal(tenant.engine)
    return receipt


def erase_inactive_user(tenant: Tenant, user_id: str, cutoff: datetime) -> ErasureReceipt | None:
    """Erase a user who has not been heard of since a time. What they say later is accepted again.

    Args:
        tenant: The project.
        user_id: The user.
        cutoff: The time.

    Returns:
        The receipt; None if the user has called since, is covered by a hold, or is unknown.
    """
    with tenant.begin_write() as session:
        user = lock_user(session, user_id)
        if user is None or user.last_seen_at >= cutoff:
            return None
        lock_project(session)
        if is_held(session, user_id):
            return None
        # A machine that was offline may have later calls of this user: only what is older than the period is erased.
        return _erase(session, user, cutoff, utc_now(), "retention")


def get_receipt(tenant: Tenant, digest: str) -> ErasureReceipt:
    """Return the receipt of an erasure by its hash; raise `NotFoundError` if it is unknown.

    Of several erasures of a user, it is that of the last one that removed anything.
    """
    with tenant.begin_read() as session:
        erasure = session.scalars(select(ForgottenUser).where(ForgottenUser.digest == digest)).one_or_none()
        if erasure is None or erasure.receipt is None:
            raise NotFoundError("unknown receipt")
        stored = erasure.receipt
        forgotten_at, erased_at = parse_timestamp(stored["forgottenAt"]), parse_timestamp(stored["erasedAt"])
        return ErasureReceipt(digest, forgotten_at, erased_at, stored["version"], stored["reason"], stored["removed"])


def _erase(session: ScopedSession, user: EndUser, up_to: datetime, now: datetime, reason: str) -> ErasureReceipt:
    user_id, project_id = user.id, session.scope.project_id
    # Lock the user before the project: a slow writer of the user's data must not hold up the whole project.
    project = lock_project(session)
    check_not_held(session, user_id)
    removed = {table.name: table.count(session, user_id) for table in CALLER_TABLES}
    removed["queued"] = _count_pending_calls(session, user_id)
    project.forgotten_version += 1
    erasure = find_erasure(session, user_id) or ForgottenUser(
        project_id=project_id, digest=hash_user_id(project_id, user_id)
    )
    erasure.version, erasure.forgotten_at = project.forgotten_version, up_to
    if reason == "request":
        erasure.asked_version, erasure.asked_at = erasure.version, up_to
    erasure.memory_version, erasure.profile_version = user.memory_version + 1, user.profile_version + 1
    mark = str(ErasureMark(project.epoch or "", erasure.asked_version or 0))
    receipt = ErasureReceipt(erasure.digest, up_to, now, project.forgotten_version, reason, removed, user_id, mark)
    if any(removed.values()) or erasure.receipt is None:
        erasure.receipt = {
            "forgottenAt": format_utc(up_to),
            "erasedAt": format_utc(now),
            "version": receipt.version,
            "reason": reason,
            "removed": removed,
        }
    session.add(erasure)
    record_change(session, AuditAction.ERASED_CALLER, user_id)
    for suite in lock_suites_of_user(session, user_id):
        suite.version += 1  # some of its cases go with the user
    session.flush()
    forget_user_in_audit(session, user_id)
    session.expunge_all()
    erase_traces(session, user_id)
    session_ids = session.scalars(select(CallSession.id).where(CallSession.user_id == user_id)).all()
    erase_waiting_outcomes(session, erasure.digest, session_ids)
    # Deleting the user's row cascades to all rows that refer to it.
    session.execute(delete(EndUser).where(EndUser.id == user_id))
    return receipt


def _count_pending_calls(session: ScopedSession, user_id: str) -> int:
    """Return the number of calls that were not consolidated yet."""
    is_pending = CallSession.user_id == user_id, CallSession.learned_count < CallSession.event_count
    return session.scalars(select(func.count()).select_from(CallSession).where(*is_pending)).one()
