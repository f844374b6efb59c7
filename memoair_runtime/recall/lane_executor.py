"""Recall: one question to several lanes under one deadline."""

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

import attrs

from memoair_runtime.enums import LaneName
from memoair_runtime.readiness import NotReadyError, Readiness
from memoair_runtime.recall.lanes.lane import NO_ANSWER, Lane, LaneAnswer, LaneQuery
from memoair_runtime.recall.watchdog import STALL_S, Watchdog

log = logging.getLogger(__name__)

# How often a search looks whether a lane has been read by now.
_POLL_INTERVAL_S = 0.001
# A lane in which so many searches are stuck is not asked: it would keep the thread of every further one.
_MAX_STUCK = 8


class LaneStatus(str, Enum):
    """What became of a lane in one search."""

    OK = "ok"
    LATE = "late"  # did not answer by the deadline
    LOADING = "loading"  # its data had not been read by the deadline
    SKIPPED = "skipped"  # was not asked
    ERROR = "error"


@attrs.frozen
class LaneOutcome:
    """A lane's part in one search."""

    status: LaneStatus
    duration_ms: float = 0.0
    answer: LaneAnswer = NO_ANSWER

    @property
    def is_degraded(self) -> bool:
        """Whether the caller got less than he asked for."""
        return self.status not in (LaneStatus.OK, LaneStatus.SKIPPED)


@attrs.frozen
class LaneRequest:
    """What one lane is asked."""

    lane: Lane
    query: LaneQuery


Outcomes = Mapping[LaneName, LaneOutcome]


class LaneExecutor:
    """Asks lanes one after another in the thread of whoever asks: a change of threads costs more than a lane.

    A thread that gets stuck in a lane is left behind, and another one goes on, so that a lane that hangs costs its own
    answer and nothing else. Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._watchdog = Watchdog()
        self._breaker = _CircuitBreaker()

    def run(self, requests: Sequence[LaneRequest], deadline: float, on_done: Callable[[Outcomes], None]) -> None:
        """Ask the lanes in the order given; call ``then`` when all have answered, or at the deadline (monotonic
        seconds).

        ``then`` is called once, in this thread or, where this one is stuck in a lane, in another. Returns when that was
        done and no lane holds this thread any more; raises what ``then`` raises.
        """
        search_run = _SearchRun(requests, deadline, on_done, self._breaker)
        self._watchdog.watch(search_run)
        try:
            search_run.lead()
        finally:
            self._watchdog.unwatch(search_run)

    def close(self) -> None:
        """Look after searches no longer. Does not wait for a lane that hangs."""
        self._watchdog.close()


class _CircuitBreaker:
    """How many searches are stuck in which lane. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stuck_counts: Counter[LaneName] = Counter()

    def add_stuck(self, lane: LaneName, count: int) -> None:
        with self._lock:
            self._stuck_counts[lane] += count

    def is_open(self, lane: LaneName) -> bool:
        return self._stuck_counts[lane] >= _MAX_STUCK


class _SearchRun:
    """One search on its way through the lanes.

    One thread at a time leads: it asks the lanes, and at the end calls ``then``. A leader that gets stuck in a lane is
    succeeded by another thread; when it comes back it leaves its lane's answer, and waits until the search is answered.
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
        self._lanes = {each.lane.name: each.lane for each in requests}
        self._outcomes: dict[LaneName, LaneOutcome] = {}
        self._started_at = time.monotonic()
        self._leader = 0
        self._current: tuple[LaneName, float] | None = None  # in which lane the leader is, and by when it must be back
        self._is_finished = False
        self._error: Exception | None = None

    @property
    def due_at(self) -> float:
        """By when (monotonic seconds) the leader must be back from its lane, or the search be answered."""
        if self._is_finished:
            return math.inf
        current = self._current
        return current[1] if current else self._deadline

    def take_over(self) -> None:
        """Let another thread lead: this one is stuck in its lane."""
        with self._changed:
            if self._current is None:
                return  # it has just come back
            self._breaker.add_stuck(self._current[0], 1)
            self._current = None
            self._leader += 1
            leader = self._leader
        threading.Thread(target=self._lead_as_successor, args=(leader,), name="recall", daemon=True).start()

    def lead(self, leader: int = 0) -> None:
        """Lead until the search is answered, or until another thread leads and has answered it."""
        while (request := self._take_next()) is not None:
            outcome = _search_lane(request)
            with self._changed:
                self._outcomes[request.lane.name] = outcome
                if leader != self._leader:
                    self._breaker.add_stuck(request.lane.name, -1)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._is_finished)
                    if self._error:
                        raise self._error
                    return
                self._current = None
        self._finish()

    def _lead_as_successor(self, leader: int) -> None:
        try:
            self.lead(leader)
        except Exception as error:  # noqa: BLE001 - it is raised where the search was asked for
            log.error("a search failed behind a stuck lane: action=search_failed error=%s", type(error).__name__)

    def _take_next(self) -> LaneRequest | None:
        """The next lane to ask, once one is ready; None where none is left or the time is over."""
        with self._changed:
            while self._pending and (now := time.monotonic()) < self._deadline:
                ready = next((each for each in self._pending if each.lane.readiness is not Readiness.LOADING), None)
                if ready is None:
                    # Somebody else may bring an answer, but who reads the lane does not know of us.
                    self._changed.wait(min(_POLL_INTERVAL_S, self._deadline - now))
                    continue
                self._pending.remove(ready)
                name = ready.lane.name
                if self._breaker.is_open(name):
                    self._outcomes[name] = LaneOutcome(LaneStatus.LATE)
                    continue
                self._current = name, min(now + STALL_S, self._deadline)
                return ready
            return None

    def _finish(self) -> None:
        """Wait for lanes that former leaders are stuck in, until the deadline, and hand out what there is."""
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


def _search_lane(request: LaneRequest) -> LaneOutcome:
    started_at = time.monotonic()
    answer = NO_ANSWER
    try:
        answer = request.lane.search(request.query)
        status = LaneStatus.OK
    except NotReadyError as error:
        status = LaneStatus.LOADING if error.readiness is Readiness.LOADING else LaneStatus.ERROR
    except Exception as error:  # noqa: BLE001 - a defect in one lane must not cost the others; it is counted and told
        # Only the kind of error: its message may hold what the caller said.
        log.error("a lane failed: action=lane_failed lane=%s error=%s", request.lane.name.value, type(error).__name__)
        status = LaneStatus.ERROR
    return LaneOutcome(status, (time.monotonic() - started_at) * 1e3, answer)
