"""Process uploads in the background: read their files, change the index in small transactions, remove what is over."""

import secrets
from contextlib import closing
from datetime import datetime, timedelta

from sqlalchemy import Engine, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from memoair_cloud.database.leases import is_over
from memoair_cloud.database.upload_models import Upload, UploadedDocument, UploadedFile
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.indexes.documents import NewDocument, count_chunks, remove_documents, write_documents
from memoair_cloud.indexes.upload_reading import Check, UploadReader
from memoair_cloud.indexes.upload_states import WAITING, WORKING, DocumentAction, UploadState
from memoair_cloud.indexes.uploads import EXPIRES_AFTER, blob_key, move
from memoair_cloud.tenancy.access import Tenant, find_project_tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_documents.reader_process import ReaderProcess
from memoair_protocol.limits import MAX_DOCUMENTS, MAX_DOCUMENTS_BYTES
from memoair_protocol.timestamps import utc_now

# A worker renews its claim with each file and each batch. A file is read for a minute at most.
CLAIM = timedelta(minutes=5)
MAX_FAILURES = 3
KEPT_FOR = timedelta(days=30)  # what an upload did can be looked up for this long
_ROWS_PER_TRANSACTION = 1_000
_PUT = (DocumentAction.ADD.value, DocumentAction.REPLACE.value)


class _LostClaimError(Exception):
    """The upload was canceled, or another worker has taken it over."""


def find_projects_with_uploads(engine: Engine, now: datetime) -> list[str]:
    """Return the projects in which an upload is to be processed, expired or cleaned up."""
    is_free = is_over(Upload.claimed_until, now, CLAIM)
    due = or_(
        and_(Upload.state.in_([state.value for state in WORKING]), is_free),
        and_(Upload.state.in_([state.value for state in WAITING]), Upload.updated_at < now - EXPIRES_AFTER),
        and_(~Upload.is_open, or_(Upload.has_files, Upload.finished_at < now - KEPT_FOR)),
    )
    with Session(engine) as session:
        return list(session.scalars(select(Upload.project_id).where(due).distinct().order_by(Upload.project_id)))


def process_uploads(engine: Engine, blobs: BlobStore, project_id: str) -> bool:
    """Process the uploads of a project that are due, and remove what is over. Concurrent workers do not collide.

    Args:
        engine: The database of the server.
        blobs: The store of their files.
        project_id: The project.

    Returns:
        Whether documents have changed.

    Raises:
        OSError: If the blob store does not respond. The uploads stay as they are, and are continued later.
    """
    tenant = find_project_tenant(engine, project_id)
    if tenant is None:
        return False
    has_changed = False
    while (upload := _claim(tenant)) is not None:
        try:
            has_changed = _process(tenant, blobs, upload) or has_changed
        except _LostClaimError:
            has_changed = True  # perhaps: building an index file again does no harm
        except OSError:
            _release(tenant, upload)
            raise
    _clean_up(tenant, blobs)
    return has_changed


def remove_upload_files(tenant: Tenant, blobs: BlobStore) -> None:
    """Remove the files of all uploads of a project from the blob store, before the project is deleted."""
    with tenant.begin_read() as session:
        upload_ids = session.scalars(select(Upload.id).where(Upload.has_files)).all()
    for upload_id in upload_ids:
        _remove_files(tenant, blobs, upload_id)


def _claim(tenant: Tenant) -> Upload | None:
    """Take an upload that is due for this worker, and return it."""
    now = utc_now()
    with tenant.begin_write() as session:
        is_due = and_(
            Upload.state.in_([state.value for state in WORKING]),
            is_over(Upload.claimed_until, now, CLAIM),
        )
        statement = select(Upload).where(is_due).order_by(Upload.created_at, Upload.id).limit(1)
        upload = session.scalar(statement.with_for_update(skip_locked=True, key_share=True))
        if upload is None:
            return None
        if upload.claim is not None:  # its worker did not come back
            upload.failures += 1
        if upload.failures >= MAX_FAILURES:
            _fail(upload, f"interrupted {upload.failures} times")
            return None
        if upload.state == UploadState.QUEUED.value:
            move(upload, UploadState.READING)
            upload.added = upload.replaced = upload.kept = upload.deleted = upload.applied = 0
            upload.keeps_missing = False
            upload.failures = 0
            session.execute(
                delete(UploadedDocument).where(UploadedDocument.upload_id == upload.id),
                execution_options={"synchronize_session": False},
            )
        upload.claim, upload.claimed_until = secrets.token_hex(8), now + CLAIM
        return upload


def _release(tenant: Tenant, upload: Upload) -> None:
    with tenant.begin_write() as session:
        session.execute(
            update(Upload)
            .where(Upload.id == upload.id, Upload.claim == upload.claim)
            .values(claim=None, claimed_until=None),
            execution_options={"synchronize_session": False},
        )


def _process(tenant: Tenant, blobs: BlobStore, upload: Upload) -> bool:
    claim = upload.claim

    def check(session: ScopedSession) -> Upload:
        statement = select(Upload).where(Upload.id == upload.id, Upload.claim == claim)
        row = session.scalar(statement.with_for_update(key_share=True))
        if row is None:
            raise _LostClaimError
        row.updated_at = utc_now()
        row.claimed_until = row.updated_at + CLAIM
        return row

    if upload.state == UploadState.READING.value:
        with closing(ReaderProcess()) as process:
            reader = UploadReader(tenant, blobs, upload, check, process)
            reader.read_files()
        _forget_missing(tenant, upload)
        counts = _count_actions(tenant, upload.id)
        if counts and upload.replaces_all:
            reader.find_missing()
        with tenant.begin_write() as session:
            row = check(session)
            row.added = counts.get(DocumentAction.ADD.value, 0)
            row.replaced = counts.get(DocumentAction.REPLACE.value, 0)
            row.kept = counts.get(DocumentAction.KEEP.value, 0)
            if not counts:
                _fail(row, "the files contain no documents")
                return False
            if row.is_dry_run:
                move(row, UploadState.CHECKED)
                return False
            move(row, UploadState.APPLYING)
            row.claim, row.claimed_until = claim, utc_now() + CLAIM
    while _put_batch(tenant, upload, check):
        pass
    while _delete_batch(tenant, upload, check):
        pass
    with tenant.begin_write() as session:
        row = check(session)
        move(row, UploadState.DONE)
        return row.applied > 0


def _fail(upload: Upload, failure: str) -> None:
    move(upload, UploadState.FAILED)
    upload.failure = failure


def _forget_missing(tenant: Tenant, upload: Upload) -> None:
    """Remove what an interrupted worker has found to be missing: it is found again."""
    with tenant.begin_write() as session:
        is_delete = UploadedDocument.action == DocumentAction.DELETE.value
        session.execute(
            delete(UploadedDocument).where(UploadedDocument.upload_id == upload.id, is_delete),
            execution_options={"synchronize_session": False},
        )
        session.execute(
            update(Upload).where(Upload.id == upload.id, Upload.claim == upload.claim).values(deleted=0),
            execution_options={"synchronize_session": False},
        )


def _count_actions(tenant: Tenant, upload_id: str) -> dict[str, int]:
    with tenant.begin_read() as session:
        statement = select(UploadedDocument.action, func.count(UploadedDocument.document_id))
        grouped = statement.where(UploadedDocument.upload_id == upload_id).group_by(UploadedDocument.action)
        return {row[0]: row[1] for row in session.execute(grouped)}


def _put_batch(tenant: Tenant, upload: Upload, check: Check) -> bool:
    """Add and replace some documents in one transaction; return whether there were any.

    As many as a request to the API may have, so that other writers do not wait for longer.
    """
    with tenant.begin_read() as session:
        is_due = (UploadedDocument.upload_id == upload.id, UploadedDocument.action.in_(_PUT))
        sizes = select(UploadedDocument.document_id, func.length(UploadedDocument.text)).where(*is_due)
        chosen: list[str] = []
        size = 0
        for document_id, length in session.execute(sizes.order_by(UploadedDocument.document_id).limit(MAX_DOCUMENTS)):
            if chosen and size + length > MAX_DOCUMENTS_BYTES:
                break
            chosen.append(document_id)
            size += length
        is_chosen = (UploadedDocument.upload_id == upload.id, UploadedDocument.document_id.in_(chosen))
        rows = session.scalars(select(UploadedDocument).where(*is_chosen)).all()
    if not rows:
        return False
    new_documents = [NewDocument(row.document_id, row.text, row.details) for row in rows]
    chunk_counts = count_chunks(new_documents)
    with tenant.begin_write() as session:
        write_documents(session, upload.index_name, new_documents, chunk_counts)  # first, for the order of locks
        check(session).applied += len(new_documents)
        session.execute(delete(UploadedDocument).where(*is_chosen), execution_options={"synchronize_session": False})
    return True


def _delete_batch(tenant: Tenant, upload: Upload, check: Check) -> bool:
    with tenant.begin_read() as session:
        is_due = (UploadedDocument.upload_id == upload.id, UploadedDocument.action == DocumentAction.DELETE.value)
        statement = select(UploadedDocument.document_id).where(*is_due).order_by(UploadedDocument.document_id)
        ids = list(session.scalars(statement.limit(MAX_DOCUMENTS)))
    if not ids:
        return False
    with tenant.begin_write() as session:
        remove_documents(session, upload.index_name, ids)
        check(session).applied += len(ids)
        session.execute(
            delete(UploadedDocument).where(
                UploadedDocument.upload_id == upload.id, UploadedDocument.document_id.in_(ids)
            ),
            execution_options={"synchronize_session": False},
        )
    return True


def _clean_up(tenant: Tenant, blobs: BlobStore) -> None:
    now = utc_now()
    with tenant.begin_write() as session:
        is_abandoned = Upload.state.in_([state.value for state in WAITING]), Upload.updated_at < now - EXPIRES_AFTER
        for upload in session.scalars(select(Upload).where(*is_abandoned).with_for_update(key_share=True)):
            move(upload, UploadState.EXPIRED)
    with tenant.begin_read() as session:
        closed = select(Upload.id).where(~Upload.is_open, Upload.has_files)
        upload_ids = session.scalars(closed).all()
    for upload_id in upload_ids:
        _remove_files(tenant, blobs, upload_id)
    with tenant.begin_write() as session:
        session.execute(
            delete(Upload).where(~Upload.is_open, ~Upload.has_files, Upload.finished_at < now - KEPT_FOR),
            execution_options={"synchronize_session": False},
        )


def _remove_files(tenant: Tenant, blobs: BlobStore, upload_id: str) -> None:
    """Remove the content of an upload's files, and the documents that are left of it."""
    with tenant.begin_read() as session:
        hashes = select(UploadedFile.sha256).where(UploadedFile.upload_id == upload_id).distinct()
        found = session.scalars(hashes).all()
    for sha256 in found:
        blobs.remove(blob_key(tenant, upload_id, sha256))
    while _remove_some_documents(tenant, upload_id):
        pass
    with tenant.begin_write() as session:
        session.execute(
            update(Upload).where(Upload.id == upload_id).values(has_files=False),
            execution_options={"synchronize_session": False},
        )


def _remove_some_documents(tenant: Tenant, upload_id: str) -> bool:
    with tenant.begin_write() as session:
        statement = select(UploadedDocument.document_id).where(UploadedDocument.upload_id == upload_id)
        ids = session.scalars(statement.limit(_ROWS_PER_TRANSACTION)).all()
        session.execute(
            delete(UploadedDocument).where(
                UploadedDocument.upload_id == upload_id, UploadedDocument.document_id.in_(ids)
            ),
            execution_options={"synchronize_session": False},
        )
        return bool(ids)
