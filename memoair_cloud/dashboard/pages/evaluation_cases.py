"""The pages of a case: show it, write or change it by form or as JSON, delete it."""

import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from starlette.datastructures import FormData

from memoair_cloud.dashboard.case_form import (
    CaseForm,
    describe_expectation,
    form_of_case,
    make_case,
    parse_case_text,
    read_case_form,
)
from memoair_cloud.dashboard.evaluation_page import SuiteDep, SuitePage, WritableSuiteDep, record_case_reads
from memoair_cloud.dashboard.form_values import clean_text
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.database.evaluation_models import SuiteCase
from memoair_cloud.errors import ApiError, ForbiddenError, InvalidRequestError, NotFoundError
from memoair_cloud.evaluation import cases
from memoair_cloud.http.exact_path import PathId
from memoair_protocol.enums import LaneName


class CaseRoute(PageRoute):
    """A route whose form has a case, which may have many turns."""

    max_form_bytes = 4 << 20


router = APIRouter(prefix="/p/{project_id}/evaluations/suites/{suite_id}", route_class=CaseRoute)

_EXAMPLE = {"id": "returns-1", "question": "Can I still send it back?", "must": [{"text": "30 days"}]}


async def read_fields(request: Request) -> FormData:
    """Return the fields of a form, which the route has checked. This is the FastAPI dependency."""
    return await request.form()


FieldsDep = Annotated[FormData, Depends(read_fields)]


@router.get("/new")
def show_new_case(on: SuiteDep) -> Response:
    """Show the form for a new case."""
    return _render_form(on, None, CaseForm())


@router.post("/new")
def create_case(on: WritableSuiteDep, fields: FieldsDep) -> Response:
    """Add a case."""
    return _save(on, None, fields)


@router.get("/cases/{case_id}")
def show_case(on: SuiteDep, case_id: PathId, done: str = "", left_out: int = 0) -> Response:
    """Show a case."""
    row = cases.get_case(on.tenant, on.suite.id, case_id)
    record_case_reads(on.page, [row])
    return on.render(
        "case.html",
        case=row,
        must=[describe_expectation(item) for item in row.content.get("must") or ()],
        must_not=[describe_expectation(item) for item in row.content.get("mustNot") or ()],
        done=done,
        left_out=left_out,
    )


@router.get("/cases/{case_id}/edit")
def show_case_form(on: SuiteDep, case_id: PathId) -> Response:
    """Show the form that changes a case."""
    row = cases.get_case(on.tenant, on.suite.id, case_id)
    record_case_reads(on.page, [row])
    return _render_form(on, row, form_of_case(row.content))


@router.post("/cases/{case_id}/edit")
def change_case(on: WritableSuiteDep, case_id: PathId, fields: FieldsDep) -> Response:
    """Change a case."""
    return _save(on, cases.get_case(on.tenant, on.suite.id, case_id), fields)


@router.post("/cases/{case_id}/delete")
def delete_case(
    on: WritableSuiteDep, case_id: PathId, is_confirmed: Annotated[bool, Form(alias="confirm")] = False
) -> Response:
    """Delete a case."""
    if not is_confirmed:
        raise InvalidRequestError("tick the box to confirm that the case is deleted")
    cases.delete_case(on.tenant, on.suite.id, case_id)
    return on.redirect(done="deleted")


def _save(on: SuitePage, row: SuiteCase | None, fields: FormData) -> Response:
    """Save a case; if it is invalid, show the form again with all that was typed."""
    as_json = clean_text(fields.get("as_json")) == "true"
    form = read_case_form(fields)
    text = clean_text(fields.get("content")) if as_json else ""
    try:
        content = parse_case_text(text) if as_json else make_case(form, None if row is None else row.content)
        case = cases.parse_content(content)
        _check_id(on, row, case.id)
        if row is not None and clean_text(fields.get("updated_at")) != row.updated_at.isoformat():
            raise InvalidRequestError(
                "someone has changed the case since you opened it: copy what you typed, and load the page again"
            )
        cases.put_cases(on.tenant, on.suite.id, [case])
    except (NotFoundError, ForbiddenError):
        raise
    except ApiError as error:
        return _render_form(on, row, form, problem=error.message, content_text=text)
    return on.redirect("cases", case.id, done="saved")


def _check_id(on: SuitePage, row: SuiteCase | None, case_id: str) -> None:
    if row is not None:
        if case_id != row.id:
            raise InvalidRequestError("an id does not change: make a new case, and delete this one", field="id")
        return
    try:
        cases.get_case(on.tenant, on.suite.id, case_id)
    except NotFoundError:
        return
    raise InvalidRequestError("the suite has a case with this id already", field="id")


def _render_form(
    on: SuitePage, row: SuiteCase | None, form: CaseForm, *, problem: str = "", content_text: str = ""
) -> Response:
    here = ("evaluations", "suites", on.suite.id)
    shown: Any = _EXAMPLE if row is None else row.content
    return on.render(
        "case_form.html",
        HTTPStatus.UNPROCESSABLE_ENTITY if problem else HTTPStatus.OK,
        case_id=None if row is None else row.id,
        is_copy=row is not None and row.user_id is not None,
        updated_at="" if row is None else row.updated_at.isoformat(),
        form=form,
        problem=problem,
        target=on.page.href(*here, "new") if row is None else on.page.href(*here, "cases", row.id, "edit"),
        json_text=json.dumps(shown, ensure_ascii=False, indent=2),
        content_text=content_text,
        all_lanes=list(LaneName),
    )
