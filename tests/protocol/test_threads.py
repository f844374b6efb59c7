"""Threads: one that cannot be started leaves nothing behind, and a loop outlives its errors."""

import threading

import pytest

from memoair_protocol.threads import ThreadUnavailableError, run_loop, start_thread


def test_a_thread_that_cannot_be_started_is_a_named_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    before = set(threading.enumerate())
    monkeypatch.setattr(threading, "_start_new_thread", refuse)
    with pytest.raises(ThreadUnavailableError):
        start_thread(lambda: None, name="refused")
    assert set(threading.enumerate()) == before


def test_a_loop_goes_on_after_errors_with_longer_pauses_and_ends_when_its_step_says_so() -> None:
    steps = iter([OSError(24, "no descriptors"), True, ValueError("a defect"), MemoryError(), True, False])
    reported: list[Exception] = []
    pauses: list[float] = []

    def step() -> bool:
        match next(steps):
            case Exception() as error:
                raise error
            case bool(goes_on):
                return goes_on

    run_loop(step, report=reported.append, wait=pauses.append)
    assert [type(error) for error in reported] == [OSError, ValueError, MemoryError]
    assert pauses[0] == pauses[1] < pauses[2]
    assert next(steps, None) is None
