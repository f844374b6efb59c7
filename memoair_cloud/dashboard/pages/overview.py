"""The overview of a project: figures by agent and period, each of which leads to the calls behind it."""

from fastapi import APIRouter, Response

from memoair_cloud.analytics.calls import count_calls, count_calls_by_day, get_learning_backlog
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PageDep
from memoair_cloud.operations import find_project_dead_build, retry_project_dead_letters
from memoair_cloud.recall_traces.figures import compute_period_figures

router = APIRouter(prefix="/p/{project_id}", route_class=PageRoute)


@router.get("")
def show_overview(page: PageDep, retried: int | None = None) -> Response:
    """Show the figures of a project."""
    tenant, view = page.tenant, page.view
    days = view.days()
    bounds = [view.day_bounds(day) for day in days]
    recall = compute_period_figures(tenant, bounds, view.agent_id)
    counts = count_calls_by_day(tenant, bounds, view.agent_id)
    return page.render(
        "overview.html",
        "overview",
        calls=count_calls(tenant, view.since, view.until, view.agent_id),
        recall=recall.total,
        by_agent=recall.by_agent if len(recall.by_agent) > 1 else {},
        backlog=get_learning_backlog(tenant, view.agent_id),
        dead_build=find_project_dead_build(tenant),
        days=[
            {"day": day, "calls": calls, "turns": turns, "recall": figures}
            for day, (calls, turns), figures in zip(days, counts, recall.by_part, strict=True)
        ],
        retried=retried,
    )


@router.post("/retry")
def retry(page: PageDep) -> Response:
    """Retry what failed too often."""
    count = retry_project_dead_letters(page.tenant)
    page.services.queue.enqueue_extraction(page.project.id)
    page.services.queue.enqueue_build(page.project.id)
    return page.redirect(retried=count)
