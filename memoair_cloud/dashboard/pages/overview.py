"""The overview of a project: figures by agent and period, each of which leads to the calls behind it."""

from datetime import date
from typing import Any

from fastapi import APIRouter, Response

from memoair_cloud.analytics.calls import CallCounts, count_callers, get_learning_backlog
from memoair_cloud.analytics.days import DayFigures, compute_recall, compute_recall_by_agent
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PageDep
from memoair_cloud.operations import find_project_dead_build, retry_project_dead_letters

router = APIRouter(prefix="/p/{project_id}", route_class=PageRoute)


@router.get("")
def show_overview(page: PageDep, retried: int | None = None) -> Response:
    """Show the figures of a project."""
    tenant, view = page.tenant, page.view
    days = view.days()
    figures = page.services.days.load_days(tenant, [view.day_bounds(day) for day in days])
    by_agent = compute_recall_by_agent(figures)
    return page.render(
        "overview.html",
        "overview",
        calls=sum((day.count_calls(view.agent_id) for day in figures), CallCounts()),
        callers=count_callers(tenant, view.since, view.until, view.agent_id),
        recall=compute_recall(figures, view.agent_id),
        by_agent=by_agent if len(by_agent) > 1 else {},
        backlog=get_learning_backlog(tenant, view.agent_id),
        dead_build=find_project_dead_build(tenant),
        days=[_show_day(day, found, view.agent_id) for day, found in zip(days, figures, strict=True)],
        retried=retried,
    )


@router.post("/retry")
def retry(page: PageDep) -> Response:
    """Retry what failed too often."""
    count = retry_project_dead_letters(page.tenant)
    page.services.queue.enqueue_extraction(page.project.id)
    page.services.queue.enqueue_build(page.project.id)
    return page.redirect(retried=count)


def _show_day(day: date, figures: DayFigures, agent_id: str | None) -> dict[str, Any]:
    counts = figures.count_calls(agent_id)
    return {"day": day, "calls": counts.calls, "turns": counts.turns, "recall": figures.compute_recall(agent_id)}
