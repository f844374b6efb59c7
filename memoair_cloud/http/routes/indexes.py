"""Routes for indexes and their documents."""

from typing import Any

from fastapi import APIRouter

from memoair_cloud.errors import DocumentBatchTooLargeError
from memoair_cloud.http.body_parsing import DocumentsRoute
from memoair_cloud.http.dependencies import Cursor, Limit, ProjectTenant, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, FlatError, error_responses
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.schemas.indexes import (
    MAX_DOCUMENTS,
    DocumentOut,
    DocumentSearchesOut,
    DocumentSearchOut,
    DocumentsOut,
    IndexChangeOut,
    IndexesOut,
    IndexIn,
    IndexOut,
    WholeDocumentOut,
)
from memoair_cloud.indexes import documents, questions
from memoair_index import split_text

router = APIRouter(prefix="/v1/voice-sdk/index", tags=["indexes"], route_class=DocumentsRoute)

_TOO_LARGE: dict[int | str, dict[str, Any]] = {
    413: {"model": FlatError, "description": "`batch_too_large`: more than 100 documents or 1 MB"}
}


@router.post("/create", operation_id="createIndex", responses={**error_responses(PROJECT_ERRORS), **_TOO_LARGE})
def create_index(tenant: ProjectTenant, services: ServicesDep, body: IndexIn) -> IndexChangeOut:
    """Create an index or add documents to it. A document replaces an earlier one with the same id."""
    if len(body.documents) > MAX_DOCUMENTS:
        raise DocumentBatchTooLargeError(f"a request can have at most {MAX_DOCUMENTS} documents")
    new_documents = [
        documents.NewDocument(document.id, document.text, document.metadata or {}) for document in body.documents
    ]
    change = documents.put_documents(tenant, body.name, new_documents, body.metadata)
    services.queue.enqueue_build(tenant.scope.project_id)
    return IndexChangeOut.model_validate(change)


@router.get("/list", operation_id="listIndexes", responses=error_responses(PROJECT_ERRORS))
def list_indexes(tenant: ProjectTenant) -> IndexesOut:
    """List the project's indexes, sorted by name."""
    return IndexesOut(indexes=[IndexOut.model_validate(index) for index in documents.list_indexes(tenant)])


@router.get("/{name}", operation_id="getIndex", responses=error_responses(PROJECT_ERRORS))
def get_index(tenant: ProjectTenant, name: PathId) -> IndexOut:
    """Return an index."""
    return IndexOut.model_validate(documents.get_index(tenant, name))


@router.get("/{name}/documents", operation_id="listDocuments", responses=error_responses(PROJECT_ERRORS))
def list_documents(tenant: ProjectTenant, name: PathId, cursor: Cursor = None, limit: Limit = 100) -> DocumentsOut:
    """List the documents of an index, sorted by id, without their texts."""
    page = documents.list_documents(tenant, name, cursor, limit)
    return DocumentsOut(documents=[DocumentOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.get(
    "/{name}/documents/{document_id:path}/searches",
    operation_id="listDocumentSearches",
    responses=error_responses(PROJECT_ERRORS),
)
def list_document_searches(
    tenant: ProjectTenant, name: PathId, document_id: PathId, cursor: Cursor = None, limit: Limit = 100
) -> DocumentSearchesOut:
    """List the searches that found a document, latest first, as far as their recall traces are kept."""
    documents.get_document(tenant, name, document_id)
    page = questions.list_document_questions(tenant, name, document_id, cursor, limit)
    return DocumentSearchesOut(
        searches=[DocumentSearchOut.model_validate(row) for row in page.rows], next=page.next_cursor
    )


# After the route above: a document's id may contain slashes.
@router.get(
    "/{name}/documents/{document_id:path}", operation_id="getDocument", responses=error_responses(PROJECT_ERRORS)
)
def get_document(tenant: ProjectTenant, name: PathId, document_id: PathId) -> WholeDocumentOut:
    """Return a document with its text and its chunks."""
    row = documents.get_document(tenant, name, document_id)
    chunks = split_text(row.text, row.details)
    shown = DocumentOut.model_validate(row)
    return WholeDocumentOut(**shown.model_dump(), text=row.text, chunks=chunks)


@router.delete("/{name}", operation_id="deleteIndex", responses=error_responses(PROJECT_ERRORS))
def delete_index(tenant: ProjectTenant, services: ServicesDep, name: PathId) -> IndexChangeOut:
    """Delete an index and all its documents. If it is created again, its version continues."""
    change = documents.delete_index(tenant, name)
    services.queue.enqueue_build(tenant.scope.project_id)
    return IndexChangeOut.model_validate(change)


@router.delete(
    "/{name}/documents/{document_id:path}", operation_id="deleteDocument", responses=error_responses(PROJECT_ERRORS)
)
def delete_document(tenant: ProjectTenant, services: ServicesDep, name: PathId, document_id: PathId) -> IndexChangeOut:
    """Delete a document of an index."""
    change = documents.delete_document(tenant, name, document_id)
    services.queue.enqueue_build(tenant.scope.project_id)
    return IndexChangeOut.model_validate(change)
