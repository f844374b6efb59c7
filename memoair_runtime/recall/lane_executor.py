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
_LOOK_S = 0.001
# A lane in which so many searches are stuck is not asked: it would keep the thread of every further one.
_MOST_STUCK = 8


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
    ms: float = 0.0
    answer: LaneAnswer = NO_ANSWER

    @property
    def is_degraded(self) -> bool:
        """Whether the caller got less than he asked for."""
        return self.status not in (LaneStatus.OK, LaneStatus.SKIPPED)


@attrs.frozen
class LaneRequest:
    """What one lane is asked."""

    lane: Lane
    question: LaneQuery


Outcomes = Mapping[LaneName, LaneOutcome]


class LaneExecutor:
    """Asks lanes one after another in the thread of whoever asks: a change of threads costs more than a lane.

    A thread that gets stuck in a lane is left behind, and another one goes on, so that a lane that hangs costs its own
    answer and nothing else. Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._watch = Watchdog()
        self._jams = _CircuitBreaker()

    def ask(self, questions: Sequence[LaneRequest], deadline: float, then: Callable[[Outcomes], None]) -> None:
        """Ask the lanes in the order given; call ``then`` when all have answered, or at the deadline (monotonic
        seconds).

        ``then`` is called once, in this thread or, where this one is stuck in a lane, in another. Returns when that was
        done and no lane holds this thread any more; raises what ``then`` raises.
        """
        sweep = _SearchRun(questions, deadline, then, self._jams)
        self._watch.begin(sweep)
        try:
            sweep.lead()
        finally:
            self._watch.end(sweep)

    def close(self) -> None:
        """Look after searches no longer. Does not wait for a lane that hangs."""
        self._watch.close()


class _CircuitBreaker:
    """How many searches are stuck in which lane. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stuck: Counter[LaneName] = Counter()

    def add(self, lane: LaneName, searches: int) -> None:
        with self._lock:
            self._stuck[lane] += searches

    def is_jammed(self, lane: LaneName) -> bool:
        return self._stuck[lane] >= _MOST_STUCK


class _SearchRun:
    """One search on its way through the lanes.

    One thread at a time leads: it asks the lanes, and at the end calls ``then``. A leader that gets stuck in a lane is
    succeeded by another thread; when it comes back it leaves its lane's answer, and waits until the search is answered.
    """

    def __init__(
        self,
        questions: Sequence[LaneRequest],
        deadline: float,
        then: Callable[[Outcomes], None],
        jams: _CircuitBreaker,
    ) -> None:
        self._deadline = deadline
        self._then = then
        self._jams = jams
        self._changed = threading.Condition()
        self._waiting = deque(questions)
        self._asked = {each.lane.name: each.lane for each in questions}
        self._done: dict[LaneName, LaneOutcome] = {}
        self._began_at = time.monotonic()
        self._leader = 0
        self._asking: tuple[LaneName, float] | None = None  # in which lane the leader is, and by when it must be back
        self._finished = False
        self._failure: Exception | None = None

    @property
    def due(self) -> float:
        """By when (monotonic seconds) the leader must be back from its lane, or the search be answered."""
        if self._finished:
            return math.inf
        asking = self._asking
        return asking[1] if asking else self._deadline

    def take_over(self) -> None:
        """Let another thread lead: this one is stuck in its lane."""
        with self._changed:
            if self._asking is None:
                return  # it has just come back
            self._jams.add(self._asking[0], 1)
            self._asking = None
            self._leader += 1
            leader = self._leader
        threading.Thread(target=self._succeed, args=(leader,), name="recall", daemon=True).start()

    def lead(self, leader: int = 0) -> None:
        """Lead until the search is answered, or until another thread leads and has answered it."""
        while (next_ := self._next()) is not None:
            outcome = _ask(next_)
            with self._changed:
                self._done[next_.lane.name] = outcome
                if leader != self._leader:
                    self._jams.add(next_.lane.name, -1)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._finished)
                    if self._failure:
                        raise self._failure
                    return
                self._asking = None
        self._answer()

    def _succeed(self, leader: int) -> None:
        try:
            self.lead(leader)
        except Exception as error:  # noqa: BLE001 - it is raised where the search was asked for
            log.error("a search failed behind a stuck lane: action=search_failed error=%s", type(error).__name__)

    def _next(self) -> LaneRequest | None:
        """The next lane to ask, once one is ready; None where none is left or the time is over."""
        with self._changed:
            while self._waiting and (now := time.monotonic()) < self._deadline:
                ready = next((each for each in self._waiting if each.lane.readiness is not Readiness.LOADING), None)
                if ready is None:
                    # Somebody else may bring an answer, but who reads the lane does not know of us.
                    self._changed.wait(min(_LOOK_S, self._deadline - now))
                    continue
                self._waiting.remove(ready)
                name = ready.lane.name
                if self._jams.is_jammed(name):
                    self._done[name] = LaneOutcome(LaneStatus.LATE)
                    continue
                self._asking = name, min(now + STALL_S, self._deadline)
                return ready
            return None

    def _answer(self) -> None:
        """Wait for lanes that former leaders are stuck in, until the deadline, and hand out what there is."""
        with self._changed:
            stuck = len(self._asked) - len(self._waiting)
            self._changed.wait_for(lambda: len(self._done) >= stuck, max(0.0, self._deadline - time.monotonic()))
            waited_ms = (time.monotonic() - self._began_at) * 1e3
            outcomes = {name: self._done.get(name) or _missing(lane, waited_ms) for name, lane in self._asked.items()}
        try:
            self._then(outcomes)
        except Exception as error:
            self._failure = error
            raise
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()


def _missing(lane: Lane, waited_ms: float) -> LaneOutcome:
    loading = lane.readiness is Readiness.LOADING
    return LaneOutcome(LaneStatus.LOADING if loading else LaneStatus.LATE, waited_ms)


def _ask(asked: LaneRequest) -> LaneOutcome:
    began_at = time.monotonic()
    answer = NO_ANSWER
    try:
        answer = asked.lane.search(asked.question)
        status = LaneStatus.OK
    except NotReadyError as error:
        status = LaneStatus.LOADING if error.readiness is Readiness.LOADING else LaneStatus.ERROR
    except Exception as error:  # noqa: BLE001 - a defect in one lane must not cost the others; it is counted and told
        # Only the kind of error: its message may hold what the caller said.
        log.error("a lane failed: action=lane_failed lane=%s error=%s", asked.lane.name.value, type(error).__name__)
        status = LaneStatus.ERROR
    return LaneOutcome(status, (time.monotonic() - began_at) * 1e3, answer)
