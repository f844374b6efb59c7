"""Recall under its deadline, with lanes that hang, fail, load, and answer."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
from support.waiting import eventually

from memoair_runtime.gate import Gate, NotReady, Readiness
from memoair_runtime.recall.lanes.lane import LaneAnswer, Passage, Question
from memoair_runtime.recall.sweep import LaneOutcome, LaneQuestion, LaneStatus, Recall
from memoair_runtime.vocabulary import Intent, LaneName

PROFILE, WORKING, PERMANENT, ORG = LaneName
FAR_S = 60.0
# How long after its deadline a recall may come back on a machine that is busy with other tests.
GRACE_S = 1.0


@attrs.define
class FakeLane:
    """A lane that does what the test says, and then answers with the question's own words."""

    name: LaneName
    does: Callable[[], object] = int
    readiness: Readiness = Readiness.READY
    default_limit: int = 4

    def search(self, question: Question) -> LaneAnswer:
        self.does()
        return LaneAnswer(passages=(Passage(f"{self.name.value}: {question.text}", (0,)),))


@attrs.define
class GatedLane:
    """A lane that waits at its gate, as those do that read from the disk."""

    name: LaneName
    gate: Gate = attrs.field(factory=Gate)
    default_limit: int = 4

    @property
    def readiness(self) -> Readiness:
        return self.gate.readiness

    def search(self, question: Question) -> LaneAnswer:
        self.gate.wait(question.deadline)
        return LaneAnswer(passages=(Passage(f"{self.name.value}: {question.text}", (0,)),))


@pytest.fixture
def released() -> threading.Event:
    """What a lane that hangs waits for; set once the test has ended."""
    return threading.Event()


@pytest.fixture
def recall(nothing_left_behind: None, released: threading.Event) -> Iterator[Recall]:
    recall = Recall(workers=8)
    yield recall
    released.set()
    recall.close()


def ask(
    recall: Recall, *lanes: FakeLane | GatedLane, within_s: float = FAR_S, text: str = "boots"
) -> Mapping[LaneName, LaneOutcome]:
    began_at = time.monotonic()
    deadline = began_at + within_s
    question = Question(text, "call-1", Intent.ANSWER_CURRENT_USER, 4, deadline)
    outcomes = recall.ask([LaneQuestion(lane, question) for lane in lanes], deadline)
    assert time.monotonic() < max(began_at, deadline) + GRACE_S
    return outcomes


def statuses(outcomes: Mapping[LaneName, LaneOutcome]) -> dict[str, str]:
    return {name.value: outcome.status.value for name, outcome in outcomes.items()}


def words(outcome: LaneOutcome) -> list[str]:
    return [passage.text for passage in outcome.answer.passages]


def failing(error: Exception) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def test_every_lane_answers_and_recall_does_not_wait_for_the_deadline(recall: Recall) -> None:
    began_at = time.monotonic()
    outcomes = ask(recall, *map(FakeLane, LaneName))
    assert time.monotonic() - began_at < FAR_S / 2
    assert statuses(outcomes) == dict.fromkeys(["profile", "working", "permanent", "org"], "ok")
    assert [words(outcomes[name]) for name in LaneName] == [[f"{name.value}: boots"] for name in LaneName]
    assert not any(outcome.is_degraded for outcome in outcomes.values())


@pytest.mark.parametrize("hanging", LaneName)
def test_a_lane_that_hangs_is_late_at_the_deadline_and_costs_only_itself(
    hanging: LaneName, recall: Recall, released: threading.Event
) -> None:
    lanes = [FakeLane(name, released.wait if name is hanging else int) for name in LaneName]
    outcomes = ask(recall, *lanes, within_s=0.3)
    assert statuses(outcomes) == {name.value: "late" if name is hanging else "ok" for name in LaneName}
    assert words(outcomes[hanging]) == []
    assert outcomes[hanging].is_degraded
    assert outcomes[hanging].ms >= 290


def test_all_lanes_but_one_may_hang(recall: Recall, released: threading.Event) -> None:
    hang = [FakeLane(name, released.wait) for name in (PROFILE, WORKING, PERMANENT)]
    outcomes = ask(recall, *hang, FakeLane(ORG), within_s=0.5)
    assert statuses(outcomes) == {"profile": "late", "working": "late", "permanent": "late", "org": "ok"}


def test_all_lanes_may_hang(recall: Recall, released: threading.Event) -> None:
    outcomes = ask(recall, *(FakeLane(name, released.wait) for name in LaneName), within_s=0.2)
    assert set(statuses(outcomes).values()) == {"late"}


def test_a_lane_that_is_slow_but_within_the_deadline_is_heard_and_holds_up_no_other(recall: Recall) -> None:
    behind_has_run = threading.Event()
    slow = FakeLane(PROFILE, lambda: behind_has_run.wait(FAR_S))
    behind = FakeLane(WORKING, behind_has_run.set)
    assert statuses(ask(recall, slow, behind)) == {"profile": "ok", "working": "ok"}


@pytest.mark.parametrize("error", [ValueError("zanzibarplum"), KeyError("zanzibarplum"), RecursionError(), OSError(5)])
def test_a_lane_that_raises_is_an_error_costs_only_itself_and_its_words_are_not_logged(
    error: Exception, recall: Recall, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = ask(recall, FakeLane(PROFILE), FakeLane(WORKING, failing(error)), FakeLane(ORG))
    assert statuses(outcomes) == {"profile": "ok", "working": "error", "org": "ok"}
    assert words(outcomes[WORKING]) == []
    assert type(error).__name__ in caplog.text
    assert "zanzibarplum" not in caplog.text


def test_a_lane_whose_gate_never_opens_is_loading(recall: Recall) -> None:
    outcomes = ask(recall, GatedLane(PERMANENT), FakeLane(ORG), within_s=0.3)
    assert statuses(outcomes) == {"permanent": "loading", "org": "ok"}
    assert outcomes[PERMANENT].is_degraded


def test_a_lane_whose_gate_never_opens_and_that_does_not_heed_its_deadline_is_loading(
    recall: Recall, released: threading.Event
) -> None:
    lane = FakeLane(PERMANENT, released.wait, readiness=Readiness.LOADING)
    assert statuses(ask(recall, lane, FakeLane(ORG), within_s=0.3)) == {"permanent": "loading", "org": "ok"}


def test_a_lane_whose_gate_opens_in_time_answers(recall: Recall) -> None:
    lane = GatedLane(PERMANENT)
    outcomes = ask(recall, lane, FakeLane(ORG, lane.gate.open))
    assert statuses(outcomes) == {"permanent": "ok", "org": "ok"}


def test_a_lane_whose_data_cannot_be_read_is_an_error_and_is_not_waited_for(recall: Recall) -> None:
    lane = GatedLane(PERMANENT)
    began_at = time.monotonic()
    outcomes = ask(recall, lane, FakeLane(ORG, lambda: lane.gate.open(Readiness.ERROR)))
    assert time.monotonic() - began_at < FAR_S / 2
    assert statuses(outcomes) == {"permanent": "error", "org": "ok"}


def test_a_lane_that_says_it_is_not_ready_is_taken_at_its_word(recall: Recall) -> None:
    loading = FakeLane(PROFILE, failing(NotReady(Readiness.LOADING)))
    broken = FakeLane(WORKING, failing(NotReady(Readiness.ERROR)))
    assert statuses(ask(recall, loading, broken)) == {"profile": "loading", "working": "error"}


def test_a_deadline_that_has_passed_leaves_every_lane_that_has_not_answered_late(
    recall: Recall, released: threading.Event
) -> None:
    lanes = [FakeLane(name, released.wait) for name in LaneName]
    outcomes = ask(recall, *lanes, within_s=-1)
    assert set(statuses(outcomes).values()) == {LaneStatus.LATE.value}


def test_without_lanes_there_is_nothing_to_wait_for(recall: Recall) -> None:
    assert ask(recall) == {}


def test_lanes_that_were_not_reached_by_the_deadline_are_not_asked_afterwards(
    recall: Recall, released: threading.Event
) -> None:
    asked: list[str] = []
    for _ in range(8):  # every worker hangs, so nobody takes up the next search
        ask(recall, FakeLane(PROFILE, released.wait), within_s=0.01)
    outcomes = ask(recall, FakeLane(ORG, lambda: asked.append("org")), within_s=0.05)
    assert statuses(outcomes) == {"org": "late"}

    released.set()
    eventually(lambda: statuses(ask(recall, FakeLane(ORG))) == {"org": "ok"})
    assert asked == []


def test_searches_of_many_threads_get_each_its_own_answer(recall: Recall) -> None:
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


def test_searches_go_on_while_others_hang(recall: Recall, released: threading.Event) -> None:
    all_ok = {name.value: "ok" for name in LaneName}
    with ThreadPoolExecutor(4) as threads:
        hang = FakeLane(PROFILE, released.wait)
        hanging = [threads.submit(ask, recall, hang, within_s=1.0) for _ in range(4)]
        for _ in range(20):
            assert statuses(ask(recall, *map(FakeLane, LaneName), within_s=5)) == all_ok
        assert [statuses(each.result()) for each in hanging] == [{"profile": "late"}] * 4


def test_closing_does_not_wait_for_a_lane_that_hangs(recall: Recall, released: threading.Event) -> None:
    ask(recall, FakeLane(PROFILE, released.wait), within_s=0.01)
    began_at = time.monotonic()
    recall.close()
    assert time.monotonic() - began_at < GRACE_S
