"""The overview of a project: figures by agent and period, each of which leads to the calls behind it."""

from datetime import date
from typing import Any

from fastapi import APIRouter, Response

from memoair_cloud.analytics.calls import count_calls, count_calls_by_day, get_learning_backlog
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PageDep, ProjectPage
from memoair_cloud.operations import find_project_dead_build, retry_project_dead_letters
from memoair_cloud.recall_traces.figures import compute_figures, compute_figures_by_agent

router = APIRouter(prefix="/p/{project_id}", route_class=PageRoute)


@router.get("")
def show_overview(page: PageDep, retried: int | None = None) -> Response:
    """Show the figures of a project."""
    tenant, view = page.tenant, page.view
    figures = compute_figures(tenant, view.since, view.until, view.agent_id)
    by_agent = compute_figures_by_agent(tenant, view.since, view.until) if len(page.agents) > 1 else {}
    return page.render(
        "overview.html",
        "overview",
        calls=count_calls(tenant, view.since, view.until, view.agent_id),
        recall=figures,
        by_agent=by_agent,
        backlog=get_learning_backlog(tenant, view.agent_id),
        dead_build=find_project_dead_build(tenant),
        days=_figures_by_day(page),
        retried=retried,
    )


@router.post("/retry")
def retry(page: PageDep) -> Response:
    """Retry what failed too often."""
    count = retry_project_dead_letters(page.tenant)
    page.services.queue.enqueue_extraction(page.project.id)
    page.services.queue.enqueue_build(page.project.id)
    return page.redirect(retried=count)


def _figures_by_day(page: ProjectPage) -> list[dict[str, Any]]:
    days: list[date] = page.view.days()
    bounds = [page.view.day_bounds(day) for day in days]
    counts = count_calls_by_day(page.tenant, bounds, page.view.agent_id)
    rows = []
    for day, (since, until), (calls, turns) in zip(days, bounds, counts, strict=True):
        figures = compute_figures(page.tenant, since, until, page.view.agent_id)
        rows.append({"day": day, "calls": calls, "turns": turns, "recall": figures})
    return rows
