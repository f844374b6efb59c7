"""Routes for document sets: documents that runs search instead of the project's."""

from collections.abc import Sequence
from http import HTTPStatus

from fastapi import APIRouter

from memoair_cloud.errors import BatchTooLargeError, ConflictError, InvalidRequestError
from memoair_cloud.evaluation import document_sets
from memoair_cloud.http.body_parsing import CasesRoute
from memoair_cloud.http.dependencies import Cursor, Limit, ProjectTenant, Services, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.schemas.evaluation_runs import (
    MAX_PART_DOCUMENTS,
    DocumentSetIn,
    DocumentSetOut,
    DocumentSetsOut,
    SetDocumentIn,
    SetDocumentsIn,
)
from memoair_cloud.tenancy.access import Tenant

router = APIRouter(prefix="/v1/voice-sdk/evaluations/document-sets", tags=["evaluations"], route_class=CasesRoute)

_READS = error_responses(PROJECT_ERRORS)
_CHANGES = error_responses(PROJECT_ERRORS, ConflictError, BatchTooLargeError)


@router.post("", status_code=HTTPStatus.CREATED, operation_id="createDocumentSet", responses=_CHANGES)
def create_document_set(tenant: ProjectTenant, services: ServicesDep, body: DocumentSetIn) -> DocumentSetOut:
    """Create a document set: with all of its documents, without any yet, or as a copy of the present ones."""
    if body.copy_present and body.documents is not None:
        raise InvalidRequestError("a copy of the present documents has no others", field="documents")
    _check_count(body.documents or ())
    row = document_sets.create_document_set(tenant, body.name, copies_present=body.copy_present)
    if body.documents is not None:
        _add(tenant, services, row.id, body.documents)
        row = document_sets.complete_document_set(tenant, row.id)
    services.queue.enqueue_evaluations(tenant.scope.project_id)
    return DocumentSetOut.model_validate(row)


@router.get("", operation_id="listDocumentSets", responses=_READS)
def list_document_sets(tenant: ProjectTenant, cursor: Cursor = None, limit: Limit = 100) -> DocumentSetsOut:
    """List the document sets of the project, latest first."""
    page = document_sets.list_document_sets(tenant, cursor, limit)
    found = [DocumentSetOut.model_validate(row) for row in page.rows]
    return DocumentSetsOut(document_sets=found, next=page.next_cursor)


@router.get("/{set_id}", operation_id="getDocumentSet", responses=_READS)
def get_document_set(tenant: ProjectTenant, set_id: PathId) -> DocumentSetOut:
    """Return a document set."""
    return DocumentSetOut.model_validate(document_sets.get_document_set(tenant, set_id))


@router.post("/{set_id}/documents", operation_id="addSetDocuments", responses=_CHANGES)
def add_documents(tenant: ProjectTenant, services: ServicesDep, set_id: PathId, body: SetDocumentsIn) -> DocumentSetOut:
    """Add documents to a set that was created without any. Of two with one id in an index, the later one counts."""
    _check_count(body.documents)
    return _add(tenant, services, set_id, body.documents)


@router.post("/{set_id}/complete", operation_id="completeDocumentSet", responses=_CHANGES)
def complete_document_set(tenant: ProjectTenant, services: ServicesDep, set_id: PathId) -> DocumentSetOut:
    """Build the index file of a set in the background. It takes no more documents."""
    row = document_sets.complete_document_set(tenant, set_id)
    services.queue.enqueue_evaluations(tenant.scope.project_id)
    return DocumentSetOut.model_validate(row)


@router.delete("/{set_id}", operation_id="deleteDocumentSet", responses=_CHANGES)
def delete_document_set(tenant: ProjectTenant, services: ServicesDep, set_id: PathId) -> DocumentSetOut:
    """Delete a document set, and return what it was. Results of runs that searched it stay."""
    return DocumentSetOut.model_validate(document_sets.remove_document_set(tenant, services.blobs, set_id))


def _add(tenant: Tenant, services: Services, set_id: str, documents: Sequence[SetDocumentIn]) -> DocumentSetOut:
    content = [document.model_dump(by_alias=True) for document in documents]
    return DocumentSetOut.model_validate(document_sets.add_documents(tenant, services.blobs, set_id, content))


def _check_count(documents: Sequence[SetDocumentIn]) -> None:
    if len(documents) > MAX_PART_DOCUMENTS:
        message = f"a request can have at most {MAX_PART_DOCUMENTS:,} documents: send the set in parts"
        raise BatchTooLargeError(message, limit=MAX_PART_DOCUMENTS)
