"""Fixtures for the runtime's tests: a cloud, and short waits."""

import gc
from collections.abc import Iterator

import pytest
from support.scripted_cloud import ScriptedCloud

from memoair_protocol.backoff import Backoff


@pytest.fixture
def cloud(opened_model: None, nothing_left_behind: None) -> Iterator[ScriptedCloud]:
    """Start a cloud that behaves well until the test makes it misbehave."""
    with ScriptedCloud() as cloud:
        yield cloud
    gc.collect()  # an index keeps its mapped file open until it is collected


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten, in this process, the waits for more turns and for a cloud that has failed."""
    monkeypatch.setattr("memoair_runtime.sync.status.BACKOFF", Backoff(0.05, 60.0))
    monkeypatch.setattr("memoair_runtime.sync.scheduler.LINGER_S", 0.02)
    monkeypatch.setattr("memoair_runtime.sync.scheduler.STARTUP_DELAY_S", 0.0)
    monkeypatch.setattr("memoair_runtime.sync.scheduler.LOCK_RETRY_S", 0.05)
    monkeypatch.setattr("memoair_runtime.sync.trace_schedule.LINGER_S", 0.05)
    monkeypatch.setattr("memoair_runtime.sync.trace_schedule.RETRY_S", 0.1)
    monkeypatch.setattr("memoair_runtime.trace_recorder.LINGER_S", 0.02)
