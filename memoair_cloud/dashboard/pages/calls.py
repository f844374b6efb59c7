"""The pages of calls: the list, the searches of all calls, and the replay of a call."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.calls.replay import find_neighbors, load_replay
from memoair_cloud.calls.search import CallFilter, CallState, list_calls, load_user_names
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep, SearchText
from memoair_cloud.dashboard.recalled import show_traces
from memoair_cloud.dashboard.rendering import mark_spans, safe_url
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.outcomes.queries import list_recent_names, load_outcomes_of_calls
from memoair_cloud.recall_traces.queries import TraceFilter, list_session_traces, list_traces, list_traces_of_turns
from memoair_protocol.enums import LaneName

router = APIRouter(prefix="/p/{project_id}", route_class=PageRoute)

_MAX_LOOSE_TRACES = 50
# How applications name the address of a recording in metadata: audioUrl, recording_url, callRecording.
_AUDIO_KEY = re.compile(r"audio|recording", re.IGNORECASE)

LaneParam = Annotated[LaneName | None, Query(description="only searches that missed this lane")]


@router.get("/calls")
def show_calls(
    page: PageDep,
    state: CallState = CallState.ALL,
    anytime: bool = False,
    outcome: Annotated[str, Query(max_length=64)] = "",
    prompt: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    cursor: CursorParam = None,
) -> Response:
    """List calls of the period, or of any time, latest first."""
    view = page.view
    since, until = (None, None) if anytime else (view.since, view.until)
    outcome_name = outcome.strip() or None
    call_filter = CallFilter(since, until, view.agent_id, state=state, outcome=outcome_name, prompt_version=prompt)
    found = list_calls(page.tenant, call_filter, cursor, PAGE_ROWS)
    names = load_user_names(page.tenant, {call.user_id for call in found.rows})
    values = {"calls": found.rows, "next_cursor": found.next_cursor, "cursor": cursor, "names": names}
    return page.render(
        "calls.html",
        "calls",
        state=state.value,
        states=list(CallState),
        anytime=anytime,
        outcome=outcome_name,
        outcome_names=list_recent_names(page.tenant),
        outcomes=load_outcomes_of_calls(page.tenant, found.rows),
        prompt=prompt,
        **values,
    )


@router.get("/searches")
def show_searches(
    page: PageDep,
    lane: LaneParam = None,
    found: Annotated[bool | None, Query(description="only searches that found something, or nothing")] = None,
    degraded: bool | None = None,
    min_ms: Annotated[float | None, Query(ge=0)] = None,
    cursor: CursorParam = None,
) -> Response:
    """List the searches of the period, latest first."""
    view = page.view
    trace_filter = TraceFilter(
        view.since,
        view.until,
        view.agent_id,
        missed_lane=lane,
        is_degraded=degraded,
        has_found=found,
        min_ms=min_ms,
    )
    result = list_traces(page.tenant, trace_filter, cursor, PAGE_ROWS)
    names = load_user_names(page.tenant, {trace.user_id for trace in result.rows if trace.user_id})
    chosen = {
        "lane": lane.value if lane else None,
        "found": None if found is None else int(found),
        "degraded": None if degraded is None else int(degraded),
        "min_ms": None if min_ms is None else f"{min_ms:g}",
    }
    values = {"traces": result.rows, "next_cursor": result.next_cursor, "cursor": cursor, "names": names}
    return page.render("searches.html", "searches", chosen=chosen, lanes=list(LaneName), **values)


@router.get("/callers/{user_id}/calls/{session_id}")
def show_call(
    page: PageDep,
    user_id: PathId,
    session_id: PathId,
    number: Annotated[int, Query(alias="page", ge=1, le=10**6)] = 1,
    at: Annotated[str | None, Query(max_length=512)] = None,
    q: SearchText = "",
) -> Response:
    """Replay a call."""
    tenant = page.tenant.for_user(user_id)
    replay = load_replay(tenant, user_id, session_id, page=number, page_turns=PAGE_ROWS, at_event=at or None, text=q)
    found = list_traces_of_turns(tenant, session_id, [turn.event_id for turn in replay.turns])
    answers = {turn.event_id: turn.full_text or turn.heard_text for turn in replay.turns}
    pairs = [(trace, answers[event_id]) for event_id, traces in found.items() for trace in traces]
    loose = []
    if replay.page == replay.page_count and not q:  # searches that no turn followed
        session_traces = list_session_traces(tenant, session_id, None, 500).rows
        loose = [trace for trace in session_traces if trace.turn_event_id is None][:_MAX_LOOSE_TRACES]
        pairs += [(trace, "") for trace in loose]
    before, after = find_neighbors(tenant, user_id, session_id)
    page.record_read(AuditAction.READ_CALL, user_id, session_id)
    return page.render(
        "call.html",
        "calls",
        replay=replay,
        outcomes=load_outcomes_of_calls(tenant, [replay.call]).get((user_id, session_id), []),
        call=replay.call,
        user=replay.user,
        traces=found,
        loose=loose,
        shown=show_traces(tenant, user_id, pairs),
        before=before,
        after=after,
        at=at,
        q=q,
        mark=lambda text: _mark_text(text, q),
        audio=_find_audio(replay.call.details),
        find_audio=_find_audio,
    )


def _mark_text(text: str, searched: str) -> Any:
    """Return a text as HTML with the searched text marked."""
    if not searched.strip():
        return text
    pattern = re.compile(re.escape(searched.strip()), re.IGNORECASE)
    return mark_spans(text, [match.span() for match in pattern.finditer(text)])


def _find_audio(metadata: Any) -> str | None:
    """Return the address of a recording that metadata names, if it is one that a link may lead to."""
    if not isinstance(metadata, dict):
        return None
    addresses = (safe_url(value) for name, value in metadata.items() if _AUDIO_KEY.search(str(name)))
    return next((address for address in addresses if address), None)
