"""The pages of replays: the list, the form that starts one, and what changes, to be accepted as cases."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

import attrs
from fastapi import APIRouter, Depends, Form, Query, Response

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.calls.search import load_user_names
from memoair_cloud.cursors import ResultPage
from memoair_cloud.dashboard.candidate_form import (
    TOP_K_LANES,
    CandidateForm,
    describe_candidate,
    form_of_candidate,
    make_candidate,
    read_candidate_form,
)
from memoair_cloud.dashboard.form_values import clean_text, parse_number
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.pages.evaluation_cases import FieldsDep
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep, ProjectPage, Text
from memoair_cloud.dashboard.view import parse_moment
from memoair_cloud.database.evaluation_models import EvaluationRun
from memoair_cloud.errors import ApiError, ForbiddenError, InvalidRequestError
from memoair_cloud.evaluation import replay_changes, replays, suites
from memoair_cloud.evaluation.document_sets import list_document_sets
from memoair_cloud.evaluation.overview import find_run_agent, load_set_names
from memoair_cloud.evaluation.replay_accepting import Acceptance, accept_changes
from memoair_cloud.evaluation.runs import cancel_run, delete_run
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.tenancy.access import Tenant
from memoair_evaluation.replay import KINDS
from memoair_protocol.enums import LaneName

router = APIRouter(prefix="/p/{project_id}/evaluations/replays", route_class=PageRoute)

CHANGES_SHOWN = 20
_SETS_SHOWN = _SUITES_SHOWN = 200
_FIELDS = ("agent_id", "since", "until", "max_questions")


@attrs.frozen
class ReplayPage:
    """A request for the page of a replay.

    Attributes:
        page: The page of the project.
        tenant: The agent whose calls are replayed.
        run: The replay.
    """

    page: ProjectPage
    tenant: Tenant
    run: EvaluationRun

    def redirect(self, **changes: str | int | None) -> Response:
        """Redirect to the page of the replay, after a form was accepted."""
        return self.page.redirect("evaluations", "replays", self.run.id, **changes)


def get_replay_page(page: PageDep, replay_id: PathId) -> ReplayPage:
    """Return the page of the replay that the path names, whichever agent of the project it is about."""
    tenant = page.tenant.for_agent(find_run_agent(page.tenant, replay_id))
    return ReplayPage(page, tenant, replays.get_replay(tenant, replay_id))


ReplayDep = Annotated[ReplayPage, Depends(get_replay_page)]


def get_writable_replay_page(on: ReplayDep) -> ReplayPage:
    """Return the page of a replay to a visitor who may change it. This is the FastAPI dependency."""
    on.page.require_write()
    return on


WritableReplayDep = Annotated[ReplayPage, Depends(get_writable_replay_page)]


@router.get("")
def show_replays(page: PageDep, cursor: CursorParam = None) -> Response:
    """List the replays of the agent of the view, or of all agents."""
    found = replays.list_replays(page.tenant, page.view.agent_id, cursor, PAGE_ROWS)
    return page.render(
        "replays.html",
        "evaluations",
        runs=found.rows,
        cursor=cursor,
        next_cursor=found.next_cursor,
        describe=_describe_for(page.tenant),
    )


@router.get("/new")
def show_form(page: PageDep, like: Annotated[str, Query(max_length=512)] = "") -> Response:
    """Show the form that starts a replay, with the values of another one if ``like`` names it."""
    if not like:
        since, until = (moment.astimezone(page.view.zone).date() for moment in (page.view.since, page.view.until))
        days = {"since": since.isoformat(), "until": until.isoformat()}
        return _render_form(page, CandidateForm(), {**dict.fromkeys(_FIELDS, ""), **days})
    run = replays.get_replay(page.tenant.for_agent(find_run_agent(page.tenant, like)), like)
    settings = run.settings
    values = {
        "agent_id": run.agent_id,
        "since": settings["from"],
        "until": settings["to"],
        "max_questions": str(settings["maxQuestions"]),
    }
    return _render_form(page, form_of_candidate(run.candidate), values)


@router.post("")
def start_replay(page: PageDep, fields: FieldsDep) -> Response:
    """Start a replay; if something is wrong, show the form again with all that was typed."""
    page.require_write()
    form = read_candidate_form(fields)
    values = {name: clean_text(fields.get(name)) for name in _FIELDS}
    try:
        if not values["agent_id"]:
            raise InvalidRequestError("choose an agent: its calls are replayed", field="agent_id")
        most = parse_number("questions", values["max_questions"], replays.MAX_QUESTIONS)
        since = _parse_time(page, "from", values["since"])
        until = _parse_time(page, "to", values["until"], is_end=True)
        run = replays.create_replay(
            page.tenant.for_agent(values["agent_id"]),
            make_candidate(form),
            since,
            until,
            most or replays.DEFAULT_QUESTIONS,
        )
    except ForbiddenError:
        raise
    except ApiError as error:
        return _render_form(page, form, values, problem=error.message)
    page.services.queue.enqueue_evaluations(page.project.id)
    return page.redirect("evaluations", "replays", run.id)


@router.get("/{replay_id}")
def show_replay(
    on: ReplayDep, cursor: CursorParam = None, accepted: int | None = None, repeated: int = 0, into: str = ""
) -> Response:
    """Show how far a replay is, and what changes, the largest changes first."""
    return _render_replay(on, cursor, accepted=accepted, repeated=repeated, into=into)


@router.post("/{replay_id}/cancel")
def cancel_replay(on: WritableReplayDep) -> Response:
    """Cancel a replay."""
    cancel_run(on.tenant, on.run.id)
    on.page.services.queue.enqueue_evaluations(on.page.project.id)
    return on.redirect()


@router.post("/{replay_id}/delete")
def delete_replay(on: WritableReplayDep, confirm: Annotated[bool, Form()] = False) -> Response:
    """Delete a replay with its results."""
    if not confirm:
        raise InvalidRequestError("tick the box to confirm that the replay is deleted", field="confirm")
    delete_run(on.tenant, on.run.id)
    return on.page.redirect("evaluations", "replays")


@router.post("/{replay_id}/accept")
def accept(on: WritableReplayDep, fields: FieldsDep, suite_id: Text = "", new_suite: Text = "") -> Response:
    """Copy the chosen questions to a suite as cases."""
    case_ids = [clean_text(value) for value in fields.getlist("case_id")]
    kinds = [kind for kind in KINDS if kind in fields.getlist("require")]
    try:
        if not case_ids:
            raise InvalidRequestError("choose at least one question", field="case_id")
        suite = _choose_suite(on, suite_id.strip(), clean_text(new_suite))
        results = accept_changes(
            on.tenant, on.run.id, suite, case_ids, kinds=kinds, keeps_text=fields.get("keep_text") == "true"
        )
    except ApiError as error:
        return _render_replay(on, None, problems=[error.message])
    if refused := [result for result in results if result.reason is not None]:
        return _render_replay(on, None, problems=_describe_refused(refused), accepted=len(results) - len(refused))
    repeated = sum(result.is_repeated for result in results)
    return on.redirect(accepted=len(results) - repeated, repeated=repeated or None, into=suite)


def _describe_for(tenant: Tenant) -> Callable[[Mapping[str, Any]], list[tuple[str, str]]]:
    """Return a function that describes candidates for people, with the names of the project's document sets."""
    set_names = load_set_names(tenant)
    return lambda candidate: describe_candidate(candidate, set_names)


def _choose_suite(on: ReplayPage, suite_id: str, new_name: str) -> str:
    if new_name:
        return suites.create_suite(on.tenant, new_name).suite.id
    if not suite_id:
        raise InvalidRequestError("choose a suite, or name a new one", field="suite_id")
    return suite_id


def _describe_refused(refused: Sequence[Acceptance]) -> list[str]:
    return [f"{result.case_id}: {result.reason}" for result in refused]


def _render_form(page: ProjectPage, form: CandidateForm, values: dict[str, str], problem: str = "") -> Response:
    response = page.render(
        "replay_form.html",
        "evaluations",
        form=form,
        values=values,
        problem=problem,
        all_lanes=list(LaneName),
        top_k_lanes=TOP_K_LANES,
        document_sets=[row for row in list_document_sets(page.tenant, None, _SETS_SHOWN).rows if row.sha256],
        default_questions=replays.DEFAULT_QUESTIONS,
        most_questions=replays.MAX_QUESTIONS,
    )
    response.status_code = HTTPStatus.UNPROCESSABLE_ENTITY if problem else HTTPStatus.OK
    return response


def _render_replay(
    on: ReplayPage,
    cursor: str | None,
    *,
    accepted: int | None = None,
    repeated: int = 0,
    into: str = "",
    problems: Sequence[str] = (),
) -> Response:
    page = on.page
    found: ResultPage[replay_changes.ReplayChange] = ResultPage([], None)
    if not on.run.is_open:  # until then, the page says how far it is and not what was said
        found = replay_changes.list_changes(on.tenant, on.run.id, cursor, CHANGES_SHOWN)
    page.record_reads(AuditAction.READ_CALL, [(change.user_id, change.session_id) for change in found.rows])
    known: dict[str, Any] = {
        "run": on.run,
        "changed_count": replay_changes.count_changes(on.tenant, on.run.id),
        "changes": found.rows,
        "names": load_user_names(on.tenant, {change.user_id for change in found.rows}),
        "suites": [detail.suite for detail in suites.list_suites(on.tenant, None, _SUITES_SHOWN).rows],
        "candidate_changes": _describe_for(on.tenant)(on.run.candidate),
        "period": replays.get_period(on.run),
    }
    response = page.render(
        "replay.html",
        "evaluations",
        cursor=cursor,
        next_cursor=found.next_cursor,
        accepted=accepted,
        repeated=repeated,
        into=into,
        problems=problems,
        **known,
    )
    response.status_code = HTTPStatus.UNPROCESSABLE_ENTITY if problems else HTTPStatus.OK
    return response


def _parse_time(page: ProjectPage, field: str, text: str, *, is_end: bool = False) -> datetime:
    if not text:
        raise InvalidRequestError(f"{field}: choose a day", field=field)
    return parse_moment(field, text, page.view.zone, is_end=is_end)
