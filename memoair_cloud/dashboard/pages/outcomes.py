"""The pages of outcomes: the list, and the form for a table with a dry run before anything is saved."""

from collections.abc import Sequence
from typing import Annotated, Any

import attrs
from fastapi import APIRouter, Form, Query, Request, Response
from starlette.datastructures import UploadFile

from memoair_cloud.dashboard.pages.uploads import FilesRoute, Flag, FormFiles
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep, ProjectPage, Text
from memoair_cloud.errors import BatchTooLargeError, InvalidRequestError
from memoair_cloud.outcomes.queries import OutcomeFilter, list_outcomes, list_recent_names
from memoair_cloud.outcomes.table_import import MAX_TABLE_BYTES, MAX_TABLE_ROWS, import_table, pack_table, unpack_table
from memoair_cloud.tenancy.grants import Action
from memoair_documents.decoding import decode_text, is_known_encoding
from memoair_documents.errors import UnreadableFileError
from memoair_documents.outcome_tables import OutcomeColumns, UnknownColumnError, guess_columns, normalize_outcome
from memoair_documents.tables import CsvTable
from memoair_protocol.outcomes import is_outcome_name

_PREVIEW_ROWS = 5
# A table travels twice: as a file, and packed in the form that confirms it.
_MAX_FORM_BYTES = 2 * MAX_TABLE_BYTES


class TableRoute(FilesRoute):
    """A route whose form has a table, as a file or packed."""

    def _limit(self, request: Request) -> int:  # noqa: ARG002 - the same for all servers
        return _MAX_FORM_BYTES


router = APIRouter(prefix="/p/{project_id}/outcomes", route_class=TableRoute)

Packed = Annotated[str, Form(max_length=_MAX_FORM_BYTES)]


@router.get("")
def show_outcomes(
    page: PageDep,
    outcome: Annotated[str, Query(max_length=64)] = "",
    waiting: bool = False,
    saved: Annotated[int | None, Query(ge=0)] = None,
    cursor: CursorParam = None,
) -> Response:
    """List outcomes, latest first."""
    name = outcome.strip() or None
    wanted = OutcomeFilter(outcome=name, is_known=False if waiting else None)
    found = list_outcomes(page.tenant, wanted, cursor, PAGE_ROWS)
    values = {"rows": found.rows, "next_cursor": found.next_cursor, "cursor": cursor, "saved": saved}
    names = list_recent_names(page.tenant)
    return page.render("outcomes.html", "outcomes", outcome=name, names=names, waiting=waiting, **values)


@router.get("/upload")
def show_form(page: PageDep) -> Response:
    """Show the form for a table."""
    return _render_form(page)


@router.post("/upload")
def check_or_save(
    page: PageDep,
    files: FormFiles,
    packed: Packed = "",
    encoding: Text = "",
    session: Text = "",
    outcome: Text = "",
    score: Text = "",
    user: Text = "",
    time: Text = "",
    fixed_outcome: Text = "",
    is_chosen: Flag = False,
    save: Flag = False,
) -> Response:
    """Show what would become of a table, or save it."""
    page.tenant.grant.check(Action.WRITE, page.project.id)
    try:
        text = _read_file(files[0], encoding.strip()) if files else unpack_table(packed) if packed else ""
        table = CsvTable(text)
        if not any(table.columns):
            raise InvalidRequestError("choose a file" if not (files or packed) else "the file is empty")
    except (UnreadableFileError, InvalidRequestError, BatchTooLargeError, ValueError) as error:
        return _render_form(page, problem=getattr(error, "message", None) or str(error))
    given = OutcomeColumns(fixed_outcome=normalize_outcome(fixed_outcome) or None)
    columns = guess_columns(table.columns, given)
    if is_chosen:
        chosen = {"session": session, "outcome": outcome, "score": score, "user": user, "time": time}
        columns = attrs.evolve(columns, **{name: column or None for name, column in chosen.items()})
        if columns.fixed_outcome is not None:
            columns = attrs.evolve(columns, outcome=None)
    problem = _find_problem(columns, table)
    if save and not problem:
        saved = import_table(page.tenant, text, columns, is_dry_run=False)
        page.services.days.drop_outcomes(page.project.id, saved.began_at)
        return page.redirect("outcomes", saved=saved.accepted)
    try:
        receipt = None if problem else import_table(page.tenant, text, columns, is_dry_run=True)
    except (InvalidRequestError, BatchTooLargeError) as error:
        return _render_form(page, problem=error.message)
    return _render_form(
        page,
        problem=problem,
        columns=columns,
        names=[name for name in dict.fromkeys(table.columns) if name],
        preview=_preview(text),
        receipt=receipt,
        packed=pack_table(text),
    )


def _read_file(file: UploadFile, encoding: str) -> str:
    content = file.file.read(MAX_TABLE_BYTES + 1)
    if len(content) > MAX_TABLE_BYTES:
        raise BatchTooLargeError(f"the file exceeds {MAX_TABLE_BYTES >> 20} MB", limit=MAX_TABLE_BYTES)
    if encoding and not is_known_encoding(encoding):
        raise InvalidRequestError("unknown encoding", field="encoding")
    return decode_text(content, encoding or None)


def _find_problem(columns: OutcomeColumns, table: CsvTable) -> str:
    try:
        columns.check(table.columns)
    except UnknownColumnError as error:
        return f"{error}."
    if columns.fixed_outcome is not None and not is_outcome_name(columns.fixed_outcome):
        return "The outcome: use letters a to z, digits, dots and dashes, at most 64."
    return ""


def _preview(text: str) -> Sequence[Sequence[str]]:
    table = CsvTable(text)
    rows = []
    try:
        for row in table.read_rows():
            rows.append([row.values.get(name, "") for name in table.columns if name])
            if len(rows) == _PREVIEW_ROWS:
                break
    except ValueError:  # the dry run says where
        pass
    return rows


def _render_form(page: ProjectPage, problem: str = "", **values: Any) -> Response:
    known: dict[str, Any] = {"columns": None, "names": [], "preview": [], "receipt": None, "packed": ""}
    limits = {"max_rows": MAX_TABLE_ROWS, "max_mb": MAX_TABLE_BYTES >> 20}
    return page.render("outcome_upload.html", "outcomes", problem=problem, **{**known, **limits, **values})
