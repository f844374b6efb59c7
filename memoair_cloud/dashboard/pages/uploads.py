"""The pages of uploads: the form for files, and an upload with its progress, refusals and changes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.pages.documents import index_exists
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep, ProjectPage, Text
from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.multipart import FIELD
from memoair_cloud.http.schemas.indexes import check_index_name
from memoair_cloud.http.schemas.uploads import FileOutcomeOut
from memoair_cloud.indexes import uploads
from memoair_cloud.indexes.upload_states import WORKING, DocumentAction, FileState, UploadState
from memoair_documents.reading import ReadOptions

_REFUSALS_SHOWN = 100


class FilesRoute(PageRoute):
    """A route whose form has files: temporary ones on the disk, up to the size that the server allows."""

    async def _check_form(self, request: Request) -> None:
        self.max_form_bytes = self._limit(request)
        try:
            await super()._check_form(request)
        except HTTPException as error:  # of the parser: too many files, for example
            raise InvalidRequestError(f"invalid form: {error.detail}") from None
        except ClientDisconnect:
            raise InvalidRequestError("the form is incomplete") from None

    def _limit(self, request: Request) -> int:
        limit: int = request.app.state.services.settings.upload_request_bytes
        return limit


router = APIRouter(prefix="/p/{project_id}/documents/{name}", route_class=FilesRoute)


async def receive_form_files(request: Request) -> AsyncIterator[Sequence[UploadFile]]:
    """Yield the files of a form. This is the FastAPI dependency."""
    try:
        form = await request.form()
    except HTTPException as error:
        raise InvalidRequestError(f"invalid form: {error.detail}") from None
    except ClientDisconnect:
        raise InvalidRequestError("the form is incomplete") from None
    try:
        yield [part for part in form.getlist(FIELD) if isinstance(part, UploadFile) and part.filename]
    finally:
        await form.close()


FormFiles = Annotated[Sequence[UploadFile], Depends(receive_form_files)]
Flag = Annotated[bool, Form()]


@router.get("/upload")
def show_form(page: PageDep, name: PathId) -> Response:
    """Show the form for files, or lead to the upload that is open."""
    check_index_name(name)
    latest = uploads.list_uploads(page.tenant, name, None, 1).rows
    if latest and latest[0].is_open:
        return page.redirect("documents", name, "uploads", latest[0].id)
    return page.render("upload_form.html", "documents", name=name, exists=index_exists(page, name), **_limits(page))


@router.post("/uploads")
def create_upload(
    page: PageDep,
    name: PathId,
    files: FormFiles,
    replace_all: Flag = False,
    dry_run: Flag = False,
    text_columns: Text = "",
    id_column: Text = "id",
    encoding: Text = "",
    by_script: Flag = False,
) -> Response:
    """Start an upload with the files of the form. A script sends the files in further requests."""
    check_index_name(name)
    columns = tuple(column.strip() for column in text_columns.split(",") if column.strip())
    options = ReadOptions(encoding.strip() or None, columns, id_column.strip() or "id")
    if not files and not by_script:
        raise InvalidRequestError("choose at least one file", field=FIELD)
    upload = uploads.create_upload(page.tenant, name, options, replaces_all=replace_all)
    if by_script:
        return JSONResponse({"upload": page.href("documents", name, "uploads", upload.id)})
    _add(page, name, upload.id, files)
    # What replaces all first shows what it would delete: it is confirmed on the next page.
    return _start(page, name, upload.id, is_dry_run=dry_run or replace_all)


@router.post("/uploads/{upload_id}/files")
def add_files(page: PageDep, name: PathId, upload_id: PathId, files: FormFiles, by_script: Flag = False) -> Response:
    """Add files to an upload."""
    outcomes = _add(page, name, upload_id, files)
    if by_script:
        return JSONResponse({"files": [FileOutcomeOut.model_validate(outcome).model_dump() for outcome in outcomes]})
    return page.redirect("documents", name, "uploads", upload_id)


@router.post("/uploads/{upload_id}/start")
def start_upload(
    page: PageDep,
    name: PathId,
    upload_id: PathId,
    dry_run: Flag = False,
    is_confirmed: Flag = False,
    by_script: Flag = False,
) -> Response:
    """Read the files, and change the index unless it is a dry run."""
    upload = uploads.get_upload(page.tenant, name, upload_id).upload
    if upload.replaces_all and upload.state == UploadState.RECEIVING.value:
        dry_run = True
    elif upload.deleted and not is_confirmed and not dry_run:
        raise InvalidRequestError("tick the box to confirm that documents are deleted", field="is_confirmed")
    response = _start(page, name, upload_id, is_dry_run=dry_run)
    return JSONResponse({"upload": response.headers["location"]}) if by_script else response


@router.post("/uploads/{upload_id}/cancel")
def cancel_upload(page: PageDep, name: PathId, upload_id: PathId) -> Response:
    """Cancel an upload."""
    uploads.cancel_upload(page.tenant, name, upload_id)
    page.services.queue.enqueue_uploads(page.project.id)
    return page.redirect("documents", name, "uploads", upload_id)


@router.get("/uploads/{upload_id}")
def show_upload(
    page: PageDep,
    name: PathId,
    upload_id: PathId,
    action: Annotated[DocumentAction | None, Query(description="list the documents of this action")] = None,
    cursor: CursorParam = None,
) -> Response:
    """Show how far an upload is, what was refused, and what changes."""
    progress = uploads.get_upload(page.tenant, name, upload_id)
    upload = progress.upload
    if action is None and upload.state == UploadState.CHECKED.value:
        action = DocumentAction.DELETE if upload.deleted else DocumentAction.ADD if upload.added else None
    refused = uploads.list_files(page.tenant, name, upload_id, None, _REFUSALS_SHOWN, FileState.REFUSED)
    changes = uploads.list_changes(page.tenant, name, upload_id, action, cursor, PAGE_ROWS) if action else None
    return page.render(
        "upload.html",
        "documents",
        name=name,
        progress=progress,
        upload=upload,
        is_working=upload.state in [state.value for state in WORKING],
        refused=refused.rows,
        has_more_refused=refused.next_cursor is not None,
        action=action.value if action else None,
        changes=changes.rows if changes else [],
        cursor=cursor,
        next_cursor=changes.next_cursor if changes else None,
        **_limits(page),
    )


def _add(page: ProjectPage, name: str, upload_id: str, files: Sequence[UploadFile]) -> list[uploads.FileOutcome]:
    settings = page.services.settings
    limits = uploads.UploadLimits(settings.upload_file_bytes, settings.upload_total_bytes)
    return [
        uploads.add_file(page.tenant, page.services.blobs, name, upload_id, file.filename or "", file.file, limits)
        for file in files
    ]


def _start(page: ProjectPage, name: str, upload_id: str, *, is_dry_run: bool) -> Response:
    with suppress(InvalidRequestError):  # all files were refused: the page says why
        uploads.start_upload(page.tenant, name, upload_id, is_dry_run=is_dry_run)
        page.services.queue.enqueue_uploads(page.project.id)
    return page.redirect("documents", name, "uploads", upload_id)


def _limits(page: ProjectPage) -> dict[str, Any]:
    settings = page.services.settings
    return {"file_mb": settings.upload_file_bytes >> 20, "request_bytes": settings.upload_request_bytes}
