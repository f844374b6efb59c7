"""The lane executor: it runs one query on several lanes under one deadline."""

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol

import attrs

from memoair_protocol.enums import LaneName
from memoair_protocol.threads import ThreadUnavailableError, start_thread
from memoair_runtime.readiness import NotReadyError, Readiness
from memoair_runtime.recall.lanes.lane import NO_ANSWER, Lane, LaneAnswer, LaneQuery
from memoair_runtime.recall.watchdog import STALL_S, Watchdog

log = logging.getLogger(__name__)

# How often a search checks whether a lane has finished loading.
_POLL_INTERVAL_S = 0.001
# How long the watchdog waits before it tries again to start a thread that succeeds one that is stuck.
_SUCCESSOR_RETRY_S = 0.02
# A lane in which this many searches are stuck is not searched: it would hold the thread of every further search.
_MAX_STUCK = 8


class LaneStatus(str, Enum):
    """The status of a lane in one search."""

    OK = "ok"
    LATE = "late"  # did not answer by the deadline
    LOADING = "loading"  # its data was not loaded by the deadline
    SKIPPED = "skipped"  # was not requested
    ERROR = "error"


@attrs.frozen
class LaneOutcome:
    """A lane's part in one search.

    Attributes:
        status: What happened.
        duration_ms: How long the lane took, in milliseconds.
        answer: What it found; empty unless the status is ``ok``.
    """

    status: LaneStatus
    duration_ms: float = 0.0
    answer: LaneAnswer = NO_ANSWER

    @property
    def is_degraded(self) -> bool:
        """Whether the client gets less than it asked for."""
        return self.status not in (LaneStatus.OK, LaneStatus.SKIPPED)


@attrs.frozen
class LaneRequest:
    """A lane and the query for it."""

    lane: Lane
    query: LaneQuery


Outcomes = Mapping[LaneName, LaneOutcome]


class SearchExecutor(Protocol):
    """Runs one query on several lanes. Thread-safe."""

    def run(self, requests: Sequence[LaneRequest], deadline: float, on_done: Callable[[Outcomes], None]) -> None:
        """Search the lanes; see `LaneExecutor.run`."""

    def close(self) -> None:
        """Release all resources. No search may follow."""


def answers_of(outcomes: Outcomes) -> dict[LaneName, LaneAnswer]:
    """Return the answers of the lanes that have answered."""
    return {name: outcome.answer for name, outcome in outcomes.items() if outcome.status is LaneStatus.OK}


_Visit = tuple[LaneRequest, float]  # a lane that is being searched, and when it is overdue


class LaneExecutor:
    """Searches lanes one after another in the calling thread, because switching threads costs more than a lane.

    If a thread gets stuck in a lane, another one continues with the remaining lanes. A lane that hangs thus costs its
    own answer and nothing else. Thread-safe.
    """

    def __init__(self) -> None:
        self._watchdog = Watchdog()
        self._breaker = _CircuitBreaker()

    def run(self, requests: Sequence[LaneRequest], deadline: float, on_done: Callable[[Outcomes], None]) -> None:
        """Search the lanes, and return after ``on_done`` was called and no lane holds this thread anymore.

        Args:
            requests: The lanes with their queries, in the order in which to search them.
            deadline: Time of the monotonic clock by which the search must be answered, in seconds.
            on_done: Called once with the outcome of every lane, when all have answered or at the deadline: in this
                thread or, if this one is stuck in a lane, in another. What it raises, this method raises.
        """
        search_run = _SearchRun(requests, deadline, on_done, self._breaker)
        self._watchdog.watch(search_run)
        try:
            search_run.lead()
        finally:
            self._watchdog.unwatch(search_run)

    def close(self) -> None:
        """Stop the watchdog. Does not wait for a lane that hangs."""
        self._watchdog.close()


class _CircuitBreaker:
    """Counts the searches that are stuck in each lane; open for a lane that has too many. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stuck_counts: Counter[LaneName] = Counter()

    def add_stuck(self, lane: LaneName, count: int) -> None:
        with self._lock:
            self._stuck_counts[lane] += count

    def is_open(self, lane: LaneName) -> bool:
        return self._stuck_counts[lane] >= _MAX_STUCK


class _SearchRun:
    """The execution of one search over its lanes.

    One thread at a time is the leader: it searches the lanes and calls ``on_done`` at the end. If the leader gets stuck
    in a lane, another thread succeeds it. When the former leader returns from its lane, it stores the lane's answer and
    waits until the search is answered.
    """

    def __init__(
        self,
        requests: Sequence[LaneRequest],
        deadline: float,
        on_done: Callable[[Outcomes], None],
        breaker: _CircuitBreaker,
    ) -> None:
        self._deadline = deadline
        self._on_done = on_done
        self._breaker = breaker
        self._changed = threading.Condition()
        self._pending = deque(requests)
        self._lanes = {request.lane.name: request.lane for request in requests}
        self._outcomes: dict[LaneName, LaneOutcome] = {}
        self._started_at = time.monotonic()
        self._current: _Visit | None = None  # the leader's
        self._retry_at = 0.0  # when to try again to start a successor
        self._is_finished = False
        self._error: Exception | None = None

    @property
    def due_at(self) -> float:
        """Time of the monotonic clock by which the leader must return from its lane, or the search must be answered."""
        if self._is_finished:
            return math.inf
        current = self._current
        return max(current[1], self._retry_at) if current else self._deadline

    def take_over(self) -> None:
        """Make another thread the leader, because the current one is stuck in its lane.

        Without another thread it stays the leader, and the watchdog tries again.
        """
        with self._changed:
            if self._current is None:
                return  # the leader has just returned
            try:
                start_thread(self._lead_as_successor, name="recall")  # it waits for the lock
            except ThreadUnavailableError:
                self._retry_at = time.monotonic() + _SUCCESSOR_RETRY_S
                return
            self._breaker.add_stuck(self._current[0].lane.name, 1)
            self._current = None

    def lead(self) -> None:
        """Lead until the search is answered, by this thread or by a successor."""
        while (visit := self._visit_next()) is not None:
            request, _ = visit
            outcome = search_lane(request)
            with self._changed:
                self._outcomes[request.lane.name] = outcome
                if visit is not self._current:  # another thread has taken over
                    self._breaker.add_stuck(request.lane.name, -1)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._is_finished)
                    if self._error:
                        raise self._error
                    return
                self._current = None
        self._finish()

    def _lead_as_successor(self) -> None:
        try:
            self.lead()
        except Exception as error:  # noqa: BLE001 - raised in the thread that called `run`
            log.error("a search failed behind a stuck lane: action=search_failed error=%s", type(error).__name__)

    def _visit_next(self) -> _Visit | None:
        """Wait for a lane that is ready, and begin its visit; return None if none is left or at the deadline."""
        with self._changed:
            while self._pending and (now := time.monotonic()) < self._deadline:
                ready = next(
                    (request for request in self._pending if request.lane.readiness is not Readiness.LOADING), None
                )
                if ready is None:
                    # The condition is notified by former leaders, but not by the threads that load lanes: poll.
                    self._changed.wait(min(_POLL_INTERVAL_S, self._deadline - now))
                    continue
                self._pending.remove(ready)
                name = ready.lane.name
                if self._breaker.is_open(name):
                    self._outcomes[name] = LaneOutcome(LaneStatus.LATE)
                    continue
                self._current = ready, min(now + STALL_S, self._deadline)
                return self._current
            return None

    def _finish(self) -> None:
        """Wait until the deadline for lanes in which former leaders are stuck, then answer with what there is."""
        with self._changed:
            started = len(self._lanes) - len(self._pending)
            self._changed.wait_for(lambda: len(self._outcomes) >= started, max(0.0, self._deadline - time.monotonic()))
            waited_ms = (time.monotonic() - self._started_at) * 1e3
            outcomes = {
                name: self._outcomes.get(name) or _missing_outcome(lane, waited_ms)
                for name, lane in self._lanes.items()
            }
        try:
            self._on_done(outcomes)
        except Exception as error:
            self._error = error
            raise
        finally:
            with self._changed:
                self._is_finished = True
                self._changed.notify_all()


def _missing_outcome(lane: Lane, waited_ms: float) -> LaneOutcome:
    is_loading = lane.readiness is Readiness.LOADING
    return LaneOutcome(LaneStatus.LOADING if is_loading else LaneStatus.LATE, waited_ms)


def search_lane(request: LaneRequest) -> LaneOutcome:
    """Search one lane. What it raises becomes the status of the outcome."""
    started_at = time.monotonic()
    answer = NO_ANSWER
    try:
        answer = request.lane.search(request.query)
        status = LaneStatus.OK
    except NotReadyError as error:
        status = LaneStatus.LOADING if error.readiness is Readiness.LOADING else LaneStatus.ERROR
    except Exception as error:  # noqa: BLE001 - a defect in one lane must not cost the others; counted and logged
        # Log only the error's type: its message may contain what the user said.
        log.error("a lane failed: action=lane_failed lane=%s error=%s", request.lane.name.value, type(error).__name__)
        status = LaneStatus.ERROR
    return LaneOutcome(status, (time.monotonic() - started_at) * 1e3, answer)
