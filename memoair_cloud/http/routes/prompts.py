"""Routes of an agent's prompt: its versions, and the labels that point to them. X-Agent-Id names the agent."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from memoair_cloud.errors import BatchTooLargeError, ConflictError
from memoair_cloud.http.body_parsing import PromptRoute
from memoair_cloud.http.dependencies import Cursor, Limit, ProjectTenant
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.schemas.base import ResponseBody
from memoair_cloud.http.schemas.prompts import (
    MAX_VERSION,
    LabeledPromptOut,
    LabelPath,
    PromptDiffOut,
    PromptIn,
    PromptLabelIn,
    PromptLabelMoveOut,
    PromptLabelMovesOut,
    PromptLabelOut,
    PromptLabelsOut,
    PromptOut,
    PromptsOut,
    PromptSummaryOut,
    PushedPromptOut,
    VersionPath,
)
from memoair_cloud.prompts import labels, versions
from memoair_protocol.hashes import hash_content

router = APIRouter(prefix="/v1/voice-sdk", tags=["prompts"], route_class=PromptRoute)

_READ_ERRORS = error_responses(PROJECT_ERRORS)
_CHANGE_ERRORS = error_responses(PROJECT_ERRORS, ConflictError)
_BODY_ERRORS = error_responses(PROJECT_ERRORS, ConflictError, BatchTooLargeError)
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not modified: the ETag is that of the reply"}}
_UNCHANGED: dict[int | str, dict[str, Any]] = {
    200: {"model": PushedPromptOut, "description": "The latest version has this text already"}
}

IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="the ETag of an earlier reply")]
Expected = Annotated[
    int | None,
    Query(alias="expectedVersion", ge=0, le=MAX_VERSION, description="the version that the label points to before"),
]


@router.post(
    "/prompts",
    status_code=HTTPStatus.CREATED,
    operation_id="pushPrompt",
    responses={**_BODY_ERRORS, **_UNCHANGED},
)
def push_prompt(tenant: ProjectTenant, body: PromptIn, response: Response) -> PushedPromptOut:
    """Add a version of the agent's prompt, and point labels to it.

    If the latest version has the same text, it is returned with 200 and its notes stay; labels are moved all the same.
    """
    new = versions.NewPrompt(body.text, body.notes or "", body.labels or (), body.expected_version)
    pushed = versions.push_prompt(tenant, new)
    if not pushed.is_new:
        response.status_code = HTTPStatus.OK
    return PushedPromptOut(**PromptOut.model_validate(pushed.prompt).model_dump(), is_new=pushed.is_new)


@router.get("/prompts", operation_id="listPrompts", responses=_READ_ERRORS)
def list_prompts(tenant: ProjectTenant, cursor: Cursor = None, limit: Limit = 100) -> PromptsOut:
    """List the versions of the agent's prompt without their texts, latest first."""
    page = versions.list_prompts(tenant, cursor, limit)
    return PromptsOut(prompts=[PromptSummaryOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.get(
    "/prompts/{version}",
    operation_id="getPrompt",
    responses={200: {"model": PromptOut}, **_READ_ERRORS, **_NOT_MODIFIED},
)
def get_prompt(tenant: ProjectTenant, version: VersionPath, if_none_match: IfNoneMatch = None) -> Response:
    """Return a version of the agent's prompt."""
    return _make_response(PromptOut.model_validate(versions.get_prompt(tenant, version)), if_none_match)


@router.get("/prompts/{version}/diff", operation_id="diffPrompts", responses=_READ_ERRORS)
def diff_prompts(
    tenant: ProjectTenant,
    version: VersionPath,
    against: Annotated[
        int | None, Query(ge=0, le=MAX_VERSION, description="by default the version before; 0 for an empty text")
    ] = None,
) -> PromptDiffOut:
    """Compare a version with another one."""
    return PromptDiffOut.model_validate(versions.diff_prompts(tenant, version, against))


@router.get("/prompt-labels", operation_id="listPromptLabels", responses=_READ_ERRORS)
def list_labels(tenant: ProjectTenant, cursor: Cursor = None, limit: Limit = 100) -> PromptLabelsOut:
    """List the labels of the agent's prompt by name."""
    page = labels.list_labels(tenant, cursor, limit)
    return PromptLabelsOut(labels=[PromptLabelOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.get(
    "/prompt-labels/{name}",
    operation_id="getLabeledPrompt",
    responses={200: {"model": LabeledPromptOut}, **_READ_ERRORS, **_NOT_MODIFIED},
)
def get_labeled_prompt(tenant: ProjectTenant, name: LabelPath, if_none_match: IfNoneMatch = None) -> Response:
    """Return the version that a label points to. Keys for ingesting only may do that, too."""
    prompt = PromptOut.model_validate(labels.get_labeled_prompt(tenant, name))
    return _make_response(LabeledPromptOut(**prompt.model_dump(), label=name), if_none_match)


@router.put("/prompt-labels/{name}", operation_id="movePromptLabel", responses=_BODY_ERRORS)
def move_label(tenant: ProjectTenant, name: LabelPath, body: PromptLabelIn) -> PromptLabelOut:
    """Point a label to a version, and create it if need be."""
    return PromptLabelOut.model_validate(labels.move_label(tenant, name, body.version, body.expected_version))


@router.delete("/prompt-labels/{name}", operation_id="removePromptLabel", responses=_CHANGE_ERRORS)
def remove_label(tenant: ProjectTenant, name: LabelPath, expected_version: Expected = None) -> PromptLabelOut:
    """Remove a label. The versions and the label's history stay."""
    return PromptLabelOut.model_validate(labels.remove_label(tenant, name, expected_version))


@router.post("/prompt-labels/{name}/rollback", operation_id="rollBackPromptLabel", responses=_CHANGE_ERRORS)
def roll_back_label(tenant: ProjectTenant, name: LabelPath, expected_version: Expected = None) -> PromptLabelOut:
    """Point a label to the version that it had before. Repeated, it goes further back; it also undoes a removal."""
    return PromptLabelOut.model_validate(labels.roll_back_label(tenant, name, expected_version))


@router.get("/prompt-labels/{name}/moves", operation_id="listPromptLabelMoves", responses=_READ_ERRORS)
def list_label_moves(
    tenant: ProjectTenant, name: LabelPath, cursor: Cursor = None, limit: Limit = 100
) -> PromptLabelMovesOut:
    """List the moves of a label, latest first, also of one that was removed."""
    page = labels.list_label_moves(tenant, name, cursor, limit)
    return PromptLabelMovesOut(
        moves=[PromptLabelMoveOut.model_validate(row) for row in page.rows], next=page.next_cursor
    )


def _make_response(body: ResponseBody, if_none_match: str | None) -> Response:
    etag = f'"{hash_content(body.model_dump(mode="json"))[:32]}"'
    known = [] if if_none_match is None else [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    # Prompts may be cached, but not by a proxy that does not know whose they are, nor without asking.
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if etag in known or known == ["*"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body.model_dump_json(by_alias=True), media_type="application/json", headers=headers)
