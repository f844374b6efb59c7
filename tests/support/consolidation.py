"""Turns for the tests of consolidation, and the example calls."""

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


def make_turns(
    *said: str | tuple[str, str], session: str = "call-1", at: datetime = SAID_AT, caller: str = "Dana Whitlock"
) -> list[CallTurn]:
    """Return a call: what the caller said, each with the agent's answer."""
    pairs = [item if isinstance(item, tuple) else (item, "") for item in said]
    return [
        CallTurn(
            f"{session}-{number}", session, number, user, agent, at + timedelta(seconds=10 * number), caller, "Juno"
        )
        for number, (user, agent) in enumerate(pairs)
    ]


def extract_facts(*said: str | tuple[str, str]) -> list[Fact]:
    """Return the facts that the rules find in a call."""
    return list(RuleExtractor().extract(make_turns(*said)).facts)


def extract_texts(*said: str | tuple[str, str]) -> list[str]:
    """Return the texts of the facts that the rules find in a call."""
    return [fact.text for fact in extract_facts(*said)]


def current_texts(*said: str | tuple[str, str]) -> list[str]:
    """Return the texts of the facts that are current after a call."""
    return [fact.text for fact in merge_facts(extract_facts(*said)) if fact.is_current]


def load_example_call(name: str) -> list[CallTurn]:
    """Return one of the transcripts of the demo."""
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


class ConsolidationOutcome(NamedTuple):
    """The facts and the profile after a call."""

    facts: tuple[Fact, ...]
    profile: ProfileSummary
    extractor: str
    failure: str | None


def consolidate(known: Iterable[Fact], call: Sequence[CallTurn], extractor: Extractor) -> ConsolidationOutcome:
    """Consolidate a call as the cloud does, without a database. ``call`` has all turns that have arrived so far."""
    extraction = extractor.extract(call)
    facts = replace_sessions(known, {turn.session_id for turn in call}, (*extraction.facts, *extraction.denials))
    return ConsolidationOutcome(facts, summarize_facts(facts, SAID_AT.date()), extraction.extractor, extraction.failure)
