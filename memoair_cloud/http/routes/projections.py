"""What devices pull: versions, and what has changed."""

import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from memoair_cloud.http.dependencies import ProjectTenant
from memoair_cloud.http.errors import IN_A_PROJECT, documented
from memoair_cloud.http.schemas import FileOut, OrgProjectionOut, ProjectedOut, RemovedOut
from memoair_cloud.indexes.projection import project_org

router = APIRouter(prefix="/v1/voice-sdk/projections", tags=["projections"])

_MAX_VERSION = 2**53 - 1
_ETAG = re.compile(r'^(?:W/)?"org-(\d{1,15})"$')
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "Nothing has changed since that version"}}


@router.get(
    "/org",
    operation_id="pullOrg",
    response_model=OrgProjectionOut,
    responses={**documented(IN_A_PROJECT), **_UNCHANGED},
)
def pull_org(
    tenant: ProjectTenant,
    response: Response,
    since: Annotated[int | None, Query(ge=0, le=_MAX_VERSION, description="the version that the device has")] = None,
    if_none_match: Annotated[str | None, Header(description="the ETag that the device has")] = None,
) -> OrgProjectionOut | Response:
    """The project's documents: all of them, or with `since` what has changed. An ETag that still holds answers 304."""
    held = _ETAG.match(if_none_match or "")
    projection = project_org(tenant, since, int(held[1]) if held else None)
    if projection is None:
        return Response(status_code=HTTPStatus.NOT_MODIFIED)
    response.headers["ETag"] = f'"org-{projection.version}"'
    build = projection.build
    return OrgProjectionOut(
        mode="delta" if projection.is_delta else "snapshot",
        version=projection.version,
        content_hash=projection.content_hash(),
        documents=[ProjectedOut.model_validate(row) for row in projection.documents],
        removed=[RemovedOut.model_validate(row) for row in projection.removed],
        file=FileOut.model_validate(build) if build and build.sha256 else None,
    )
