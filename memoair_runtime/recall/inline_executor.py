"""The executor of programs that may wait for a search: it starts no thread, and nothing has to be closed."""

import time
from collections.abc import Callable, Sequence

import attrs

from memoair_protocol.enums import LaneName
from memoair_runtime.recall.lane_executor import LaneOutcome, LaneRequest, LaneStatus, Outcomes, search_lane


@attrs.frozen
class InlineExecutor:
    """Searches lanes one after another in the calling thread, and waits for each of them. Thread-safe.

    Attributes:
        keeps_deadline: Whether a lane that has not answered by the deadline is late, as in a runtime, though the search
            waits for it. Without, every lane answers, however slow the machine is: the same data gives the same reply.
    """

    keeps_deadline: bool = True

    def run(self, requests: Sequence[LaneRequest], deadline: float, on_done: Callable[[Outcomes], None]) -> None:
        """Search the lanes, then call ``on_done`` with the outcome of every lane. What it raises, this raises.

        Args:
            requests: The lanes with their queries, in the order in which to search them.
            deadline: Time of the monotonic clock by which the lanes must answer, in seconds.
            on_done: Called once.
        """
        outcomes: dict[LaneName, LaneOutcome] = {}
        for request in requests:
            outcome = LaneOutcome(LaneStatus.LATE) if self._is_late(deadline) else search_lane(request)
            if self._is_late(deadline) and outcome.status is LaneStatus.OK:
                outcome = LaneOutcome(LaneStatus.LATE, outcome.duration_ms)
            outcomes[request.lane.name] = outcome
        on_done(outcomes)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _is_late(self, deadline: float) -> bool:
        return self.keeps_deadline and time.monotonic() >= deadline
