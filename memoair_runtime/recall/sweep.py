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
# How often a search looks whether a lane has been read by now.
_LOOK_S = 0.005


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
        while sweep.wait(deadline) is _Progress.WANTS_WORKER:
            self._workers.submit(sweep.work)
        return sweep.outcomes()

    def close(self) -> None:
        """Take no more questions. Does not wait for a lane that hangs."""
        self._workers.shutdown(wait=False, cancel_futures=True)


class _Progress(Enum):
    FINISHED = "finished"  # every lane has answered, or the deadline has come
    WANTS_WORKER = "wants worker"  # lanes wait, and nobody takes them or who does is stuck


class _Sweep:
    """One search on its way through the lanes."""

    def __init__(self, questions: Sequence[LaneQuestion]) -> None:
        self._changed = threading.Condition()
        # A lane that is still being read is waited for here, where it keeps no worker from other searches.
        self._loading = list(questions)
        self._waiting: deque[LaneQuestion] = deque()
        self._asked = {each.lane.name: each.lane for each in questions}
        self._done: dict[LaneName, LaneOutcome] = {}
        self._coming = self._working = 0  # workers that were called, and that have begun
        self._began_at = time.monotonic()

    def work(self) -> None:
        """Take lane after lane until none is left."""
        with self._changed:
            self._coming -= 1
            self._working += 1
        while True:
            with self._changed:
                if not self._waiting:
                    self._working -= 1
                    return
                next_ = self._waiting.popleft()
            outcome = _ask(next_)
            with self._changed:
                self._done[next_.lane.name] = outcome
                if len(self._done) == len(self._asked):
                    self._changed.notify()

    def wait(self, deadline: float) -> _Progress:
        """Wait for the lanes, until the deadline or until a worker is wanted, who then must be called."""
        with self._changed:
            while len(self._done) < len(self._asked):
                left = deadline - time.monotonic()
                if left <= 0:
                    self._waiting.clear()
                    break
                self._let_in()
                if self._waiting and not self._coming and not self._working:
                    return self._call_worker()
                done = len(self._done)
                looks_again_s = _LOOK_S if self._loading else _STALL_S if self._waiting else left
                heard = self._changed.wait(min(left, looks_again_s))
                if not heard and self._waiting and not self._coming and len(self._done) == done:
                    return self._call_worker()
            return _Progress.FINISHED

    def _let_in(self) -> None:
        ready = [each for each in self._loading if each.lane.readiness is not Readiness.LOADING]
        for each in ready:
            self._loading.remove(each)
            self._waiting.append(each)

    def _call_worker(self) -> _Progress:
        self._coming += 1
        return _Progress.WANTS_WORKER

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
