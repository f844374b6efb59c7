"""FastAPI dependencies of the routes: the authenticated tenant, and the services behind the application."""

from contextlib import suppress
from typing import Annotated

import attrs
from fastapi import Depends, Header, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Engine

from memoair_cloud.analytics.days import DayCache
from memoair_cloud.audit.log import ReadRecorder
from memoair_cloud.database.deferred import DeferredWrites
from memoair_cloud.errors import InvalidKeyError, InvalidRequestError
from memoair_cloud.http.client_address import find_client
from memoair_cloud.http.key_throttle import KeyThrottle
from memoair_cloud.http.middleware import CloudMetrics
from memoair_cloud.http.rate_limit import RateLimit
from memoair_cloud.http.readiness import ReadinessCheck
from memoair_cloud.identifiers import check_identifier
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.queue import WorkQueue
from memoair_cloud.settings import CloudSettings
from memoair_cloud.tenancy.access import Tenant, authenticate, note_last_use
from memoair_evaluation.judge import Judge

_WRONG_KEYS_PER_S = 1.0


@attrs.frozen
class Services:
    """The services behind an application, shared by all its requests and threads.

    Attributes:
        engine: The database.
        blobs: The store of index files.
        queue: The queue of background tasks.
        rate_limit: The rate limit per API key.
        metrics: The Prometheus metrics.
        settings: The settings of the server.
        deferred: Writes of requests that read.
        reads: Records in the audit log who reads a caller's data.
        days: Figures of days that are over.
        readiness: Checks whether the server is ready.
        key_throttle: Slows down clients that try API keys.
        wrong_keys: The limit of wrong keys per address.
        judge: The judge of evaluations; None if the server has none.
    """

    engine: Engine
    blobs: BlobStore
    queue: WorkQueue
    rate_limit: RateLimit
    metrics: CloudMetrics
    settings: CloudSettings = attrs.field(factory=CloudSettings)
    deferred: DeferredWrites = attrs.field(
        default=attrs.Factory(lambda self: DeferredWrites(self.engine), takes_self=True)
    )
    reads: ReadRecorder = attrs.field(default=attrs.Factory(lambda self: ReadRecorder(self.deferred), takes_self=True))
    days: DayCache = attrs.field(factory=DayCache)
    readiness: ReadinessCheck = attrs.field(
        default=attrs.Factory(lambda self: ReadinessCheck(self.engine, self.blobs), takes_self=True)
    )
    key_throttle: KeyThrottle = attrs.field(
        default=attrs.Factory(lambda self: KeyThrottle(self.engine), takes_self=True)
    )
    wrong_keys: RateLimit = attrs.field(
        default=attrs.Factory(
            lambda self: RateLimit(_WRONG_KEYS_PER_S, self.settings.wrong_keys_at_once), takes_self=True
        )
    )
    judge: Judge | None = None


# A coroutine, because it only inspects the request: FastAPI would run a plain function in a thread.
async def provide_services(request: Request) -> Services:
    """Return the services of the application. This is the FastAPI dependency."""
    return get_services(request)


def get_services(request: Request) -> Services:
    """Return the services of the application that handles a request."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(provide_services)]
_bearer = HTTPBearer(auto_error=False, description="An API key, `memoair_pk_...`")
BearerDep = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def admit_request(request: Request) -> Tenant:
    """Authenticate and rate-limit a request, once per request.

    Raises:
        InvalidKeyError: If the API key is missing, unknown or revoked.
        RateLimitedError: If the key sends requests too often, or the client's address too many wrong keys.
    """
    tenant: Tenant | None = getattr(request.state, "tenant", None)
    if tenant is not None:
        return tenant
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise InvalidKeyError("an API key is required: Authorization: Bearer memoair_pk_...")
    services = get_services(request)
    address = find_client(request, services.settings)
    with services.key_throttle.guarding(key.strip(), address, services.wrong_keys):
        credentials = authenticate(services.engine, key.strip())
    request.state.account_id, request.state.key_id = credentials.account_id, credentials.key_id
    services.rate_limit.acquire(credentials.key_id)
    note_last_use(credentials, services.deferred)
    request.state.tenant = credentials.make_tenant(services.engine)
    return admit_request(request)


def get_account_tenant(request: Request, _: BearerDep) -> Tenant:
    """Return the tenant of the request's API key, without a project."""
    return admit_request(request)


AccountTenant = Annotated[Tenant, Depends(get_account_tenant)]


async def get_project_tenant(
    tenant: AccountTenant,
    x_project_id: Annotated[str | None, Header(description="The project; required")] = None,
    x_agent_id: Annotated[str | None, Header(description="The agent, which belongs to the project")] = None,
    x_user_id: Annotated[str | None, Header(description="The user that the request is about, if any; UTF-8")] = None,
) -> Tenant:
    """Return the tenant of the request's API key in the project that the headers name."""
    project_id = _parse_identifier("X-Project-Id", x_project_id)
    if project_id is None:
        raise InvalidRequestError("X-Project-Id is required", field="X-Project-Id")
    agent_id, user_id = _parse_identifier("X-Agent-Id", x_agent_id), _parse_identifier("X-User-Id", x_user_id)
    scope = attrs.evolve(tenant.scope, project_id=project_id, agent_id=agent_id, user_id=user_id)
    return attrs.evolve(tenant, scope=scope)


ProjectTenant = Annotated[Tenant, Depends(get_project_tenant)]


async def get_agent_tenant(tenant: ProjectTenant) -> Tenant:
    """Return the tenant of the request's API key, in the project and for the agent that the headers name."""
    tenant.require_agent()
    return tenant


AgentTenant = Annotated[Tenant, Depends(get_agent_tenant)]
Cursor = Annotated[str | None, Query(max_length=4_096, description="`next` of the previous page")]
Limit = Annotated[int, Query(ge=1, le=500, description="the maximum number of items on the page")]


def _parse_identifier(header: str, value: str | None) -> str | None:
    if value is None:
        return None
    with suppress(UnicodeDecodeError):
        value = value.encode("latin-1").decode()  # headers are bytes, which the framework decodes as Latin-1
    try:
        return check_identifier(value)
    except ValueError as error:
        raise InvalidRequestError(f"{header}: {error}", field=header) from None
