"""Routes for how long data is kept: previews of a policy, legal holds, exports, erasures and their receipts."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import IO, Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.calls.export import write_export
from memoair_cloud.database.models import LegalHold
from memoair_cloud.errors import BatchTooLargeError, ConflictError, LegalHoldError, NotFoundError
from memoair_cloud.http.body_parsing import JsonRoute
from memoair_cloud.http.dependencies import AccountTenant, ProjectTenant, ServicesDep
from memoair_cloud.http.errors import COMMON_ERRORS, PROJECT_ERRORS, error_responses
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.schemas.retention import ForgettingOut, HoldIn, HoldOut, HoldsOut, PreviewOut, RetentionIn
from memoair_cloud.memories.erasure import erase_user, get_receipt
from memoair_cloud.retention import holds
from memoair_cloud.retention.enforcement import preview_retention
from memoair_cloud.retention.policy import preview_policy
from memoair_protocol.timestamps import utc_now

router = APIRouter(tags=["retention"], route_class=JsonRoute)

_BLOCK_BYTES = 256 << 10
_USER = "/v1/voice-sdk/users/{user_id}"
_PROJECT = "/v1/projects/{project_id}"
_PLACE_ERRORS = error_responses(PROJECT_ERRORS, ConflictError, BatchTooLargeError)
_LIFT_ERRORS = error_responses(PROJECT_ERRORS, BatchTooLargeError)

Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]


async def _get_key_id(request: Request, _: AccountTenant) -> str:
    return str(request.state.key_id)


KeyId = Annotated[str, Depends(_get_key_id)]


@router.post(
    f"{_PROJECT}/retention/preview",
    operation_id="previewRetention",
    responses=error_responses(COMMON_ERRORS, NotFoundError, BatchTooLargeError),
)
def preview(tenant: AccountTenant, project_id: PathId, body: RetentionIn) -> PreviewOut:
    """Count what would be dropped now if the project's periods were changed like this. Nothing is changed."""
    project = tenant.for_project(project_id)
    policy = preview_policy(project, body.changes())
    return PreviewOut.model_validate({"retention": policy, **preview_retention(project, policy, utc_now())})


@router.get(
    f"{_PROJECT}/holds", operation_id="listProjectHolds", responses=error_responses(COMMON_ERRORS, NotFoundError)
)
def list_project_holds(tenant: AccountTenant, project_id: PathId) -> HoldsOut:
    """List the legal holds on all users of a project, lifted ones included."""
    return _holds_out(holds.list_holds(tenant.for_project(project_id), None))


@router.post(f"{_PROJECT}/holds", status_code=HTTPStatus.CREATED, operation_id="holdProject", responses=_PLACE_ERRORS)
def hold_project(tenant: AccountTenant, project_id: PathId, body: HoldIn, key_id: KeyId) -> HoldOut:
    """Place a legal hold on all users of a project: nothing is dropped or erased until it is lifted."""
    hold = holds.place_hold(tenant.for_project(project_id), None, body.reason, _actor(body, key_id))
    return HoldOut.model_validate(hold)


@router.post(f"{_PROJECT}/holds/lift", operation_id="liftProjectHold", responses=_LIFT_ERRORS)
def lift_project_hold(tenant: AccountTenant, project_id: PathId, body: HoldIn, key_id: KeyId) -> HoldOut:
    """Lift the legal hold on all users of a project. Holds on single users stay."""
    hold = holds.lift_hold(tenant.for_project(project_id), None, body.reason, _actor(body, key_id))
    return HoldOut.model_validate(hold)


@router.get(f"{_USER}/holds", operation_id="listHolds", responses=error_responses(PROJECT_ERRORS))
def list_holds(tenant: ProjectTenant, user_id: PathId) -> HoldsOut:
    """List the legal holds on a user, lifted ones included."""
    return _holds_out(holds.list_holds(tenant, user_id))


@router.post(f"{_USER}/holds", status_code=HTTPStatus.CREATED, operation_id="holdUser", responses=_PLACE_ERRORS)
def hold_user(tenant: ProjectTenant, user_id: PathId, body: HoldIn, key_id: KeyId) -> HoldOut:
    """Place a legal hold on a user: nothing of theirs is dropped or erased until it is lifted."""
    return HoldOut.model_validate(holds.place_hold(tenant, user_id, body.reason, _actor(body, key_id)))


@router.post(f"{_USER}/holds/lift", operation_id="liftHold", responses=_LIFT_ERRORS)
def lift_hold(tenant: ProjectTenant, user_id: PathId, body: HoldIn, key_id: KeyId) -> HoldOut:
    """Lift the legal hold on a user. A hold on the whole project stays."""
    return HoldOut.model_validate(holds.lift_hold(tenant, user_id, body.reason, _actor(body, key_id)))


@router.get(
    f"{_USER}/export",
    operation_id="exportUser",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/json": {}}}, **error_responses(PROJECT_ERRORS)},
)
def export_user(tenant: ProjectTenant, services: ServicesDep, user_id: PathId) -> StreamingResponse:
    """Return everything that is kept of a user, as one JSON document."""
    file = write_export(tenant, user_id)
    try:
        services.reads.record(tenant, AuditAction.EXPORTED_CALLER, user_id)
    except BaseException:
        file.close()
        raise
    headers = {"Content-Length": str(file.tell()), "Cache-Control": "no-store"}
    file.seek(0)
    return StreamingResponse(
        _read_blocks(file), media_type="application/json", headers=headers, background=BackgroundTask(file.close)
    )


@router.delete(_USER, operation_id="forgetUser", responses=error_responses(PROJECT_ERRORS, LegalHoldError))
def forget_user(tenant: ProjectTenant, user_id: PathId) -> ForgettingOut:
    """Erase a user: delete all their data, let machines delete their copies, and reject late events."""
    return ForgettingOut.model_validate(erase_user(tenant, user_id))


@router.get("/v1/voice-sdk/erasures/{digest}", operation_id="getReceipt", responses=error_responses(PROJECT_ERRORS))
def read_receipt(tenant: ProjectTenant, digest: Digest) -> ForgettingOut:
    """Return the receipt of an erasure again. It names no user."""
    return ForgettingOut.model_validate(get_receipt(tenant, digest))


def _actor(body: HoldIn, key_id: str) -> str:
    return key_id if body.by is None else f"{body.by} ({key_id})"


def _holds_out(rows: Sequence[LegalHold]) -> HoldsOut:
    return HoldsOut(holds=[HoldOut.model_validate(row) for row in rows])


def _read_blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block
