"""The keyed queue: one item of a key at a time, in order, by a few threads that end."""

import os
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.waiting import eventually

from memoair_protocol.keyed_queue import KeyedQueue, Progress

NAME = "test-keyed-queue"
KEYS = st.sampled_from("abcde")
MAX_THREADS = 3


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    yield
    eventually(lambda: not threads())


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


class Item:
    """An item whose handling lasts until it is released."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.is_discarded = False
        self.released = threading.Event()
        self.pause_s: float | None = None


class KeyedQueueMachine(RuleBasedStateMachine):
    """The queue handles what a list for each key says, whatever is added, replaced, discarded and retried."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = KeyedQueue(self.handle, name=NAME, max_threads=MAX_THREADS)
        self.lock = threading.Lock()
        self.lines: dict[str, list[Item]] = {}
        self.running: dict[str, Item] = {}
        self.violations: list[str] = []

    def handle(self, item: Item) -> float | None:
        with self.lock:
            if item.key in self.running or self.lines[item.key][0] is not item or item.is_discarded:
                self.violations.append(f"{item.key} is handled out of order")
            self.running[item.key] = item
        assert item.released.wait(60)
        with self.lock:
            item.released.clear()
            del self.running[item.key]
            if item.pause_s is None and not item.is_discarded:
                self.lines[item.key].remove(item)
        return item.pause_s

    @initialize(linger_s=st.sampled_from([0.0, 60.0]))
    def choose_linger(self, linger_s: float) -> None:
        """Let each item start a thread, or be found by one that waits."""
        self.queue = KeyedQueue(self.handle, name=NAME, max_threads=MAX_THREADS, linger_s=linger_s)

    @rule(key=KEYS)
    def put(self, key: str) -> None:
        with self.lock:
            item = Item(key)
            self.lines.setdefault(key, []).append(item)
            assert self.queue.put(key, item)

    @rule(key=KEYS)
    def replace(self, key: str) -> None:
        with self.lock:
            item, head = Item(key), self.running.get(key)
            self.lines[key] = [each for each in self.lines.get(key, []) if each is head] + [item]
            assert self.queue.put(key, item, should_replace=True)

    @rule(key=KEYS)
    def discard(self, key: str) -> None:
        with self.lock:
            line = self.lines.pop(key, [])
            for item in line:
                item.is_discarded = True
            assert self.queue.discard(key) == bool(line)

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, MAX_THREADS - 1), pause_s=st.sampled_from([None, None, 0.0, 0.01]))
    def finish(self, number: int, pause_s: float | None) -> None:
        with self.lock:
            item = list(self.running.values())[number % len(self.running)]
            item.pause_s = pause_s
            item.released.set()
        eventually(lambda: not item.released.is_set())

    @invariant()
    def runs_as_many_as_it_can(self) -> None:
        eventually(self.is_settled)
        assert not self.violations
        assert len(threads()) <= MAX_THREADS
        assert len(self.queue) == sum(map(len, self.lines.values()))
        assert {key for key in "abcde" if key in self.queue} == {key for key, line in self.lines.items() if line}

    def is_settled(self) -> bool:
        with self.lock:
            ready = {key for key, line in self.lines.items() if line} - self.running.keys()
            is_running = len(self.running) == MAX_THREADS or not ready
        # The queue counts an item as done some moments after `handle` has returned.
        return is_running and len(self.queue) == sum(map(len, self.lines.values()))

    def teardown(self) -> None:
        with self.lock:
            waiting = sum(map(len, self.lines.values())) - sum(not item.is_discarded for item in self.running.values())
            running = list(self.running.values())
        left: list[int] = []
        closer = threading.Thread(target=lambda: left.append(self.queue.close()))
        closer.start()
        eventually(lambda: not self.queue.put("z", Item("z")))
        for item in running:
            item.pause_s = None
            item.released.set()
        closer.join(60)
        assert left == [waiting]
        assert (len(self.queue), threads(), self.violations) == (0, [], [])


# Not shrunk: the threads take time, and a shorter sequence of steps is no easier to read.
KeyedQueueMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
TestKeyedQueue = KeyedQueueMachine.TestCase


def test_an_item_is_retried_after_its_pause_and_before_later_ones() -> None:
    handled: list[tuple[str, float]] = []

    def handle(item: str) -> float | None:
        handled.append((item, time.monotonic()))
        return 0.2 if len(handled) == 1 else None

    queue = KeyedQueue(handle, name=NAME)
    queue.put("a", "first")
    queue.put("a", "second")
    eventually(lambda: not queue)
    assert [item for item, _ in handled] == ["first", "first", "second"]
    assert handled[1][1] - handled[0][1] >= 0.2


def test_a_key_with_many_items_does_not_keep_others_waiting() -> None:
    handled: list[str] = []
    may_start = threading.Event()

    def handle(item: str) -> None:
        may_start.wait(60)
        handled.append(item)

    queue = KeyedQueue(handle, name=NAME)
    for number in range(3):
        queue.put("a", f"a{number}")
    queue.put("b", "b0")
    may_start.set()
    eventually(lambda: not queue)
    assert handled == ["a0", "b0", "a1", "a2"]


def test_a_thread_lingers_for_the_next_item() -> None:
    used = set()
    queue: KeyedQueue[int] = KeyedQueue(lambda _: used.add(threading.current_thread()), name=NAME, linger_s=60.0)
    for number in range(3):
        queue.put(number, number)
        eventually(lambda: not queue)
    assert len(used) == 1
    began_at = time.monotonic()
    assert queue.close() == 0
    assert time.monotonic() - began_at < 10


def test_close_retries_at_once_and_often_until_the_drain_time_ends() -> None:
    attempts: list[str] = []

    def handle(item: str) -> float | None:
        attempts.append(item)
        return 30.0 if item == "bad" or len(attempts) < 4 else None

    queue = KeyedQueue(handle, name=NAME, max_threads=2)
    queue.put("a", "good")
    queue.put("b", "bad")
    eventually(lambda: len(attempts) == 2)
    assert queue.close(drain_s=1.0) == 1
    assert attempts.count("good") >= 2
    assert attempts.count("bad") >= 3
    assert not queue.put("a", "late")


def test_waiting_ends_when_there_is_room() -> None:
    may_end = threading.Event()
    queue: KeyedQueue[int] = KeyedQueue(lambda _: None if may_end.wait(60) else 0.0, name=NAME)
    queue.put("a", 1)
    queue.put("a", 2)
    assert queue.wait_until_below(3, 0)
    assert not queue.wait_until_below(2, 0.01)
    may_end.set()
    assert queue.wait_until_below(1, 60)


def test_items_wait_while_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[int] = []

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    queue: KeyedQueue[int] = KeyedQueue(handled.append, name=NAME)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert queue.put("a", 1)
    assert len(queue) == 1
    queue.put("a", 2)
    eventually(lambda: handled == [1, 2])


def test_a_thread_survives_what_a_handler_raises_and_logs_no_words(caplog: pytest.LogCaptureFixture) -> None:
    used: list[threading.Thread] = []

    def handle(item: str) -> None:
        used.append(threading.current_thread())
        if item == "zanzibarplum":
            raise ValueError(item)

    queue = KeyedQueue(handle, name=NAME, linger_s=60.0)
    queue.put("a", "zanzibarplum")
    queue.put("a", "fine")
    eventually(lambda: not queue)
    assert len(used) == 2
    assert used[0] is used[1]
    assert "why=ValueError" in caplog.text
    assert "zanzibarplum" not in caplog.text
    queue.close()


def test_keys_that_fail_take_only_their_share_of_the_threads() -> None:
    may_end = threading.Event()
    attempts: list[str] = []
    handled: list[str] = []

    def handle(item: str) -> float | None:
        if not item.startswith("bad"):
            handled.append(item)
            return None
        is_first = item not in attempts
        attempts.append(item)
        if is_first:
            return 0.0
        may_end.wait(60)
        return None

    queue = KeyedQueue(handle, name=NAME, max_threads=3, max_retrying=2)
    try:
        for number in range(6):
            queue.put(f"bad-{number}", f"bad-{number}")
        eventually(lambda: len(attempts) == 8, 60.0)  # each has failed once, and two of them are tried again
        for number in range(20):
            queue.put("good", f"t{number}")
        eventually(lambda: len(handled) == 20, 60.0)
        assert len(attempts) == 8
    finally:
        may_end.set()
    eventually(lambda: not queue, 60.0)


def test_items_are_handed_over_together_and_those_that_are_left_come_again() -> None:
    calls: list[list[int]] = []
    may_start = threading.Event()

    def handle(items: Sequence[int]) -> Progress:
        may_start.wait(60)
        calls.append(list(items))
        return Progress(2, 0.0) if len(calls) == 1 else Progress(len(items))

    queue = KeyedQueue.batched(handle, max_items=4, name=NAME)
    for number in range(7):
        queue.put("a", number)
    may_start.set()
    eventually(lambda: not queue)
    assert [number for call in calls for number in call if call is not calls[0]] == [2, 3, 4, 5, 6]
    assert all(len(call) <= 4 for call in calls)


def test_what_is_discarded_or_replaced_during_a_batch_is_not_counted_twice() -> None:
    is_running, may_end = threading.Event(), threading.Event()

    def handle(items: Sequence[int]) -> Progress:
        is_running.set()
        may_end.wait(60)
        return Progress(len(items))

    queue = KeyedQueue.batched(handle, max_items=2, name=NAME)
    for number in range(2):
        queue.put("a", number)
    assert is_running.wait(60)
    queue.put("a", 2)
    queue.put("a", 3, should_replace=True)
    taken = len(queue.items("a")) - 1
    assert queue.discard("a")
    queue.put("a", 4)
    assert (taken in (1, 2), queue.items("a"), len(queue)) == (True, [4], 1)
    may_end.set()
    eventually(lambda: not queue)


def test_close_handles_the_items_itself_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[int] = []

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    queue: KeyedQueue[int] = KeyedQueue(handled.append, name=NAME)
    queue.put("a", 1)
    queue.put("b", 2)
    assert queue.close(drain_s=60.0) == 0
    assert handled == [1, 2]


def test_waiting_for_a_key_ends_when_it_is_done_or_fails() -> None:
    may_end = threading.Event()
    fails = [True]

    def handle(_: int) -> float | None:
        may_end.wait(60)
        return 60.0 if fails.pop() else None

    queue = KeyedQueue(handle, name=NAME)
    assert queue.wait_until_done("a", 60.0)
    queue.put("a", 1)
    assert not queue.wait_until_done("a", 0.01)
    may_end.set()
    assert not queue.wait_until_done("a", 60.0)
    fails.append(False)
    assert queue.close(drain_s=60.0) == 0
    assert queue.wait_until_done("a", 60.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_starts_with_an_empty_queue() -> None:
    may_end = threading.Event()
    queue: KeyedQueue[int] = KeyedQueue(lambda item: None if item > 2 or may_end.wait(60) else 0.0, name=NAME)
    queue.put("a", 1)
    queue.put("a", 2)
    child = os.fork()
    if child == 0:
        queue.reset_after_fork()
        was_empty = len(queue) == 0 and "a" not in queue
        queue.put("a", 3)
        os._exit(0 if was_empty and queue.wait_until_below(1, 30) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(queue) == 2
    may_end.set()
    eventually(lambda: not queue)
