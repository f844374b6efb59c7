"""Routes for figures by version of the prompt."""

from datetime import datetime, timedelta, timezone
from typing import Annotated

import attrs
from fastapi import APIRouter, Depends, Query

from memoair_cloud.analytics.comparison import compare_prompts
from memoair_cloud.analytics.days import bound_day, list_days
from memoair_cloud.analytics.prompt_key import PromptKey
from memoair_cloud.analytics.prompts import PromptFigures, ShareBase, find_version, load_prompt_figures
from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.http.body_parsing import JsonRoute
from memoair_cloud.http.dependencies import ProjectTenant, Services, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.schemas.analytics import PromptAnalyticsOut, PromptComparisonOut, PromptFiguresOut
from memoair_cloud.http.schemas.base import Identifier, UtcTime
from memoair_cloud.tenancy.access import Tenant
from memoair_protocol.timestamps import utc_now

router = APIRouter(prefix="/v1/voice-sdk/analytics/prompts", tags=["analytics"], route_class=JsonRoute)

_DEFAULT_PERIOD = timedelta(days=7)
_MAX_PERIOD = timedelta(days=400)
_ERRORS = error_responses(PROJECT_ERRORS)


@attrs.frozen
class FiguresRequest:
    """Which figures a request asks for.

    Attributes:
        since: The first moment of the period.
        until: The first moment after it.
        base: What shares are of.
        agent_id: Only this agent's prompt; None for that of the header, or for all.
    """

    since: datetime
    until: datetime
    base: ShareBase
    agent_id: str | None

    def scope(self, tenant: Tenant) -> Tenant:
        """Return the tenant of the agent; reading with it raises `NotFoundError` for an unknown agent."""
        if self.agent_id is None:
            return tenant
        return attrs.evolve(tenant, scope=attrs.evolve(tenant.scope, agent_id=self.agent_id))


async def get_figures_request(
    since: Annotated[UtcTime | None, Query(alias="from", description="when calls began; by default 7 days ago")] = None,
    until: Annotated[UtcTime | None, Query(alias="to", description="the first moment after; by default now")] = None,
    agent: Annotated[Identifier | None, Query(description="by default that of X-Agent-Id, or all")] = None,
    base: Annotated[ShareBase, Query(description="what shares are of")] = ShareBase.REPORTED,
) -> FiguresRequest:
    """Return which figures a request asks for. This is the FastAPI dependency."""
    end = until or utc_now()
    begin = since or end - _DEFAULT_PERIOD
    if not begin < end:
        raise InvalidRequestError("from must be before to", field="from")
    if end - begin > _MAX_PERIOD:
        raise InvalidRequestError(f"the period is longer than {_MAX_PERIOD.days} days", field="from")
    return FiguresRequest(begin, end, base, agent)


FiguresRequestDep = Annotated[FiguresRequest, Depends(get_figures_request)]
Version = Annotated[int, Query(ge=1, le=2**53)]


@router.get("", operation_id="getPromptFigures", responses=_ERRORS)
def get_prompt_figures(tenant: ProjectTenant, services: ServicesDep, wanted: FiguresRequestDep) -> PromptAnalyticsOut:
    """Return calls, searches and outcomes by version of the agents' prompts."""
    found = _load(wanted.scope(tenant), services, wanted)
    versions = [PromptFiguresOut.of(figures, wanted.base) for figures in found]
    return PromptAnalyticsOut(since=wanted.since, until=wanted.until, base=wanted.base, versions=versions)


@router.get("/comparison", operation_id="comparePrompts", responses=_ERRORS)
def compare(
    tenant: ProjectTenant, services: ServicesDep, wanted: FiguresRequestDep, before: Version, after: Version
) -> PromptComparisonOut:
    """Compare the outcomes of two versions of an agent's prompt. The agent is required, here or as X-Agent-Id."""
    scoped = wanted.scope(tenant)
    agent_id = scoped.scope.agent_id
    if agent_id is None:
        raise InvalidRequestError("agent is required: versions belong to an agent", field="agent")
    if before == after:
        raise InvalidRequestError("before and after are the same version", field="after")
    found = _load(scoped, services, wanted)
    first, second = (find_version(found, PromptKey(agent_id, version)) for version in (before, after))
    comparison = compare_prompts(first, second, wanted.base)
    return PromptComparisonOut.of(comparison, wanted.since, wanted.until, wanted.base)


def _load(tenant: Tenant, services: Services, wanted: FiguresRequest) -> list[PromptFigures]:
    since, until = wanted.since, wanted.until
    parts = [bound_day(day, since, until, timezone.utc) for day in list_days(since, until, timezone.utc)]
    days, outcomes = services.days.load_days(tenant, parts), services.days.load_outcome_days(tenant, parts)
    return load_prompt_figures(tenant, days, outcomes, since, until, tenant.scope.agent_id)
