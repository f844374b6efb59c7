"""What the pages of suites and runs share: the agent that owns them, and how a candidate is described."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Annotated, Any

import attrs
from fastapi import Depends, Response

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.dashboard.candidate_form import describe_candidate
from memoair_cloud.dashboard.project_page import PageDep, ProjectPage
from memoair_cloud.database.evaluation_models import EvaluationSuite
from memoair_cloud.evaluation import suites
from memoair_cloud.evaluation.overview import find_suite_agent, load_set_names
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.tenancy.access import Tenant


@attrs.frozen
class SuitePage:
    """A request for a page of a suite.

    Attributes:
        page: The page of the project.
        tenant: The agent that owns the suite.
        suite: The suite.
        case_count: The number of its cases.
        set_names: The names of the project's document sets, by id.
    """

    page: ProjectPage
    tenant: Tenant
    suite: EvaluationSuite
    case_count: int
    set_names: Mapping[str, str]

    def describe(self, candidate: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return what a candidate changes, as names and values for people."""
        return describe_candidate(candidate, self.set_names)

    def render(self, template: str, status: int = HTTPStatus.OK, **values: Any) -> Response:
        """Return a page of the suite, as `ProjectPage.render` does."""
        known = {"suite": self.suite, "case_count": self.case_count, "describe": self.describe}
        response = self.page.render(template, "evaluations", **{**known, **values})
        response.status_code = status
        return response

    def redirect(self, *parts: str, **changes: str | int | None) -> Response:
        """Redirect to a page of the suite, after a form was accepted."""
        return self.page.redirect("evaluations", "suites", self.suite.id, *parts, **changes)


def open_suite_page(page: ProjectPage, suite_id: str) -> SuitePage:
    """Return the page of a suite, whichever agent of the project owns it; raise `NotFoundError` for unknown ones."""
    tenant = page.tenant.for_agent(find_suite_agent(page.tenant, suite_id))
    detail = suites.get_suite(tenant, suite_id)
    return SuitePage(page, tenant, detail.suite, detail.case_count, load_set_names(tenant))


def get_suite_page(page: PageDep, suite_id: PathId) -> SuitePage:
    """Return the page of the suite that the path names. This is the FastAPI dependency."""
    return open_suite_page(page, suite_id)


SuiteDep = Annotated[SuitePage, Depends(get_suite_page)]


def get_writable_suite_page(on: SuiteDep) -> SuitePage:
    """Return the page of a suite to a visitor who may change it. This is the FastAPI dependency."""
    on.page.require_write()
    return on


WritableSuiteDep = Annotated[SuitePage, Depends(get_writable_suite_page)]


def record_case_reads(page: ProjectPage, rows: Iterable[Any]) -> None:
    """Record that words of callers are shown, which cases and results have copied.

    Args:
        page: The page that shows them.
        rows: Cases or results.
    """
    copied = [(row.user_id, getattr(row, "source", None) or {}) for row in rows if row.user_id is not None]
    page.record_reads(AuditAction.READ_CALL, [(user_id, source.get("sessionId")) for user_id, source in copied])
