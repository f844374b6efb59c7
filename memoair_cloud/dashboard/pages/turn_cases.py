"""The page that makes a turn of a call a case: which suite, what must be recalled, and what an erasure does to it."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import attrs
from fastapi import APIRouter, Response
from starlette.datastructures import FormData

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.calls.replay import Replay, ReplayedTurn, load_replay
from memoair_cloud.dashboard.case_form import Row, make_expectation, read_expectations
from memoair_cloud.dashboard.form_values import clean_text
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.pages.evaluation_cases import FieldsDep
from memoair_cloud.dashboard.pages.evaluations import read_suite_name
from memoair_cloud.dashboard.project_page import PageDep, ProjectPage
from memoair_cloud.dashboard.recalled import ShownHit, show_reply, show_traces
from memoair_cloud.database.evaluation_models import EvaluationSuite
from memoair_cloud.errors import ApiError, ForbiddenError, InvalidRequestError, NotFoundError
from memoair_cloud.evaluation import suites
from memoair_cloud.evaluation.case_copying import CaseDraft, CopiedCase, copy_case_from_turn, preview_case_from_turn
from memoair_cloud.evaluation.overview import find_suite_agent, list_suite_summaries
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.recall_preview.preview import Question, ask
from memoair_cloud.recall_traces.queries import list_traces_of_turns

router = APIRouter(
    prefix="/p/{project_id}/callers/{user_id}/calls/{session_id}/turns/{event_id}/case", route_class=PageRoute
)

_MAX_SUITES_SHOWN = 500


@attrs.frozen
class HitChoice:
    """A hit that can be ticked.

    Attributes:
        hit: The hit.
        value: What a case calls it, as JSON; empty if it is not stored any more.
    """

    hit: ShownHit
    value: str


@attrs.frozen
class TurnOfCall:
    """The turn that becomes a case.

    Attributes:
        page: The page.
        replay: The call.
        turn: The turn.
    """

    page: ProjectPage
    replay: Replay
    turn: ReplayedTurn


@attrs.frozen
class TurnCaseForm:
    """What was chosen.

    Attributes:
        suite_id: The suite; empty for a new one; None if nothing was chosen yet.
        suite_name: The name of the new one.
        agent_id: The agent of the new one.
        case_id: The id of the case; empty for one that is made.
        hit_must: The hits that must be recalled, as `HitChoice` values.
        hit_must_not: Those that must not.
        must: What else must be recalled.
        must_not: What else must not.
        expected_answer: The expected answer.
        keeps_text: Whether the case stays when the caller is erased.
    """

    suite_id: str | None = None
    suite_name: str = ""
    agent_id: str = ""
    case_id: str = ""
    hit_must: Sequence[str] = ()
    hit_must_not: Sequence[str] = ()
    must: Sequence[Row] = ()
    must_not: Sequence[Row] = ()
    expected_answer: str = ""
    keeps_text: bool = False


@router.get("")
def show_turn_form(page: PageDep, user_id: PathId, session_id: PathId, event_id: PathId) -> Response:
    """Show a turn with what was recalled for it, and the form."""
    return _render(_load_turn(page, user_id, session_id, event_id), TurnCaseForm())


@router.post("")
def copy_turn(page: PageDep, user_id: PathId, session_id: PathId, event_id: PathId, fields: FieldsDep) -> Response:
    """Copy a case from the turn; if something is missing, show the form again with all that was chosen."""
    page.require_write()
    form = _read_form(fields)
    try:
        suite_id, copied = _copy(page, user_id, session_id, event_id, form)
    except (NotFoundError, ForbiddenError):
        raise
    except ApiError as error:
        return _render(_load_turn(page, user_id, session_id, event_id), form, error.message)
    left_out = copied.left_out or None
    return page.redirect("evaluations", "suites", suite_id, "cases", copied.row.id, done="saved", left_out=left_out)


def _copy(
    page: ProjectPage, user_id: str, session_id: str, event_id: str, form: TurnCaseForm
) -> tuple[str, CopiedCase]:
    if both := set(form.hit_must) & set(form.hit_must_not):
        raise InvalidRequestError(f"{len(both)} of the hits are ticked as both: choose one", field="must")
    draft = CaseDraft(
        user_id,
        session_id,
        event_id,
        form.case_id or None,
        must=[*map(_parse_choice, form.hit_must), *map(make_expectation, form.must)],
        must_not=[*map(_parse_choice, form.hit_must_not), *map(make_expectation, form.must_not)],
        expected_answer=form.expected_answer,
        keeps_text=form.keeps_text,
    )
    if not (draft.must or draft.must_not or draft.expected_answer):
        raise InvalidRequestError("say what must be recalled, or what must not: else it always passes", field="must")
    if form.suite_id:
        tenant, suite_id = page.tenant.for_agent(find_suite_agent(page.tenant, form.suite_id)), form.suite_id
    else:
        name = read_suite_name(form.suite_name)
        tenant = page.tenant.for_agent(form.agent_id)
        preview_case_from_turn(tenant, draft)  # so that no suite stays behind without its case
        suite_id = suites.create_suite(tenant, name).suite.id
    return suite_id, copy_case_from_turn(tenant, suite_id, draft)


def _load_turn(page: ProjectPage, user_id: str, session_id: str, event_id: str) -> TurnOfCall:
    replay = load_replay(page.tenant.for_user(user_id), user_id, session_id, page_turns=1, at_event=event_id)
    if not replay.turns or replay.turns[0].event_id != event_id:
        raise NotFoundError("unknown turn of this call")
    page.record_read(AuditAction.READ_CALL, user_id, session_id)
    return TurnOfCall(page, replay, replay.turns[0])


def _render(on: TurnOfCall, form: TurnCaseForm, problem: str = "") -> Response:
    page, call, turn = on.page, on.replay.call, on.turn
    found = [summary.suite for summary in list_suite_summaries(page.tenant, None, None, _MAX_SUITES_SHOWN).rows]
    own = sorted(found, key=lambda suite: suite.agent_id != call.agent_id)
    hits, is_now = _load_hits(on)
    response = page.render(
        "turn_case.html",
        "calls",
        user_id=call.user_id,
        session_id=call.id,
        turn=turn,
        agent_id=call.agent_id,
        target=page.href("callers", call.user_id, "calls", call.id, "turns", turn.event_id, "case"),
        suites=own,
        chosen_suite=_choose_suite(own, call.agent_id) if form.suite_id is None else form.suite_id,
        hits=[HitChoice(hit, _name_hit(hit)) for hit in hits],
        is_now=is_now,
        ticked_must=form.hit_must,
        ticked_must_not=form.hit_must_not,
        suite_name=form.suite_name,
        case_id=form.case_id,
        must=form.must,
        must_not=form.must_not,
        expected_answer=form.expected_answer,
        keep_text=form.keeps_text,
        problem=problem,
    )
    response.status_code = HTTPStatus.UNPROCESSABLE_ENTITY if problem else HTTPStatus.OK
    return response


def _choose_suite(own: Sequence[EvaluationSuite], agent_id: str | None) -> str:
    """Return the suite that is chosen at first: one of the agent of the call."""
    return next((suite.id for suite in own if suite.agent_id == agent_id), "")


def _load_hits(on: TurnOfCall) -> tuple[list[ShownHit], bool]:
    """Return what was recalled for a turn, each once; if that is not recorded, what would be, and that this is so."""
    page, call, turn = on.page, on.replay.call, on.turn
    answer = turn.full_text or turn.heard_text
    tenant = page.tenant.for_user(call.user_id)
    traces = list_traces_of_turns(tenant, call.id, [turn.event_id]).get(turn.event_id, [])
    if traces:
        shown = show_traces(tenant, call.user_id, [(trace, answer) for trace in traces])
        hits = [hit for trace in shown.values() for hit in trace.hits if hit.kind in ("turn", "fact", "document")]
        return list({(hit.kind, hit.index_name, hit.document_id or hit.id): hit for hit in hits}.values()), False
    if not turn.user_text.strip():
        return [], False
    page.record_read(AuditAction.TRIED_RECALL, call.user_id)
    preview = ask(page.tenant, page.services.blobs, Question(turn.user_text, call.user_id, call.id, turn.event_id))
    return show_reply(preview.reply, answer), True


def _name_hit(hit: ShownHit) -> str:
    """Return what a case calls a hit, as JSON; empty for one that is not stored any more."""
    if hit.document_id is not None:
        named = {"document": hit.document_id, **({"index": hit.index_name} if hit.index_name else {})}
    elif hit.text is None:
        return ""
    else:
        named = {"turn": hit.event_id or hit.id} if hit.kind == "turn" else {"fact": hit.text}
    return json.dumps(named, ensure_ascii=False, sort_keys=True)


def _parse_choice(text: str) -> Mapping[str, Any]:
    try:
        choice = json.loads(text)
    except (ValueError, RecursionError):
        choice = None
    if not isinstance(choice, dict) or not all(isinstance(value, str) for value in choice.values()):
        raise InvalidRequestError("a hit is not known: load the page again", field="must")
    return choice


def _read_form(fields: FormData) -> TurnCaseForm:
    return TurnCaseForm(
        suite_id=clean_text(fields.get("suite_id")),
        suite_name=clean_text(fields.get("suite_name")),
        agent_id=clean_text(fields.get("agent_id")),
        case_id=clean_text(fields.get("case_id")),
        hit_must=[clean_text(value) for value in fields.getlist("hit_must")],
        hit_must_not=[clean_text(value) for value in fields.getlist("hit_must_not")],
        must=read_expectations(fields, "must"),
        must_not=read_expectations(fields, "must_not"),
        expected_answer=clean_text(fields.get("expected_answer")),
        keeps_text=clean_text(fields.get("keep_text")) == "true",
    )
