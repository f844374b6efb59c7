"""A cloud for the runtimes of a test."""

import gc
from collections.abc import Iterator

import pytest
from support.scripted_cloud import ScriptedCloud, scripted_cloud

from memoair_index.static_model import default_model


@pytest.fixture(scope="session")
def opened_model() -> None:
    """It is opened once for a process, so that no single test seems to leave it behind."""
    default_model()


@pytest.fixture
def cloud(opened_model: None, nothing_left_behind: None) -> Iterator[ScriptedCloud]:
    """A cloud that behaves well until the test has it behave otherwise."""
    with scripted_cloud() as cloud:
        yield cloud
    gc.collect()  # a file stays open for as long as an index that maps it lives


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, nobody waits as long as in life, for more turns or for a cloud that has failed."""
    monkeypatch.setattr("memoair_runtime.sync.status.FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("memoair_runtime.sync.scheduler.LINGER_S", 0.02)
    monkeypatch.setattr("memoair_runtime.sync.scheduler.STARTUP_DELAY_S", 0.0)
    monkeypatch.setattr("memoair_runtime.sync.scheduler.LOCK_RETRY_S", 0.05)
