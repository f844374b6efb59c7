"""The rehearsal: what a host has gone through before it forks."""

import logging
import threading

import pytest

from memoair_runtime.warmup import warm_up


@pytest.mark.parametrize("has_cloud", [False, True])
def test_a_rehearsal_comes_to_its_end_and_leaves_nothing(
    has_cloud: bool, opened_model: None, nothing_left_behind: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = set(threading.enumerate())
    warm_up(has_cloud=has_cloud)
    assert caplog.messages == [], "what fails with the cloud is told there"
    assert set(threading.enumerate()) == before
