"""Uploads: many files for an index, received one by one, checked, and applied by a worker.

The rows are the only record of what the blob store has: a file's row is written before its content and deleted after
it, so whatever fails in between, nothing is left behind.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, BinaryIO

import attrs
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.models import OrgIndex
from memoair_cloud.database.upload_models import Upload, UploadedDocument, UploadedFile
from memoair_cloud.errors import (
    BatchTooLargeError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ServiceUnavailableError,
)
from memoair_cloud.identifiers import check_identifier, new_id
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.indexes.upload_states import TRANSITIONS, DocumentAction, FileState, UploadState, is_open
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_documents.decoding import is_known_encoding
from memoair_documents.reading import ReadOptions
from memoair_protocol.timestamps import utc_now

MAX_FILES = 10_000
EXPIRES_AFTER = timedelta(days=1)
_BLOCK_BYTES = 1 << 20
_LATEST_FIRST = PageOrder[Upload](
    (Upload.created_at, Upload.id), (datetime, str), lambda row: (row.created_at, row.id), descending=True
)
_BY_NAME = PageOrder[UploadedFile](
    (UploadedFile.name, UploadedFile.sha256), (str, str), lambda row: (row.name, row.sha256)
)
_BY_DOCUMENT = PageOrder[UploadedDocument]((UploadedDocument.document_id,), (str,), lambda row: (row.document_id,))


@attrs.frozen
class UploadLimits:
    """Limits of uploads, in bytes.

    Attributes:
        file_bytes: The largest file.
        total_bytes: All files of an upload together.
    """

    file_bytes: int
    total_bytes: int


@attrs.frozen
class UploadProgress:
    """An upload, and how far it is.

    Attributes:
        upload: Its row.
        files: The number of its files by state, without superseded ones.
        index_exists: Whether its index exists.
    """

    upload: Upload
    files: dict[str, int]
    index_exists: bool

    @property
    def file_count(self) -> int:
        """The number of files."""
        return sum(self.files.values())

    @property
    def change_count(self) -> int:
        """The number of documents that change."""
        return self.upload.added + self.upload.replaced + self.upload.deleted


@attrs.frozen
class FileOutcome:
    """What became of a file that was sent.

    Attributes:
        name: Its name.
        sha256: The hash of its content.
        size: Its size in bytes.
        state: ``received`` or ``refused``.
        reason: Why it was refused.
        is_repeated: Whether the same file was there already.
    """

    name: str
    sha256: str
    size: int
    state: str
    reason: str | None = None
    is_repeated: bool = False


def create_upload(tenant: Tenant, index_name: str, options: ReadOptions, *, replaces_all: bool) -> Upload:
    """Start an upload for an index, which need not exist.

    Args:
        tenant: The project.
        index_name: The index.
        options: How the files are read.
        replaces_all: Whether documents of the index that are not in the files are deleted.

    Raises:
        ConflictError: If another upload of the index is open.
        InvalidRequestError: If the encoding is unknown.
    """
    if options.encoding is not None and not is_known_encoding(options.encoding):
        raise InvalidRequestError("unknown encoding", field="encoding")
    now = utc_now()
    upload = Upload(
        project_id=tenant.scope.project_id,
        id=new_id("upload"),
        index_name=index_name,
        state=UploadState.RECEIVING.value,
        is_open=True,
        is_dry_run=False,
        replaces_all=replaces_all,
        text_columns=list(options.text_columns),
        id_column=options.id_column,
        encoding=options.encoding,
        created_at=now,
        updated_at=now,
        has_files=False,
    )
    try:
        with tenant.begin_write() as session:
            statement = select(Upload.id).where(Upload.index_name == index_name, Upload.is_open)
            if (open_id := session.scalar(statement)) is not None:
                raise _make_conflict(open_id)
            session.add(upload)
    except IntegrityError:  # a concurrent request was first
        raise _make_conflict(None) from None
    return upload


def add_file(
    tenant: Tenant, blobs: BlobStore, index_name: str, upload_id: str, name: str, file: BinaryIO, limits: UploadLimits
) -> FileOutcome:
    """Add a file to an upload. One that is there already, with the same name and content, is not stored again.

    Args:
        tenant: The project.
        blobs: The store of its content until it is read.
        index_name: The index.
        upload_id: The upload.
        name: The name of the file, or its path in a folder.
        file: Its content.
        limits: The limits of the server.

    Returns:
        What became of it. A file that is not accepted does not affect the others.

    Raises:
        NotFoundError: If there is no such upload.
        ConflictError: If the upload does not receive files any more.
        BatchTooLargeError: If the upload has too many files, or too large ones.
        ServiceUnavailableError: If the blob store does not take it.
    """
    name, reason = _check_name(name)
    size, sha256 = _measure(file)
    if reason is None and size > limits.file_bytes:
        reason = f"larger than {limits.file_bytes:,} bytes"
    with tenant.begin_write() as session:
        upload = _load(session, index_name, upload_id, lock=True)
        if upload.state != UploadState.RECEIVING.value:
            raise ConflictError("this upload does not receive files any more", state=upload.state)
        rows = {row.sha256: row for row in session.scalars(_files_of(upload_id).where(UploadedFile.name == name))}
        row = rows.get(sha256)
        if row is not None and row.state in (FileState.RECEIVED.value, FileState.REFUSED.value):
            return FileOutcome(name, sha256, size, row.state, row.reason, is_repeated=True)
        _check_room(session, upload_id, size, limits)
        upload.updated_at = utc_now()
        upload.has_files = True
        for former in rows.values():
            former.state = FileState.SUPERSEDED.value
        if row is None:
            row = UploadedFile(project_id=session.scope.project_id, upload_id=upload_id, name=name, sha256=sha256)
            row.document_count = 0
            session.add(row)
        row.size, row.reason = size, reason
        row.state = FileState.STORING.value if reason is None else FileState.REFUSED.value
    if reason is not None:
        return FileOutcome(name, sha256, size, FileState.REFUSED.value, reason)
    try:
        blobs.write(blob_key(tenant, upload_id, sha256), _read_blocks(file))
    except OSError:
        raise ServiceUnavailableError("the blob store takes no files: is it full?", store="blobs") from None
    with tenant.begin_write() as session:
        upload = _load(session, index_name, upload_id, lock=True)
        row = session.get_one(UploadedFile, (session.scope.project_id, upload_id, name, sha256))
        if upload.state == UploadState.RECEIVING.value and row.state == FileState.STORING.value:
            row.state = FileState.RECEIVED.value
        # If the upload has ended since, its files may have been removed before this one was there.
        upload.has_files = True
        state = row.state
    if state != FileState.RECEIVED.value:
        raise ConflictError("the upload has changed while this file was sent")
    return FileOutcome(name, sha256, size, FileState.RECEIVED.value)


def start_upload(tenant: Tenant, index_name: str, upload_id: str, *, is_dry_run: bool) -> UploadProgress:
    """Let a worker read the files, and change the index unless it is a dry run. After a dry run, start it again.

    Raises:
        NotFoundError: If there is no such upload.
        ConflictError: If it runs already, or is over.
        InvalidRequestError: If it has no files.
    """
    with tenant.begin_write() as session:
        upload = _load(session, index_name, upload_id, lock=True)
        received = {FileState.RECEIVED.value, FileState.READ.value}
        names = select(UploadedFile.name).where(UploadedFile.upload_id == upload_id)
        if session.scalar(names.where(UploadedFile.state == FileState.STORING.value).limit(1)) is not None:
            raise ConflictError("a file is not complete yet: send it again, or wait for it")
        if session.scalar(names.where(UploadedFile.state.in_(received)).limit(1)) is None:
            raise InvalidRequestError("the upload has no files that can be read", field="files")
        move(upload, UploadState.QUEUED)
        upload.is_dry_run = is_dry_run
        # What a dry run found is found again: the index may have changed since.
        session.execute(
            update(UploadedFile)
            .where(UploadedFile.upload_id == upload_id, UploadedFile.state == FileState.READ.value)
            .values(state=FileState.RECEIVED.value, document_count=0),
            execution_options={"synchronize_session": False},
        )
        return _describe(session, upload)


def cancel_upload(tenant: Tenant, index_name: str, upload_id: str) -> UploadProgress:
    """End an upload. What it has changed already stays; a worker removes its files.

    Raises:
        NotFoundError: If there is no such upload.
        ConflictError: If it is over already.
    """
    with tenant.begin_write() as session:
        upload = _load(session, index_name, upload_id, lock=True)
        move(upload, UploadState.CANCELED)
        return _describe(session, upload)


def get_upload(tenant: Tenant, index_name: str, upload_id: str) -> UploadProgress:
    """Return an upload and how far it is; raise `NotFoundError` if it does not exist."""
    with tenant.begin_read() as session:
        return _describe(session, _load(session, index_name, upload_id))


def list_uploads(tenant: Tenant, index_name: str, cursor: str | None, limit: int) -> ResultPage[Upload]:
    """Return a page of the uploads of an index, latest first."""
    with tenant.begin_read() as session:
        statement = select(Upload).where(Upload.index_name == index_name)
        return _LATEST_FIRST.fetch_page(session, statement, cursor, limit)


def list_files(
    tenant: Tenant, index_name: str, upload_id: str, cursor: str | None, limit: int, state: FileState | None = None
) -> ResultPage[UploadedFile]:
    """Return a page of the files of an upload, sorted by name; raise `NotFoundError` if it does not exist."""
    with tenant.begin_read() as session:
        _load(session, index_name, upload_id)
        statement = _files_of(upload_id).where(UploadedFile.state != FileState.SUPERSEDED.value)
        if state is not None:
            statement = statement.where(UploadedFile.state == state.value)
        return _BY_NAME.fetch_page(session, statement, cursor, limit)


def list_changes(
    tenant: Tenant, index_name: str, upload_id: str, action: DocumentAction | None, cursor: str | None, limit: int
) -> ResultPage[UploadedDocument]:
    """Return a page of the documents with which an upload does something, as far as it is known and not done yet."""
    with tenant.begin_read() as session:
        _load(session, index_name, upload_id)
        statement = select(UploadedDocument).where(UploadedDocument.upload_id == upload_id)
        if action is not None:
            statement = statement.where(UploadedDocument.action == action.value)
        return _BY_DOCUMENT.fetch_page(session, statement, cursor, limit)


def move(upload: Upload, state: UploadState) -> None:
    """Set the state of an upload; raise `ConflictError` if it cannot follow the present one."""
    if state not in TRANSITIONS[UploadState(upload.state)]:
        raise ConflictError("the upload is in a state in which this is impossible", state=upload.state)
    upload.state, upload.is_open, upload.updated_at = state.value, is_open(state), utc_now()
    upload.claim = upload.claimed_until = None
    if not upload.is_open:
        upload.finished_at = upload.updated_at


def blob_key(tenant: Tenant, upload_id: str, sha256: str) -> str:
    """Return the key of a file's content in the blob store. No other upload has it."""
    return hashlib.sha256("\0".join((tenant.scope.project_id, upload_id, sha256)).encode()).hexdigest()


def _make_conflict(open_id: str | None) -> ConflictError:
    details: dict[str, Any] = {} if open_id is None else {"uploadId": open_id}
    return ConflictError("another upload of this index is open: finish it or cancel it first", **details)


def _load(session: ScopedSession, index_name: str, upload_id: str, *, lock: bool = False) -> Upload:
    statement = select(Upload).where(Upload.id == upload_id, Upload.index_name == index_name)
    upload = session.scalar(statement.with_for_update(key_share=True) if lock else statement)
    if upload is None:
        raise NotFoundError("unknown upload of this index")
    return upload


def _describe(session: ScopedSession, upload: Upload) -> UploadProgress:
    statement = select(UploadedFile.state, func.count(UploadedFile.name)).where(UploadedFile.upload_id == upload.id)
    counts = {row[0]: row[1] for row in session.execute(statement.group_by(UploadedFile.state))}
    counts.pop(FileState.SUPERSEDED.value, None)
    live = select(OrgIndex.name).where(OrgIndex.name == upload.index_name, OrgIndex.deleted_at.is_(None))
    return UploadProgress(upload, counts, session.scalar(live) is not None)


def _files_of(upload_id: str) -> Any:
    return select(UploadedFile).where(UploadedFile.upload_id == upload_id)


def _check_room(session: ScopedSession, upload_id: str, size: int, limits: UploadLimits) -> None:
    statement = select(func.count(UploadedFile.name), func.coalesce(func.sum(UploadedFile.size), 0))
    count, total = session.execute(statement.where(UploadedFile.upload_id == upload_id)).one()
    if count >= MAX_FILES:
        raise BatchTooLargeError(f"an upload can have at most {MAX_FILES:,} files", limit=MAX_FILES)
    if total + size > limits.total_bytes:
        raise BatchTooLargeError(f"an upload can have at most {limits.total_bytes:,} bytes", limit=limits.total_bytes)


def _check_name(name: str) -> tuple[str, str | None]:
    """Return the name under which a file is kept, and why it is refused, if it is."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    cleaned = "/".join(parts)
    try:
        check_identifier(cleaned)
    except ValueError:
        return f"unnamed {hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}", "its name cannot be an id"
    if ".." in parts:
        return cleaned, "its path leads out of its folder"
    if any(part.startswith(".") for part in parts):
        return cleaned, "hidden"
    return cleaned, None


def _measure(file: BinaryIO) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for block in _read_blocks(file):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


def _read_blocks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(_BLOCK_BYTES):
        yield block
