"""The pages of documents: the indexes, the documents of one, and a document with its chunks and questions."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Form, Response

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep, ProjectPage, SearchText, Text
from memoair_cloud.errors import InvalidRequestError, NotFoundError
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.schemas.indexes import check_index_name
from memoair_cloud.identifiers import check_identifier
from memoair_cloud.indexes import documents, uploads
from memoair_cloud.indexes.questions import (
    DocumentQuestion,
    count_document_searches,
    list_document_questions,
    list_unanswered_questions,
)
from memoair_index import split_text

router = APIRouter(prefix="/p/{project_id}/documents", route_class=PageRoute)

_UPLOADS_SHOWN = 5


@router.get("")
def show_indexes(page: PageDep) -> Response:
    """List the indexes of the project."""
    return page.render("indexes.html", "documents", indexes=documents.list_indexes(page.tenant))


@router.post("")
def name_index(page: PageDep, name: Text = "") -> Response:
    """Lead to the form for files of an index, which need not exist."""
    try:
        name = check_identifier(name.strip())
    except ValueError as error:
        raise InvalidRequestError(str(error), field="name") from None
    check_index_name(name)
    return page.redirect("documents", name, "upload")


@router.get("/{name}")
def show_index(page: PageDep, name: PathId, q: SearchText = "", cursor: CursorParam = None) -> Response:
    """Show an index: its documents, its uploads, and questions that found nothing."""
    index = documents.get_index(page.tenant, name)
    found = documents.search_documents(page.tenant, name, q, cursor, PAGE_ROWS)
    ids = [row.id for row in found.rows]
    view = page.view
    unanswered = list_unanswered_questions(page.tenant, view.since, view.until)
    _record_reads(page, unanswered)
    return page.render(
        "index.html",
        "documents",
        index=index,
        documents=found.rows,
        next_cursor=found.next_cursor,
        cursor=cursor,
        q=q,
        search_counts=count_document_searches(page.tenant, name, ids, view.since, view.until),
        unanswered=unanswered,
        uploads=uploads.list_uploads(page.tenant, name, None, _UPLOADS_SHOWN).rows,
    )


@router.post("/{name}/delete")
def delete_index(page: PageDep, name: PathId, confirmation: Text = "") -> Response:
    """Delete an index with its documents."""
    documents.get_index(page.tenant, name)
    if confirmation.strip() != name:
        raise InvalidRequestError("nothing was deleted: type the name of the index exactly as it is shown")
    documents.delete_index(page.tenant, name)
    page.services.queue.enqueue_build(page.project.id)
    return page.redirect("documents")


@router.get("/{name}/document/{document_id}")
def show_document(page: PageDep, name: PathId, document_id: PathId, cursor: CursorParam = None) -> Response:
    """Show a document: its chunks as they are indexed, and the questions that found it."""
    row = documents.get_document(page.tenant, name, document_id)
    view = page.view
    found = list_document_questions(page.tenant, name, document_id, cursor, PAGE_ROWS)
    questions = [question for question in found.rows if view.since <= question.occurred_at < view.until]
    is_last = bool(found.rows) and found.rows[-1].occurred_at < view.since
    counts = count_document_searches(page.tenant, name, [document_id], view.since, view.until)
    _record_reads(page, questions)
    return page.render(
        "document.html",
        "documents",
        index_name=name,
        document=row,
        chunks=split_text(row.text, row.details),
        questions=questions,
        search_count=counts.get(document_id, 0),
        cursor=cursor,
        next_cursor=None if is_last else found.next_cursor,
    )


@router.post("/{name}/document/{document_id}/delete")
def delete_document(
    page: PageDep, name: PathId, document_id: PathId, is_confirmed: Annotated[bool, Form(alias="confirm")] = False
) -> Response:
    """Delete a document."""
    if not is_confirmed:
        raise InvalidRequestError("tick the box to confirm: agents will not find the document any more")
    documents.delete_document(page.tenant, name, document_id)
    page.services.queue.enqueue_build(page.project.id)
    return page.redirect("documents", name)


def index_exists(page: ProjectPage, name: str) -> bool:
    """Return whether an index exists."""
    try:
        documents.get_index(page.tenant, name)
    except NotFoundError:
        return False
    return True


def _record_reads(page: ProjectPage, questions: Sequence[DocumentQuestion]) -> None:
    """Record that the words of callers are shown."""
    shown = [each for each in questions if each.question is not None]
    page.record_reads(
        AuditAction.READ_CALL, [(each.user_id, each.session_id) for each in shown if each.user_id is not None]
    )
