"""The warm-up that the fork server runs before it forks."""

import logging
import threading

import pytest

from memoair_runtime.warmup import warm_up


@pytest.mark.parametrize("has_cloud", [False, True])
def test_the_warm_up_completes_and_leaves_nothing_behind(
    has_cloud: bool, opened_model: None, nothing_left_behind: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    threads_before = set(threading.enumerate())
    warm_up(has_cloud=has_cloud)
    assert caplog.messages == [], "the sync logs its failures"
    assert set(threading.enumerate()) == threads_before
