"""Figures by version of the agents' prompts: calls, callers, searches, and the outcomes that applications report."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import cached_property

import attrs
from sqlalchemy import ColumnElement, distinct, func, select

from memoair_cloud.analytics.calls import CallCounts
from memoair_cloud.analytics.days import DayFigures, merge_tallies
from memoair_cloud.analytics.intervals import (
    Estimate,
    ScoreSample,
    ShareSample,
    estimate_mean,
    estimate_share,
)
from memoair_cloud.analytics.outcomes import OutcomeTally
from memoair_cloud.analytics.prompt_key import PromptKey
from memoair_cloud.calls.search import CallFilter, call_conditions
from memoair_cloud.database.models import CallSession
from memoair_cloud.recall_traces.figures import RecallFigures, RecallTally
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession

# An application that makes up a name for each call must not fill a page.
MAX_OUTCOMES_SHOWN = 50


class ShareBase(str, Enum):
    """What the share of an outcome is a share of."""

    # Calls without any outcome are left out: those of the latest version may not have been rated yet, and would make
    # it look worse.
    REPORTED = "reported"
    CALLS = "calls"  # all calls, for applications that report only what succeeded


@attrs.frozen
class OutcomeFigures:
    """Figures of an outcome in one version.

    Attributes:
        count: The number of calls with it.
        scores: Their scores.
    """

    count: int
    scores: ScoreSample

    @cached_property
    def mean(self) -> Estimate | None:
        """The mean score; None for fewer than five scores, and if all are equal."""
        return estimate_mean(self.scores)


@attrs.frozen
class PromptFigures:
    """Figures of a version of a prompt in a period.

    Attributes:
        key: The agent and the version.
        calls: Counts of the calls that started in the period.
        callers: The number of different callers.
        recall: Figures of the searches in the period.
        reported: The number of calls with an outcome.
        outcomes: Figures of each outcome, by name.
    """

    key: PromptKey
    calls: CallCounts
    callers: int
    recall: RecallFigures
    reported: int
    outcomes: Mapping[str, OutcomeFigures]

    @property
    def reported_share(self) -> float:
        """The share of the calls with an outcome, 0 to 1."""
        return self.reported / self.calls.calls if self.calls.calls else 0.0

    def share_total(self, base: ShareBase) -> int:
        """Return the number of calls that shares are of."""
        # Live calls go on between two statements: never more calls with an outcome than calls.
        return self.reported if base is ShareBase.REPORTED else max(self.calls.calls, self.reported)

    def count_of(self, outcome: str) -> int:
        """Return the number of calls with an outcome."""
        return self.outcomes[outcome].count if outcome in self.outcomes else 0

    def scores_of(self, outcome: str) -> ScoreSample:
        """Return the scores of an outcome."""
        return self.outcomes[outcome].scores if outcome in self.outcomes else ScoreSample()

    def estimate_share(self, outcome: str, base: ShareBase) -> Estimate | None:
        """Return the share of an outcome; None without calls."""
        return estimate_share(ShareSample(self.count_of(outcome), self.share_total(base)))


def load_prompt_figures(
    tenant: Tenant,
    days: Sequence[DayFigures],
    outcome_days: Sequence[Mapping[PromptKey, OutcomeTally]],
    since: datetime,
    until: datetime,
    agent_id: str | None = None,
) -> list[PromptFigures]:
    """Return the figures of each version that was heard in a period, by agent, latest version first.

    Args:
        tenant: The project.
        days: The figures of the period's days.
        outcome_days: The outcomes of the calls of these days.
        since: The first moment of the period.
        until: The first moment after it.
        agent_id: Only this agent's prompt.
    """
    calls: dict[PromptKey, CallCounts] = {}
    tallies: dict[PromptKey, list[RecallTally]] = {}
    for day in days:
        for key, counts in day.calls.items():
            calls[key] = calls.get(key, CallCounts()) + counts
        for key, tally in day.recall.items():
            tallies.setdefault(key, []).append(tally)
    outcomes: dict[PromptKey, OutcomeTally] = {}
    for outcome_day in outcome_days:
        for key, outcome_tally in outcome_day.items():
            outcomes[key] = outcomes.get(key, OutcomeTally()) + outcome_tally
    with tenant.begin_read() as session:
        callers = _count_callers(session, call_conditions(session, CallFilter(since, until, agent_id)))
    keys = {key for key in (*calls, *tallies, *outcomes) if agent_id in (None, key.agent_id)}
    return [
        PromptFigures(
            key,
            calls.get(key, CallCounts()),
            callers.get(key, 0),
            merge_tallies(tallies.get(key, [])).to_figures(),
            outcomes.get(key, OutcomeTally()).reported,
            _show_outcomes(outcomes.get(key, OutcomeTally())),
        )
        for key in sorted(keys, key=_sort_key)
    ]


def find_version(found: Iterable[PromptFigures], key: PromptKey) -> PromptFigures:
    """Return the figures of a version; empty ones if it was not heard in the period."""
    nothing = PromptFigures(key, CallCounts(), 0, RecallTally().to_figures(), 0, {})
    return next((figures for figures in found if figures.key == key), nothing)


def _sort_key(key: PromptKey) -> tuple[bool, str, bool, int]:
    """Sort by agent, calls without an agent last; then the latest version first, calls without a version last."""
    return key.agent_id is None, key.agent_id or "", key.version is None, -(key.version or 0)


def _count_callers(session: ScopedSession, conditions: Iterable[ColumnElement[bool]]) -> dict[PromptKey, int]:
    count = func.count(distinct(CallSession.user_id))
    statement = select(CallSession.agent_id, CallSession.prompt_version, count).where(*conditions)
    rows = session.execute(statement.group_by(CallSession.agent_id, CallSession.prompt_version))
    return {PromptKey(agent_id, version): number for agent_id, version, number in rows}


def _show_outcomes(tally: OutcomeTally) -> dict[str, OutcomeFigures]:
    names = sorted(tally.by_name, key=lambda name: (-tally.by_name[name].count, name))[:MAX_OUTCOMES_SHOWN]
    return {name: OutcomeFigures(tally.by_name[name].count, tally.by_name[name].scores) for name in names}
