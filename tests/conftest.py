"""Fixtures for all tests, and the check that none leaves anything behind."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings
from support.clients import patient_saves as saves_are_patient
from support.runtimes import RunningRuntime
from support.waiting import eventually

# How long an example takes, or how long it takes to make one, is no property of what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def no_memoair_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer has set for himself must not steer the tests."""
    for name in [name for name in os.environ if name.startswith("MEMOAIR_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def patient_saves() -> Iterator[None]:
    """A turn is kept at once, however slow the machine is: the test is about something else."""
    with saves_are_patient():
        yield


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """Fail a test after which a child process, a thread or a descriptor is left that was not there before."""
    process = psutil.Process()
    descriptors, threads, children = process.num_fds(), set(threading.enumerate()), set(process.children())
    yield
    eventually(lambda: set(process.children()) <= children)
    eventually(lambda: not set(threading.enumerate()) - threads)
    eventually(lambda: process.num_fds() <= descriptors)


@pytest.fixture
def start_runtime(tmp_path: Path, nothing_left_behind: None) -> Iterator[Callable[..., RunningRuntime]]:
    """Start runtimes of one caller over one storage root; all are ended after the test."""
    running: list[RunningRuntime] = []

    def start(storage_root: Path | None = None, **variables: str) -> RunningRuntime:
        running.append(RunningRuntime(storage_root or tmp_path / "storage", **variables))
        return running[-1]

    yield start
    for each in running:
        each.close()


@pytest.fixture
def runtime(start_runtime: Callable[..., RunningRuntime]) -> RunningRuntime:
    """One runtime over an empty storage root."""
    return start_runtime()
