"""The lane executor under its deadline, with lanes that hang, fail, load and answer."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import attrs
import pytest
from support.timing import fastest
from support.waiting import eventually

from memoair_protocol.enums import Intent, LaneName
from memoair_runtime.readiness import NotReadyError, Readiness, ReadinessGate
from memoair_runtime.recall.lane_executor import LaneExecutor, LaneOutcome, LaneRequest, LaneStatus
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneQuery, Passage

PROFILE, WORKING, PERMANENT, ORG = LaneName
LONG_TIMEOUT_S = 60.0
# How long after its deadline a search may return on a machine that is busy with other work. A lane that hangs does so
# until the test has ended.
GRACE_S = 10.0


@attrs.define
class FakeLane:
    """A lane that runs the test's action, and then answers with the text of the query."""

    name: LaneName
    action: Callable[[], object] = int
    readiness: Readiness = Readiness.READY
    default_limit: int = 4

    def search(self, query: LaneQuery) -> LaneAnswer:
        self.action()
        return LaneAnswer(passages=(Passage(f"{self.name.value}: {query.text}", (0,)),))


@attrs.define
class GatedLane:
    """A lane that waits at its gate, like the lanes that read from the disk."""

    name: LaneName
    gate: ReadinessGate = attrs.field(factory=ReadinessGate)
    default_limit: int = 4

    @property
    def readiness(self) -> Readiness:
        return self.gate.readiness

    def search(self, query: LaneQuery) -> LaneAnswer:
        self.gate.wait(query.deadline)
        return LaneAnswer(passages=(Passage(f"{self.name.value}: {query.text}", (0,)),))


@pytest.fixture
def released() -> threading.Event:
    """Return the event that hanging lanes wait for; it is set after the test."""
    return threading.Event()


@pytest.fixture
def executor(nothing_left_behind: None, released: threading.Event) -> Iterator[LaneExecutor]:
    executor = LaneExecutor()
    yield executor
    released.set()
    executor.close()


def run_search(
    executor: LaneExecutor, *lanes: FakeLane | GatedLane, within_s: float = LONG_TIMEOUT_S, text: str = "boots"
) -> Mapping[LaneName, LaneOutcome]:
    began_at = time.monotonic()
    deadline = began_at + within_s
    query = LaneQuery(text, "call-1", Intent.ANSWER_CURRENT_USER, 4, deadline)
    answers: Queue[Mapping[LaneName, LaneOutcome]] = Queue()
    requests = [LaneRequest(lane, query) for lane in lanes]
    # In a thread, because a lane that hangs blocks the calling thread even after the search is answered.
    threading.Thread(target=executor.run, args=(requests, deadline, answers.put)).start()
    outcomes = answers.get(timeout=max(0.0, within_s) + GRACE_S)
    assert time.monotonic() < max(began_at, deadline) + GRACE_S
    return outcomes


def run_until(
    executor: LaneExecutor,
    expected: Mapping[str, str],
    *lanes: FakeLane | GatedLane,
    within_s: float,
    hanging: LaneName | None = None,
) -> Mapping[LaneName, LaneOutcome]:
    """Search until the lanes' statuses are as expected, at most five times, and return the outcomes.

    Other load on the machine makes a lane late in some of the searches, or starts one late; a defect shows in all of
    them. The ``hanging`` lane must have had nearly all of the time.
    """

    def is_as_expected(outcomes: Mapping[LaneName, LaneOutcome]) -> bool:
        has_waited = hanging is None or outcomes[hanging].duration_ms >= within_s * 1e3 - 10
        return statuses(outcomes) == expected and has_waited

    for _ in range(5):
        outcomes = run_search(executor, *lanes, within_s=within_s)
        if is_as_expected(outcomes):
            break
    assert is_as_expected(outcomes), outcomes
    return outcomes


def statuses(outcomes: Mapping[LaneName, LaneOutcome]) -> dict[str, str]:
    return {name.value: outcome.status.value for name, outcome in outcomes.items()}


def passage_texts(outcome: LaneOutcome) -> list[str]:
    return [passage.text for passage in outcome.answer.passages]


def raising(error: Exception) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def test_all_lanes_answer_without_waiting_for_the_deadline(executor: LaneExecutor) -> None:
    began_at = time.monotonic()
    outcomes = run_search(executor, *map(FakeLane, LaneName))
    assert time.monotonic() - began_at < LONG_TIMEOUT_S / 2
    assert statuses(outcomes) == dict.fromkeys(["profile", "working", "permanent", "org"], "ok")
    assert [passage_texts(outcomes[name]) for name in LaneName] == [[f"{name.value}: boots"] for name in LaneName]
    assert not any(outcome.is_degraded for outcome in outcomes.values())


@pytest.mark.parametrize("hanging", LaneName)
def test_a_lane_that_hangs_is_late_and_does_not_affect_others(
    hanging: LaneName, executor: LaneExecutor, released: threading.Event
) -> None:
    lanes = [FakeLane(name, released.wait if name is hanging else int) for name in LaneName]
    expected = {name.value: "late" if name is hanging else "ok" for name in LaneName}
    outcomes = run_until(executor, expected, *lanes, within_s=0.3, hanging=hanging)
    assert passage_texts(outcomes[hanging]) == []
    assert outcomes[hanging].is_degraded


def test_one_lane_answers_while_all_others_hang(executor: LaneExecutor, released: threading.Event) -> None:
    hang = [FakeLane(name, released.wait) for name in (PROFILE, WORKING, PERMANENT)]
    expected = {"profile": "late", "working": "late", "permanent": "late", "org": "ok"}
    run_until(executor, expected, *hang, FakeLane(ORG), within_s=0.5)


def test_the_deadline_is_kept_while_all_lanes_hang(executor: LaneExecutor, released: threading.Event) -> None:
    def ask_all() -> None:
        outcomes = run_search(executor, *(FakeLane(name, released.wait) for name in LaneName), within_s=0.2)
        assert set(statuses(outcomes).values()) == {"late"}

    assert fastest(ask_all, 1.2) < 1.2


def test_a_slow_lane_within_the_deadline_answers_and_does_not_block_others(executor: LaneExecutor) -> None:
    next_has_run = threading.Event()
    slow = FakeLane(PROFILE, lambda: next_has_run.wait(LONG_TIMEOUT_S))
    next_lane = FakeLane(WORKING, next_has_run.set)
    assert statuses(run_search(executor, slow, next_lane)) == {"profile": "ok", "working": "ok"}


@pytest.mark.parametrize("error", [ValueError("zanzibarplum"), KeyError("zanzibarplum"), RecursionError(), OSError(5)])
def test_a_lane_that_raises_affects_no_other_and_its_message_is_not_logged(
    error: Exception, executor: LaneExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = run_search(executor, FakeLane(PROFILE), FakeLane(WORKING, raising(error)), FakeLane(ORG))
    assert statuses(outcomes) == {"profile": "ok", "working": "error", "org": "ok"}
    assert passage_texts(outcomes[WORKING]) == []
    assert type(error).__name__ in caplog.text
    assert "zanzibarplum" not in caplog.text


def test_a_lane_whose_gate_never_opens_is_loading(executor: LaneExecutor) -> None:
    expected = {"permanent": "loading", "org": "ok"}
    outcomes = run_until(executor, expected, GatedLane(PERMANENT), FakeLane(ORG), within_s=0.3)
    assert outcomes[PERMANENT].is_degraded


def test_a_loading_lane_that_ignores_its_deadline_is_loading(executor: LaneExecutor, released: threading.Event) -> None:
    lane = FakeLane(PERMANENT, released.wait, readiness=Readiness.LOADING)
    run_until(executor, {"permanent": "loading", "org": "ok"}, lane, FakeLane(ORG), within_s=0.3)


def test_a_lane_whose_gate_opens_in_time_answers(executor: LaneExecutor) -> None:
    lane = GatedLane(PERMANENT)
    outcomes = run_search(executor, lane, FakeLane(ORG, lane.gate.open))
    assert statuses(outcomes) == {"permanent": "ok", "org": "ok"}


def test_a_lane_that_fails_to_load_is_an_error_without_waiting_for_the_deadline(executor: LaneExecutor) -> None:
    lane = GatedLane(PERMANENT)
    began_at = time.monotonic()
    outcomes = run_search(executor, lane, FakeLane(ORG, lambda: lane.gate.open(Readiness.ERROR)))
    assert time.monotonic() - began_at < LONG_TIMEOUT_S / 2
    assert statuses(outcomes) == {"permanent": "error", "org": "ok"}


def test_a_lane_that_raises_not_ready_is_loading_or_an_error(executor: LaneExecutor) -> None:
    loading = FakeLane(PROFILE, raising(NotReadyError(Readiness.LOADING)))
    broken = FakeLane(WORKING, raising(NotReadyError(Readiness.ERROR)))
    assert statuses(run_search(executor, loading, broken)) == {"profile": "loading", "working": "error"}


def test_after_a_past_deadline_all_lanes_are_late(executor: LaneExecutor, released: threading.Event) -> None:
    lanes = [FakeLane(name, released.wait) for name in LaneName]
    outcomes = run_search(executor, *lanes, within_s=-1)
    assert set(statuses(outcomes).values()) == {LaneStatus.LATE.value}


def test_a_search_without_lanes_is_answered_empty(executor: LaneExecutor) -> None:
    assert run_search(executor) == {}


def test_a_lane_with_too_many_stuck_searches_is_not_searched_until_they_return(
    executor: LaneExecutor, released: threading.Event
) -> None:
    searched, stuck = list[str](), list[int]()

    def hang() -> None:
        stuck.append(1)
        released.wait()

    while len(stuck) < 8:  # on a busy machine the deadline may pass before the lane is searched
        assert statuses(run_search(executor, FakeLane(PROFILE, hang), within_s=0.01)) == {"profile": "late"}
    further = FakeLane(PROFILE, lambda: searched.append("profile"))
    began_at = time.monotonic()
    assert statuses(run_search(executor, further, FakeLane(ORG))) == {"profile": "late", "org": "ok"}
    assert time.monotonic() - began_at < LONG_TIMEOUT_S / 2  # nor is it waited for
    assert searched == []

    released.set()
    eventually(lambda: statuses(run_search(executor, further)) == {"profile": "ok"})


def test_lanes_not_reached_by_the_deadline_are_not_searched_afterwards(
    executor: LaneExecutor, released: threading.Event
) -> None:
    searched: list[str] = []
    lanes = [FakeLane(PROFILE, released.wait), FakeLane(ORG, lambda: searched.append("org"))]
    outcomes = run_search(executor, *lanes, within_s=0.001)
    assert statuses(outcomes)["profile"] == "late"
    before = list(searched)
    released.set()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "recall"])
    assert searched == before


def test_the_answer_is_given_once_and_the_stuck_thread_returns_after_it(
    executor: LaneExecutor, released: threading.Event
) -> None:
    answered_by: list[int] = []
    has_returned = threading.Event()

    def search() -> None:
        deadline = time.monotonic() + 0.5
        query = LaneQuery("boots", "call-1", Intent.ANSWER_CURRENT_USER, 4, deadline)
        lane = LaneRequest(FakeLane(PROFILE, released.wait), query)
        executor.run([lane], deadline, lambda _: answered_by.append(threading.get_ident()))
        has_returned.set()

    caller = threading.Thread(target=search)
    caller.start()
    eventually(lambda: answered_by)
    assert not has_returned.is_set()
    released.set()
    assert has_returned.wait(LONG_TIMEOUT_S)
    assert len(answered_by) == 1
    assert answered_by[0] != caller.ident


def test_an_error_in_the_callback_is_raised_in_the_calling_thread(executor: LaneExecutor) -> None:
    deadline = time.monotonic() + LONG_TIMEOUT_S

    def fail(_: object) -> None:
        raise ValueError("zanzibarplum")

    with pytest.raises(ValueError, match="zanzibarplum"):
        executor.run([], deadline, fail)


def test_concurrent_searches_get_their_own_answers(executor: LaneExecutor) -> None:
    begin = threading.Barrier(16)

    def search(thread: int) -> None:
        begin.wait()
        for number in range(20):
            text = f"{thread}-{number}"
            outcomes = run_search(executor, *map(FakeLane, LaneName), text=text)
            assert [passage_texts(outcomes[name]) for name in LaneName] == [
                [f"{name.value}: {text}"] for name in LaneName
            ]

    with ThreadPoolExecutor(16) as threads:
        for future in [threads.submit(search, thread) for thread in range(16)]:
            future.result()


def test_searches_continue_while_others_hang(executor: LaneExecutor, released: threading.Event) -> None:
    all_ok = {name.value: "ok" for name in LaneName}
    with ThreadPoolExecutor(4) as threads:
        hang = FakeLane(PROFILE, released.wait)
        hanging = [threads.submit(run_search, executor, hang, within_s=1.0) for _ in range(4)]
        for _ in range(20):
            assert statuses(run_search(executor, *map(FakeLane, LaneName))) == all_ok
        assert [statuses(future.result()) for future in hanging] == [{"profile": "late"}] * 4


def test_closing_does_not_wait_for_a_lane_that_hangs(executor: LaneExecutor, released: threading.Event) -> None:
    run_search(executor, FakeLane(PROFILE, released.wait), within_s=0.01)
    began_at = time.monotonic()
    executor.close()
    assert time.monotonic() - began_at < GRACE_S
