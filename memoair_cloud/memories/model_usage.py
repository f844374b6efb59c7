"""Count what projects use of a language model: by day, in the database, because any worker may have asked it."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import date
from typing import Any

import attrs
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from memoair_cloud.consolidation import Extraction, ModelPrices, ModelUsage
from memoair_cloud.database.models import ModelDay
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession

# The failure of a call that is read by the rules, because its project has no tokens left today.
BUDGET_SPENT = "DailyBudgetSpent"
# Metrics name so many projects, those that asked a model first: so no project changes its name, and no total falls.
MAX_NAMED_PROJECTS = 100
OTHER_PROJECTS = "other"
_SUMS = (
    *("calls", "failures", "requests", "unknown", "prompt_tokens", "cached_tokens", "completion_tokens"),
    *("ms", "cost_micros", "kept"),
)


@attrs.frozen
class ModelAccounting:
    """What a model costs and how much of it a project may use.

    Attributes:
        prices: The prices; None if they are not known, so nothing is summed up.
        daily_tokens: The maximum number of tokens of a project on a day, sent and written; None for no limit. The call
            that reaches it is still read.
    """

    prices: ModelPrices | None = None
    daily_tokens: int | None = None

    def is_spent(self, session: ScopedSession, day: date) -> bool:
        """Return whether the project of a session has used the tokens of a day."""
        if self.daily_tokens is None:
            return False
        row = session.get(ModelDay, (session.scope.project_id, day))
        return row is not None and row.prompt_tokens + row.completion_tokens >= self.daily_tokens

    def record(self, tenant: Tenant, extraction: Extraction, day: date) -> None:
        """Add what an extraction used to a day of the project; nothing if no model was asked."""
        usage = extraction.usage
        if usage is None:
            return
        with tenant.begin_write() as session:
            zeros = dict.fromkeys(_SUMS, 0)
            session.insert_missing(ModelDay, [{"day": day, **zeros, "dropped": {}}])
            row = session.scalars(select(ModelDay).where(ModelDay.day == day).with_for_update()).one()
            for name in ("requests", "unknown", "prompt_tokens", "cached_tokens", "completion_tokens", "ms", "kept"):
                setattr(row, name, getattr(row, name) + getattr(usage, name))
            row.calls += 1
            row.failures += extraction.failure is not None
            row.cost_micros += round(self.cost_of(usage) * 1_000_000)
            row.dropped = dict(Counter(row.dropped) + usage.dropped)

    def cost_of(self, usage: ModelUsage) -> float:
        """Return the cost of the tokens that are known; 0 without prices."""
        return self.prices.cost_of(usage) if self.prices else 0.0

    def describe(self, usage: ModelUsage | None) -> dict[str, Any] | None:
        """Return what is stored with a call; None if no model was asked."""
        if usage is None:
            return None
        described: dict[str, Any] = {**attrs.asdict(usage), "dropped": dict(usage.dropped)}
        return described | ({"cost": self.cost_of(usage)} if self.prices else {})


@attrs.define
class ProjectUsage:
    """What a project, or all projects that metrics do not name, have used so far.

    Attributes:
        sums: The sums of the columns of numbers of `ModelDay`.
        dropped: The number of dropped facts by reason.
    """

    sums: Counter[str] = attrs.field(factory=Counter)
    dropped: Counter[str] = attrs.field(factory=Counter)


def get_model_usage(engine: Engine) -> Mapping[str, ProjectUsage]:
    """Return what the projects have used, by project; at most `MAX_NAMED_PROJECTS` and `OTHER_PROJECTS`.

    Args:
        engine: The database of the server.
    """
    totals: defaultdict[str, ProjectUsage] = defaultdict(ProjectUsage)
    columns = [getattr(ModelDay, name) for name in _SUMS]
    with Session(engine) as session:
        rows = session.execute(
            select(ModelDay.project_id, ModelDay.dropped, *columns).order_by(ModelDay.day, ModelDay.project_id)
        )
        for project_id, dropped, *numbers in rows:
            is_named = project_id in totals or len(totals) < MAX_NAMED_PROJECTS
            total = totals[project_id if is_named else OTHER_PROJECTS]
            total.sums.update(dict(zip(_SUMS, numbers, strict=True)))
            total.dropped.update(dropped)
    return totals
