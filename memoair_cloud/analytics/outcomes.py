"""Outcomes of calls by version of the prompt. Those of several days can be added."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

import attrs
from sqlalchemy import and_, select

from memoair_cloud.analytics.intervals import ScoreSample, collect_scores
from memoair_cloud.analytics.prompt_key import PromptKey
from memoair_cloud.calls.search import CallFilter, call_conditions
from memoair_cloud.database.models import CallSession
from memoair_cloud.database.outcome_models import CallOutcome
from memoair_cloud.tenancy.access import Tenant

# So many that a server can hold their calls in memory.
_DAYS_AT_ONCE = 16
# Of a version on a day: days are kept in memory, and an application may put anything into the name of an outcome.
_MAX_NAMES = 500


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
        by_name: The outcomes by name, of the most frequent names of each day.
    """

    reported: int = 0
    by_name: Mapping[str, NamedOutcomes] = attrs.field(factory=dict)

    def __add__(self, other: "OutcomeTally") -> "OutcomeTally":
        """Return the outcomes of both."""
        by_name = dict(self.by_name)
        for name, outcomes in other.by_name.items():
            by_name[name] = by_name.get(name, NamedOutcomes()) + outcomes
        return OutcomeTally(self.reported + other.reported, by_name)


def tally_outcomes(tenant: Tenant, days: Sequence[tuple[datetime, datetime]]) -> list[dict[PromptKey, OutcomeTally]]:
    """Return the outcomes of the calls that started on each of some days, by agent and version of its prompt.

    One statement reads the outcomes of several days: PostgreSQL reads the whole table for each.

    Args:
        tenant: The project.
        days: The first moment of each day and the first moment after it, in order.
    """
    runs: list[list[tuple[datetime, datetime]]] = []
    for day in days:
        if runs and runs[-1][-1][1] == day[0] and len(runs[-1]) < _DAYS_AT_ONCE:
            runs[-1].append(day)
        else:
            runs.append([day])
    return [tally for run in runs for tally in _tally(tenant, run)]


def _tally(tenant: Tenant, days: Sequence[tuple[datetime, datetime]]) -> list[dict[PromptKey, OutcomeTally]]:
    """Return the outcomes of days that follow one another."""
    is_of_call = and_(CallOutcome.user_id == CallSession.user_id, CallOutcome.session_id == CallSession.id)
    version = CallSession.agent_id, CallSession.prompt_version
    columns = (*version, CallSession.user_id, CallSession.id, CallSession.started_at)
    starts = [since for since, _ in days]
    # By day and version: the calls with an outcome, those with each of them, and the scores.
    reported: defaultdict[tuple[int, PromptKey], set[tuple[str, str]]] = defaultdict(set)
    named: defaultdict[tuple[int, PromptKey, str], set[tuple[str, str]]] = defaultdict(set)
    scores: defaultdict[tuple[int, PromptKey, str], Counter[float]] = defaultdict(Counter)
    with tenant.begin_read() as session:
        conditions = call_conditions(session, CallFilter(starts[0], days[-1][1]))
        rows = select(*columns, CallOutcome.outcome, CallOutcome.score).join(CallOutcome, is_of_call)
        for agent_id, number, user_id, session_id, at, name, score in session.execute(rows.where(*conditions)):
            day = bisect_right(starts, at) - 1
            key, call = PromptKey(agent_id, number), (user_id, session_id)
            reported[day, key].add(call)
            named[day, key, name].add(call)
            if score is not None:
                scores[day, key, name][score] += 1
    by_name: defaultdict[tuple[int, PromptKey], dict[str, NamedOutcomes]] = defaultdict(dict)
    for (day, key, name), calls in named.items():
        sample = collect_scores(scores.get((day, key, name), Counter()).items())
        by_name[day, key][name] = NamedOutcomes(len(calls), sample)
    tallies: list[dict[PromptKey, OutcomeTally]] = [{} for _ in days]
    for (day, key), calls in reported.items():
        tallies[day][key] = OutcomeTally(len(calls), _most_frequent(by_name[day, key]))
    return tallies


def _most_frequent(by_name: Mapping[str, NamedOutcomes]) -> Mapping[str, NamedOutcomes]:
    if len(by_name) <= _MAX_NAMES:
        return by_name
    names = sorted(by_name, key=lambda name: (-by_name[name].count, name))[:_MAX_NAMES]
    return {name: by_name[name] for name in names}
