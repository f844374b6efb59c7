"""The page of document sets: what runs search instead of the documents that agents have now."""

from fastapi import APIRouter, Response

from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.pages.evaluations import read_suite_name
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep, Text
from memoair_cloud.evaluation import document_sets
from memoair_cloud.http.exact_path import PathId

router = APIRouter(prefix="/p/{project_id}/evaluations/document-sets", route_class=PageRoute)


@router.get("")
def show_document_sets(page: PageDep, cursor: CursorParam = None) -> Response:
    """List the document sets of the project, latest first."""
    found = document_sets.list_document_sets(page.tenant, cursor, PAGE_ROWS)
    values = {"document_sets": found.rows, "cursor": cursor, "next_cursor": found.next_cursor}
    return page.render("document_sets.html", "evaluations", **values)


@router.post("")
def copy_documents(page: PageDep, name: Text = "") -> Response:
    """Keep a copy of the present documents, to run suites against it later."""
    page.require_write()
    document_sets.create_document_set(page.tenant, read_suite_name(name), copies_present=True)
    page.services.queue.enqueue_evaluations(page.project.id)
    return page.redirect("evaluations", "document-sets")


@router.post("/{set_id}/delete")
def delete_document_set(page: PageDep, set_id: PathId) -> Response:
    """Delete a document set."""
    page.require_write()
    document_sets.remove_document_set(page.tenant, page.services.blobs, set_id)
    return page.redirect("evaluations", "document-sets")
