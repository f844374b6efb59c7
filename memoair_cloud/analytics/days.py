"""Figures day by day. Days that are over are kept in memory for a while: a period of months is read only once."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone, tzinfo
from datetime import time as time_of_day
from functools import cached_property
from typing import Generic, TypeVar

import attrs

from memoair_cloud.analytics.calls import CallCounts, count_calls_by_prompt
from memoair_cloud.analytics.outcomes import OutcomeTally, tally_outcomes
from memoair_cloud.analytics.prompt_key import PromptKey
from memoair_cloud.recall_traces.figures import RecallFigures, RecallTally, tally_by_prompt
from memoair_cloud.tenancy.access import Tenant
from memoair_protocol.timestamps import utc_now

# After a day is over, machines still send what happened at its end. What changes later (calls of machines that were
# offline, erasures) is seen with this delay.
_SETTLED_AFTER = timedelta(days=1)
_TTL_S = 600.0
_MAX_DAYS = 2_000  # some 10 kB each

Day = tuple[datetime, datetime]
FiguresT = TypeVar("FiguresT")


@attrs.frozen
class DayFigures:
    """What happened on a day, or in a part of it.

    Attributes:
        calls: Counts of the calls that started, by agent and version of its prompt.
        recall: Counts of the searches, by the same.
    """

    calls: Mapping[PromptKey, CallCounts]
    recall: Mapping[PromptKey, RecallTally]

    def count_calls(self, agent_id: str | None = None) -> CallCounts:
        """Return the counts of calls of one agent, or of all."""
        chosen = [counts for key, counts in self.calls.items() if agent_id in (None, key.agent_id)]
        return sum(chosen, CallCounts())

    @cached_property
    def recall_by_agent(self) -> Mapping[str | None, RecallTally]:
        """Counts of the searches by agent; None is for searches without an agent."""
        by_agent: dict[str | None, list[RecallTally]] = {}
        for key, tally in self.recall.items():
            by_agent.setdefault(key.agent_id, []).append(tally)
        return {agent_id: merge_tallies(tallies) for agent_id, tallies in by_agent.items()}

    @cached_property
    def all_recall(self) -> RecallTally:
        """Counts of the searches of all agents."""
        return merge_tallies(list(self.recall.values()))

    @cached_property
    def all_figures(self) -> RecallFigures:
        """Figures of the searches of all agents."""
        return self.all_recall.to_figures()

    def compute_recall(self, agent_id: str | None = None) -> RecallFigures:
        """Return the figures of the searches of one agent, or of all."""
        return self.all_figures if agent_id is None else self.recall_by_agent.get(agent_id, RecallTally()).to_figures()


class _DayStore(Generic[FiguresT]):
    """Figures of one kind, of days that are over. Thread-safe."""

    def __init__(self, load: Callable[[Tenant, Sequence[Day]], Sequence[FiguresT]], clock: Callable[[], float]) -> None:
        self._load = load
        self._clock = clock
        self._lock = threading.Lock()
        self._days: OrderedDict[tuple[str, Day], tuple[float, FiguresT]] = OrderedDict()
        self._drops = 0

    def load_days(self, tenant: Tenant, days: Sequence[Day]) -> list[FiguresT]:
        project_id = tenant.scope.project_id
        with self._lock:
            drops = self._drops
            kept = {day: self._days[project_id, day] for day in days if (project_id, day) in self._days}
        found = {day: figures for day, (loaded_at, figures) in kept.items() if self._clock() < loaded_at + _TTL_S}
        missing = [day for day in days if day not in found]
        loaded = dict(zip(missing, self._load(tenant, missing), strict=True)) if missing else {}
        with self._lock:
            for day, figures in loaded.items():
                # What was read before a drop may lack what caused it.
                if utc_now() - day[1] > _SETTLED_AFTER and drops == self._drops:
                    self._days[project_id, day] = self._clock(), figures
                    self._days.move_to_end((project_id, day))
            while self._days and (len(self._days) > _MAX_DAYS or self._is_first_expired()):
                self._days.popitem(last=False)
        return [loaded[day] if day in loaded else found[day] for day in days]

    def _is_first_expired(self) -> bool:
        loaded_at, _ = next(iter(self._days.values()))  # they are in the order in which they were loaded
        return self._clock() >= loaded_at + _TTL_S

    def drop_days(self, project_id: str, moments: Iterable[datetime]) -> None:
        settled_until = utc_now() - _SETTLED_AFTER  # no day that ends later is kept
        days = {moment.astimezone(timezone.utc).date() for moment in moments if moment < settled_until}
        if not days:
            return
        with self._lock:
            # A day of another time zone is in two of UTC.
            changed = [key for key in self._days if key[0] == project_id and any(_touches(key[1], day) for day in days)]
            for key in changed:
                del self._days[key]
            self._drops += 1


def _touches(day: Day, date_in_utc: date) -> bool:
    begin = datetime.combine(date_in_utc, time_of_day(), timezone.utc)
    return day[0] < begin + timedelta(days=1) and begin < day[1]


class DayCache:
    """Figures of days that are over, of all projects of a server. Thread-safe.

    Args:
        clock: Returns the current time in seconds; it never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._figures = _DayStore(_load_figures, clock)
        self._outcomes = _DayStore(tally_outcomes, clock)

    def load_days(self, tenant: Tenant, days: Sequence[Day]) -> list[DayFigures]:
        """Return the figures of days of a project.

        Args:
            tenant: The project.
            days: The first moment of each day, and the first moment after it.

        Raises:
            NotFoundError: If the tenant has no such project.
        """
        with tenant.begin_read():  # what is in memory is for those who may read it
            pass
        return self._figures.load_days(tenant, days)

    def load_outcome_days(self, tenant: Tenant, days: Sequence[Day]) -> list[dict[PromptKey, OutcomeTally]]:
        """Return the outcomes of the calls of some days, by agent and version of its prompt.

        Args:
            tenant: The project.
            days: As for `load_days`.

        Raises:
            NotFoundError: If the tenant has no such project.
        """
        with tenant.begin_read():
            pass
        return self._outcomes.load_days(tenant, days)

    def drop_outcomes(self, project_id: str, moments: Iterable[datetime]) -> None:
        """Read the outcomes of some days again when they are next asked for. Other servers do so within ten minutes.

        Outcomes are reported long after their calls, and looked at right after they were reported.

        Args:
            project_id: The project.
            moments: When the calls began of which outcomes were reported.
        """
        self._outcomes.drop_days(project_id, moments)


def _load_figures(tenant: Tenant, days: Sequence[Day]) -> list[DayFigures]:
    return [DayFigures(count_calls_by_prompt(tenant, *day), tally_by_prompt(tenant, *day)) for day in days]


def list_days(since: datetime, until: datetime, zone: tzinfo) -> list[date]:
    """Return the days of a period in a time zone, oldest first."""
    first = since.astimezone(zone).date()
    last = (until - timedelta(microseconds=1)).astimezone(zone).date()
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def bound_day(day: date, since: datetime, until: datetime, zone: tzinfo) -> Day:
    """Return the part of a day that is in a period."""
    begin = datetime.combine(day, time_of_day(), zone)
    end = datetime.combine(day + timedelta(days=1), time_of_day(), zone)
    return max(since, begin), min(until, end)


def compute_recall_by_agent(days: Sequence[DayFigures]) -> dict[str | None, RecallFigures]:
    """Return the figures of the searches of some days, by agent; None is for searches without an agent."""
    tallies: dict[str | None, list[RecallTally]] = {}
    for day in days:
        for agent_id, tally in day.recall_by_agent.items():
            tallies.setdefault(agent_id, []).append(tally)
    return {agent_id: merge_tallies(tallies[agent_id]).to_figures() for agent_id in sorted(tallies, key=str)}


def compute_recall(days: Sequence[DayFigures], agent_id: str | None = None) -> RecallFigures:
    """Return the figures of the searches of some days, of one agent or of all."""
    found = [day.all_recall if agent_id is None else day.recall_by_agent.get(agent_id, RecallTally()) for day in days]
    return merge_tallies(found).to_figures()


def merge_tallies(tallies: Sequence[RecallTally]) -> RecallTally:
    """Return one tally with the searches of several."""
    total = RecallTally()
    for tally in tallies:
        total.merge(tally)
    return total
