"""Bodies of the upload routes."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from memoair_cloud.http.schemas.base import Name, RequestBody, ResponseBody
from memoair_cloud.indexes.upload_states import DocumentAction, FileState, UploadState
from memoair_cloud.indexes.uploads import UploadProgress


class UploadIn(RequestBody):
    """How the files of an upload are read, and whether documents that are in none of them are deleted."""

    replace_all: bool = False
    text_columns: Annotated[list[Name], Field(max_length=50)] = []
    id_column: Name = "id"
    encoding: Annotated[str | None, Field(max_length=40)] = None


class UploadStartIn(RequestBody):
    """Whether the index stays as it is."""

    dry_run: bool = False


class UploadOut(ResponseBody):
    """An upload, and how far it is.

    `files` counts its files by state, `documents` what it does with documents: those that it adds, replaces and
    deletes, those that the index has already, and how many of the changes are done. `keepsMissing` is true if
    nothing is deleted because a refused table may have the missing documents.
    """

    upload_id: str
    index_name: str
    state: UploadState
    dry_run: bool
    replace_all: bool
    files: dict[FileState, int]
    documents: dict[str, int]
    keeps_missing: bool
    failure: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, progress: UploadProgress) -> "UploadOut":
        """Return the body for an upload."""
        upload = progress.upload
        counts = ("added", "replaced", "kept", "deleted", "applied")
        return cls(
            upload_id=upload.id,
            index_name=upload.index_name,
            state=UploadState(upload.state),
            dry_run=upload.is_dry_run,
            replace_all=upload.replaces_all,
            files={FileState(state): count for state, count in progress.files.items()},
            documents={name: getattr(upload, name) for name in counts},
            keeps_missing=upload.keeps_missing,
            failure=upload.failure,
            created_at=upload.created_at,
            updated_at=upload.updated_at,
            finished_at=upload.finished_at,
        )


class UploadSummaryOut(ResponseBody):
    """An upload in a list."""

    upload_id: str = Field(validation_alias="id")
    state: UploadState
    dry_run: bool = Field(validation_alias="is_dry_run")
    replace_all: bool = Field(validation_alias="replaces_all")
    created_at: datetime
    finished_at: datetime | None


class UploadsOut(ResponseBody):
    """A page of the uploads of an index."""

    uploads: list[UploadSummaryOut]
    next: str | None


class FileOutcomeOut(ResponseBody):
    """What became of a file that was sent. `repeated`: it was there already, with the same content."""

    name: str
    sha256: str
    size: int
    state: FileState
    reason: str | None
    repeated: bool = Field(validation_alias="is_repeated")


class FileOutcomesOut(ResponseBody):
    """What became of the files of a request, in their order."""

    files: list[FileOutcomeOut]


class UploadedFileOut(ResponseBody):
    """A file of an upload."""

    name: str
    sha256: str
    size: int
    state: FileState
    reason: str | None
    document_count: int


class UploadedFilesOut(ResponseBody):
    """A page of the files of an upload, sorted by name."""

    files: list[UploadedFileOut]
    next: str | None


class DocumentChangeOut(ResponseBody):
    """What an upload does with a document."""

    document_id: str
    action: DocumentAction
    file_name: str | None


class DocumentChangesOut(ResponseBody):
    """A page of what an upload does, sorted by document."""

    changes: list[DocumentChangeOut]
    next: str | None


FILES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}
