"""Record who read or changed what about a caller, and who changed what of an agent.

Changes are recorded in the transaction that makes them. Reads are recorded before they are answered, and repeated ones
once an hour: a person who turns pages would otherwise write a row for each page. What machines fetch is recorded once a
day for each caller.

While the database takes no writes, reads are answered, and recorded when it does again. Until then, the server's log
has them: with hashes, since it never has the ids of callers. So no read is lost if the server ends before that.
"""

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

import attrs
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from memoair_cloud.database.access_models import AuditEntry
from memoair_cloud.database.deferred import DeferredWrites, is_outage
from memoair_cloud.database.models import ForgottenUser
from memoair_cloud.errors import ServiceUnavailableError
from memoair_cloud.identifiers import new_id
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.grants import Action
from memoair_cloud.tenancy.scoped import Actor, Scope, ScopedSession
from memoair_protocol.hashes import hash_user_id
from memoair_protocol.timestamps import format_utc, parse_timestamp, utc_now

log = logging.getLogger(__name__)

_UNKNOWN_ACTOR = Actor("server", "server")
_REPEAT_S = 3_600.0
_REPEAT_PULL_S = 86_400.0  # a machine fetches what is new with every call
_MAX_REMEMBERED = 10_000
# A read waits no longer than that for other writers of a SQLite file.
_LOCK_TIMEOUT_S = 1.0


class AuditAction(str, Enum):
    """What was done."""

    READ_CALLER = "caller.read"  # their profile and the list of their calls
    READ_CALL = "call.read"  # what was said in a call, and what was recalled for it
    READ_MEMORIES = "memories.read"  # the facts about them, or one of them with its history
    PULL_MEMORY = "memory.pulled"  # a machine fetched what is known of them
    COPIED_CASE = "case.copied"  # what was said in a call became a case of an evaluation
    TRIED_RECALL = "recall.tried"  # a question was asked in their name
    EXPORTED_CALLER = "caller.exported"
    CORRECTED_MEMORY = "memory.corrected"
    UNDID_CORRECTION = "memory.correction_undone"
    DELETED_MEMORY = "memory.deleted"
    ERASED_CALLER = "caller.erased"
    HELD_CALLER = "caller.held"
    RELEASED_CALLER = "caller.released"
    REPLAYED_CALLS = "calls.replayed"  # what callers said in a period was asked again, for an agent
    DELETED_AGENT = "agent.deleted"
    PUSHED_PROMPT = "prompt.pushed"
    MOVED_LABEL = "prompt.label_moved"
    ROLLED_BACK_LABEL = "prompt.label_rolled_back"
    REMOVED_LABEL = "prompt.label_removed"


def record_change(session: ScopedSession, action: AuditAction, user_id: str, target: str | None = None) -> None:
    """Record an action about a user, in the transaction that performs it.

    Args:
        session: The session of the transaction.
        action: What is done.
        user_id: The user.
        target: The id of the memory or session that it is about, if it is about one.
    """
    session.add(_AuditRecord.make(session.scope, action, user_id, target).make_row())


def record_agent_change(
    session: ScopedSession,
    action: AuditAction,
    agent_id: str,
    target: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Record a change of an agent, in the transaction that performs it.

    Args:
        session: The session of the transaction.
        action: What is done.
        agent_id: The agent.
        target: The version or the label of its prompt, if it is about one.
        details: From which version to which, for example. Neither the text of a prompt nor notes.
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
            user_digest="",
            agent_id=agent_id,
            details=None if details is None else dict(details),
        )
    )


def forget_user_in_audit(session: ScopedSession, user_id: str) -> None:
    """Remove the ids of an erased user from the log. Actions, times and actors stay, with a hash of the user's id."""
    session.execute(
        update(AuditEntry).where(AuditEntry.user_id == user_id).values(user_id=None, target=None),
        execution_options={"synchronize_session": False},
    )


@attrs.frozen
class _AuditRecord:
    """An entry of the log. As a deferred write, it is written without the ids of a user who was erased since."""

    project_id: str
    at: datetime
    actor: Actor
    action: AuditAction
    target: str | None
    user_id: str
    id: str = attrs.field(factory=lambda: new_id("audit"))

    @classmethod
    def make(cls, scope: Scope, action: AuditAction, user_id: str, target: str | None) -> "_AuditRecord":
        return cls(scope.project_id, utc_now(), scope.actor or _UNKNOWN_ACTOR, action, target, user_id)

    @property
    def user_digest(self) -> str:
        return hash_user_id(self.project_id, self.user_id)

    def make_row(self) -> AuditEntry:
        return AuditEntry(
            project_id=self.project_id,
            at=self.at,
            id=self.id,
            actor_kind=self.actor.kind,
            actor_id=self.actor.id,
            actor_name=self.actor.name,
            action=self.action.value,
            target=self.target,
            user_id=self.user_id,
            user_digest=self.user_digest,
        )

    def __call__(self, session: Session) -> None:
        row = self.make_row()
        is_user = ForgottenUser.project_id == self.project_id, ForgottenUser.digest == self.user_digest
        erasure = session.scalar(select(ForgottenUser).where(*is_user))
        if erasure is not None:
            erased_at = parse_timestamp(erasure.receipt["erasedAt"]) if erasure.receipt else erasure.forgotten_at
            if max(erased_at, erasure.forgotten_at) >= self.at:
                row.user_id = row.target = None
        session.add(row)

    def log_as_deferred(self) -> None:
        is_key = self.actor.kind == "key"  # otherwise the id is the name of a person
        fields = {
            "at": format_utc(self.at),
            "projectId": self.project_id,
            "actor": self.actor.id if is_key else hashlib.sha256(self.actor.id.encode()).hexdigest(),
            "read": self.action.value,
            "user": self.user_digest,
        }
        log.warning("a read is recorded later", extra={"action": "audit_deferred", "fields": fields})


class ReadRecorder:
    """Records reads of a server process, repeated ones once an hour or a day. Thread-safe.

    Args:
        deferred: Where reads wait while the database takes no writes.
    """

    def __init__(self, deferred: DeferredWrites) -> None:
        self._deferred = deferred
        self._lock = threading.Lock()
        self._recorded_at: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def record(self, tenant: Tenant, action: AuditAction, user_id: str, target: str | None = None) -> None:
        """Record that a user's data is read.

        Args:
            tenant: Who reads.
            action: What is read.
            user_id: The user.
            target: The id of the session or memory, if one is read.

        Raises:
            ServiceUnavailableError: If the database takes no writes and too many reads wait to be recorded.
        """
        self.record_all(tenant, action, [(user_id, target)])

    def record_all(self, tenant: Tenant, action: AuditAction, read: Iterable[tuple[str, str | None]]) -> None:
        """Record that data of several users is read, as `record` does, in one transaction.

        Args:
            tenant: Who reads.
            action: What is read.
            read: The users, each with the id of a session or memory, if one is read.

        Raises:
            ServiceUnavailableError: If the database takes no writes and too many reads wait to be recorded.
        """
        actor = tenant.scope.actor or _UNKNOWN_ACTOR
        now = time.monotonic()
        repeat_s = _REPEAT_PULL_S if action is AuditAction.PULL_MEMORY else _REPEAT_S
        due = {}
        for user_id, target in dict.fromkeys(read):
            key = (tenant.scope.project_id, actor.kind, actor.id, action.value, user_id, target or "")
            with self._lock:
                recorded_at = self._recorded_at.get(key)
            if recorded_at is None or now - recorded_at >= repeat_s:
                due[key] = _AuditRecord.make(tenant.scope, action, user_id, target)
        if not due:
            return
        self._write(tenant, list(due.values()))
        with self._lock:
            for key in due:
                self._recorded_at[key] = now
                self._recorded_at.move_to_end(key)
            while len(self._recorded_at) > _MAX_REMEMBERED:
                self._recorded_at.popitem(last=False)

    def _write(self, tenant: Tenant, entries: Sequence[_AuditRecord]) -> None:
        if not self._deferred.is_failing:  # then this read need not wait to find out
            try:
                with tenant.begin_write(Action.READ, _LOCK_TIMEOUT_S) as session:
                    session.add_all(entry.make_row() for entry in entries)
            except Exception as error:
                if not is_outage(error):
                    raise
            else:
                return
        # What is neither in the table nor going to be there is not read.
        for entry in entries:
            if not self._deferred.put(("audit", entry.id), entry):
                raise ServiceUnavailableError("the audit log cannot be written", store="database")
            entry.log_as_deferred()
