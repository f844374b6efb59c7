"""The pages of runs: start one, follow it, its results with their traces, and two runs side by side."""

from http import HTTPStatus
from typing import Annotated, Any

import attrs
from fastapi import APIRouter, Depends, Form, Query, Response

from memoair_cloud.dashboard.candidate_form import (
    TOP_K_LANES,
    CandidateForm,
    form_of_candidate,
    make_candidate,
    read_candidate_form,
)
from memoair_cloud.dashboard.compared import diff_lines, show_totals
from memoair_cloud.dashboard.evaluated import ShownResult, show_lanes, show_result
from memoair_cloud.dashboard.evaluation_page import (
    SuiteDep,
    SuitePage,
    WritableSuiteDep,
    open_suite_page,
    record_case_reads,
)
from memoair_cloud.dashboard.form_values import clean_text
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.pages.evaluation_cases import CaseRoute, FieldsDep
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep
from memoair_cloud.database.evaluation_models import EvaluationResult, EvaluationRun
from memoair_cloud.errors import ApiError, ForbiddenError, InvalidRequestError, NotFoundError
from memoair_cloud.evaluation import cases, comparison, document_sets, runs
from memoair_cloud.evaluation.document_set_states import DocumentSetState
from memoair_cloud.evaluation.overview import find_run_agent, list_history, list_results_failed_first
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.prompts.labels import list_labels
from memoair_cloud.prompts.versions import list_prompts
from memoair_cloud.tenancy.access import Tenant
from memoair_protocol.enums import LaneName

router = APIRouter(prefix="/p/{project_id}/evaluations", route_class=PageRoute)
form_router = APIRouter(prefix="/p/{project_id}/evaluations", route_class=CaseRoute)

_RUNS_OFFERED = 30
_SETS_OFFERED = 200
_PROMPTS_OFFERED = 50
_DIFFERING_SHOWN = 500
_USABLE = (DocumentSetState.BUILDING.value, DocumentSetState.READY.value)

RunId = Annotated[str, Query(max_length=512)]


@attrs.frozen
class RunPage:
    """A request for a page of a run of a suite.

    Attributes:
        on: The page of its suite.
        run: The run.
    """

    on: SuitePage
    run: EvaluationRun

    @property
    def tenant(self) -> Tenant:
        """The agent that owns the run."""
        return self.on.tenant

    def render(self, template: str, **values: Any) -> Response:
        """Return a page of the run, as `SuitePage.render` does."""
        return self.on.render(template, run=self.run, **values)


def get_run_page(page: PageDep, run_id: PathId) -> RunPage:
    """Return the page of the run that the path names. This is the FastAPI dependency."""
    tenant = page.tenant.for_agent(find_run_agent(page.tenant, run_id))
    run = runs.get_run(tenant, run_id)
    if run.suite_id is None:
        raise NotFoundError("unknown run of a suite", resource="run")
    return RunPage(open_suite_page(page, run.suite_id), run)


RunDep = Annotated[RunPage, Depends(get_run_page)]


def get_writable_run_page(at: RunDep) -> RunPage:
    """Return the page of a run to a visitor who may change it. This is the FastAPI dependency."""
    at.on.page.require_write()
    return at


WritableRunDep = Annotated[RunPage, Depends(get_writable_run_page)]


@router.get("/suites/{suite_id}/run")
def show_run_form(on: SuiteDep, like: RunId = "") -> Response:
    """Show the form that starts a run; if need be as another run was started."""
    earlier = runs.get_run(on.tenant, like) if like else None
    form = CandidateForm() if earlier is None else form_of_candidate(earlier.candidate)
    with_judge = earlier is not None and bool(earlier.settings.get("judge"))
    return _render_form(on, form, with_judge=with_judge)


@form_router.post("/suites/{suite_id}/runs")
def start_run(on: WritableSuiteDep, fields: FieldsDep) -> Response:
    """Start a run; if something is wrong, show the form again with all that was typed."""
    form = read_candidate_form(fields)
    with_judge = clean_text(fields.get("judge")) == "true"
    try:
        if with_judge and on.page.services.settings.judge_base_url is None:
            raise InvalidRequestError("the server has no judge", field="judge")
        run = runs.create_run(on.tenant, on.suite.id, make_candidate(form), with_judge=with_judge)
    except ForbiddenError:
        raise
    except ApiError as error:
        return _render_form(on, form, with_judge=with_judge, problem=error.message)
    on.page.services.queue.enqueue_evaluations(on.page.project.id)
    return on.page.redirect("evaluations", "runs", run.id)


@router.get("/runs/{run_id}")
def show_run(at: RunDep, only: Annotated[str, Query(max_length=20)] = "", cursor: CursorParam = None) -> Response:
    """Show how far a run is, what it scores, and its cases, failing ones first."""
    run, only_failed = at.run, only == "failed"
    found = list_results_failed_first(at.tenant, run.id, cursor, PAGE_ROWS, only_failed=only_failed)
    record_case_reads(at.on.page, found.rows)
    history = list_history(at.tenant, at.on.suite.id, None, _RUNS_OFFERED).rows if run.state == "done" else []
    others = [entry.run for entry in history if entry.run.state == "done" and entry.run.id != run.id]
    return at.render(
        "run.html",
        changes=at.on.describe(run.candidate),
        results=found.rows,
        only_failed=only_failed,
        cursor=cursor,
        next_cursor=found.next_cursor,
        others=others,
        has_before=any(other.created_at < run.created_at for other in others),
        late_note=_note_late(run),
        answers_note=_note_answers(run),
    )


@router.post("/runs/{run_id}/cancel")
def cancel_run(at: WritableRunDep) -> Response:
    """Cancel a run."""
    runs.cancel_run(at.tenant, at.run.id)
    return at.on.page.redirect("evaluations", "runs", at.run.id)


@router.post("/runs/{run_id}/delete")
def delete_run(at: WritableRunDep, is_confirmed: Annotated[bool, Form(alias="confirm")] = False) -> Response:
    """Delete a run with its results."""
    if not is_confirmed:
        raise InvalidRequestError("tick the box to confirm that the run is deleted")
    runs.delete_run(at.tenant, at.run.id)
    return at.on.redirect()


@router.get("/runs/{run_id}/cases/{case_id}")
def show_case_result(at: RunDep, case_id: PathId) -> Response:
    """Show what a run found for a case."""
    result = runs.get_result(at.tenant, at.run.id, case_id)
    record_case_reads(at.on.page, [result])
    content = result.details.get("case")
    try:
        present_sha256 = cases.get_case(at.tenant, at.on.suite.id, case_id).sha256
    except NotFoundError:
        present_sha256 = None
    return at.render(
        "result.html",
        result=result,
        content=content,
        case_exists=present_sha256 is not None,
        has_changed=present_sha256 != result.case_sha256,
        lanes=show_lanes(result.details.get("trace") or {}, result.scores),
        shown=_show(result),
        answer=_join_answer(result),
    )


@router.get("/runs/{run_id}/comparison")
def show_comparison(at: RunDep, against: RunId = comparison.LAST) -> Response:
    """Show what has changed since another run: by default since the one before."""
    found = comparison.compare_runs(at.tenant, at.run.id, _find_other_run(at, against).id)
    before, compared = found.before, found.comparison
    differing = [case for case in compared.cases if case.outcome.value != "same"]
    shown = differing[:_DIFFERING_SHOWN]
    return at.render(
        "comparison.html",
        before=before,
        counts=compared.counts,
        is_worse=compared.is_worse,
        totals=show_totals(compared.before.to_wire(), compared.after.to_wire()),
        versions=[
            ("Suite", before.suite_version, at.run.suite_version),
            ("Prompt", before.prompt_version, at.run.prompt_version),
            ("Index", before.org_version, at.run.org_version),
            ("Engine", before.engine_version, at.run.engine_version),
        ],
        rows=shown,
        hidden_rows=len(differing) - len(shown),
    )


@router.get("/runs/{run_id}/comparison/{case_id}")
def show_case_comparison(at: RunDep, case_id: PathId, against: RunId = comparison.LAST) -> Response:
    """Show a case in two runs, side by side."""
    before = _find_other_run(at, against)
    earlier, later = _find_result(at.tenant, before.id, case_id), _find_result(at.tenant, at.run.id, case_id)
    results = [result for result in (later, earlier) if result is not None]
    if not results:
        raise NotFoundError("neither of the runs has this case", resource="case")
    record_case_reads(at.on.page, results)
    contexts = [str((result.details.get("context") if result else None) or "") for result in (earlier, later)]
    return at.render(
        "case_comparison.html",
        before=before,
        case_id=case_id,
        content=results[0].details.get("case"),
        has_changed=len(results) == 2 and results[0].case_sha256 != results[1].case_sha256,
        result_before=earlier,
        result_after=later,
        shown_before=_show(earlier),
        shown_after=_show(later),
        diff=diff_lines(*contexts) if len(results) == 2 else [],
        results_on_both=len(results) == 2,
    )


def _render_form(on: SuitePage, form: CandidateForm, *, with_judge: bool, problem: str = "") -> Response:
    sets = document_sets.list_document_sets(on.page.tenant, None, _SETS_OFFERED).rows
    settings = on.page.services.settings
    return on.render(
        "run_form.html",
        HTTPStatus.UNPROCESSABLE_ENTITY if problem else HTTPStatus.OK,
        form=form,
        problem=problem,
        document_sets=[row for row in sets if row.state in _USABLE],
        prompts=_list_prompt_choices(on.tenant),
        all_lanes=list(LaneName),
        top_k_lanes=TOP_K_LANES,
        has_judge=settings.judge_base_url is not None,
        judge_name=settings.judge_model,
        with_judge=with_judge,
    )


def _list_prompt_choices(tenant: Tenant) -> list[tuple[str, str]]:
    labels = list_labels(tenant, None, _PROMPTS_OFFERED).rows
    versions = list_prompts(tenant, None, _PROMPTS_OFFERED).rows
    return [
        *((f"label:{label.name}", f"label {label.name}, now version {label.number}") for label in labels),
        *(
            (f"version:{prompt.version}", f"version {prompt.version} {prompt.notes[:60]}".strip())
            for prompt in versions
        ),
    ]


def _find_other_run(at: RunPage, run_id: str) -> EvaluationRun:
    with at.tenant.begin_read() as session:
        found = comparison.find_run_before(session, at.run) if run_id == comparison.LAST else None
    found = found or runs.get_run(at.tenant, run_id)
    if found.suite_id != at.run.suite_id:
        raise NotFoundError("unknown run of this suite", resource="run")
    return found


def _find_result(tenant: Tenant, run_id: str, case_id: str) -> EvaluationResult | None:
    try:
        return runs.get_result(tenant, run_id, case_id)
    except NotFoundError:
        return None


def _show(result: EvaluationResult | None) -> ShownResult:
    if result is None:
        return ShownResult()
    return show_result(result.details.get("case"), result.scores, result.details)


def _join_answer(result: EvaluationResult) -> dict[str, Any] | None:
    """Return what the judge counted and said of a case; None without a judge."""
    scored, details = result.scores.get("answer"), result.details.get("answer") or {}
    return {"text": "", "reason": "", "failure": "", "cost": None, **details, **scored} if scored else None


def _note_late(run: EvaluationRun) -> str:
    late = (run.scores or {}).get("lateLanes") or {}
    return ", ".join(f"{name} {count}" for name, count in late.items()) or "every lane was in time"


def _note_answers(run: EvaluationRun) -> str:
    answers = (run.scores or {}).get("answers") or {}
    counted = [f"{answers[name]} {name}" for name in ("right", "partly", "wrong", "unclear") if answers.get(name)]
    tokens = answers.get("promptTokens", 0) + answers.get("completionTokens", 0)
    used = [f"{tokens:,} tokens"] if tokens else []
    cost = [f"cost {answers['cost']:.4f}"] if answers.get("cost") is not None else []
    return ", ".join([*counted, *used, *cost])
