"""The rehearsal: what a host has gone through before it forks."""

import logging
import threading

import pytest

from memoair_runtime.warmup import warm_up


@pytest.mark.parametrize("has_cloud", [False, True])
def test_the_warm_up_completes_and_leaves_nothing_behind(
    has_cloud: bool, opened_model: None, nothing_left_behind: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = set(threading.enumerate())
    warm_up(has_cloud=has_cloud)
    assert caplog.messages == [], "what fails with the cloud is told there"
    assert set(threading.enumerate()) == before
