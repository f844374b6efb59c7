"""How the talk with the cloud goes: values that are told the time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.status import (
    FIRST_PAUSE_S,
    MAX_PAUSE_S,
    MAX_RETRY_AFTER_S,
    OFF,
    REFUSED_PAUSE_S,
    SyncState,
    SyncStatus,
)

NOW = 1_000.0
PASSES = CloudError(FailureKind.TRANSIENT, "it passes")
REFUSED = CloudError(FailureKind.REJECTED, "it does not want us")


def test_it_is_tried_again_soon_then_less_often_and_never_at_a_fixed_time() -> None:
    standing, pauses = SyncStatus(), []
    for _ in range(12):
        standing = standing.after_failure(PASSES, NOW, jitter=1.0)
        pauses.append(standing.paused_until - NOW)
    assert pauses[:4] == [FIRST_PAUSE_S * 2**each for each in range(4)]
    assert pauses[-1] == MAX_PAUSE_S
    assert standing.after_failure(PASSES, NOW, jitter=0.0).paused_until == NOW, "full jitter"
    assert standing.after_success().after_failure(PASSES, NOW, jitter=1.0).paused_until == NOW + FIRST_PAUSE_S


@given(st.integers(0, 10_000), st.floats(0, 1), st.none() | st.floats(0, 1e9))
def test_no_pause_is_longer_than_it_may_be(failures: int, chance: float, retry_after_s: float | None) -> None:
    standing = SyncStatus(SyncState.OK, failures=failures)
    failure = CloudError(FailureKind.TRANSIENT, "", retry_after_s=retry_after_s)
    pause_s = standing.after_failure(failure, NOW, chance).paused_until - NOW
    asked_s = min(retry_after_s or 0, MAX_RETRY_AFTER_S)
    assert asked_s <= pause_s + 1e-6
    assert pause_s <= asked_s + MAX_PAUSE_S + 1e-6


@given(st.lists(st.sampled_from(["takes", "admits", "passes", "refuses"]), max_size=20), st.floats(0, 1))
def test_words_go_out_only_while_the_key_is_accepted(course: list[str], chance: float) -> None:
    standing, is_admitted = SyncStatus(), False
    for each in course:
        if each in ("takes", "admits"):
            standing = standing.after_success(authorizes=each == "admits")
            is_admitted |= each == "admits"
            assert standing.state is SyncState.OK
        else:
            standing = standing.after_failure(PASSES if each == "passes" else REFUSED, NOW, chance)
            is_admitted &= each == "passes"
            assert standing.state is (SyncState.RETRYING if each == "passes" else SyncState.REFUSED)
        assert standing.is_authorized == is_admitted


def test_who_asks_by_hand_need_not_wait_for_the_pause_unless_the_cloud_wants_it() -> None:
    failed = SyncStatus().after_failure(PASSES, NOW, jitter=1.0)
    assert not failed.may_try(NOW)
    assert failed.may_try(NOW, is_manual=True)
    assert failed.may_try(failed.paused_until)
    told = SyncStatus().after_failure(CloudError(FailureKind.TRANSIENT, "", retry_after_s=5), NOW, jitter=0.0)
    refused = SyncStatus().after_failure(REFUSED, NOW, jitter=0.0)
    for each in (told, refused):
        assert not each.may_try(NOW + 1, is_manual=True)
        assert each.may_try(each.paused_until)
    assert refused.paused_until - NOW == REFUSED_PAUSE_S[0]


def test_without_a_cloud_nothing_is_tried_and_nothing_follows() -> None:
    assert not OFF.may_try(NOW, is_manual=True)
    with pytest.raises(RuntimeError):
        OFF.after_success()
    with pytest.raises(RuntimeError):
        OFF.after_failure(PASSES, NOW)
