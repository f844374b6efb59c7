"""The status of the sync: its states, the allowed transitions, and when to try again.

Immutable values that are given the time; the loop is in `memoair_runtime.sync.scheduler`.
"""

import random
from enum import Enum

import attrs

from memoair_protocol.backoff import Backoff
from memoair_runtime.sync.errors import CloudError, FailureKind


class SyncState(str, Enum):
    """The state of the sync."""

    OFF = "off"  # this process has no cloud
    CONNECTING = "connecting"  # it has not responded yet
    OK = "ok"  # the last request succeeded
    RETRYING = "retrying"  # the last request failed with a transient error; retried soon, then less often
    REFUSED = "refused"  # it rejects the key, project or user; retried after minutes


_TRANSITIONS = {
    SyncState.OFF: set[SyncState](),
    SyncState.CONNECTING: {SyncState.OK, SyncState.RETRYING, SyncState.REFUSED},
    SyncState.OK: {SyncState.RETRYING, SyncState.REFUSED},
    SyncState.RETRYING: {SyncState.OK, SyncState.REFUSED},
    SyncState.REFUSED: {SyncState.OK, SyncState.RETRYING},
}

# Exponential backoff with full jitter: a cloud that comes back does not get the requests of all runtimes at once.
BACKOFF = Backoff(0.5, 60.0)
# A rejection has to be fixed by a person; asking more often does not help.
REFUSED_PAUSE_S = (120.0, 300.0)
# The maximum for a pause that the cloud asks for: turns must not wait for a day, even if it means that.
MAX_RETRY_AFTER_S = 300.0


@attrs.frozen
class SyncStatus:
    """The status of the sync at a point in time. Times are in monotonic seconds.

    Attributes:
        state: The state.
        is_authorized: Whether the cloud has accepted the key for this project since it last rejected it. Only then is
            anything sent that a caller said.
        failures: Number of failures in a row.
        failed_at: When the last request failed; None if it succeeded.
        paused_until: When to try again.
        has_retry_after: Whether the cloud asked for the pause, so that manual requests wait as well.
        rejection: Why the cloud rejects this runtime; None if it does not.
    """

    state: SyncState = SyncState.CONNECTING
    is_authorized: bool = False
    failures: int = 0
    failed_at: float | None = None
    paused_until: float = 0.0
    has_retry_after: bool = False
    rejection: CloudError | None = None

    def after_success(self, *, authorizes: bool = False) -> "SyncStatus":
        """Return the status after a successful request.

        Args:
            authorizes: Whether the cloud has accepted the key with it.
        """
        return SyncStatus(self._transition(SyncState.OK), self.is_authorized or authorizes)

    def after_failure(self, error: CloudError, now: float, jitter: float | None = None) -> "SyncStatus":
        """Return the status after a failed request.

        Args:
            error: The failure.
            now: The time.
            jitter: A share of the maximum pause, from 0 to 1; random by default.
        """
        jitter = random.random() if jitter is None else jitter
        failures = self.failures + 1
        if error.kind is FailureKind.REJECTED:
            min_s, max_s = REFUSED_PAUSE_S
            pause_s = min_s + jitter * (max_s - min_s)
            state = self._transition(SyncState.REFUSED)
            return SyncStatus(state, False, failures, now, now + pause_s, rejection=error)
        retry_after_s = min(error.retry_after_s or 0.0, MAX_RETRY_AFTER_S)
        pause_s = BACKOFF.pause_s(failures, retry_after_s=retry_after_s, draw=jitter)
        state = self._transition(SyncState.RETRYING)
        has_retry_after = error.retry_after_s is not None
        return SyncStatus(state, self.is_authorized, failures, now, now + pause_s, has_retry_after)

    def describe_rejection(self) -> dict[str, str | None] | None:
        """Return which part of the identity the cloud rejects, and its message; None if it rejects nothing."""
        error = self.rejection
        if error is None:
            return None
        return {"part": error.rejected_part.value if error.rejected_part else None, "message": error.message}

    def may_try(self, now: float, *, is_manual: bool = False) -> bool:
        """Return whether a request may be made now.

        Args:
            now: The time.
            is_manual: Whether it was requested. It then skips the pause, unless the cloud asked for the pause or
                rejects us.
        """
        if self.state is SyncState.OFF:
            return False
        skips_pause = is_manual and not self.has_retry_after and self.state is not SyncState.REFUSED
        return skips_pause or now >= self.paused_until

    def failed_since(self, time: float) -> bool:
        """Return whether the last request failed, at or after a time."""
        return self.failed_at is not None and self.failed_at >= time

    def _transition(self, to: SyncState) -> SyncState:
        if to is not self.state and to not in _TRANSITIONS[self.state]:
            raise RuntimeError(f"invalid transition of the sync state: {self.state.value} to {to.value}")
        return to


OFF = SyncStatus(SyncState.OFF)
