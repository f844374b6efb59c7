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


_MOVES = {
    SyncState.OFF: set[SyncState](),
    SyncState.CONNECTING: {SyncState.OK, SyncState.RETRYING, SyncState.REFUSED},
    SyncState.OK: {SyncState.RETRYING, SyncState.REFUSED},
    SyncState.RETRYING: {SyncState.OK, SyncState.REFUSED},
    SyncState.REFUSED: {SyncState.OK, SyncState.RETRYING},
}

# Exponential back-off with full jitter: a cloud that comes back is not met by all runtimes at once.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
_MOST_DOUBLINGS = 16
# Who is refused has to be let in by somebody; asking more often does not help.
REFUSED_PAUSE_S = (120.0, 300.0)
# However long the cloud asks us to wait: it may have meant to, but nobody's turns should wait for a day.
LONGEST_RETRY_AFTER_S = 300.0


@attrs.frozen
class SyncStatus:
    """The talk with the cloud at a moment. Moments are monotonic seconds.

    ``is_admitted``: it has accepted our key for this project since it last refused it; only then callers' words go out.
    """

    state: SyncState = SyncState.CONNECTING
    is_admitted: bool = False
    failures: int = 0  # in a row
    failed_at: float | None = None
    paused_until: float = 0.0
    is_told_to_wait: bool = False  # by the cloud itself: also who asks by hand waits

    def succeeded(self, *, admits: bool = False) -> "SyncStatus":
        """After a call that the cloud took; ``admits`` where it thereby accepted the key."""
        return SyncStatus(self._moved(SyncState.OK), self.is_admitted or admits)

    def failed(self, failure: CloudError, now: float, chance: float | None = None) -> "SyncStatus":
        """After a call that failed; ``chance`` is between 0 and 1."""
        chance = random.random() if chance is None else chance
        failures = self.failures + 1
        if failure.kind is FailureKind.REJECTED:
            shortest, longest = REFUSED_PAUSE_S
            pause_s = shortest + chance * (longest - shortest)
            return SyncStatus(self._moved(SyncState.REFUSED), False, failures, now, now + pause_s)
        pause_s = chance * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, _MOST_DOUBLINGS))
        if failure.retry_after_s is not None:
            pause_s += min(failure.retry_after_s, LONGEST_RETRY_AFTER_S)
        state = self._moved(SyncState.RETRYING)
        is_told = failure.retry_after_s is not None
        return SyncStatus(state, self.is_admitted, failures, now, now + pause_s, is_told)

    def may_try(self, now: float, *, is_asked: bool = False) -> bool:
        """Whether it is time for a call; who is asked by hand waits only where the cloud has said so, or refuses us."""
        if self.state is SyncState.OFF:
            return False
        is_patient = is_asked and not self.is_told_to_wait and self.state is not SyncState.REFUSED
        return is_patient or now >= self.paused_until

    def failed_since(self, moment: float) -> bool:
        """Whether the last call failed, and that after a moment."""
        return self.failed_at is not None and self.failed_at >= moment

    def _moved(self, to: SyncState) -> SyncState:
        if to is not self.state and to not in _MOVES[self.state]:
            raise RuntimeError(f"a sync that is {self.state.value} can't become {to.value}")
        return to


OFF = SyncStatus(SyncState.OFF)
