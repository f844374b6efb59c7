"""Recall: one question to several lanes under one deadline."""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import attrs

from memoair_runtime.gate import NotReady, Readiness
from memoair_runtime.recall.lanes.lane import NO_ANSWER, Lane, LaneAnswer, Question
from memoair_runtime.vocabulary import LaneName

log = logging.getLogger(__name__)

# A worker that has said nothing for this long is taken to be stuck in its lane, and the lanes behind it get another.
# A healthy lane needs about a millisecond.
_STALL_S = 0.02


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
class LaneQuestion:
    """What one lane is asked."""

    lane: Lane
    question: Question


class Recall:
    """Asks lanes in worker threads, so that a lane that hangs costs its own answer and nothing else."""

    def __init__(self, workers: int) -> None:
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="recall")

    def ask(self, questions: Sequence[LaneQuestion], deadline: float) -> Mapping[LaneName, LaneOutcome]:
        """Ask the lanes in the order given and return when all have answered, or at the deadline (monotonic seconds).

        Lanes take their turns in one worker, which costs a single change of threads; only where one gets stuck does
        another worker go on with the rest.
        """
        sweep = _Sweep(questions)
        self._workers.submit(sweep.work)
        while sweep.wait(deadline) is _Progress.STALLED:
            self._workers.submit(sweep.work)
        return sweep.outcomes()

    def close(self) -> None:
        """Take no more questions. Does not wait for a lane that hangs."""
        self._workers.shutdown(wait=False, cancel_futures=True)


class _Progress(Enum):
    FINISHED = "finished"  # every lane has answered, or the deadline has come
    STALLED = "stalled"  # lanes wait behind one that says nothing


class _Sweep:
    """One search on its way through the lanes."""

    def __init__(self, questions: Sequence[LaneQuestion]) -> None:
        self._changed = threading.Condition()
        self._waiting = deque(questions)
        self._asked = {each.lane.name: each.lane for each in questions}
        self._done: dict[LaneName, LaneOutcome] = {}
        self._began_at = time.monotonic()

    def work(self) -> None:
        """Take lane after lane until none is left."""
        while True:
            with self._changed:
                if not self._waiting:
                    return
                next_ = self._waiting.popleft()
            outcome = _ask(next_)
            with self._changed:
                self._done[next_.lane.name] = outcome
                if len(self._done) == len(self._asked):
                    self._changed.notify()

    def wait(self, deadline: float) -> _Progress:
        """Wait for the lanes, until the deadline or until somebody should go on with those that wait."""
        with self._changed:
            while len(self._done) < len(self._asked):
                left = deadline - time.monotonic()
                if left <= 0:
                    self._waiting.clear()
                    break
                done = len(self._done)
                heard = self._changed.wait(min(left, _STALL_S) if self._waiting else left)
                if not heard and self._waiting and len(self._done) == done:
                    return _Progress.STALLED
            return _Progress.FINISHED

    def outcomes(self) -> Mapping[LaneName, LaneOutcome]:
        """What each lane came to by now."""
        with self._changed:
            waited_ms = (time.monotonic() - self._began_at) * 1e3
            return {name: self._done.get(name) or _missing(lane, waited_ms) for name, lane in self._asked.items()}


def _missing(lane: Lane, waited_ms: float) -> LaneOutcome:
    loading = lane.readiness is Readiness.LOADING
    return LaneOutcome(LaneStatus.LOADING if loading else LaneStatus.LATE, waited_ms)


def _ask(asked: LaneQuestion) -> LaneOutcome:
    began_at = time.monotonic()
    answer = NO_ANSWER
    try:
        answer = asked.lane.search(asked.question)
        status = LaneStatus.OK
    except NotReady as error:
        status = LaneStatus.LOADING if error.readiness is Readiness.LOADING else LaneStatus.ERROR
    except Exception as error:  # noqa: BLE001 - a defect in one lane must not cost the others; it is counted and told
        # Only the kind of error: its message may hold what the caller said.
        log.error("a lane failed: action=lane_failed lane=%s error=%s", asked.lane.name.value, type(error).__name__)
        status = LaneStatus.ERROR
    return LaneOutcome(status, (time.monotonic() - began_at) * 1e3, answer)
