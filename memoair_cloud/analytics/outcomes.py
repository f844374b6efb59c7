"""Outcomes of calls by version of the prompt. Those of several days can be added."""

from collections.abc import Mapping
from datetime import datetime

import attrs
from sqlalchemy import and_, distinct, func, select

from memoair_cloud.analytics.intervals import ScoreSample, collect_scores
from memoair_cloud.analytics.prompt_key import PromptKey
from memoair_cloud.calls.search import CallFilter, call_conditions
from memoair_cloud.database.models import CallSession
from memoair_cloud.database.outcome_models import CallOutcome
from memoair_cloud.tenancy.access import Tenant


@attrs.frozen
class NamedOutcomes:
    """The outcomes of one name.

    Attributes:
        count: The number of calls with it.
        scores: Its scores. A call may have several.
    """

    count: int = 0
    scores: ScoreSample = attrs.field(factory=ScoreSample)

    def __add__(self, other: "NamedOutcomes") -> "NamedOutcomes":
        """Return the outcomes of both."""
        return NamedOutcomes(self.count + other.count, self.scores + other.scores)


@attrs.frozen
class OutcomeTally:
    """The outcomes of the calls of a version.

    Attributes:
        reported: The number of calls with an outcome.
        by_name: The outcomes by name.
    """

    reported: int = 0
    by_name: Mapping[str, NamedOutcomes] = attrs.field(factory=dict)

    def __add__(self, other: "OutcomeTally") -> "OutcomeTally":
        """Return the outcomes of both."""
        by_name = dict(self.by_name)
        for name, outcomes in other.by_name.items():
            by_name[name] = by_name.get(name, NamedOutcomes()) + outcomes
        return OutcomeTally(self.reported + other.reported, by_name)


def tally_outcomes(tenant: Tenant, since: datetime, until: datetime) -> dict[PromptKey, OutcomeTally]:
    """Return the outcomes of the calls that started in a period, by agent and version of its prompt.

    Args:
        tenant: The project.
        since: The first moment of the period.
        until: The first moment after it.
    """
    is_of_call = and_(CallOutcome.user_id == CallSession.user_id, CallOutcome.session_id == CallSession.id)
    version = CallSession.agent_id, CallSession.prompt_version
    call_count = func.count(distinct(CallSession.user_id + "\n" + CallSession.id))  # ids have no line feeds
    named, scored = (*version, CallOutcome.outcome), (*version, CallOutcome.outcome, CallOutcome.score)
    with tenant.begin_read() as session:
        conditions = call_conditions(session, CallFilter(since, until))
        reported = select(*version, call_count).join(CallOutcome, is_of_call).where(*conditions).group_by(*version)
        totals = {PromptKey(agent_id, number): count for agent_id, number, count in session.execute(reported)}
        if not totals:
            return {}
        counted = select(*named, call_count).join(CallOutcome, is_of_call).where(*conditions).group_by(*named)
        scores = select(*scored, func.count()).select_from(CallSession).join(CallOutcome, is_of_call)
        scores = scores.where(*conditions, CallOutcome.score.is_not(None)).group_by(*scored)
        found: dict[tuple[PromptKey, str], list[tuple[float, int]]] = {}
        for agent_id, number, name, score, count in session.execute(scores):
            found.setdefault((PromptKey(agent_id, number), name), []).append((score or 0.0, count))
        by_version: dict[PromptKey, dict[str, NamedOutcomes]] = {}
        for agent_id, number, name, count in session.execute(counted):
            key = PromptKey(agent_id, number)
            by_version.setdefault(key, {})[name] = NamedOutcomes(count, collect_scores(found.get((key, name), ())))
    return {key: OutcomeTally(count, by_version.get(key, {})) for key, count in totals.items()}
