"""The projections of a user: profile, permanent memory, and the erased users of a project."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import attrs
from sqlalchemy import select

from memoair_cloud.calls.users import find_erasure
from memoair_cloud.database.models import CallerProfile, CallEvent, EndUser, ForgottenUser, Memory, Project
from memoair_cloud.memories.states import MemoryState
from memoair_cloud.projections.paging import MAX_PAGE_ROWS, fetch_changes
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.callers import has_several_callers
from memoair_protocol.enums import EventType
from memoair_protocol.hashes import hash_content
from memoair_protocol.timestamps import format_utc

_PROJECTED_EVENT_TYPES = (EventType.SESSION_START.value, EventType.TURN.value)


@attrs.frozen
class UserVersions:
    """The current versions of a user's data.

    Attributes:
        memory: The version of the user's turns and facts.
        floor: The version at which the user's memory began. A machine with an earlier version holds erased data.
        profile: The version of the profile.
        forgotten_at: When the user was last erased; None if never.
        asked_version: The number of the last erasure that was asked for; 0 if none was.
    """

    memory: int
    floor: int
    profile: int
    forgotten_at: datetime | None
    asked_version: int


def get_versions(session: ScopedSession, user_id: str) -> UserVersions:
    """Return the versions of a user, including erased and unknown users."""
    erasure = find_erasure(session, user_id)
    key = session.scope.project_id, user_id
    user = session.get(EndUser, key)
    last_versions = (erasure.memory_version, erasure.profile_version) if erasure else (0, 0)
    return UserVersions(
        memory=user.memory_version if user else last_versions[0],
        floor=user.memory_floor if user else last_versions[0],
        profile=user.profile_version if user else last_versions[1],
        forgotten_at=erasure.forgotten_at if erasure else None,
        asked_version=erasure.asked_version if erasure else 0,
    )


def build_profile_projection(
    tenant: Tenant, user_id: str, since: int | None, held_version: int | None
) -> dict[str, Any] | None:
    """Return the user's profile as JSON; None if the machine has this version."""
    with tenant.begin_read() as session:
        version = get_versions(session, user_id).profile
        if version in (since, held_version):
            return None
        key = tenant.scope.project_id, user_id
        profile, user = session.get(CallerProfile, key), session.get(EndUser, key)
        summary, attributes = (profile.summary, profile.attributes) if profile else ("", {})
        name, metadata = (user.name, user.details) if user else (None, {})
        name = None if has_several_callers(attributes) else name or _learned_name(attributes)
        return {
            "mode": "snapshot",
            "version": version,
            "contentHash": hash_content([summary, attributes, name, metadata]),
            "summary": summary,
            "attributes": attributes,
            "name": name,
            "metadata": metadata,
            "updatedAt": format_utc(profile.updated_at) if profile else None,
        }


def build_permanent_projection(
    tenant: Tenant, user_id: str, since: int | None, held_version: int | None, max_rows: int = MAX_PAGE_ROWS
) -> dict[str, Any] | None:
    """Return the turns and facts that changed since a version, or all; large results in pages.

    Args:
        tenant: The project.
        user_id: The user.
        since: The version that the machine has; None for a snapshot. A version that this server never reached, or from
            before the user was erased, gets a snapshot, too.
        held_version: The version from the machine's ETag, if any.
        max_rows: The maximum number of rows on a page.

    Returns:
        The JSON body; None if nothing changed since ``since`` or ``held_version``.
    """
    with tenant.begin_read() as session:
        versions = get_versions(session, user_id)
        if versions.memory in (since, held_version):
            return None
        is_delta = since is not None and versions.floor <= since < versions.memory
        start = since if since is not None and is_delta else 0
        events = select(CallEvent).where(CallEvent.user_id == user_id, CallEvent.type.in_(_PROJECTED_EVENT_TYPES))
        events_in_order = events.order_by(CallEvent.version, CallEvent.session_id, CallEvent.seq, CallEvent.id)
        rows, up_to = fetch_changes(
            session, events_in_order, CallEvent.version, CallEvent.payload, start, versions.memory, max_rows
        )
        facts = select(Memory).where(Memory.user_id == user_id, Memory.version <= up_to)
        facts_in_order = facts.order_by(Memory.version, Memory.id)
        memories, up_to = fetch_changes(session, facts_in_order, Memory.version, Memory.text, start, up_to, max_rows)
        rows = [row for row in rows if row.version <= up_to]
        content = {
            "events": [_event_to_json(row) for row in rows],
            "facts": [_fact_to_json(row) for row in memories if row.state == MemoryState.CURRENT],
            "removed": [row.id for row in memories if is_delta and row.state != MemoryState.CURRENT],
        }
        return {
            "mode": "delta" if is_delta else "snapshot",
            "version": up_to,
            "more": up_to < versions.memory,
            "contentHash": hash_content(list(content.values())),
            **content,
        }


def build_forgotten_projection(
    tenant: Tenant, since: int | None, held_version: int | None, max_rows: int = MAX_PAGE_ROWS
) -> dict[str, Any] | None:
    """Return the users who were erased after a version as JSON; None if there are none."""
    with tenant.begin_read() as session:
        version: int = session.scalars(
            select(Project.forgotten_version).where(Project.id == tenant.scope.project_id)
        ).one()
        if version in (since, held_version):
            return None
        start = since if since is not None and since < version else 0
        erasures = select(ForgottenUser).order_by(ForgottenUser.version, ForgottenUser.digest)
        rows, up_to = fetch_changes(
            session, erasures, ForgottenUser.version, ForgottenUser.digest, start, version, max_rows
        )
        users = [{"digest": row.digest, "forgottenAt": format_utc(row.forgotten_at)} for row in rows]
        return {"version": up_to, "more": up_to < version, "users": users}


def _learned_name(attributes: Mapping[str, Any]) -> str | None:
    """Return the name that the caller gave, if it is one."""
    name = attributes.get("name")
    return name if isinstance(name, str) else None


def _event_to_json(row: CallEvent) -> dict[str, Any]:
    return {
        "eventId": row.id,
        "type": row.type,
        "sessionId": row.session_id,
        "seq": row.seq,
        "occurredAt": format_utc(row.occurred_at),
        "payload": row.payload,
    }


def _fact_to_json(row: Memory) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "text": row.text,
        "subject": row.subject,
        "attribute": row.attribute,
        "value": row.value,
        "eventId": row.event_id,
        "sessionId": row.session_id,
        "saidAt": format_utc(row.said_at),
        "holdsFrom": _format_day(row.holds_from),
        "holdsUntil": _format_day(row.holds_until),
    }


def _format_day(value: date | None) -> str | None:
    return None if value is None else value.isoformat()
