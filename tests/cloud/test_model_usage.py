"""A cloud that learns with a language model: what it costs is counted, and what was redacted stays out."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session
from support.chat_server import FakeChatServer, completion
from support.clouds import RunningCloud, running
from support.naive_model import make_row

from memoair_cloud.database.models import CallSession
from memoair_cloud.memories import model_usage
from memoair_cloud.settings import CloudSettings

USAGE = {"prompt_tokens": 1_000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
HOME = make_row("identity", "home", "Lisbon", "I live in Lisbon", 0, "The caller lives in Lisbon.")


@pytest.fixture
def model() -> Iterator[FakeChatServer]:
    with FakeChatServer() as server:
        yield server


@contextmanager
def cloud_with(
    model: FakeChatServer, new_database: Callable[[], str], folder: Path, **settings: Any
) -> Iterator[RunningCloud]:
    chat = {"chat_base_url": f"{model.url}/v1", "chat_model": "small", "chat_api_key": "key"}
    with running(new_database(), folder, **chat, **settings) as cloud:
        yield cloud


def metrics_of(cloud: RunningCloud) -> dict[str, float]:
    """Return the metrics of the model by name and labels, without the name of the project of the tests."""
    text = cloud.account().call("GET", "/metrics").body.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith("memoair_cloud_model_")]
    metrics = {name.removeprefix("memoair_cloud_model_"): float(value) for name, _, value in lines}
    return {name.replace('project="proj_acme"', "").replace(",}", "}"): value for name, value in metrics.items()}


def test_tokens_cost_and_dropped_facts_are_counted_by_call_and_project(
    model: FakeChatServer, new_database: Callable[[], str], tmp_path: Path
) -> None:
    wrong = make_row("identity", "employer", "Shell", "I live in Lisbon", 0)
    answer = json.dumps({"facts": [HOME, wrong]})
    model.replies.append(lambda _: (200, completion(answer, usage=USAGE)))
    model.replies.append(lambda _: (200, completion(answer)))
    prices = {"chat_prompt_price": 2.0, "chat_completion_price": 10.0, "chat_cached_price": 0.5}
    with cloud_with(model, new_database, tmp_path, **prices) as cloud:
        client = cloud.tenant()
        client.send_call("call-1", "I live in Lisbon.")
        cloud.run_tasks()
        cost = (600 * 2 + 400 * 0.5 + 100 * 10) / 1e6
        with Session(cloud.services.engine) as session:
            [usage] = session.scalars(select(CallSession.model_usage))
        assert usage["cost"] == pytest.approx(cost)
        assert (usage["prompt_tokens"], usage["requests"], usage["dropped"]) == (1_000, 1, {"value": 1})

        client.send_call("call-2", "I live in Lisbon.")
        cloud.run_tasks()
        metrics = metrics_of(cloud)
        assert metrics['tokens_total{kind="prompt"}'] == 1_000
        assert metrics['tokens_total{kind="cached"}'] == 400
        assert metrics['tokens_total{kind="completion"}'] == 100
        assert metrics["cost_total{}"] == pytest.approx(cost)
        assert metrics["unknown_total{}"] == 1, "an answer without its tokens is not estimated"
        assert metrics["calls_total{}"] == metrics["requests_total{}"] == 2
        assert metrics['facts_total{outcome="kept"}'] == 2
        assert metrics['facts_total{outcome="value"}'] == 2
        assert metrics["failures_total{}"] == 0
        assert "Lisbon" not in str(metrics)


def test_a_failing_model_is_counted_and_its_tokens_stay_after_an_erasure(
    model: FakeChatServer, new_database: Callable[[], str], tmp_path: Path
) -> None:
    model.replies.append(lambda _: (200, completion("nonsense", usage=USAGE)))
    model.fail_with(401)
    with cloud_with(model, new_database, tmp_path) as cloud:
        client = cloud.tenant()
        client.send_call("call-1", "I live in Lisbon.")
        cloud.run_tasks()
        assert [memory["value"] for memory in client.memories()] == ["Lisbon"], "the rules have read it"
        client.ok("DELETE", client.path)
        metrics = metrics_of(cloud)
        assert metrics["failures_total{}"] == 1
        assert metrics['tokens_total{kind="prompt"}'] == 1_000
        assert metrics["cost_total{}"] == 0, "without prices there is no cost"


def test_a_project_that_has_used_its_tokens_is_read_by_the_rules(
    model: FakeChatServer, new_database: Callable[[], str], tmp_path: Path
) -> None:
    model.replies.append(lambda _: (200, completion(json.dumps({"facts": [HOME]}), usage=USAGE)))
    with cloud_with(model, new_database, tmp_path, chat_daily_tokens=1_100) as cloud:
        client, other = cloud.tenant(), cloud.tenant("other")
        for name in ("call-1", "call-2"):
            client.send_call(name, "I live in Lisbon.")
            cloud.run_tasks()
        assert len(model.requests) == 1
        with Session(cloud.services.engine) as session:
            failures = session.scalars(select(CallSession.failure).order_by(CallSession.id))
            assert list(failures) == [None, model_usage.BUDGET_SPENT]
        other.send_call("call-3", "I live in Lisbon.")
        cloud.run_tasks()
        assert len(model.requests) == 2, "each project has tokens of its own"


def test_projects_beyond_the_limit_share_a_label(
    model: FakeChatServer, new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_usage, "MAX_NAMED_PROJECTS", 1)
    model.replies.append(lambda _: (200, completion(json.dumps({"facts": [HOME]}), usage=USAGE)))
    with cloud_with(model, new_database, tmp_path) as cloud:
        for slug in ("a", "b", "c"):
            cloud.tenant(slug).send_call("call-1", "I live in Lisbon.")
            cloud.run_tasks()
        calls = {name: value for name, value in metrics_of(cloud).items() if name.startswith("calls_total")}
        assert sorted(calls.values()) == [1, 2]
        assert calls['calls_total{project="other"}'] == 2


def test_a_model_cannot_bring_back_what_was_redacted(
    model: FakeChatServer, new_database: Callable[[], str], tmp_path: Path
) -> None:
    redacted = "My phone number is [phone number]."
    spoken = "My phone number is four one five, five five five, oh one two three."
    model.reply_with_facts(
        make_row("identity", "phone", "415-555-0123", redacted, 0),
        make_row("identity", "phone", "[phone number]", redacted, 0),
        make_row("identity", "phone", "415-555-0123", spoken, 1),
        make_row("identity", "home", "Lisbon 415-555-0123", "I live in Lisbon", 2),
        {**HOME, "turn": 2, "text": "The caller lives in Lisbon, call 415-555-0123."},
    )
    with cloud_with(model, new_database, tmp_path) as cloud:
        client = cloud.tenant()
        client.send_call("call-1", redacted, spoken, "I live in Lisbon.")
        cloud.run_tasks()
        known = json.dumps([client.memories(), client.ok("GET", "/v1/voice-sdk/projections/profile")])
        assert "Lisbon" in known
        assert "0123" not in known
        assert "[phone number]" not in known


def test_prices_are_set_together() -> None:
    for wrong in ({"chat_prompt_price": 1.0}, {"chat_cached_price": 1.0}, {"chat_completion_price": -1.0}):
        with pytest.raises(ValidationError):
            CloudSettings(**wrong)
