"""Record who read or changed what about a caller.

Changes are recorded in the transaction that makes them. Reads are recorded before they are answered, and repeated ones
once an hour: a person who turns pages would otherwise write a row for each page. What machines fetch is recorded once a
day for each caller.
"""

import threading
import time
from collections import OrderedDict
from enum import Enum

from sqlalchemy import update

from memoair_cloud.database.access_models import AuditEntry
from memoair_cloud.identifiers import new_id
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.grants import Action
from memoair_cloud.tenancy.scoped import Actor, ScopedSession
from memoair_protocol.hashes import hash_user_id
from memoair_protocol.timestamps import utc_now

_UNKNOWN_ACTOR = Actor("server", "server")
_REPEAT_S = 3_600.0
_REPEAT_PULL_S = 86_400.0  # a machine fetches what is new with every call
_MAX_REMEMBERED = 10_000


class AuditAction(str, Enum):
    """What was done."""

    READ_CALLER = "caller.read"  # their profile and the list of their calls
    READ_CALL = "call.read"  # what was said in a call, and what was recalled for it
    READ_MEMORIES = "memories.read"  # the facts about them, or one of them with its history
    PULL_MEMORY = "memory.pulled"  # a machine fetched what is known of them
    TRIED_RECALL = "recall.tried"  # a question was asked in their name
    EXPORTED_CALLER = "caller.exported"
    CORRECTED_MEMORY = "memory.corrected"
    UNDID_CORRECTION = "memory.correction_undone"
    DELETED_MEMORY = "memory.deleted"
    ERASED_CALLER = "caller.erased"
    HELD_CALLER = "caller.held"
    RELEASED_CALLER = "caller.released"


def record_change(session: ScopedSession, action: AuditAction, user_id: str, target: str | None = None) -> None:
    """Record an action about a user, in the transaction that performs it.

    Args:
        session: The session of the transaction.
        action: What is done.
        user_id: The user.
        target: The id of the memory or session that it is about, if it is about one.
    """
    actor = session.scope.actor or _UNKNOWN_ACTOR
    session.add(
        AuditEntry(
            project_id=session.scope.project_id,
            at=utc_now(),
            id=new_id("audit"),
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_name=actor.name,
            action=action.value,
            target=target,
            user_id=user_id,
            user_digest=hash_user_id(session.scope.project_id, user_id),
        )
    )


def forget_user_in_audit(session: ScopedSession, user_id: str) -> None:
    """Remove the ids of an erased user from the log. Actions, times and actors stay, with a hash of the user's id."""
    session.execute(
        update(AuditEntry).where(AuditEntry.user_id == user_id).values(user_id=None, target=None),
        execution_options={"synchronize_session": False},
    )


class ReadRecorder:
    """Records reads of a server process, repeated ones once an hour or a day. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recorded_at: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def record(self, tenant: Tenant, action: AuditAction, user_id: str, target: str | None = None) -> None:
        """Record that a user's data is read.

        Args:
            tenant: Who reads.
            action: What is read.
            user_id: The user.
            target: The id of the session or memory, if one is read.
        """
        actor = tenant.scope.actor or _UNKNOWN_ACTOR
        key = (tenant.scope.project_id, actor.kind, actor.id, action.value, user_id, target or "")
        now = time.monotonic()
        with self._lock:
            recorded_at = self._recorded_at.get(key)
        repeat_s = _REPEAT_PULL_S if action is AuditAction.PULL_MEMORY else _REPEAT_S
        if recorded_at is not None and now - recorded_at < repeat_s:
            return
        with tenant.begin_write(Action.READ) as session:
            record_change(session, action, user_id, target)
        with self._lock:
            self._recorded_at[key] = now
            self._recorded_at.move_to_end(key)
            if len(self._recorded_at) > _MAX_REMEMBERED:
                self._recorded_at.popitem(last=False)
