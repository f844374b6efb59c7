"""The status of the sync: pauses, authorization and manual requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.status import (
    BACKOFF,
    MAX_RETRY_AFTER_S,
    OFF,
    REFUSED_PAUSE_S,
    SyncState,
    SyncStatus,
)

NOW = 1_000.0
TRANSIENT = CloudError(FailureKind.TRANSIENT, "a network error")
REJECTED = CloudError(FailureKind.REJECTED, "the key is not valid")


def test_pauses_grow_exponentially_to_a_maximum_with_full_jitter() -> None:
    status, pauses = SyncStatus(), []
    for _ in range(12):
        status = status.after_failure(TRANSIENT, NOW, jitter=1.0)
        pauses.append(status.paused_until - NOW)
    assert pauses[:4] == [BACKOFF.first_s * 2**number for number in range(4)]
    assert pauses[-1] == BACKOFF.max_s
    assert status.after_failure(TRANSIENT, NOW, jitter=0.0).paused_until == NOW, "full jitter"
    assert status.after_success().after_failure(TRANSIENT, NOW, jitter=1.0).paused_until == NOW + BACKOFF.first_s


@given(st.integers(0, 10_000), st.floats(0, 1), st.none() | st.floats(0, 1e9))
def test_no_pause_exceeds_the_maximum(failures: int, jitter: float, retry_after_s: float | None) -> None:
    status = SyncStatus(SyncState.OK, failures=failures)
    error = CloudError(FailureKind.TRANSIENT, "", retry_after_s=retry_after_s)
    pause_s = status.after_failure(error, NOW, jitter).paused_until - NOW
    requested_s = min(retry_after_s or 0, MAX_RETRY_AFTER_S)
    assert requested_s <= pause_s + 1e-6
    assert pause_s <= requested_s + BACKOFF.max_s + 1e-6


@given(st.lists(st.sampled_from(["succeeds", "authorizes", "fails", "rejects"]), max_size=20), st.floats(0, 1))
def test_the_key_counts_as_accepted_until_the_cloud_rejects_it(outcomes: list[str], jitter: float) -> None:
    status, is_authorized = SyncStatus(), False
    for outcome in outcomes:
        if outcome in ("succeeds", "authorizes"):
            status = status.after_success(authorizes=outcome == "authorizes")
            is_authorized |= outcome == "authorizes"
            assert status.state is SyncState.OK
        else:
            status = status.after_failure(TRANSIENT if outcome == "fails" else REJECTED, NOW, jitter)
            is_authorized &= outcome == "fails"
            assert status.state is (SyncState.RETRYING if outcome == "fails" else SyncState.REFUSED)
        assert status.is_authorized == is_authorized


def test_a_manual_request_skips_the_pause_unless_the_cloud_asked_for_it() -> None:
    failed = SyncStatus().after_failure(TRANSIENT, NOW, jitter=1.0)
    assert not failed.may_try(NOW)
    assert failed.may_try(NOW, is_manual=True)
    assert failed.may_try(failed.paused_until)
    retry_after = SyncStatus().after_failure(CloudError(FailureKind.TRANSIENT, "", retry_after_s=5), NOW, jitter=0.0)
    rejected = SyncStatus().after_failure(REJECTED, NOW, jitter=0.0)
    for status in (retry_after, rejected):
        assert not status.may_try(NOW + 1, is_manual=True)
        assert status.may_try(status.paused_until)
    assert rejected.paused_until - NOW == REFUSED_PAUSE_S[0]


def test_without_a_cloud_there_are_no_requests_and_no_transitions() -> None:
    assert not OFF.may_try(NOW, is_manual=True)
    with pytest.raises(RuntimeError):
        OFF.after_success()
    with pytest.raises(RuntimeError):
        OFF.after_failure(TRANSIENT, NOW)
