"""The data of the benchmark of the dashboard: callers with calls, searches and facts, written by bulk inserts."""

import json
import random
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import attrs
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.orm import Session

from memoair_cloud.database.access_models import AuditEntry
from memoair_cloud.database.columns import EncodedJson
from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.models import (
    Account,
    Agent,
    Base,
    CallerProfile,
    CallEvent,
    CallSession,
    EndUser,
    Memory,
    Project,
)
from memoair_cloud.database.outcome_models import CallOutcome
from memoair_cloud.database.recall_trace_models import RecalledDocument, RecallTrace
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.indexes.builder import build_org_index
from memoair_cloud.indexes.documents import NewDocument, put_documents
from memoair_cloud.outcomes.reporting import hash_outcome
from memoair_cloud.tenancy.access import authenticate
from memoair_cloud.tenancy.accounts import Accounts
from memoair_protocol.hashes import hash_user_id
from memoair_protocol.timestamps import utc_now

PROJECT_ID = "proj_large"
LONG_CALLER, LONG_CALL, LONG_CALL_TURNS = "caller_000000", "long", 1_000
_DAYS = 90
_CALLS_PER_CALLER = 4
_FACTS_PER_CALLER = 5
_AGENTS = 4
_PROMPT_VERSIONS = 5
_OUTCOMES = ("resolved", "escalated", "abandoned")
_BATCH_ROWS = 5_000
_FIRST_NAMES = "Ana Ben Chloe Dana Emil Fatima Gerald Hana Ivo Jamal Kofi Leila Marcus Nora Owen Priya".split()
_LAST_NAMES = "Abel Bell Cole Doyle Ellis Finch Greene Hill Ito Jones Kowalski Lang Mbeki Novak Osei Penrose".split()
_SENTENCES = (
    "Where is my parcel, it was meant to be here on Tuesday?",
    "I would like to send the boots back, they are too small.",
    "My mobile number is 555-0167 now, can you change that?",
    "Could the courier come on Thursday between nine and one?",
    "How long is the warranty on the seams of the walking boots?",
    "Please text me, I never hear the phone when I am at work.",
)
_ANSWERS = (
    "It is in the depot, and comes on Thursday between nine and one.",
    "Of course. We collect it from your door, and the exchange is free.",
    "Thank you, I have changed that. Is there anything else?",
)


@attrs.frozen
class Size:
    """How much there is.

    Attributes:
        turns: The number of turns. Each has a search.
        callers: The number of callers.
    """

    turns: int
    callers: int


def fill_database(engine: Engine, blobs: BlobStore, size: Size) -> str:
    """Fill a database, unless it is filled already; return a key of the account."""
    accounts = Accounts(engine)
    with Session(engine) as session:
        account_id = session.scalar(select(Account.id))
    if account_id is not None:
        return accounts.issue_key(account_id, "benchmark").key
    key = accounts.create("Benchmark")
    writer = _Writer(engine)
    now = utc_now()
    writer.write(Project, [_project(key.account_id, now)])
    writer.write(Agent, [_agent(number, now) for number in range(_AGENTS)])
    data = _Data(size, now)
    # One table after the other, in the order in which they refer to each other.
    writer.write(EndUser, data.users())
    writer.write(CallSession, data.calls())
    writer.write(CallOutcome, data.outcomes())
    writer.write(CallEvent, data.events())
    writer.write(RecallTrace, data.traces())
    writer.write(RecalledDocument, data.recalled_documents())
    writer.write(Memory, data.memories())
    writer.write(CallerProfile, data.profiles())
    writer.write(AuditEntry, data.audit_entries())
    tenant = authenticate(engine, key.key).make_tenant(engine).for_project(PROJECT_ID)
    documents = [NewDocument(f"doc-{n}", f"Rule {n}. {_SENTENCES[n % 6]} {_ANSWERS[n % 3]}", {}) for n in range(1_000)]
    for start in range(0, len(documents), 100):
        put_documents(tenant, "faq", documents[start : start + 100], None)
    build_org_index(engine, blobs, PROJECT_ID)
    if engine.dialect.name == "postgresql":  # as it does by itself; SQLite has no statistics in production either
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
    return key.key


class _Writer:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(**{WRITE_OPTION: True})

    def write(self, model: type[Base], rows: Any) -> None:
        """Insert rows, given by attribute names, in transactions of a few thousand."""
        iterator = iter(rows)
        while batch := list(islice(iterator, _BATCH_ROWS)):
            with Session(self._engine) as session, session.begin():
                session.connection().execute(insert(model).values(), batch)


def _project(account_id: str, now: datetime) -> dict[str, Any]:
    return {
        "id": PROJECT_ID,
        "account_id": account_id,
        "name": "Large",
        "slug": "large",
        "description": "",
        "created_at": now,
        "org_version": 0,
        "forgotten_version": 0,
        "epoch": "1",
    }


def _agent(number: int, now: datetime) -> dict[str, Any]:
    return {
        "project_id": PROJECT_ID,
        "id": f"agent_{number}",
        "name": f"Agent {number}",
        "agent_type": "voice",
        "created_at": now,
    }


@attrs.frozen
class _Call:
    number: int  # among all calls
    user_id: str
    id: str
    agent_id: str
    started_at: datetime
    turns: int
    prefix: str  # of the ids of its events


class _Data:
    """The rows, in any number of passes: each pass draws the same."""

    def __init__(self, size: Size, now: datetime) -> None:
        self._size, self._now = size, now
        self._turns_per_call = max(1, size.turns // (size.callers * _CALLS_PER_CALLER))

    def users(self) -> Iterator[dict[str, Any]]:
        draw = random.Random(1)
        for number in range(self._size.callers):
            name = f"{draw.choice(_FIRST_NAMES)} {draw.choice(_LAST_NAMES)}"
            seen_at = self._now - timedelta(days=_DAYS * draw.random())
            yield {
                "project_id": PROJECT_ID,
                "id": f"caller_{number:06}",
                "name": name,
                "metadata": {"plan": draw.choice(("member", "guest")), "since": draw.randint(2005, 2026)},
                "described_at": seen_at,
                "session_count": _CALLS_PER_CALLER + (number == 0),
                "first_seen_at": seen_at - timedelta(days=30),
                "last_seen_at": seen_at,
                "memory_version": 8,
                "profile_version": 1,
            }

    def calls(self) -> Iterator[dict[str, Any]]:
        for call in self._calls():
            events = call.turns + 2
            # A few calls of each state that pages list.
            kind = call.number % 2_000
            last_at = call.started_at + timedelta(seconds=12 * call.turns)
            yield {
                "project_id": PROJECT_ID,
                "user_id": call.user_id,
                "id": call.id,
                "agent_id": call.agent_id,
                "metadata": {"assistantName": "Juno", "direction": "inbound"},
                "start_seq": 1,
                "boundary_seq": events,
                "started_at": call.started_at,
                "ended_at": None if kind == 1 else last_at,
                "last_event_at": last_at,
                "turn_count": call.turns,
                "event_count": events,
                "received_at": last_at + (timedelta(hours=1) if kind == 2 else timedelta(seconds=3)),
                "learned_count": 0 if kind in (3, 4, 5) else events,
                "failures": {4: 1, 5: 5}.get(kind, 0),
                "failure": "TimeoutError" if kind in (4, 5) else None,
                "prompt_version": 1 + call.number % _PROMPT_VERSIONS,
            }

    def outcomes(self) -> Iterator[dict[str, Any]]:
        draw = random.Random(4)
        for call in self._calls():
            if draw.random() < 0.05:
                continue
            name = draw.choices(_OUTCOMES, (6, 2, 1))[0]
            digest = hash_user_id(PROJECT_ID, call.user_id)
            at = call.started_at + timedelta(minutes=10)
            yield {
                "project_id": PROJECT_ID,
                "session_id": call.id,
                "id": hash_outcome(digest, call.id, name, None),
                "user_id": call.user_id,
                "user_digest": digest,
                "agent_id": call.agent_id,
                "outcome": name,
                "score": round(draw.gauss(3.8, 0.8), 2),
                "reported_at": at,
                "received_at": at,
            }

    def events(self) -> Iterator[dict[str, Any]]:
        for call in self._calls():
            start = {"user": {"id": call.user_id}, "metadata": {"assistantName": "Juno"}}
            yield self._event(call, 0, "session_start", start)
            for number in range(1, call.turns + 1):
                yield self._event(call, number, "turn", self._turn(call, number))
            yield self._event(call, call.turns + 1, "session_end", {"reason": "hung up"})

    def _turn(self, call: _Call, number: int) -> dict[str, Any]:
        return {
            "turnId": f"turn-{number}",
            "userText": _SENTENCES[(call.number + number) % 6],
            "assistantText": _ANSWERS[(call.number + number) % 3],
            "toolCalls": [],
            "metadata": {},
        }

    def _event(self, call: _Call, number: int, kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        at = call.started_at + timedelta(seconds=12 * number)
        return {
            "project_id": PROJECT_ID,
            "user_id": call.user_id,
            "id": f"{call.prefix}-turn-{number}",
            "session_id": call.id,
            "type": kind,
            "seq": number + 1,
            "occurred_at": at,
            "received_at": at,
            "payload": EncodedJson(json.dumps(payload)),
            "version": 1 + call.number % _CALLS_PER_CALLER,
        }

    def traces(self) -> Iterator[dict[str, Any]]:
        draw = random.Random(2)
        for call in self._calls():
            for number in range(1, call.turns + 1):
                yield self._trace(call, number, draw)

    def _trace(self, call: _Call, number: int, draw: random.Random) -> dict[str, Any]:
        is_late, is_empty = draw.random() < 0.004, draw.random() < 0.05
        total_ms = 250.4 if is_late else draw.lognormvariate(0.3, 0.6)
        earlier = f"{call.prefix}-turn-{max(1, number - 1)}"
        hits = {
            "permanent": [{"id": earlier, "kind": "turn", "score": 4.1, "inContext": True, "termWeights": [2.0, 2.1]}],
            "org": [
                {
                    "id": f"faq/doc-{number % 1_000}",
                    "kind": "document",
                    "score": 3.2,
                    "inContext": True,
                    "termWeights": [3.2],
                    "indexName": "faq",
                    "documentId": f"doc-{number % 1_000}",
                }
            ],
        }
        statuses = {"profile": "ok", "working": "ok", "permanent": "late" if is_late else "ok", "org": "ok"}
        found = {name: 0 if is_empty or (is_late and name == "permanent") else len(rows) for name, rows in hits.items()}
        at = call.started_at + timedelta(seconds=12 * number)
        lanes = {name: {"status": status, "ms": 0.4, "hits": found.get(name, 0)} for name, status in statuses.items()}
        shown = {name: hits[name] for name, count in found.items() if count}
        return {
            "project_id": PROJECT_ID,
            "id": f"{call.user_id}-{call.prefix}-{number}",
            "user_id": call.user_id,
            "session_id": call.id,
            "turn_id": f"turn-{number}",
            "turn_event_id": f"{call.prefix}-turn-{number}",
            "agent_id": call.agent_id,
            "occurred_at": at,
            "received_at": at,
            "mode": "ids",
            "origin": "hook",
            "intent": "answer_current_user",
            "total_us": round(total_ms * 1e3),
            "prompt_version": 1 + call.number % _PROMPT_VERSIONS,
            "deadline_ms": 250.0,
            "is_degraded": is_late,
            "is_prefetched": False,
            "found_count": sum(found.values()),
            "context_chars": 700,
            "confidence": 0.6,
            "org_version": 1,
            "memory_version": 4,
            "lane_statuses": " ".join(f"{name}:{status}" for name, status in statuses.items()),
            "lanes": EncodedJson(json.dumps(lanes)),
            "details": EncodedJson(json.dumps({"hits": shown, "notes": []})),
        }

    def recalled_documents(self) -> Iterator[dict[str, Any]]:
        for call in self._calls():
            for number in range(1, call.turns + 1):
                yield {
                    "project_id": PROJECT_ID,
                    "trace_id": f"{call.user_id}-{call.prefix}-{number}",
                    "rank": 1,
                    "index_name": "faq",
                    "document_id": f"doc-{number % 1_000}",
                    "occurred_at": call.started_at + timedelta(seconds=12 * number),
                    "score": 3.2,
                }

    def memories(self) -> Iterator[dict[str, Any]]:
        for user in range(self._size.callers):
            for number in range(_FACTS_PER_CALLER):
                yield {
                    "project_id": PROJECT_ID,
                    "user_id": f"caller_{user:06}",
                    "id": f"mem_{number}",
                    "state": "current",
                    "kind": "preference",
                    "text": f"The caller prefers colour {number} for parcel {user}.",
                    "subject": "caller",
                    "attribute": f"colour {number}",
                    "value": str(number),
                    "event_id": "c1-turn-1",
                    "session_id": f"call_{user:06}_1",
                    "number": number,
                    "said_at": self._now - timedelta(days=1 + number),
                    "is_one_of_many": False,
                    "extractor": "rules",
                    "learned_at": self._now - timedelta(days=1),
                    "version": 5,
                }

    def profiles(self) -> Iterator[dict[str, Any]]:
        for user in range(self._size.callers):
            yield {
                "project_id": PROJECT_ID,
                "user_id": f"caller_{user:06}",
                "summary": "The caller prefers colour 1.",
                "attributes": {"colour": "1"},
                "updated_at": self._now,
            }

    def audit_entries(self) -> Iterator[dict[str, Any]]:
        for number in range(self._size.callers):
            user_id = f"caller_{number:06}"
            yield {
                "project_id": PROJECT_ID,
                "at": self._now - timedelta(minutes=number),
                "id": f"audit_{number}",
                "actor_kind": "key",
                "actor_id": "key_1",
                "actor_name": "first key",
                "action": "caller.read",
                "target": None,
                "user_id": user_id,
                "user_digest": hash_user_id(PROJECT_ID, user_id),
            }

    def _calls(self) -> Iterator[_Call]:
        draw = random.Random(3)
        number = 0
        for user in range(self._size.callers):
            user_id = f"caller_{user:06}"
            for call in range(1, _CALLS_PER_CALLER + 1):
                number += 1
                started_at = self._now - timedelta(days=_DAYS * draw.random(), minutes=5)
                agent_id = f"agent_{draw.randrange(_AGENTS)}"
                call_id, prefix = f"call_{user:06}_{call}", f"c{call}"
                yield _Call(number, user_id, call_id, agent_id, started_at, self._turns_per_call, prefix)
        started_at = self._now - timedelta(days=2)
        yield _Call(number + 1, LONG_CALLER, LONG_CALL, "agent_0", started_at, LONG_CALL_TURNS, "long")
