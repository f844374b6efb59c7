"""What a route is given: who asks, and what is behind the application."""

from contextlib import suppress
from typing import Annotated

import attrs
from fastapi import Depends, Header, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Engine

from memoair_cloud.errors import InvalidKeyError, InvalidRequestError
from memoair_cloud.http.middleware import CloudMetrics
from memoair_cloud.http.rate_limit import RateLimit
from memoair_cloud.identifiers import check_identifier
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.queue import WorkQueue
from memoair_cloud.tenancy.access import Tenant, authenticate
from memoair_cloud.tenancy.scoped import Scope


@attrs.frozen
class Services:
    """What is behind an application."""

    engine: Engine
    blobs: BlobStore
    queue: WorkQueue
    rate_limit: RateLimit
    metrics: CloudMetrics


# What only looks at the request is a coroutine: FastAPI would take another thread for it.
async def provide_services(request: Request) -> Services:
    """The services of the application that was asked."""
    return get_services(request)


def get_services(request: Request) -> Services:
    """The same, for who has the request."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(provide_services)]
_bearer = HTTPBearer(auto_error=False, description="An API key, `memoair_pk_...`")
BearerDep = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def admit_request(request: Request) -> Tenant:
    """Tell who asks and let him in, once for a request; raises `InvalidKeyError` or `RateLimitedError`."""
    tenant: Tenant | None = getattr(request.state, "tenant", None)
    if tenant is not None:
        return tenant
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise InvalidKeyError("an API key is needed: Authorization: Bearer memoair_pk_...")
    services = get_services(request)
    credentials = authenticate(services.engine, key.strip())
    request.state.account_id = credentials.account_id
    services.rate_limit.acquire(credentials.key_id)
    request.state.tenant = Tenant(services.engine, Scope(credentials.account_id))
    return admit_request(request)


def get_account_tenant(request: Request, _: BearerDep) -> Tenant:
    """What the key's account may see; no project is named yet."""
    return admit_request(request)


AccountTenant = Annotated[Tenant, Depends(get_account_tenant)]


async def get_project_tenant(
    request: Request,
    tenant: AccountTenant,
    x_project_id: Annotated[str | None, Header(description="The project; needed")] = None,
    x_agent_id: Annotated[str | None, Header(description="The agent, one of the project's")] = None,
    x_user_id: Annotated[str | None, Header(description="The end user, where one is meant; UTF-8")] = None,
) -> Tenant:
    """What the key's account may see of the project that the request names."""
    for name in ("X-Project-Id", "X-Agent-Id", "X-User-Id"):
        if len(request.headers.getlist(name)) > 1:
            raise InvalidRequestError(f"{name} is given more than once", field=name)
    project_id = _parse_identifier("X-Project-Id", x_project_id)
    if project_id is None:
        raise InvalidRequestError("X-Project-Id is missing", field="X-Project-Id")
    agent_id, user_id = _parse_identifier("X-Agent-Id", x_agent_id), _parse_identifier("X-User-Id", x_user_id)
    return Tenant(tenant.engine, Scope(tenant.scope.account_id, project_id, agent_id, user_id))


ProjectTenant = Annotated[Tenant, Depends(get_project_tenant)]
Cursor = Annotated[str | None, Query(max_length=4_096, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=500, description="the most that a page holds")]


def _parse_identifier(header: str, value: str | None) -> str | None:
    if value is None:
        return None
    with suppress(UnicodeDecodeError):
        value = value.encode("latin-1").decode()  # headers are bytes; the framework takes them for Latin-1
    try:
        return check_identifier(value)
    except ValueError as error:
        raise InvalidRequestError(f"{header}: {error}", field=header) from None
