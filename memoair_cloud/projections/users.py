"""What a device has to know of a caller: his profile, and what was said and learned on every machine."""

from datetime import date, datetime
from typing import Any

import attrs
from sqlalchemy import select

from memoair_cloud.calls.event_parsing import IncomingEventType
from memoair_cloud.calls.users import forgotten
from memoair_cloud.database.models import CallerProfile, CallEvent, EndUser, ForgottenUser, Memory, Project
from memoair_cloud.memories.states import MemoryState
from memoair_cloud.projections.hashing import content_hash
from memoair_cloud.projections.paging import PAGE_ROWS, changed
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_cloud.timeutil import iso

_TOLD_EVENTS = (IncomingEventType.SESSION_START.value, IncomingEventType.TURN.value)


@attrs.frozen
class Versions:
    """How far what is known of a caller has come. A device that holds less than ``floor`` holds what was forgotten."""

    memory: int
    floor: int
    profile: int
    forgotten_at: datetime | None


def versions_of(session: ScopedSession, user_id: str) -> Versions:
    """The versions of a caller, also of one who was forgotten, or of whom nothing is known yet."""
    before = forgotten(session, user_id)
    key = session.scope.project_id, user_id
    user = session.get(EndUser, key)
    reached = (before.memory_version, before.profile_version) if before else (0, 0)
    return Versions(
        memory=user.memory_version if user else reached[0],
        floor=user.memory_floor if user else reached[0],
        profile=user.profile_version if user else reached[1],
        forgotten_at=before.forgotten_at if before else None,
    )


def project_profile(tenant: Tenant, user_id: str, since: int | None, held: int | None) -> dict[str, Any] | None:
    """The profile as it is; None where the device has this version."""
    with tenant.reading() as session:
        version = versions_of(session, user_id).profile
        if version in (since, held):
            return None
        key = tenant.scope.project_id, user_id
        profile, user = session.get(CallerProfile, key), session.get(EndUser, key)
        summary, attributes = (profile.summary, profile.attributes) if profile else ("", {})
        name, metadata = (user.name, user.details) if user else (None, {})
        return {
            "mode": "snapshot",
            "version": version,
            "contentHash": content_hash([summary, attributes, name, metadata]),
            "summary": summary,
            "attributes": attributes,
            "name": name,
            "metadata": metadata,
            "updatedAt": iso(profile.updated_at) if profile else None,
        }


def project_permanent(
    tenant: Tenant, user_id: str, since: int | None, held: int | None, most: int = PAGE_ROWS
) -> dict[str, Any] | None:
    """What was said and learned since a version, or all of it; None where the device has this version.

    All of it comes where none is given, where this server never reached it, and where the caller was forgotten since.
    """
    with tenant.reading() as session:
        versions = versions_of(session, user_id)
        if versions.memory in (since, held):
            return None
        is_delta = since is not None and versions.floor <= since < versions.memory
        start = since if since is not None and is_delta else 0
        wanted = select(CallEvent).where(CallEvent.user_id == user_id, CallEvent.type.in_(_TOLD_EVENTS))
        in_order = wanted.order_by(CallEvent.version, CallEvent.session_id, CallEvent.seq, CallEvent.id)
        rows, upto = changed(session, in_order, CallEvent.version, CallEvent.payload, start, versions.memory, most)
        of_caller = select(Memory).where(Memory.user_id == user_id, Memory.version <= upto)
        learned = of_caller.order_by(Memory.version, Memory.id)
        memories, upto = changed(session, learned, Memory.version, Memory.text, start, upto, most)
        rows = [row for row in rows if row.version <= upto]
        told = {
            "events": [_event(row) for row in rows],
            "facts": [_fact(row) for row in memories if row.state == MemoryState.CURRENT],
            "removed": [row.id for row in memories if is_delta and row.state != MemoryState.CURRENT],
        }
        return {
            "mode": "delta" if is_delta else "snapshot",
            "version": upto,
            "more": upto < versions.memory,
            "contentHash": content_hash(list(told.values())),
            **told,
        }


def forgotten_since(
    tenant: Tenant, since: int | None, held: int | None, most: int = PAGE_ROWS
) -> dict[str, Any] | None:
    """Which callers of the project were forgotten after a version; None where nobody was."""
    with tenant.reading() as session:
        version: int = session.scalars(
            select(Project.forgotten_version).where(Project.id == tenant.scope.project_id)
        ).one()
        if version in (since, held):
            return None
        after = since if since is not None and since < version else 0
        wanted = select(ForgottenUser).order_by(ForgottenUser.version, ForgottenUser.digest)
        rows, upto = changed(session, wanted, ForgottenUser.version, ForgottenUser.digest, after, version, most)
        users = [{"digest": row.digest, "forgottenAt": iso(row.forgotten_at)} for row in rows]
        return {"version": upto, "more": upto < version, "users": users}


def _event(row: CallEvent) -> dict[str, Any]:
    return {
        "eventId": row.id,
        "type": row.type,
        "sessionId": row.session_id,
        "seq": row.seq,
        "occurredAt": iso(row.occurred_at),
        "payload": row.payload,
    }


def _fact(row: Memory) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "text": row.text,
        "subject": row.subject,
        "attribute": row.attribute,
        "value": row.value,
        "eventId": row.event_id,
        "sessionId": row.session_id,
        "saidAt": iso(row.said_at),
        "holdsFrom": _day(row.holds_from),
        "holdsUntil": _day(row.holds_until),
    }


def _day(value: date | None) -> str | None:
    return None if value is None else value.isoformat()
