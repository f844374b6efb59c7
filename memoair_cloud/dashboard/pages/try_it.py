"""Pages that ask a question with the engine of the runtimes: as any caller, or again as it was asked in a call."""

from typing import Annotated

import attrs
from fastapi import APIRouter, Query, Response

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.calls.replay import load_turn
from memoair_cloud.calls.users import get_user_profile
from memoair_cloud.dashboard.form_values import parse_filter, parse_number
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PageDep, ProjectPage
from memoair_cloud.dashboard.recalled import ShownHit, show_reply, show_traces
from memoair_cloud.errors import NotFoundError
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.recall_preview.preview import Preview, Question, ask
from memoair_cloud.recall_traces.queries import get_trace, list_traces_of_turns
from memoair_protocol.enums import LaneName
from memoair_protocol.limits import MAX_QUERY_CHARS, MAX_TOP_K

router = APIRouter(prefix="/p/{project_id}", route_class=PageRoute)

_MAX_BUDGET_CHARS = 100_000

OptionalId = Annotated[str, Query(max_length=512)]
QuestionText = Annotated[str, Query(max_length=MAX_QUERY_CHARS)]
# Text, because a form sends empty fields, too.
NumberText = Annotated[str, Query(max_length=10)]


@attrs.frozen
class Difference:
    """What a question found then and finds now.

    Attributes:
        both: Hits of both searches: as they are now, with the score of then.
        only_then: Hits that are not found any more.
        only_now: Hits that were not found then.
    """

    both: list[tuple[ShownHit, float | None]]
    only_then: list[ShownHit]
    only_now: list[ShownHit]


@router.get("/try")
def show_try(
    page: PageDep,
    q: QuestionText = "",
    user: OptionalId = "",
    lane: Annotated[list[LaneName] | None, Query()] = None,
    top_k: NumberText = "",
    context_chars: NumberText = "",
    lane_chars: NumberText = "",
    metadata: Annotated[str, Query(alias="filter", max_length=4_000)] = "",
) -> Response:
    """Ask a question."""
    lanes = tuple(lane or LaneName)
    preview, hits = None, []
    user_id = user.strip() or None
    if q.strip():
        limit = parse_number("top_k", top_k, MAX_TOP_K)
        question = Question(
            q,
            user_id,
            lanes=lanes,
            top_k={} if limit is None else dict.fromkeys(LaneName, limit),
            context_chars=parse_number("context_chars", context_chars, _MAX_BUDGET_CHARS),
            lane_chars=parse_number("lane_chars", lane_chars, _MAX_BUDGET_CHARS),
            filter=parse_filter(metadata),
        )
        preview = _ask(page, question)
        hits = show_reply(preview.reply)
    values = {"lanes": lanes, "all_lanes": list(LaneName), "top_k": top_k, "context_chars": context_chars}
    return page.render(
        "try.html",
        "try",
        q=q,
        user_id=user,
        metadata=metadata,
        lane_chars=lane_chars,
        preview=preview,
        hits=hits,
        **values,
    )


@router.get("/callers/{user_id}/calls/{session_id}/again")
def show_again(
    page: PageDep, user_id: PathId, session_id: PathId, trace: OptionalId = "", turn: OptionalId = ""
) -> Response:
    """Ask a question of a call again, and show what differs from what was recalled then."""
    tenant = page.tenant.for_user(user_id)
    then = get_trace(tenant, trace) if trace else None
    event_id = then.turn_event_id if then is not None else turn
    asked_turn = load_turn(tenant, user_id, event_id) if event_id else None
    stored_text = then.details.get("query") if then is not None else None
    text = str(stored_text or (asked_turn.user_text if asked_turn else ""))
    if not text.strip():
        raise NotFoundError("the words of this search are not stored, and no turn followed it")
    if then is None and event_id:
        then = next(iter(list_traces_of_turns(tenant, session_id, [event_id]).get(event_id, [])), None)
    preview = _ask(page, Question(text, user_id, session_id, event_id or None))
    answer = "" if asked_turn is None else asked_turn.full_text or asked_turn.heard_text
    now = show_reply(preview.reply, answer)
    before = [] if then is None else list(show_traces(tenant, user_id, [(then, answer)])[then.id].hits)
    return page.render(
        "again.html",
        "calls",
        user_id=user_id,
        session_id=session_id,
        event_id=event_id,
        text=text,
        is_exact=bool(stored_text),
        then=then,
        preview=preview,
        difference=_compare(before, now),
    )


def _ask(page: ProjectPage, question: Question) -> Preview:
    if question.user_id is not None:
        get_user_profile(page.tenant, question.user_id)  # so that a typing error is not answered with nothing
        page.record_read(AuditAction.TRIED_RECALL, question.user_id)
    return ask(page.tenant, page.services.blobs, question)


def _compare(then: list[ShownHit], now: list[ShownHit]) -> Difference:
    before = {_key(hit): hit for hit in then if hit.lane != LaneName.PROFILE.value}
    after = {_key(hit): hit for hit in now}
    return Difference(
        both=[(hit, before[key].score) for key, hit in after.items() if key in before],
        only_then=[hit for key, hit in before.items() if key not in after],
        only_now=[hit for key, hit in after.items() if key not in before],
    )


def _key(hit: ShownHit) -> tuple[str, str]:
    if hit.document_id is not None:
        return "org", f"{hit.index_name}\0{hit.document_id}"
    return hit.lane, hit.id
