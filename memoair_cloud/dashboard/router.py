"""The routes of the dashboard, below ``/dashboard``."""

from fastapi import FastAPI

from memoair_cloud.dashboard.one_time_links import OneTimeLinks
from memoair_cloud.dashboard.pages import (
    audit,
    callers,
    calls,
    document_sets,
    documents,
    erasure,
    evaluation_cases,
    evaluation_runs,
    evaluations,
    facts,
    holds,
    outcomes,
    overview,
    projects,
    prompt_figures,
    prompts,
    replays,
    sign_in,
    try_it,
    turn_cases,
    uploads,
)
from memoair_cloud.dashboard.visitor import COOKIE_PATH, Gatekeeper
from memoair_cloud.http.dependencies import Services

_PAGES = (
    sign_in,
    projects,
    overview,
    callers,
    facts,
    erasure,
    holds,
    calls,
    outcomes,
    try_it,
    turn_cases,
    documents,
    uploads,
    evaluations,
    evaluation_cases,
    document_sets,
    evaluation_runs,
    replays,
    prompts,
    prompt_figures,
    audit,
)
# In the order in which they are asked: the last one answers what no other knows.
PAGE_ROUTERS = (
    *(pages.router for pages in _PAGES),
    evaluations.files_router,
    evaluation_runs.form_router,
    sign_in.signed_in_router,
    projects.fallback_router,
)


def add_dashboard(app: FastAPI, services: Services) -> None:
    """Add the dashboard to an application.

    Args:
        app: The application.
        services: Its services.
    """
    app.state.gatekeeper = Gatekeeper.of(services)
    app.state.one_time_links = OneTimeLinks()
    for router in PAGE_ROUTERS:
        app.include_router(router, prefix=COOKIE_PATH, include_in_schema=False)
