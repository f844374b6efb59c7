"""Routes for calls: ingest events, list users, sessions and events."""

import logging
from typing import Annotated

import attrs
from fastapi import APIRouter, Depends, Header, Query, Request

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.calls import queries
from memoair_cloud.calls.ingest import ingest
from memoair_cloud.calls.queries import UserFilter, UserOrder
from memoair_cloud.calls.search import CallFilter, list_calls
from memoair_cloud.errors import BatchTooLargeError, ConflictError
from memoair_cloud.http.body_parsing import EventsRoute
from memoair_cloud.http.dependencies import Cursor, Limit, ProjectTenant, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.schemas.base import Identifier, UtcTime
from memoair_cloud.http.schemas.calls import (
    MAX_EVENTS,
    EventOut,
    EventsIn,
    EventsOut,
    ReceiptOut,
    SessionOut,
    SessionsOut,
    UserDetailOut,
    UserOut,
    UsersOut,
)
from memoair_protocol.erasure_marks import DeviceClock

log = logging.getLogger(__name__)

Time = Annotated[UtcTime | None, Query(description="RFC 3339; without an offset in UTC")]


async def get_session_filter(
    agent_id: Annotated[Identifier | None, Query(alias="agentId")] = None,
    since: Time = None,
    until: Time = None,
) -> CallFilter:
    """Return which sessions of all users a request asks for."""
    return CallFilter(since, until, agent_id)


SessionFilterDep = Annotated[CallFilter, Depends(get_session_filter)]

router = APIRouter(prefix="/v1/voice-sdk", tags=["calls"], route_class=EventsRoute)


@router.post("/events", operation_id="ingestEvents", responses=error_responses(PROJECT_ERRORS, BatchTooLargeError))
def ingest_events(
    tenant: ProjectTenant,
    services: ServicesDep,
    body: EventsIn,
    request: Request,
    x_device_clock: Annotated[str | None, Header(description="the clocks of the sending machine")] = None,
) -> ReceiptOut:
    """Save events of the user that X-User-Id names, each one once. Accepted events are durable."""
    if len(body.events) > MAX_EVENTS:
        raise BatchTooLargeError(f"a batch can have at most {MAX_EVENTS} events", limit=MAX_EVENTS)
    result = ingest(
        tenant, body.events, device=DeviceClock.from_header(x_device_clock), sent_at=request.state.arrived_at
    )
    if result.undecided:
        services.metrics.events.labels("undecided").inc(result.undecided)
        fields = {"project": tenant.scope.project_id, "events": result.undecided}
        log.warning("events may be from before an erasure", extra={"action": "events_undecided", "fields": fields})
    for outcome in ("accepted", "duplicate", "rejected"):
        services.metrics.events.labels(outcome).inc(len(getattr(result, outcome)))
    if result.has_ended_call:
        services.queue.enqueue_extraction(tenant.scope.project_id)
    return ReceiptOut.model_validate(result)


@router.get("/users", operation_id="listUsers", responses=error_responses(PROJECT_ERRORS))
def list_users(
    tenant: ProjectTenant,
    cursor: Cursor = None,
    limit: Limit = 100,
    q: Annotated[str, Query(max_length=200, description="words in the name, the id or the metadata")] = "",
    seen_after: Annotated[UtcTime | None, Query(alias="seenAfter", description="last heard of since")] = None,
    seen_before: Annotated[UtcTime | None, Query(alias="seenBefore", description="not heard of since")] = None,
    order: Annotated[UserOrder, Query(description="by id, or latest first")] = UserOrder.ID,
) -> UsersOut:
    """List the project's users. Sorted by `lastSeen`, a user who calls at the same time may be missing."""
    page = queries.list_users(tenant, cursor, limit, UserFilter(q, seen_after, seen_before), order)
    return UsersOut(users=[UserOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.get("/users/{user_id}", operation_id="getUser", responses=error_responses(PROJECT_ERRORS))
def get_user(tenant: ProjectTenant, services: ServicesDep, user_id: PathId) -> UserDetailOut:
    """Return a user, and how much is kept of them."""
    detail = queries.get_user(tenant, user_id)
    services.reads.record(tenant, AuditAction.READ_CALLER, user_id)
    values = {name: getattr(detail.user, name) for name in ("id", "name", "details", "session_count")}
    values |= {name: getattr(detail.user, name) for name in ("first_seen_at", "last_seen_at", "turns_dropped_until")}
    return UserDetailOut.model_validate({**values, "held": detail.is_held, "counts": detail.counts})


@router.get("/users/{user_id:path}/sessions", operation_id="listSessions", responses=error_responses(PROJECT_ERRORS))
def list_sessions(
    tenant: ProjectTenant, services: ServicesDep, user_id: PathId, cursor: Cursor = None, limit: Limit = 100
) -> SessionsOut:
    """List a user's sessions, latest first."""
    page = queries.list_sessions(tenant, user_id, cursor, limit)
    services.reads.record(tenant, AuditAction.READ_CALLER, user_id)
    return SessionsOut(sessions=[SessionOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.get("/sessions", operation_id="listProjectSessions", responses=error_responses(PROJECT_ERRORS))
def list_project_sessions(
    tenant: ProjectTenant, wanted: SessionFilterDep, cursor: Cursor = None, limit: Limit = 100
) -> SessionsOut:
    """List the sessions of all users, latest first; those of one user if X-User-Id names one."""
    page = list_calls(tenant, attrs.evolve(wanted, user_id=tenant.scope.user_id), cursor, limit)
    return SessionsOut(sessions=[SessionOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.get(
    "/sessions/{session_id:path}/events",
    operation_id="listEvents",
    responses=error_responses(PROJECT_ERRORS, ConflictError),
)
def list_events(
    tenant: ProjectTenant, services: ServicesDep, session_id: PathId, cursor: Cursor = None, limit: Limit = 100
) -> EventsOut:
    """List a session's events in order. If several users have a session with this id, X-User-Id selects one."""
    page = queries.list_events(tenant, session_id, cursor, limit)
    for user_id in {row.user_id for row in page.rows}:  # one, or none for an empty page
        services.reads.record(tenant, AuditAction.READ_CALL, user_id, session_id)
    return EventsOut(events=[EventOut.model_validate(row) for row in page.rows], next=page.next_cursor)


# After the route above: a session id may contain slashes.
@router.get(
    "/sessions/{session_id:path}",
    operation_id="getSession",
    responses=error_responses(PROJECT_ERRORS, ConflictError),
)
def get_session(tenant: ProjectTenant, session_id: PathId) -> SessionOut:
    """Return a session. If several users have a session with this id, X-User-Id selects one."""
    return SessionOut.model_validate(queries.get_session(tenant, session_id))
