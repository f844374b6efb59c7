"""What devices pull: versions, and what has changed."""

import json
import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse

from memoair_cloud.errors import InvalidRequestError, NotFoundError, ServiceUnavailableError
from memoair_cloud.http.dependencies import ProjectTenant, ServicesDep
from memoair_cloud.http.errors import IN_A_PROJECT, documented
from memoair_cloud.http.schemas.projections import (
    BootstrapOut,
    ForgottenOut,
    OrgProjectionOut,
    PermanentOut,
    ProfileOut,
)
from memoair_cloud.projections.bootstrap import bootstrap
from memoair_cloud.projections.org import check_org_file, project_org
from memoair_cloud.projections.users import forgotten_since, project_permanent, project_profile
from memoair_cloud.tenancy.access import Tenant

router = APIRouter(prefix="/v1/voice-sdk", tags=["projections"])

_MAX_VERSION = 2**53 - 1
_ETAG = re.compile(r'^(?:W/)?"(\w+)-(\d{1,15})"$')
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "Nothing has changed since that version"}}

Since = Annotated[int | None, Query(ge=0, le=_MAX_VERSION, description="the version that the device has")]
Held = Annotated[str | None, Header(alias="If-None-Match", description="the ETag that the device has")]
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]


def _responses(model: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}, **documented(IN_A_PROJECT), **_UNCHANGED}


@router.get("/bootstrap", operation_id="bootstrap", responses=_responses(BootstrapOut))
def get_bootstrap(tenant: ProjectTenant, if_none_match: Held = None) -> Response:
    """How far everything has come: the documents, and the caller where X-User-Id names one."""
    told = bootstrap(tenant)
    etag = f'"{told["syncToken"]}"'
    if if_none_match is not None and if_none_match.removeprefix("W/") == etag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED)
    return _json(told, etag)


@router.get("/projections/profile", operation_id="pullProfile", responses=_responses(ProfileOut))
def pull_profile(tenant: ProjectTenant, since: Since = None, if_none_match: Held = None) -> Response:
    """Who the caller is that X-User-Id names."""
    return _answer("profile", project_profile(tenant, _caller(tenant), since, _held("profile", if_none_match)))


@router.get("/projections/permanent", operation_id="pullPermanent", responses=_responses(PermanentOut))
def pull_permanent(tenant: ProjectTenant, since: Since = None, if_none_match: Held = None) -> Response:
    """What the caller that X-User-Id names has said, and what was learned of him: all, or what has changed."""
    held = _held("permanent", if_none_match)
    return _answer("permanent", project_permanent(tenant, _caller(tenant), since, held))


@router.get("/projections/forgotten", operation_id="pullForgotten", responses=_responses(ForgottenOut))
def pull_forgotten(tenant: ProjectTenant, since: Since = None, if_none_match: Held = None) -> Response:
    """Which callers of the project were forgotten, so that devices drop what they hold of them."""
    return _answer("forgotten", forgotten_since(tenant, since, _held("forgotten", if_none_match)))


@router.get("/projections/org", operation_id="pullOrg", responses=_responses(OrgProjectionOut))
def pull_org(tenant: ProjectTenant, since: Since = None, if_none_match: Held = None) -> Response:
    """The project's documents: all of them, or with `since` what has changed. An ETag that still holds answers 304."""
    return _answer("org", project_org(tenant, since, _held("org", if_none_match)))


@router.get(
    "/projections/org/file/{sha256}",
    operation_id="fetchOrgFile",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, **documented(IN_A_PROJECT)},
)
def fetch_org_file(tenant: ProjectTenant, behind: ServicesDep, sha256: Digest) -> StreamingResponse:
    """An index file of the project's documents, of which its SHA-256 is known."""
    check_org_file(tenant, sha256)
    try:
        size, blocks = behind.blobs.stream(sha256)
    except FileNotFoundError:
        raise NotFoundError("there is no such file") from None
    except OSError:
        raise ServiceUnavailableError("the blob store does not answer", store="blobs") from None
    headers = {"Content-Length": str(size), "ETag": f'"{sha256}"', "Cache-Control": "private, immutable"}
    return StreamingResponse(blocks, media_type="application/octet-stream", headers=headers)


def _caller(tenant: Tenant) -> str:
    if tenant.scope.user_id is None:
        raise InvalidRequestError("X-User-Id is missing: whose memory is meant", field="X-User-Id")
    return tenant.scope.user_id


def _held(what: str, etag: str | None) -> int | None:
    match = _ETAG.match(etag or "")
    return int(match[2]) if match and match[1] == what else None


def _answer(what: str, told: dict[str, Any] | None) -> Response:
    if told is None:
        return Response(status_code=HTTPStatus.NOT_MODIFIED)
    return _json(told, f'"{what}-{told["version"]}"')


def _json(told: dict[str, Any], etag: str) -> Response:
    # As it was hashed: a model in between might write a number in another way.
    return Response(json.dumps(told), media_type="application/json", headers={"ETag": etag})
