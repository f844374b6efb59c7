"""Figures by version of the agents' prompts: calls, callers, searches, and the outcomes that applications report."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import cached_property

import attrs
from sqlalchemy import ColumnElement, and_, distinct, func, select

from memoair_cloud.analytics.calls import CallCounts
from memoair_cloud.analytics.days import DayFigures, merge_tallies
from memoair_cloud.analytics.intervals import (
    Estimate,
    ScoreSample,
    ShareSample,
    collect_scores,
    estimate_mean,
    estimate_share,
)
from memoair_cloud.analytics.prompt_key import PromptKey
from memoair_cloud.calls.search import CallFilter, call_conditions
from memoair_cloud.database.models import CallSession
from memoair_cloud.database.outcome_models import CallOutcome
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
        """The mean score; None for fewer than two scores, and if all are equal."""
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
    since: datetime,
    until: datetime,
    agent_id: str | None = None,
) -> list[PromptFigures]:
    """Return the figures of each version that was heard in a period, by agent, latest version first.

    Counts of calls and searches come from the figures of the days, which may be some minutes old. Outcomes are read
    now: they are reported long after their calls, and looked at right after they were reported.

    Args:
        tenant: The project.
        days: The figures of the period's days.
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
    with tenant.begin_read() as session:
        conditions = call_conditions(session, CallFilter(since, until, agent_id))
        callers = _count_callers(session, conditions)
        reported, outcomes = _read_outcomes(session, conditions)
    keys = {key for key in (*calls, *tallies, *outcomes) if agent_id in (None, key.agent_id)}
    return [
        PromptFigures(
            key,
            calls.get(key, CallCounts()),
            callers.get(key, 0),
            merge_tallies(tallies.get(key, [])).to_figures(),
            reported.get(key, 0),
            outcomes.get(key, {}),
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


def _read_outcomes(
    session: ScopedSession, conditions: Iterable[ColumnElement[bool]]
) -> tuple[dict[PromptKey, int], dict[PromptKey, dict[str, OutcomeFigures]]]:
    """Return the number of calls with an outcome, and the figures of each outcome, by version."""
    is_of_call = and_(CallOutcome.user_id == CallSession.user_id, CallOutcome.session_id == CallSession.id)
    version = CallSession.agent_id, CallSession.prompt_version
    # Ids have no line feeds.
    call_count = func.count(distinct(CallSession.user_id + "\n" + CallSession.id))
    reported = select(*version, call_count).join(CallOutcome, is_of_call).where(*conditions).group_by(*version)
    named = (*version, CallOutcome.outcome)
    counted = select(*named, call_count).join(CallOutcome, is_of_call).where(*conditions).group_by(*named)
    scored = (*named, CallOutcome.score)
    scores = select(*scored, func.count()).select_from(CallSession).join(CallOutcome, is_of_call)
    scores = scores.where(*conditions, CallOutcome.score.is_not(None)).group_by(*scored)

    found: dict[PromptKey, dict[str, list[tuple[float, int]]]] = {}
    for agent_id, number, name, score, count in session.execute(scores):
        found.setdefault(PromptKey(agent_id, number), {}).setdefault(name, []).append((score, count))
    outcomes: dict[PromptKey, dict[str, OutcomeFigures]] = {}
    for agent_id, number, name, count in session.execute(counted):
        key = PromptKey(agent_id, number)
        sample = collect_scores(found.get(key, {}).get(name, ()))
        outcomes.setdefault(key, {})[name] = OutcomeFigures(count, sample)
    totals = {PromptKey(agent_id, number): count for agent_id, number, count in session.execute(reported)}
    return totals, {key: _most_frequent(by_name) for key, by_name in outcomes.items()}


def _most_frequent(by_name: dict[str, OutcomeFigures]) -> dict[str, OutcomeFigures]:
    names = sorted(by_name, key=lambda name: (-by_name[name].count, name))[:MAX_OUTCOMES_SHOWN]
    return {name: by_name[name] for name in names}
