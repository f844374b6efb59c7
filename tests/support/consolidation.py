"""Turns as they arrive for consolidation, and the example calls."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from memoair_cloud.consolidation import (
    CallTurn,
    Extractor,
    Fact,
    ProfileSummary,
    RuleExtractor,
    merge_facts,
    replace_sessions,
    summarize_facts,
)

# A Monday.
SAID_AT = datetime(2026, 3, 2, 10, 0, tzinfo=timezone.utc)
_TRANSCRIPTS = Path(__file__).parents[2] / "memoair_cli" / "transcripts"


def turns(
    *said: str | tuple[str, str], session: str = "call-1", at: datetime = SAID_AT, caller: str = "Dana Whitlock"
) -> list[CallTurn]:
    """A call: what the caller said, each with what the agent answered."""
    pairs = [each if isinstance(each, tuple) else (each, "") for each in said]
    return [
        CallTurn(
            f"{session}-{number}", session, number, user, agent, at + timedelta(seconds=10 * number), caller, "Juno"
        )
        for number, (user, agent) in enumerate(pairs)
    ]


def found(*said: str | tuple[str, str]) -> list[Fact]:
    """What the rules find in a call."""
    return list(RuleExtractor().extract(turns(*said)).facts)


def texts(*said: str | tuple[str, str]) -> list[str]:
    """The same, as sentences."""
    return [fact.text for fact in found(*said)]


def standing(*said: str | tuple[str, str]) -> list[str]:
    """What stands after a call."""
    return [fact.text for fact in merge_facts(found(*said)) if fact.is_current]


def example_call(name: str) -> list[CallTurn]:
    """One of the transcripts that come with the demo."""
    lines = [json.loads(line) for line in (_TRANSCRIPTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    call = lines[0]
    return [
        CallTurn(
            event_id=f"{call['sessionId']}-{number}",
            session_id=call["sessionId"],
            number=number,
            user_text=line["userText"],
            assistant_text=line["assistantText"],
            said_at=datetime.fromisoformat(line["occurredAt"].replace("Z", "+00:00")),
            caller=call["user"]["name"],
            agent=call["assistantName"],
        )
        for number, line in enumerate(line for line in lines if line["type"] == "turn")
    ]


class Outcome(NamedTuple):
    """What is known after a call."""

    facts: tuple[Fact, ...]
    profile: ProfileSummary
    extractor: str
    failure: str | None


def consolidated(known: Iterable[Fact], call: Sequence[CallTurn], extractor: Extractor) -> Outcome:
    """What is known after a call of which ``call`` are all turns that have come, as the cloud does it, without rows."""
    extraction = extractor.extract(call)
    facts = replace_sessions(known, {turn.session_id for turn in call}, extraction.facts)
    return Outcome(facts, summarize_facts(facts, SAID_AT.date()), extraction.extractor, extraction.failure)
