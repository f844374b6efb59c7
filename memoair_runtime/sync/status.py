"""How the talk with the cloud goes: its states, the only moves between them, and when it is tried again.

Values that are told the time; the loop that has them is elsewhere.
"""

import random
from enum import Enum

import attrs

from memoair_runtime.sync.errors import CloudError, FailureKind


class SyncState(str, Enum):
    """Where the talk with the cloud stands."""

    OFF = "off"  # there is no cloud, and never will be in this process
    CONNECTING = "connecting"  # it has not answered yet
    OK = "ok"  # it took the last call
    RETRYING = "retrying"  # the last call failed in a way that may pass; it is tried again soon, then less often
    REFUSED = "refused"  # it does not want us: key, project or caller; it is tried again after minutes


_TRANSITIONS = {
    SyncState.OFF: set[SyncState](),
    SyncState.CONNECTING: {SyncState.OK, SyncState.RETRYING, SyncState.REFUSED},
    SyncState.OK: {SyncState.RETRYING, SyncState.REFUSED},
    SyncState.RETRYING: {SyncState.OK, SyncState.REFUSED},
    SyncState.REFUSED: {SyncState.OK, SyncState.RETRYING},
}

# Exponential back-off with full jitter: a cloud that comes back is not met by all runtimes at once.
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
_MAX_DOUBLINGS = 16
# Who is refused has to be let in by somebody; asking more often does not help.
REFUSED_PAUSE_S = (120.0, 300.0)
# However long the cloud asks us to wait: it may have meant to, but nobody's turns should wait for a day.
MAX_RETRY_AFTER_S = 300.0


@attrs.frozen
class SyncStatus:
    """The talk with the cloud at a moment. Moments are monotonic seconds.

    ``is_admitted``: it has accepted our key for this project since it last refused it; only then callers' words go out.
    """

    state: SyncState = SyncState.CONNECTING
    is_authorized: bool = False
    failures: int = 0  # in a row
    failed_at: float | None = None
    paused_until: float = 0.0
    has_retry_after: bool = False  # by the cloud itself: also who asks by hand waits

    def after_success(self, *, authorizes: bool = False) -> "SyncStatus":
        """After a call that the cloud took; ``admits`` where it thereby accepted the key."""
        return SyncStatus(self._transition(SyncState.OK), self.is_authorized or authorizes)

    def after_failure(self, error: CloudError, now: float, jitter: float | None = None) -> "SyncStatus":
        """After a call that failed; ``chance`` is between 0 and 1."""
        jitter = random.random() if jitter is None else jitter
        failures = self.failures + 1
        if error.kind is FailureKind.REJECTED:
            min_s, longest = REFUSED_PAUSE_S
            pause_s = min_s + jitter * (longest - min_s)
            return SyncStatus(self._transition(SyncState.REFUSED), False, failures, now, now + pause_s)
        pause_s = jitter * min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, _MAX_DOUBLINGS))
        if error.retry_after_s is not None:
            pause_s += min(error.retry_after_s, MAX_RETRY_AFTER_S)
        state = self._transition(SyncState.RETRYING)
        has_retry_after = error.retry_after_s is not None
        return SyncStatus(state, self.is_authorized, failures, now, now + pause_s, has_retry_after)

    def may_try(self, now: float, *, is_manual: bool = False) -> bool:
        """Whether it is time for a call; who is asked by hand waits only where the cloud has said so, or refuses us."""
        if self.state is SyncState.OFF:
            return False
        skips_pause = is_manual and not self.has_retry_after and self.state is not SyncState.REFUSED
        return skips_pause or now >= self.paused_until

    def failed_since(self, moment: float) -> bool:
        """Whether the last call failed, and that after a moment."""
        return self.failed_at is not None and self.failed_at >= moment

    def _transition(self, to: SyncState) -> SyncState:
        if to is not self.state and to not in _TRANSITIONS[self.state]:
            raise RuntimeError(f"a sync that is {self.state.value} can't become {to.value}")
        return to


OFF = SyncStatus(SyncState.OFF)
