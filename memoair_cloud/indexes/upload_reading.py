"""Read the files of an upload, and find out what each of their documents changes in the index."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
from sqlalchemy import delete, select

from memoair_cloud.database.models import OrgDocument
from memoair_cloud.database.upload_models import Upload, UploadedDocument, UploadedFile
from memoair_cloud.identifiers import check_identifier, sanitize_text
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.indexes.upload_states import DocumentAction, FileState
from memoair_cloud.indexes.uploads import blob_key
from memoair_cloud.temporary_folders import UPLOAD_PREFIX
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_documents.errors import DocumentFileError, UnreadableFileError
from memoair_documents.reader_process import ReaderProcess
from memoair_documents.reading import ReadOptions, is_table
from memoair_documents.tables import Row
from memoair_protocol.json_guards import is_deeper_than
from memoair_protocol.limits import MAX_CLOUD_JSON_DEPTH
from memoair_protocol.temporary import temporary_folder

MAX_DOCUMENT_BYTES = 4 << 20  # a page of a projection has 8 MB
_BATCH_DOCUMENTS = 200
_BATCH_BYTES = 2 << 20
_IDS_PER_STATEMENT = 500

# Raises if this worker must stop. It is called within each transaction that writes.
Check = Callable[[ScopedSession], Upload]


@attrs.frozen
class _Document:
    id: str
    text: str
    metadata: dict[str, Any]
    size: int


class UploadReader:
    """Reads the files of one upload.

    Args:
        tenant: The project.
        blobs: The store with the content of the files.
        upload: The upload.
        check: Raises if this worker must stop.
        process: The process that reads.
    """

    def __init__(self, tenant: Tenant, blobs: BlobStore, upload: Upload, check: Check, process: ReaderProcess) -> None:
        self._tenant = tenant
        self._blobs = blobs
        self._upload = upload
        self._check = check
        self._process = process
        self._options = ReadOptions(upload.encoding, tuple(upload.text_columns), upload.id_column)

    def read_files(self) -> None:
        """Read all files that are not read yet. Each is read or refused by itself."""
        is_due = (UploadedFile.upload_id == self._upload.id, UploadedFile.state == FileState.RECEIVED.value)
        while True:
            with self._tenant.begin_read() as session:
                statement = select(UploadedFile).where(*is_due).order_by(UploadedFile.name)
                file = session.scalar(statement.limit(1))
            if file is None:
                return
            self._read_file(file)

    def find_missing(self) -> None:
        """Find the documents of the index that are in none of the files; those of refused files are not missing."""
        with self._tenant.begin_read() as session:
            refused = list(
                session.scalars(
                    select(UploadedFile.name).where(
                        UploadedFile.upload_id == self._upload.id, UploadedFile.state == FileState.REFUSED.value
                    )
                )
            )
        if any(is_table(name) for name in refused):  # it is unknown which documents are theirs
            with self._tenant.begin_write() as session:
                self._check(session).keeps_missing = True
            return
        protected, last_id = set(refused), ""
        while True:
            is_named = select(UploadedDocument.document_id).where(
                UploadedDocument.project_id == OrgDocument.project_id,
                UploadedDocument.upload_id == self._upload.id,
                UploadedDocument.document_id == OrgDocument.id,
            )
            statement = select(OrgDocument.id).where(
                OrgDocument.index_name == self._upload.index_name,
                OrgDocument.deleted_at.is_(None),
                OrgDocument.id > last_id,
                ~is_named.exists(),
            )
            with self._tenant.begin_write() as session:
                upload = self._check(session)
                ids = session.scalars(statement.order_by(OrgDocument.id).limit(_IDS_PER_STATEMENT)).all()
                missing = [id_ for id_ in ids if not {id_, id_.rpartition("#")[0]} & protected]
                session.add_all(_make_deletion(upload, document_id) for document_id in missing)
                upload.deleted += len(missing)
            if len(ids) < _IDS_PER_STATEMENT:
                return
            last_id = ids[-1]

    def _read_file(self, file: UploadedFile) -> None:
        reason: str | None = None
        count = 0
        try:
            with temporary_folder(UPLOAD_PREFIX) as folder:
                path = folder / "file"
                _, blocks = self._blobs.stream(blob_key(self._tenant, self._upload.id, file.sha256))
                with path.open("wb") as target:
                    for block in blocks:
                        target.write(block)
                for batch in _split_batches(self._process.read(path, file.name, self._options)):
                    count += self._save_batch(file.name, batch)
            if not count:
                reason = "no documents"
        except (UnreadableFileError, DocumentFileError) as error:
            reason = str(error)
        with self._tenant.begin_write() as session:
            self._check(session)
            row = session.get_one(UploadedFile, (session.scope.project_id, self._upload.id, file.name, file.sha256))
            row.state = (FileState.READ if reason is None else FileState.REFUSED).value
            row.reason, row.document_count = reason, count if reason is None else 0
            if reason is not None:
                session.execute(
                    delete(UploadedDocument).where(
                        UploadedDocument.upload_id == self._upload.id, UploadedDocument.file_name == file.name
                    ),
                    execution_options={"synchronize_session": False},
                )

    def _save_batch(self, file_name: str, batch: Sequence[_Document]) -> int:
        """Save documents with what they change; return how many of them the file did not have before."""
        by_id = {document.id: document for document in batch}  # the later of two with one id counts, as in the API
        with self._tenant.begin_write() as session:
            self._check(session)
            known = _load_known(session, self._upload.id, list(by_id))
            stored = _load_stored(session, self._upload.index_name, list(by_id))
            new = 0
            for document in by_id.values():
                row = known.get(document.id)
                if row is None:
                    row = UploadedDocument(
                        project_id=session.scope.project_id, upload_id=self._upload.id, document_id=document.id
                    )
                    row.file_name = file_name
                    session.add(row)
                    new += 1
                elif row.file_name != file_name:
                    raise DocumentFileError(f"the id {document.id} is in {row.file_name}, too")
                action = _choose_action(stored.get(document.id), document)
                row.action = action.value
                is_kept = action is DocumentAction.KEEP
                row.text, row.details = ("", {}) if is_kept else (document.text, document.metadata)
        return new


def _make_deletion(upload: Upload, document_id: str) -> UploadedDocument:
    return UploadedDocument(
        project_id=upload.project_id,
        upload_id=upload.id,
        document_id=document_id,
        action=DocumentAction.DELETE.value,
        file_name=None,
        text="",
        details={},
    )


def _choose_action(stored: OrgDocument | None, document: _Document) -> DocumentAction:
    if stored is None:
        return DocumentAction.ADD
    is_same = (stored.text, stored.details) == (document.text, document.metadata)
    return DocumentAction.KEEP if is_same else DocumentAction.REPLACE


def _load_known(session: ScopedSession, upload_id: str, ids: list[str]) -> dict[str, UploadedDocument]:
    statement = select(UploadedDocument).where(
        UploadedDocument.upload_id == upload_id, UploadedDocument.document_id.in_(ids)
    )
    return {row.document_id: row for row in session.scalars(statement)}


def _load_stored(session: ScopedSession, index_name: str, ids: list[str]) -> dict[str, OrgDocument]:
    statement = select(OrgDocument).where(
        OrgDocument.index_name == index_name, OrgDocument.id.in_(ids), OrgDocument.deleted_at.is_(None)
    )
    return {row.id: row for row in session.scalars(statement)}


def _split_batches(rows: Iterator[Row]) -> Iterator[list[_Document]]:
    batch: list[_Document] = []
    size = 0
    for line, row in rows:
        document = _check_document(row, line)
        if batch and (len(batch) == _BATCH_DOCUMENTS or size + document.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += document.size
    if batch:
        yield batch


def _check_document(row: dict[str, Any], line: int) -> _Document:
    """Return a document that can be stored, or raise `DocumentFileError` with its line."""
    place = f"{line}: " if line else ""
    try:
        document_id = check_identifier(row["id"])
    except ValueError as error:
        raise DocumentFileError(f"{place}{error}") from None
    metadata = row.get("metadata") or {}
    text = sanitize_text(row["text"])
    try:
        encoded = json.dumps(metadata, allow_nan=False).encode()
    except ValueError:
        raise DocumentFileError(f"{place}the metadata has a number that JSON cannot have") from None
    if is_deeper_than(MAX_CLOUD_JSON_DEPTH, encoded):
        raise DocumentFileError(f"{place}the metadata is nested deeper than {MAX_CLOUD_JSON_DEPTH} levels")
    size = len(text.encode()) + len(encoded)
    if size > MAX_DOCUMENT_BYTES:
        raise DocumentFileError(f"{place}the document has {size:,} bytes; split it below {MAX_DOCUMENT_BYTES:,}")
    return _Document(document_id, text, metadata, size)
