"""Routes for uploads: many files for an index, beyond the limits of single requests."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from memoair_cloud.errors import BatchTooLargeError, ConflictError
from memoair_cloud.http.body_parsing import JsonRoute
from memoair_cloud.http.dependencies import Cursor, Limit, ProjectTenant, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.multipart import ReceivedFiles
from memoair_cloud.http.schemas.indexes import check_index_name
from memoair_cloud.http.schemas.uploads import (
    FILES_BODY,
    DocumentChangeOut,
    DocumentChangesOut,
    FileOutcomeOut,
    FileOutcomesOut,
    UploadedFileOut,
    UploadedFilesOut,
    UploadIn,
    UploadOut,
    UploadsOut,
    UploadStartIn,
    UploadSummaryOut,
)
from memoair_cloud.indexes import uploads
from memoair_cloud.indexes.upload_states import DocumentAction, FileState
from memoair_documents.reading import ReadOptions

router = APIRouter(prefix="/v1/voice-sdk/index/{name}/uploads", tags=["uploads"], route_class=JsonRoute)

_CHANGES = error_responses(PROJECT_ERRORS, ConflictError, BatchTooLargeError)
_READS = error_responses(PROJECT_ERRORS)


@router.post("", status_code=HTTPStatus.CREATED, operation_id="createUpload", responses=_CHANGES)
def create_upload(tenant: ProjectTenant, name: PathId, body: UploadIn) -> UploadOut:
    """Start an upload for an index, which need not exist. An index has one open upload at a time."""
    check_index_name(name)
    options = ReadOptions(body.encoding, tuple(body.text_columns), body.id_column)
    upload = uploads.create_upload(tenant, name, options, replaces_all=body.replace_all)
    return UploadOut.of(uploads.get_upload(tenant, name, upload.id))


@router.get("", operation_id="listUploads", responses=_READS)
def list_uploads(tenant: ProjectTenant, name: PathId, cursor: Cursor = None, limit: Limit = 100) -> UploadsOut:
    """List the uploads of an index of the last 30 days, latest first."""
    page = uploads.list_uploads(tenant, name, cursor, limit)
    return UploadsOut(uploads=[UploadSummaryOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.get("/{upload_id}", operation_id="getUpload", responses=_READS)
def get_upload(tenant: ProjectTenant, name: PathId, upload_id: PathId) -> UploadOut:
    """Return an upload and how far it is."""
    return UploadOut.of(uploads.get_upload(tenant, name, upload_id))


@router.post("/{upload_id}/files", operation_id="addFiles", responses=_CHANGES, openapi_extra=FILES_BODY)
def add_files(
    tenant: ProjectTenant, services: ServicesDep, name: PathId, upload_id: PathId, files: ReceivedFiles
) -> FileOutcomesOut:
    """Add files. Each is received or refused by itself; one that is there already is not stored again."""
    limits = uploads.UploadLimits(services.settings.upload_file_bytes, services.settings.upload_total_bytes)
    outcomes = [
        uploads.add_file(tenant, services.blobs, name, upload_id, file.filename or "", file.file, limits)
        for file in files
    ]
    return FileOutcomesOut(files=[FileOutcomeOut.model_validate(outcome) for outcome in outcomes])


@router.get("/{upload_id}/files", operation_id="listFiles", responses=_READS)
def list_files(
    tenant: ProjectTenant,
    name: PathId,
    upload_id: PathId,
    state: FileState | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> UploadedFilesOut:
    """List the files of an upload with what became of them, sorted by name."""
    page = uploads.list_files(tenant, name, upload_id, cursor, limit, state)
    return UploadedFilesOut(files=[UploadedFileOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.post("/{upload_id}/start", operation_id="startUpload", responses=_CHANGES)
def start_upload(
    tenant: ProjectTenant, services: ServicesDep, name: PathId, upload_id: PathId, body: UploadStartIn
) -> UploadOut:
    """Read the files in the background and change the index, or only find out what would change."""
    progress = uploads.start_upload(tenant, name, upload_id, is_dry_run=body.dry_run)
    services.queue.enqueue_uploads(tenant.scope.project_id)
    return UploadOut.of(progress)


@router.get("/{upload_id}/changes", operation_id="listChanges", responses=_READS)
def list_changes(
    tenant: ProjectTenant,
    name: PathId,
    upload_id: PathId,
    action: Annotated[DocumentAction | None, Query(description="only documents with which it does this")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> DocumentChangesOut:
    """List what an upload does with documents: after a dry run all, later what is not done yet."""
    page = uploads.list_changes(tenant, name, upload_id, action, cursor, limit)
    return DocumentChangesOut(
        changes=[DocumentChangeOut.model_validate(row) for row in page.rows], next=page.next_cursor
    )


@router.delete("/{upload_id}", operation_id="cancelUpload", responses=error_responses(PROJECT_ERRORS, ConflictError))
def cancel_upload(tenant: ProjectTenant, services: ServicesDep, name: PathId, upload_id: PathId) -> UploadOut:
    """Cancel an upload. What it has changed already stays."""
    progress = uploads.cancel_upload(tenant, name, upload_id)
    services.queue.enqueue_uploads(tenant.scope.project_id)
    return UploadOut.of(progress)
