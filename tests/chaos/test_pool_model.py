"""The pool against a model, with fake runtimes: which users have a runtime, who is evicted, what is stopped."""

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

import memoair_voice_sync._pool.pool
from memoair_voice_sync import MemoAirVoiceMemoryError
from memoair_voice_sync._loopback.transport import RuntimeTransport
from memoair_voice_sync._pool.handle import HandleState, RuntimeHandle
from memoair_voice_sync._pool.pool import RuntimePool
from memoair_voice_sync._processes.spec import RuntimeSpec

pytestmark = pytest.mark.alone

MAX_USERS = 3
CALLERS = st.sampled_from([f"caller-{number}" for number in range(6)])
# No process has these ids.
_pids = count(1 << 30)


class FakeRuntime:
    """A runtime that lives until it is stopped or crashes."""

    is_ours = True

    def __init__(self, spec: RuntimeSpec) -> None:
        self.user_id = spec.user_id
        self.session_id = spec.session_id
        self.pid = next(_pids)
        self.transport = RuntimeTransport("127.0.0.1", 1, spec.token)
        self.stop_count = 0
        self.channel: socket.socket | None
        self.channel, self._runtime_end = socket.socketpair()
        self._is_alive = True

    def is_alive(self) -> bool:
        return self._is_alive

    def crash(self) -> None:
        self._is_alive = False
        self._runtime_end.close()

    def end(self, timeout_s: float) -> None:
        self.stop_count += 1
        self._is_alive = False
        assert self.channel is not None
        self.channel.close()
        self._runtime_end.close()

    def reset_after_fork(self) -> None:
        raise AssertionError("there was no fork")


class FakeLauncher:
    """Launches runtimes immediately, or once the test allows it."""

    def __init__(self) -> None:
        self.launched: list[FakeRuntime] = []
        self.may_launch = threading.Event()
        self.may_launch.set()
        self.close_count = 0

    def launch(self, spec: RuntimeSpec, deadline: float, unwanted: AbstractSet[int]) -> FakeRuntime:
        assert self.may_launch.wait(10)
        assert not self.close_count, "the launcher has been closed"
        self.launched.append(FakeRuntime(spec))
        return self.launched[-1]

    def exit_code(self, runtime: object) -> int | None:
        return None

    def cancel_starts(self) -> None:
        pass  # a start here takes no time once it is allowed

    def close(self, timeout_s: float) -> None:
        self.close_count += 1

    def reset_after_fork(self) -> None:
        raise AssertionError("there was no fork")


class PoolMachine(RuleBasedStateMachine):
    """The pool and its model: the users that have a handle, least recently used first, with their acquired handles."""

    def __init__(self) -> None:
        super().__init__()
        self.launcher = FakeLauncher()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memoair_voice_sync._pool.pool, "launcher_for", lambda *_, **__: self.launcher)
            self.pool = RuntimePool(
                RuntimeSpec("proj", "nobody"), max_concurrent_users=MAX_USERS, runtime_idle_ttl_s=600
            )
        self.calls_by_user: OrderedDict[str, list[RuntimeHandle]] = OrderedDict()
        self.handles: dict[str, RuntimeHandle] = {}
        self.evictions = 0
        self.is_closed = False

    def living_runtime(self, handle: RuntimeHandle) -> FakeRuntime:
        """Return the runtime that serves a handle, as a call would: a dead one is reported and replaced."""
        while True:
            transport = handle.ensure_running(time.monotonic() + 10)
            (runtime,) = [launched for launched in self.launcher.launched if launched.transport is transport]
            if runtime.is_alive():
                break
            handle.mark_unreachable(transport)
        for replaced in self.launcher.launched:
            if replaced.user_id == handle.user_id and replaced is not runtime:
                handle.mark_unreachable(replaced.transport)  # as by a thread that notices late
        assert handle.ensure_running(time.monotonic() + 10) is transport
        return runtime

    @rule(caller=CALLERS)
    def acquire(self, caller: str) -> None:
        if self.is_closed:
            self.assert_rejected(caller, "pool.closed")
            return
        if caller not in self.calls_by_user and len(self.calls_by_user) == MAX_USERS:
            idle = [user for user, calls in self.calls_by_user.items() if not calls]
            if not idle:
                self.assert_rejected(caller, "pool.exhausted")
                return
            self.remove_user(idle[0])  # the least recently used one
            self.evictions += 1
        handle = self.pool.acquire(caller)
        if caller in self.calls_by_user:
            assert handle is self.handles[caller], "a user keeps the same handle until its eviction"
        self.handles[caller] = handle
        self.calls_by_user.setdefault(caller, []).append(handle)
        self.calls_by_user.move_to_end(caller)
        assert handle.user_id == caller

    @rule(caller=CALLERS)
    def use(self, caller: str) -> None:
        if self.calls_by_user.get(caller):
            runtime = self.living_runtime(self.handles[caller])
            assert runtime.user_id == caller
            assert runtime.session_id == self.handles[caller].session_id

    @rule(caller=CALLERS)
    def release(self, caller: str) -> None:
        if self.calls_by_user.get(caller):
            self.pool.release(self.calls_by_user[caller].pop())
            self.calls_by_user.move_to_end(caller)

    @rule(caller=CALLERS, is_evicted=st.booleans())
    def begin_to_start(self, caller: str, *, is_evicted: bool) -> None:
        """Call with no time left: the start continues in the background once the launcher may launch."""
        if caller in self.calls_by_user and self.handles[caller].state is HandleState.IDLE:
            self.launcher.may_launch.clear()
            with pytest.raises(MemoAirVoiceMemoryError) as caught:
                self.handles[caller].ensure_running(time.monotonic())
            assert caught.value.code == "runtime.timeout"
            if is_evicted:
                self.evict_if_idle(caller)
            self.launcher.may_launch.set()

    @rule(caller=CALLERS)
    def crash(self, caller: str) -> None:
        if caller in self.calls_by_user and isinstance(runtime := self.handles[caller].runtime, FakeRuntime):
            runtime.crash()

    @rule(caller=CALLERS)
    def evict_idle(self, caller: str) -> None:
        if caller in self.handles:
            self.evict_if_idle(caller)

    @precondition(lambda self: not self.is_closed and not any(self.calls_by_user.values()))
    @rule(really=st.integers(0, 3))
    def close(self, really: int) -> None:
        if not really:  # rarely, because nothing happens afterwards
            self.end()

    @invariant()
    def the_pool_has_the_handles_of_the_model(self) -> None:
        held = self.pool.handles()
        assert len(held) <= MAX_USERS
        assert [handle.user_id for handle in held] == list(self.calls_by_user)
        in_use = [entry.in_use for entry in self.pool._entries.values()]
        assert in_use == [len(calls) for calls in self.calls_by_user.values()]
        assert self.pool.stats()["evictions"] == self.evictions
        assert all(runtime.stop_count <= 1 for runtime in list(self.launcher.launched))

    @invariant()
    def no_serving_runtime_was_stopped(self) -> None:
        for handle in self.pool.handles():
            if isinstance(runtime := handle.runtime, FakeRuntime) and runtime.is_alive():
                assert runtime.stop_count == 0

    def teardown(self) -> None:
        for entry in list(self.pool._entries.values()):  # not from the model, which may be wrong after a failure
            for _ in range(entry.in_use):
                self.pool.release(entry.handle)
        self.end()
        assert [runtime.stop_count for runtime in self.launcher.launched] == [1] * len(self.launcher.launched)
        assert self.launcher.close_count

    def end(self) -> None:
        self.pool.close(5)
        self.pool.close(5)  # a second close does no harm
        self.calls_by_user.clear()
        self.handles.clear()
        self.is_closed = True

    def evict_if_idle(self, caller: str) -> None:
        """Evict a user as if idle for long; a user with a call in progress must stay."""
        is_idle = caller in self.calls_by_user and not self.calls_by_user[caller]
        assert self.pool.evict(self.handles[caller], unused_since=time.monotonic()) is is_idle
        if is_idle:
            self.remove_user(caller)

    def remove_user(self, caller: str) -> None:
        assert not self.calls_by_user.pop(caller)

    def assert_rejected(self, caller: str, code: str) -> None:
        with pytest.raises(MemoAirVoiceMemoryError) as caught:
            self.pool.acquire(caller)
        assert caught.value.code == code


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
    monkeypatch.setattr(memoair_voice_sync._pool.pool, "launcher_for", lambda *_, **__: launcher)
    for delay_s in (0.0, 0.0005, 0.001, 0.002, 0.01):
        for _ in range(10):
            launcher.close_count = 0
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
            assert [runtime.stop_count for runtime in launcher.launched] == [1] * len(launcher.launched)
