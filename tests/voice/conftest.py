"""Both event loops, and checks that neither is blocked or leaves anything behind."""

import threading
from collections.abc import Iterator

import psutil
import pytest
from blockbuster import blockbuster_ctx
from support.waiting import eventually


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run a test on both event loops."""
    return str(request.param)


@pytest.fixture(autouse=True)
def never_blocked() -> Iterator[None]:
    """Fail a test in which our code blocks asyncio's event loop: by file access, sleeping, or waiting."""
    with blockbuster_ctx(scanned_modules=["memoair_voice", "memoair_voice_sync"]):
        yield


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Fail a test that leaves a process or a descriptor. Idle threads may stay for a while: trio keeps them."""
    process = psutil.Process()
    descriptors, children, threads = process.num_fds(), set(process.children(recursive=True)), _workers()
    yield
    eventually(lambda: set(process.children(recursive=True)) <= children)
    eventually(lambda: process.num_fds() <= descriptors)
    eventually(lambda: _workers() <= threads)


def _workers() -> set[threading.Thread]:
    """Return the worker threads of all event loops in this process; servers of other tests may have some."""
    return {each for each in threading.enumerate() if "anyio" in each.name.lower()}
