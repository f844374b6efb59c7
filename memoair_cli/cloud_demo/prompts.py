"""The prompts of the demo's agents: one that was changed within the month, and a draft for the next change."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs

from memoair_cli.cloud_demo.planning import PlannedCall
from memoair_cloud.prompts.versions import NewPrompt, push_prompt
from memoair_cloud.tenancy.access import Tenant

_LABEL = "production"
_FIRST = """\
You are {{assistant}}, who answers the telephone of {{business}}.

# How to speak
- Use short sentences, as on the telephone.
- Never read out a card number.

# What to do
1. Find out what the caller needs.
2. Answer from what is remembered of the caller, and from the documents.
3. If you do not know, say so.
"""
_SECOND = _FIRST.replace("as on the telephone.", "as on the telephone. Ask one question at a time.").replace(
    "If you do not know, say so.", "If you do not know, say so, and offer a call back."
)
_DRAFT = _SECOND + "4. Say goodbye by name: {{caller_name}}.\n"


@attrs.frozen
class DemoPrompts:
    """Which version of its prompt an agent had when.

    Attributes:
        changed_at: When the second version took the place of the first.
    """

    changed_at: datetime

    @classmethod
    def push(cls, tenant: Tenant, calls: Sequence[PlannedCall]) -> "DemoPrompts":
        """Push the versions, the first before the first call, and the draft before the last one.

        Args:
            tenant: The agent.
            calls: The calls of the month, in their order.
        """
        first, last = min(call.started_at for call in calls), max(call.started_at for call in calls)
        changed_at = first + (last - first) / 2
        for text, notes, label, pushed_at in (
            (_FIRST, "as it was spoken so far", _LABEL, first - timedelta(days=1)),
            (_SECOND, "one question at a time, and a call back", _LABEL, changed_at),
            (_DRAFT, "a goodbye by name, not heard by anyone yet", "staging", last),
        ):
            push_prompt(tenant, NewPrompt(text, notes, [label]), pushed_at)
        return cls(changed_at)

    def find_version(self, call: PlannedCall) -> int:
        """Return the version that the agent had in a call."""
        return 1 if call.started_at < self.changed_at else 2
