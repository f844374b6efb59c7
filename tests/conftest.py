"""Fixtures for all tests, and the check that no test leaves anything behind."""

import gc
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.clients import checking_for_leaks
from support.clients import patient_saves as saves_are_patient
from support.compiled_tests import compile_share
from support.runtimes import RunningRuntime

# The tests start a thousand processes, and so does pytest's every worker import the tests. Each would compile all of it
# if the environment forbids them to keep what is compiled: half of the time in which a server starts.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The time that an example takes depends on the machine, not on the tested code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Import and collect without the garbage collector, and exempt from it what remains until the end.

    Otherwise it visits all modules and tests again and again: a fifth of the time of collecting, and 0.3 s each time
    that a test calls it.
    """
    gc.disable()
    compile_share(session.config)
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as extended what a test says is so with one of the databases."""
    for item in items:
        marker = item.get_closest_marker("extended_on")
        callspec = getattr(item, "callspec", None)
        if marker is not None and callspec is not None and marker.args[0] in callspec.id:
            item.add_marker(pytest.mark.extended)


@pytest.fixture(autouse=True)
def no_memoair_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the developer's own MEMOAIR variables from the environment."""
    for name in [name for name in os.environ if name.startswith("MEMOAIR_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def patient_saves() -> Iterator[None]:
    """Let saves wait as long as they need, for tests in which the time of a save does not matter."""
    with saves_are_patient():
        yield


@pytest.fixture(scope="session")
def opened_model() -> None:
    """Open the embedding model once for the process, so that no single test seems to leave its descriptor behind."""
    from memoair_index.static_model import default_model  # most tests do not need NumPy

    default_model()


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a child process, a thread or a file descriptor behind."""
    with checking_for_leaks():
        yield


@pytest.fixture
def storage_root(tmp_path: Path) -> Path:
    """Return the storage root of all runtimes of a test."""
    return tmp_path / "storage"


@pytest.fixture
def start_runtime(storage_root: Path, nothing_left_behind: None) -> Iterator[Callable[..., RunningRuntime]]:
    """Return a function that starts runtimes of one user with one storage root; all are stopped after the test."""
    running: list[RunningRuntime] = []

    def start(storage_root: Path = storage_root, **variables: str) -> RunningRuntime:
        running.append(RunningRuntime(storage_root, **variables))
        return running[-1]

    yield start
    for started in running:
        started.close()


@pytest.fixture
def runtime(start_runtime: Callable[..., RunningRuntime]) -> RunningRuntime:
    """Start one runtime with an empty storage root."""
    return start_runtime()
