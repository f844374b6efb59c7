"""Recall under its deadline, with lanes that hang, fail, load, and answer."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import attrs
import pytest
from support.timing import fastest
from support.waiting import eventually

from memoair_runtime.enums import Intent, LaneName
from memoair_runtime.readiness import NotReadyError, Readiness, ReadinessGate
from memoair_runtime.recall.lane_executor import LaneExecutor, LaneOutcome, LaneRequest, LaneStatus
from memoair_runtime.recall.lanes.lane import LaneAnswer, LaneQuery, Passage

PROFILE, WORKING, PERMANENT, ORG = LaneName
FAR_S = 60.0
# How long after its deadline a recall may come back on a machine that is busy with other work. What hangs does so until
# the test has ended.
GRACE_S = 10.0


@attrs.define
class FakeLane:
    """A lane that does what the test says, and then answers with the question's own words."""

    name: LaneName
    does: Callable[[], object] = int
    readiness: Readiness = Readiness.READY
    default_limit: int = 4

    def search(self, question: LaneQuery) -> LaneAnswer:
        self.does()
        return LaneAnswer(passages=(Passage(f"{self.name.value}: {question.text}", (0,)),))


@attrs.define
class GatedLane:
    """A lane that waits at its gate, as those do that read from the disk."""

    name: LaneName
    gate: ReadinessGate = attrs.field(factory=ReadinessGate)
    default_limit: int = 4

    @property
    def readiness(self) -> Readiness:
        return self.gate.readiness

    def search(self, question: LaneQuery) -> LaneAnswer:
        self.gate.wait(question.deadline)
        return LaneAnswer(passages=(Passage(f"{self.name.value}: {question.text}", (0,)),))


@pytest.fixture
def released() -> threading.Event:
    """What a lane that hangs waits for; set once the test has ended."""
    return threading.Event()


@pytest.fixture
def recall(nothing_left_behind: None, released: threading.Event) -> Iterator[LaneExecutor]:
    recall = LaneExecutor()
    yield recall
    released.set()
    recall.close()


def ask(
    recall: LaneExecutor, *lanes: FakeLane | GatedLane, within_s: float = FAR_S, text: str = "boots"
) -> Mapping[LaneName, LaneOutcome]:
    began_at = time.monotonic()
    deadline = began_at + within_s
    question = LaneQuery(text, "call-1", Intent.ANSWER_CURRENT_USER, 4, deadline)
    answers: Queue[Mapping[LaneName, LaneOutcome]] = Queue()
    questions = [LaneRequest(lane, question) for lane in lanes]
    # Who asks is kept by a lane that hangs, and answered all the same.
    threading.Thread(target=recall.run, args=(questions, deadline, answers.put)).start()
    outcomes = answers.get(timeout=max(0.0, within_s) + GRACE_S)
    assert time.monotonic() < max(began_at, deadline) + GRACE_S
    return outcomes


def ask_until(
    recall: LaneExecutor, expected: Mapping[str, str], *lanes: FakeLane | GatedLane, within_s: float
) -> Mapping[LaneName, LaneOutcome]:
    """Ask until the lanes' statuses are as expected, which they must be one time in five, and return the outcomes.

    Other work on the machine makes a lane late in one recall or another, a defect in each.
    """
    for _ in range(5):
        outcomes = ask(recall, *lanes, within_s=within_s)
        if statuses(outcomes) == expected:
            break
    assert statuses(outcomes) == expected
    return outcomes


def statuses(outcomes: Mapping[LaneName, LaneOutcome]) -> dict[str, str]:
    return {name.value: outcome.status.value for name, outcome in outcomes.items()}


def words(outcome: LaneOutcome) -> list[str]:
    return [passage.text for passage in outcome.answer.passages]


def failing(error: Exception) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def test_all_lanes_answer_without_waiting_for_the_deadline(recall: LaneExecutor) -> None:
    began_at = time.monotonic()
    outcomes = ask(recall, *map(FakeLane, LaneName))
    assert time.monotonic() - began_at < FAR_S / 2
    assert statuses(outcomes) == dict.fromkeys(["profile", "working", "permanent", "org"], "ok")
    assert [words(outcomes[name]) for name in LaneName] == [[f"{name.value}: boots"] for name in LaneName]
    assert not any(outcome.is_degraded for outcome in outcomes.values())


@pytest.mark.parametrize("hanging", LaneName)
def test_a_lane_that_hangs_is_late_and_does_not_affect_others(
    hanging: LaneName, recall: LaneExecutor, released: threading.Event
) -> None:
    lanes = [FakeLane(name, released.wait if name is hanging else int) for name in LaneName]
    expected = {name.value: "late" if name is hanging else "ok" for name in LaneName}
    outcomes = ask_until(recall, expected, *lanes, within_s=0.3)
    assert words(outcomes[hanging]) == []
    assert outcomes[hanging].is_degraded
    assert outcomes[hanging].duration_ms >= 290


def test_one_lane_answers_while_all_others_hang(recall: LaneExecutor, released: threading.Event) -> None:
    hang = [FakeLane(name, released.wait) for name in (PROFILE, WORKING, PERMANENT)]
    expected = {"profile": "late", "working": "late", "permanent": "late", "org": "ok"}
    ask_until(recall, expected, *hang, FakeLane(ORG), within_s=0.5)


def test_the_deadline_is_kept_while_all_lanes_hang(recall: LaneExecutor, released: threading.Event) -> None:
    def ask_all() -> None:
        outcomes = ask(recall, *(FakeLane(name, released.wait) for name in LaneName), within_s=0.2)
        assert set(statuses(outcomes).values()) == {"late"}

    assert fastest(ask_all, 1.2) < 1.2


def test_a_slow_lane_within_the_deadline_answers_and_does_not_block_others(recall: LaneExecutor) -> None:
    behind_has_run = threading.Event()
    slow = FakeLane(PROFILE, lambda: behind_has_run.wait(FAR_S))
    behind = FakeLane(WORKING, behind_has_run.set)
    assert statuses(ask(recall, slow, behind)) == {"profile": "ok", "working": "ok"}


@pytest.mark.parametrize("error", [ValueError("zanzibarplum"), KeyError("zanzibarplum"), RecursionError(), OSError(5)])
def test_a_lane_that_raises_affects_no_other_and_its_message_is_not_logged(
    error: Exception, recall: LaneExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = ask(recall, FakeLane(PROFILE), FakeLane(WORKING, failing(error)), FakeLane(ORG))
    assert statuses(outcomes) == {"profile": "ok", "working": "error", "org": "ok"}
    assert words(outcomes[WORKING]) == []
    assert type(error).__name__ in caplog.text
    assert "zanzibarplum" not in caplog.text


def test_a_lane_whose_gate_never_opens_is_loading(recall: LaneExecutor) -> None:
    expected = {"permanent": "loading", "org": "ok"}
    outcomes = ask_until(recall, expected, GatedLane(PERMANENT), FakeLane(ORG), within_s=0.3)
    assert outcomes[PERMANENT].is_degraded


def test_a_loading_lane_that_ignores_its_deadline_is_loading(
    recall: LaneExecutor, released: threading.Event
) -> None:
    lane = FakeLane(PERMANENT, released.wait, readiness=Readiness.LOADING)
    ask_until(recall, {"permanent": "loading", "org": "ok"}, lane, FakeLane(ORG), within_s=0.3)


def test_a_lane_whose_gate_opens_in_time_answers(recall: LaneExecutor) -> None:
    lane = GatedLane(PERMANENT)
    outcomes = ask(recall, lane, FakeLane(ORG, lane.gate.open))
    assert statuses(outcomes) == {"permanent": "ok", "org": "ok"}


def test_a_lane_that_fails_to_load_is_an_error_without_waiting_for_the_deadline(recall: LaneExecutor) -> None:
    lane = GatedLane(PERMANENT)
    began_at = time.monotonic()
    outcomes = ask(recall, lane, FakeLane(ORG, lambda: lane.gate.open(Readiness.ERROR)))
    assert time.monotonic() - began_at < FAR_S / 2
    assert statuses(outcomes) == {"permanent": "error", "org": "ok"}


def test_a_lane_that_raises_not_ready_is_loading_or_an_error(recall: LaneExecutor) -> None:
    loading = FakeLane(PROFILE, failing(NotReadyError(Readiness.LOADING)))
    broken = FakeLane(WORKING, failing(NotReadyError(Readiness.ERROR)))
    assert statuses(ask(recall, loading, broken)) == {"profile": "loading", "working": "error"}


def test_after_a_past_deadline_all_lanes_are_late(
    recall: LaneExecutor, released: threading.Event
) -> None:
    lanes = [FakeLane(name, released.wait) for name in LaneName]
    outcomes = ask(recall, *lanes, within_s=-1)
    assert set(statuses(outcomes).values()) == {LaneStatus.LATE.value}


def test_a_search_without_lanes_is_answered_empty(recall: LaneExecutor) -> None:
    assert ask(recall) == {}


def test_a_lane_with_too_many_stuck_searches_is_not_searched_until_they_return(
    recall: LaneExecutor, released: threading.Event
) -> None:
    asked, stuck = list[str](), list[int]()

    def hang() -> None:
        stuck.append(1)
        released.wait()

    while len(stuck) < 8:  # on a busy machine the deadline may pass before the lane is asked
        assert statuses(ask(recall, FakeLane(PROFILE, hang), within_s=0.01)) == {"profile": "late"}
    further = FakeLane(PROFILE, lambda: asked.append("profile"))
    began_at = time.monotonic()
    assert statuses(ask(recall, further, FakeLane(ORG))) == {"profile": "late", "org": "ok"}
    assert time.monotonic() - began_at < FAR_S / 2  # it is not waited for either
    assert asked == []

    released.set()
    eventually(lambda: statuses(ask(recall, further)) == {"profile": "ok"})


def test_lanes_not_reached_by_the_deadline_are_not_searched_afterwards(
    recall: LaneExecutor, released: threading.Event
) -> None:
    asked: list[str] = []
    lanes = [FakeLane(PROFILE, released.wait), FakeLane(ORG, lambda: asked.append("org"))]
    outcomes = ask(recall, *lanes, within_s=0.001)
    assert statuses(outcomes)["profile"] == "late"
    before = list(asked)
    released.set()
    eventually(lambda: not [each for each in threading.enumerate() if each.name == "recall"])
    assert asked == before


def test_the_answer_is_given_once_and_the_stuck_thread_returns_after_it(
    recall: LaneExecutor, released: threading.Event
) -> None:
    given: list[int] = []
    came_back = threading.Event()

    def search() -> None:
        deadline = time.monotonic() + 0.5
        question = LaneQuery("boots", "call-1", Intent.ANSWER_CURRENT_USER, 4, deadline)
        lane = LaneRequest(FakeLane(PROFILE, released.wait), question)
        recall.run([lane], deadline, lambda _: given.append(threading.get_ident()))
        came_back.set()

    asker = threading.Thread(target=search)
    asker.start()
    eventually(lambda: given)
    assert not came_back.is_set()
    released.set()
    assert came_back.wait(FAR_S)
    assert len(given) == 1
    assert given[0] != asker.ident


def test_an_error_in_the_callback_is_raised_in_the_calling_thread(recall: LaneExecutor) -> None:
    deadline = time.monotonic() + FAR_S

    def fail(_: object) -> None:
        raise ValueError("zanzibarplum")

    with pytest.raises(ValueError, match="zanzibarplum"):
        recall.run([], deadline, fail)


def test_concurrent_searches_get_their_own_answers(recall: LaneExecutor) -> None:
    begin = threading.Barrier(16)

    def search(thread: int) -> None:
        begin.wait()
        for number in range(20):
            text = f"{thread}-{number}"
            outcomes = ask(recall, *map(FakeLane, LaneName), text=text)
            assert [words(outcomes[name]) for name in LaneName] == [[f"{name.value}: {text}"] for name in LaneName]

    with ThreadPoolExecutor(16) as threads:
        for future in [threads.submit(search, thread) for thread in range(16)]:
            future.result()


def test_searches_continue_while_others_hang(recall: LaneExecutor, released: threading.Event) -> None:
    all_ok = {name.value: "ok" for name in LaneName}
    with ThreadPoolExecutor(4) as threads:
        hang = FakeLane(PROFILE, released.wait)
        hanging = [threads.submit(ask, recall, hang, within_s=1.0) for _ in range(4)]
        for _ in range(20):
            assert statuses(ask(recall, *map(FakeLane, LaneName))) == all_ok
        assert [statuses(each.result()) for each in hanging] == [{"profile": "late"}] * 4


def test_closing_does_not_wait_for_a_lane_that_hangs(recall: LaneExecutor, released: threading.Event) -> None:
    ask(recall, FakeLane(PROFILE, released.wait), within_s=0.01)
    began_at = time.monotonic()
    recall.close()
    assert time.monotonic() - began_at < GRACE_S
