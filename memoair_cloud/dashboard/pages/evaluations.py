"""The pages of evaluation suites: the list, a suite with its history and its cases, import and export."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated

import msgspec
from fastapi import APIRouter, Form, Response
from fastapi.responses import StreamingResponse

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.dashboard.evaluation_page import SuiteDep, SuitePage, WritableSuiteDep, record_case_reads
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.pages.uploads import FilesRoute, Flag, FormFiles
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep, SearchText, Text
from memoair_cloud.errors import BatchTooLargeError, InvalidRequestError
from memoair_cloud.evaluation import cases, suites
from memoair_cloud.evaluation.overview import (
    list_case_sources,
    list_history,
    list_suite_summaries,
    search_cases,
)
from memoair_cloud.identifiers import sanitize_text
from memoair_evaluation.case import MAX_SUITE_BYTES, InvalidSuiteError, parse_suite

router = APIRouter(prefix="/p/{project_id}/evaluations", route_class=PageRoute)
files_router = APIRouter(prefix="/p/{project_id}/evaluations", route_class=FilesRoute)

_EXPORTED_AT_ONCE = 200
MAX_NAME_CHARS = 200
MAX_DESCRIPTION_CHARS = 2_000

LongText = Annotated[str, Form(max_length=MAX_DESCRIPTION_CHARS)]


@router.get("")
def show_suites(page: PageDep, cursor: CursorParam = None) -> Response:
    """List the suites of the agent of the view, or of all agents."""
    found = list_suite_summaries(page.tenant, page.view.agent_id, cursor, PAGE_ROWS)
    return page.render(
        "evaluations.html",
        "evaluations",
        suites=found.rows,
        cursor=cursor,
        next_cursor=found.next_cursor,
    )


@router.post("/suites")
def create_suite(page: PageDep, agent_id: Text = "", name: Text = "", description: LongText = "") -> Response:
    """Create a suite."""
    page.require_write()
    if not agent_id.strip():
        raise InvalidRequestError("choose an agent: a suite belongs to one", field="agent_id")
    tenant = page.tenant.for_agent(agent_id.strip())
    detail = suites.create_suite(tenant, read_suite_name(name), sanitize_text(description.strip()))
    return page.redirect("evaluations", "suites", detail.suite.id)


@router.get("/suites/{suite_id}")
def show_suite(
    on: SuiteDep,
    q: SearchText = "",
    cursor: CursorParam = None,
    runs: CursorParam = None,
    imported: int | None = None,
    done: str = "",
) -> Response:
    """Show a suite: its history, and its cases."""
    return _render_suite(on, q=q, cursor=cursor, runs=runs, imported=imported, done=done)


@router.post("/suites/{suite_id}/rename")
def rename_suite(on: WritableSuiteDep, name: Text = "", description: LongText = "") -> Response:
    """Change the name and the description of a suite."""
    suites.change_suite(on.tenant, on.suite.id, read_suite_name(name), sanitize_text(description.strip()))
    return on.redirect()


@router.post("/suites/{suite_id}/delete")
def delete_suite(on: WritableSuiteDep, confirmation: Text = "") -> Response:
    """Delete a suite with its cases and runs."""
    if confirmation.strip() != on.suite.name.strip():
        raise InvalidRequestError("nothing was deleted: type the name of the suite exactly as it is shown")
    suites.delete_suite(on.tenant, on.suite.id)
    return on.page.redirect("evaluations")


@files_router.post("/suites/{suite_id}/import")
def import_cases(on: WritableSuiteDep, files: FormFiles, replace_all: Flag = False) -> Response:
    """Put the cases of a file into a suite. If one of its lines is invalid, nothing changes."""
    try:
        if len(files) != 1:
            raise InvalidRequestError("choose one file", field="files")
        content = files[0].file.read(MAX_SUITE_BYTES + 1)
        if len(content) > MAX_SUITE_BYTES:
            raise InvalidRequestError(f"the file is larger than {MAX_SUITE_BYTES >> 20} MB", field="files")
        found = parse_suite(content)
        if not found:
            raise InvalidRequestError("the file has no case", field="files")
        cases.put_cases(on.tenant, on.suite.id, found, replaces_all=replace_all)
    except InvalidSuiteError as error:
        return _render_suite(on, problems=str(error).splitlines())
    except (InvalidRequestError, BatchTooLargeError) as error:
        return _render_suite(on, problems=[error.message])
    return on.redirect(imported=len(found))


@router.get("/suites/{suite_id}/export")
def export_cases(on: SuiteDep) -> Response:
    """Return the cases of a suite as a file, one per line."""
    on.page.record_reads(AuditAction.READ_CALL, list_case_sources(on.tenant, on.suite.id))
    headers = {"Content-Disposition": 'attachment; filename="suite.jsonl"'}
    return StreamingResponse(_export_lines(on), media_type="application/jsonl", headers=headers)


def read_suite_name(name: str) -> str:
    """Return the name of a suite or a document set as it was typed.

    Raises:
        InvalidRequestError: If it is empty or too long.
    """
    name = sanitize_text(name.strip())
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise InvalidRequestError(f"a name has 1 to {MAX_NAME_CHARS} characters", field="name")
    return name


def _render_suite(
    on: SuitePage,
    *,
    q: str = "",
    cursor: str | None = None,
    runs: str | None = None,
    imported: int | None = None,
    done: str = "",
    problems: list[str] | None = None,
) -> Response:
    history = list_history(on.tenant, on.suite.id, runs, PAGE_ROWS)
    found = search_cases(on.tenant, on.suite.id, q, cursor, PAGE_ROWS)
    record_case_reads(on.page, found.rows)
    return on.render(
        "suite.html",
        HTTPStatus.UNPROCESSABLE_ENTITY if problems else HTTPStatus.OK,
        history=history.rows,
        shown_points=sum(entry.run.state == "done" and not entry.is_candidate for entry in history.rows),
        runs_cursor=runs,
        next_runs_cursor=history.next_cursor,
        cases=found.rows,
        q=q,
        cursor=cursor,
        next_cursor=found.next_cursor,
        imported=imported,
        done=done,
        problems=problems or [],
        file_mb=min(MAX_SUITE_BYTES, on.page.services.settings.upload_request_bytes) >> 20,
    )


def _export_lines(on: SuitePage) -> Iterator[bytes]:
    cursor: str | None = None
    while True:
        page = cases.list_cases(on.tenant, on.suite.id, cursor, _EXPORTED_AT_ONCE)
        for row in page.rows:
            yield msgspec.json.encode(row.content) + b"\n"
        cursor = page.next_cursor
        if cursor is None:
            return
