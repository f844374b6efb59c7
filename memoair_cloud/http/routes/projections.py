"""Routes that machines pull from: versions, and what changed since a version."""

import json
import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.errors import BatchTooLargeError, InvalidRequestError, NotFoundError, ServiceUnavailableError
from memoair_cloud.http.body_parsing import JsonRoute
from memoair_cloud.http.dependencies import ProjectTenant, Services, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.schemas.projections import (
    BootstrapOut,
    ErasuresIn,
    ErasuresOut,
    ForgottenOut,
    OrgProjectionOut,
    PermanentOut,
    ProfileOut,
    RetentionProjectionOut,
)
from memoair_cloud.memories.erasure_replay import replay_erasures
from memoair_cloud.projections.bootstrap import build_bootstrap
from memoair_cloud.projections.org import build_org_projection, check_org_file_exists
from memoair_cloud.projections.retention import build_retention_projection
from memoair_cloud.projections.users import (
    build_forgotten_projection,
    build_permanent_projection,
    build_profile_projection,
)
from memoair_cloud.tenancy.access import Tenant

router = APIRouter(prefix="/v1/voice-sdk", tags=["projections"], route_class=JsonRoute)

_MAX_VERSION = 2**53 - 1
_ETAG = re.compile(r'^(?:W/)?"(\w+)-(\d{1,15})"$')
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not modified since that version"}}

Since = Annotated[int | None, Query(ge=0, le=_MAX_VERSION, description="the machine's current version")]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="the machine's current ETag")]
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]


def _documented_responses(model: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}, **error_responses(PROJECT_ERRORS), **_NOT_MODIFIED}


@router.get("/bootstrap", operation_id="bootstrap", responses=_documented_responses(BootstrapOut))
def get_bootstrap(tenant: ProjectTenant, if_none_match: IfNoneMatch = None) -> Response:
    """Return the current versions of everything: of the documents, and of the user if X-User-Id names one."""
    body = build_bootstrap(tenant)
    etag = f'"{body["syncToken"]}"'
    if if_none_match is not None and if_none_match.removeprefix("W/") == etag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED)
    return _json_response(body, etag)


@router.get("/projections/profile", operation_id="pullProfile", responses=_documented_responses(ProfileOut))
def pull_profile(
    tenant: ProjectTenant, services: ServicesDep, since: Since = None, if_none_match: IfNoneMatch = None
) -> Response:
    """Return the profile of the user that X-User-Id names."""
    user_id, held_version = _require_user_id(tenant), _version_from_etag("profile", if_none_match)
    body = build_profile_projection(tenant, user_id, since, held_version)
    _record_pull(services, tenant, user_id, body)
    return _make_response("profile", body)


@router.get("/projections/permanent", operation_id="pullPermanent", responses=_documented_responses(PermanentOut))
def pull_permanent(
    tenant: ProjectTenant, services: ServicesDep, since: Since = None, if_none_match: IfNoneMatch = None
) -> Response:
    """Return the turns and facts of the user that X-User-Id names: all, or the changes since a version."""
    user_id, held_version = _require_user_id(tenant), _version_from_etag("permanent", if_none_match)
    body = build_permanent_projection(tenant, user_id, since, held_version)
    _record_pull(services, tenant, user_id, body)
    return _make_response("permanent", body)


@router.get("/projections/forgotten", operation_id="pullForgotten", responses=_documented_responses(ForgottenOut))
def pull_forgotten(tenant: ProjectTenant, since: Since = None, if_none_match: IfNoneMatch = None) -> Response:
    """Return the erased users of the project, so that machines delete their copies."""
    return _make_response(
        "forgotten", build_forgotten_projection(tenant, since, _version_from_etag("forgotten", if_none_match))
    )


@router.get(
    "/projections/retention", operation_id="pullRetention", responses=_documented_responses(RetentionProjectionOut)
)
def pull_retention(tenant: ProjectTenant, if_none_match: IfNoneMatch = None) -> Response:
    """Return how long machines keep turns, and of which callers they keep them longer."""
    held_version = _version_from_etag("retention", if_none_match)
    return _make_response("retention", build_retention_projection(tenant, held_version))


@router.post("/erasures", operation_id="reportErasures", responses=error_responses(PROJECT_ERRORS, BatchTooLargeError))
def report_erasures(tenant: ProjectTenant, body: ErasuresIn) -> ErasuresOut:
    """Record erasures that a machine remembers, after a restore from an older backup, and erase those users again."""
    return ErasuresOut(recorded=replay_erasures(tenant, {user.digest: user.forgotten_at for user in body.users}))


@router.get("/projections/org", operation_id="pullOrg", responses=_documented_responses(OrgProjectionOut))
def pull_org(tenant: ProjectTenant, since: Since = None, if_none_match: IfNoneMatch = None) -> Response:
    """Return the project's documents: all, or the changes since a version. A current ETag is answered with 304."""
    return _make_response("org", build_org_projection(tenant, since, _version_from_etag("org", if_none_match)))


@router.get(
    "/projections/org/file/{sha256}",
    operation_id="fetchOrgFile",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, **error_responses(PROJECT_ERRORS)},
)
def fetch_org_file(tenant: ProjectTenant, services: ServicesDep, sha256: Digest) -> StreamingResponse:
    """Return an index file of the project's documents by its SHA-256."""
    check_org_file_exists(tenant, sha256)
    try:
        size, blocks = services.blobs.stream(sha256)
    except FileNotFoundError:
        raise NotFoundError("unknown file") from None
    except OSError:
        raise ServiceUnavailableError("the blob store does not respond", store="blobs") from None
    headers = {"Content-Length": str(size), "ETag": f'"{sha256}"', "Cache-Control": "private, immutable"}
    return StreamingResponse(blocks, media_type="application/octet-stream", headers=headers)


def _record_pull(services: Services, tenant: Tenant, user_id: str, body: dict[str, Any] | None) -> None:
    if body is not None:  # else nothing was read
        services.reads.record(tenant, AuditAction.PULL_MEMORY, user_id)


def _require_user_id(tenant: Tenant) -> str:
    if tenant.scope.user_id is None:
        raise InvalidRequestError("X-User-Id is required: the user whose memory to return", field="X-User-Id")
    return tenant.scope.user_id


def _version_from_etag(projection: str, etag: str | None) -> int | None:
    match = _ETAG.match(etag or "")
    return int(match[2]) if match and match[1] == projection else None


def _make_response(projection: str, body: dict[str, Any] | None) -> Response:
    if body is None:
        return Response(status_code=HTTPStatus.NOT_MODIFIED)
    return _json_response(body, f'"{projection}-{body["version"]}"')


def _json_response(body: dict[str, Any], etag: str) -> Response:
    # Serialized as it was hashed; a response model could format numbers differently.
    return Response(json.dumps(body), media_type="application/json", headers={"ETag": etag})
