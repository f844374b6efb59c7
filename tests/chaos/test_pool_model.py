"""The pool against a model of it, over runtimes that are no processes: who has a place, who loses it, who is ended."""

import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Set as AbstractSet
from itertools import count

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import memoair_voice_sync._pool
from memoair_voice_sync import MemoAirVoiceMemoryError
from memoair_voice_sync._handle import HandleState, RuntimeHandle
from memoair_voice_sync._pool import RuntimePool
from memoair_voice_sync._spec import RuntimeSpec
from memoair_voice_sync._transport import RuntimeTransport

pytestmark = pytest.mark.alone

MOST = 3
CALLERS = st.sampled_from([f"caller-{number}" for number in range(6)])
# No process has these ids.
_pids = count(1 << 30)


class FakeRuntime:
    """A runtime that lives until it is ended, or crashes."""

    is_ours = True

    def __init__(self, spec: RuntimeSpec) -> None:
        self.user_id = spec.user_id
        self.session_id = spec.session_id
        self.pid = next(_pids)
        self.transport = RuntimeTransport("127.0.0.1", 1, spec.token)
        self.ends = 0
        self.channel: socket.socket | None
        self.channel, self._theirs = socket.socketpair()
        self._is_alive = True

    def is_alive(self) -> bool:
        return self._is_alive

    def crash(self) -> None:
        self._is_alive = False
        self._theirs.close()

    def end(self, timeout_s: float) -> None:
        self.ends += 1
        self._is_alive = False
        assert self.channel is not None
        self.channel.close()
        self._theirs.close()

    def forget(self) -> None:
        raise AssertionError("there was no fork")


class FakeLauncher:
    """Launches at once, or when it is told that it may."""

    def __init__(self) -> None:
        self.launched: list[FakeRuntime] = []
        self.may_launch = threading.Event()
        self.may_launch.set()
        self.closes = 0

    def launch(self, spec: RuntimeSpec, deadline: float, unwanted: AbstractSet[int]) -> FakeRuntime:
        assert self.may_launch.wait(10)
        assert not self.closes, "the launcher has been closed"
        self.launched.append(FakeRuntime(spec))
        return self.launched[-1]

    def exit_code(self, runtime: object) -> int | None:
        return None

    def close(self, timeout_s: float) -> None:
        self.closes += 1

    def forget(self) -> None:
        raise AssertionError("there was no fork")


class PoolMachine(RuleBasedStateMachine):
    """The pool and its model: the callers who have a place, the one who came longest ago first, with their calls."""

    def __init__(self) -> None:
        super().__init__()
        self.launcher = FakeLauncher()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memoair_voice_sync._pool, "launcher_for", lambda *_, **__: self.launcher)
            self.pool = RuntimePool(RuntimeSpec("proj", "nobody"), max_concurrent_users=MOST, runtime_idle_ttl_s=600)
        self.places: OrderedDict[str, list[RuntimeHandle]] = OrderedDict()
        self.handles: dict[str, RuntimeHandle] = {}
        self.evictions = 0
        self.is_closed = False

    def living(self, handle: RuntimeHandle) -> FakeRuntime:
        """The runtime that serves a handle, as a call finds it: what does not answer is given up, and another comes."""
        while True:
            transport = handle.ensure_running(time.monotonic() + 10)
            (runtime,) = [each for each in self.launcher.launched if each.transport is transport]
            if runtime.is_alive():
                break
            handle.mark_unreachable(transport)
        for gone in self.launcher.launched:
            if gone.user_id == handle.user_id and gone is not runtime:
                handle.mark_unreachable(gone.transport)  # as by a thread that was slow to find out
        assert handle.ensure_running(time.monotonic() + 10) is transport
        return runtime

    @rule(caller=CALLERS)
    def acquire(self, caller: str) -> None:
        if self.is_closed:
            self.assert_refused(caller, "pool.closed")
            return
        if caller not in self.places and len(self.places) == MOST:
            idle = [each for each, calls in self.places.items() if not calls]
            if not idle:
                self.assert_refused(caller, "pool.exhausted")
                return
            self.leave(idle[0])  # the one used longest ago
            self.evictions += 1
        handle = self.pool.acquire(caller)
        if caller in self.places:
            assert handle is self.handles[caller], "a caller keeps his handle as long as he has his place"
        self.handles[caller] = handle
        self.places.setdefault(caller, []).append(handle)
        self.places.move_to_end(caller)
        assert handle.user_id == caller

    @rule(caller=CALLERS)
    def use(self, caller: str) -> None:
        if self.places.get(caller):
            runtime = self.living(self.handles[caller])
            assert runtime.user_id == caller
            assert runtime.session_id == self.handles[caller].session_id

    @rule(caller=CALLERS)
    def release(self, caller: str) -> None:
        if self.places.get(caller):
            self.pool.release(self.places[caller].pop())
            self.places.move_to_end(caller)

    @rule(caller=CALLERS, is_evicted=st.booleans())
    def begin_to_start(self, caller: str, *, is_evicted: bool) -> None:
        """Call with no time left: the start goes on, and is late until something lets it."""
        if caller in self.places and self.handles[caller].state is HandleState.IDLE:
            self.launcher.may_launch.clear()
            with pytest.raises(MemoAirVoiceMemoryError) as late:
                self.handles[caller].ensure_running(time.monotonic())
            assert late.value.code == "runtime.timeout"
            if is_evicted:
                self.idle_out(caller)
            self.launcher.may_launch.set()

    @rule(caller=CALLERS)
    def crash(self, caller: str) -> None:
        if caller in self.places and isinstance(runtime := self.handles[caller].runtime, FakeRuntime):
            runtime.crash()

    @rule(caller=CALLERS)
    def evict_idle(self, caller: str) -> None:
        if caller in self.handles:
            self.idle_out(caller)

    @precondition(lambda self: not self.is_closed and not any(self.places.values()))
    @rule(really=st.integers(0, 3))
    def close(self, really: int) -> None:
        if not really:  # seldom, since nothing happens afterwards
            self.end()

    @invariant()
    def the_pool_holds_what_the_model_holds(self) -> None:
        held = self.pool.handles()
        assert len(held) <= MOST
        assert [each.user_id for each in held] == list(self.places)
        assert [each.in_use for each in held] == [len(calls) for calls in self.places.values()]
        assert self.pool.stats()["evictions"] == self.evictions
        assert all(each.ends <= 1 for each in list(self.launcher.launched))

    @invariant()
    def no_runtime_that_serves_has_been_ended(self) -> None:
        for handle in self.pool.handles():
            if isinstance(runtime := handle.runtime, FakeRuntime) and runtime.is_alive():
                assert runtime.ends == 0

    def teardown(self) -> None:
        for handle in self.pool.handles():  # not those of the model: it may have just been found wrong
            while handle.in_use > 0:
                self.pool.release(handle)
        self.end()
        assert [each.ends for each in self.launcher.launched] == [1] * len(self.launcher.launched)
        assert self.launcher.closes

    def end(self) -> None:
        self.pool.close(5)
        self.pool.close(5)  # twice is no harm
        self.places.clear()
        self.handles.clear()
        self.is_closed = True

    def idle_out(self, caller: str) -> None:
        """Take the place of a caller who is to be taken for idle; one who is in a call keeps it."""
        may_go = caller in self.places and not self.places[caller]
        assert self.pool.evict(self.handles[caller], unused_since=time.monotonic()) is may_go
        if may_go:
            self.leave(caller)

    def leave(self, caller: str) -> None:
        assert not self.places.pop(caller)

    def assert_refused(self, caller: str, code: str) -> None:
        with pytest.raises(MemoAirVoiceMemoryError) as refused:
            self.pool.acquire(caller)
        assert refused.value.code == code


def test_the_pool_behaves_like_its_model(nothing_left_behind: None) -> None:
    run_state_machine_as_test(
        PoolMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_runtime_that_starts_during_close_is_stopped_before_close_returns(
    monkeypatch: pytest.MonkeyPatch, nothing_left_behind: None
) -> None:
    launcher = FakeLauncher()
    monkeypatch.setattr(memoair_voice_sync._pool, "launcher_for", lambda *_, **__: launcher)
    for delay_s in (0.0, 0.0005, 0.001, 0.002, 0.01):
        for _ in range(10):
            launcher.closes = 0
            launcher.may_launch.clear()
            pool = RuntimePool(RuntimeSpec("proj", "nobody"))
            handle = pool.acquire("caller-0")
            with pytest.raises(MemoAirVoiceMemoryError):
                handle.ensure_running(time.monotonic())
            pool.release(handle)
            timer = threading.Timer(delay_s, launcher.may_launch.set)
            timer.start()
            pool.close(5)
            timer.join()
            assert [each.ends for each in launcher.launched] == [1] * len(launcher.launched)
