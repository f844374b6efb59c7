"""The page of figures by version of the prompt: versions side by side, and two of them compared."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import attrs
from fastapi import APIRouter, Query, Response

from memoair_cloud.analytics.comparison import PromptComparison, compare_prompts
from memoair_cloud.analytics.intervals import Estimate
from memoair_cloud.analytics.prompt_key import PromptKey
from memoair_cloud.analytics.prompts import PromptFigures, ShareBase, find_version, load_prompt_figures
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PageDep, ProjectPage

router = APIRouter(prefix="/p/{project_id}/prompt-figures", route_class=PageRoute)

# A version of an older link, which has ended since, is a choice as well.
Version = Annotated[int | None, Query(ge=1, le=2**53)]


@attrs.frozen
class IntervalBar:
    """An estimate as it is drawn on a scale from 0 to 100.

    Attributes:
        low: Where the interval begins.
        width: How long it is.
        value: Where the value is.
        zero: Where zero is; None if it is not on the scale.
    """

    low: float
    width: float
    value: float
    zero: float | None = None


@attrs.frozen
class OutcomeRows:
    """An outcome with its figures in each version, and a scale for the mean scores of all of them.

    Attributes:
        outcome: Its name.
        versions: The figures of the versions in which calls have it, or have any outcome.
        score_scale: The ends of the scale; None if no mean has an interval.
    """

    outcome: str
    versions: Sequence[PromptFigures]
    score_scale: tuple[float, float] | None


@attrs.frozen
class AgentFigures:
    """The figures of an agent's versions.

    Attributes:
        agent_id: The agent; None for calls without one.
        versions: The figures of its versions.
        outcomes: The outcomes of these versions, the most frequent first.
    """

    agent_id: str | None
    versions: Sequence[PromptFigures]
    outcomes: Sequence[OutcomeRows]


@router.get("")
def show_prompt_figures(
    page: PageDep, base: ShareBase = ShareBase.REPORTED, before: Version = None, after: Version = None
) -> Response:
    """Show the figures of the period by version."""
    view = page.view
    parts = [view.day_bounds(day) for day in view.days()]
    days = page.services.days.load_days(page.tenant, parts)
    outcome_days = page.services.days.load_outcome_days(page.tenant, parts)
    found = load_prompt_figures(page.tenant, days, outcome_days, view.since, view.until, view.agent_id)
    agents = [_group(agent_id, found) for agent_id in dict.fromkeys(figures.key.agent_id for figures in found)]
    choice = _choose_versions(page, found, before, after)
    return page.render(
        "prompt_figures.html",
        "overview",
        agent_figures=agents,
        base=base,
        bases=list(ShareBase),
        has_outcomes=any(figures.reported for figures in found),
        has_versions=any(figures.key.version is not None for figures in found),
        has_one_outcome=len({name for figures in found for name in figures.outcomes}) == 1,
        comparison=_compare(choice, found, base),
        choice=choice,
        before=before,
        after=after,
        bar=draw_bar,
        difference_scale=difference_scale,
    )


@attrs.frozen
class VersionChoice:
    """The two versions of an agent that are compared.

    Attributes:
        agent_id: The agent.
        versions: The versions that can be chosen, latest first.
        before: The one.
        after: The other.
    """

    agent_id: str
    versions: Sequence[int]
    before: int
    after: int


def _choose_versions(
    page: ProjectPage, found: Iterable[PromptFigures], before: int | None, after: int | None
) -> VersionChoice | None:
    """Return the versions to compare, by default the two latest; None if there are no two, or several agents."""
    keys = [figures.key for figures in found if figures.key.version is not None]
    agent_ids = {key.agent_id for key in keys}
    agent_id = page.view.agent_id or (agent_ids.pop() if len(agent_ids) == 1 else None)
    numbers = {key.version for key in keys if key.agent_id == agent_id and key.version is not None}
    versions = sorted(numbers | {version for version in (before, after) if version is not None}, reverse=True)
    if agent_id is None or len(versions) < 2:
        return None
    last = after if after is not None else next(version for version in versions if version != before)
    first = before if before is not None else next(version for version in versions if version != last)
    return VersionChoice(agent_id, versions, first, last)


def _compare(choice: VersionChoice | None, found: Sequence[PromptFigures], base: ShareBase) -> PromptComparison | None:
    if choice is None or choice.before == choice.after:
        return None
    keys = (PromptKey(choice.agent_id, version) for version in (choice.before, choice.after))
    before, after = (find_version(found, key) for key in keys)
    return compare_prompts(before, after, base)


def _group(agent_id: str | None, found: Iterable[PromptFigures]) -> AgentFigures:
    versions = [figures for figures in found if figures.key.agent_id == agent_id]
    counts: dict[str, int] = {}
    for figures in versions:
        for name, outcome in figures.outcomes.items():
            counts[name] = counts.get(name, 0) + outcome.count
    reported = [figures for figures in versions if figures.reported]
    names = sorted(counts, key=lambda name: (-counts[name], name))
    rows = [OutcomeRows(name, reported, _score_scale(reported, name)) for name in names]
    return AgentFigures(agent_id, versions, rows)


def _score_scale(versions: Iterable[PromptFigures], outcome: str) -> tuple[float, float] | None:
    outcomes: list[Mapping[str, Any]] = [figures.outcomes for figures in versions]
    means = [by_name[outcome].mean for by_name in outcomes if outcome in by_name]
    known = [mean for mean in means if mean is not None]
    if not known:
        return None
    return min(mean.low for mean in known), max(mean.high for mean in known)


def difference_scale(estimates: Iterable[Estimate | None]) -> tuple[float, float]:
    """Return the ends of a scale around zero on which all of some differences are."""
    known = [estimate for estimate in estimates if estimate is not None]
    end = max((max(abs(estimate.low), abs(estimate.high)) for estimate in known), default=0.0) or 1.0
    return -end, end


def draw_bar(estimate: Estimate, low: float = 0.0, high: float = 1.0) -> IntervalBar:
    """Return an estimate as it is drawn.

    Args:
        estimate: The estimate.
        low: The value at the left end of the scale.
        high: The value at its right end.
    """

    def place(value: float) -> float:
        return round(min(100.0, max(0.0, (value - low) / ((high - low) or 1.0) * 100)), 2)

    zero = place(0.0) if low < 0 < high else None
    return IntervalBar(place(estimate.low), place(estimate.high) - place(estimate.low), place(estimate.value), zero)
