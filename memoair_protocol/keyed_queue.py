"""A queue whose few threads handle the items of each key in order, and those of different keys at once."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from memoair_protocol.threads import ThreadUnavailableError, run_loop, start_thread

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")
# While the queue is being closed, its time is short.
_MAX_CLOSING_PAUSE_S = 0.1


class Progress(NamedTuple):
    """What became of the items that were handled together.

    Attributes:
        done: How many of them, from the first one on, are done.
        retry_after_s: Handle those that are left after so many seconds. None means as soon as it is their turn.
    """

    done: int
    retry_after_s: float | None = None


class _Line(Generic[_Item]):
    """The items of one key. The first ``taken`` of them are being handled."""

    __slots__ = ("due_at", "is_retrying", "items", "taken")

    def __init__(self, due_at: float) -> None:
        self.items: deque[_Item] = deque()
        self.taken = 0
        self.due_at = due_at
        self.is_retrying = False  # its last attempt has failed


class KeyedQueue(Generic[_Item]):
    """Items that a few threads handle in the background: those of one key one at a time and in order.

    The first item starts a thread. A thread ends when it has nothing to do, or the queue is closed. If the process can
    start no more threads, items wait for the next call of `put`, `wake` or `close`. Safe to use from any thread.

    Args:
        handle: Called with each item, in a thread. If it returns a number, it is called with the same item again after
            so many seconds, before it gets later items of the key. If it raises, that is logged, and the item is done.
        name: The name of the threads.
        max_threads: The largest number of threads.
        max_retrying: How many of the threads may handle keys whose last attempt failed, so that keys that cannot be
            handled now do not keep the others waiting. None means all of them.
        linger_s: How long a thread waits for another item before it ends, in seconds.
    """

    def __init__(
        self,
        handle: Callable[[_Item], float | None],
        *,
        name: str,
        max_threads: int = 1,
        max_retrying: int | None = None,
        linger_s: float = 0.0,
    ) -> None:
        def handle_one(items: Sequence[_Item]) -> Progress:
            pause_s = handle(items[0])
            return Progress(1) if pause_s is None else Progress(0, pause_s)

        self._handle: Callable[[Sequence[_Item]], Progress] = handle_one
        self._max_items = 1
        self._name = name
        self._max_threads = max_threads
        self._max_retrying = max_threads if max_retrying is None else max_retrying
        self._linger_s = linger_s
        self._close_deadline: float | None = None
        self.reset_after_fork()

    @classmethod
    def batched(
        cls,
        handle: Callable[[Sequence[_Item]], Progress],
        *,
        max_items: int,
        name: str,
        max_threads: int = 1,
        max_retrying: int | None = None,
    ) -> "KeyedQueue[_Item]":
        """Return a queue that hands over several items of a key at a time.

        Args:
            handle: Called with the next items of a key, at least one, in a thread. Returns how far it came. If it
                raises, that is logged, and the first item is done.
            max_items: The largest number of items at a time.
            name: The name of the threads.
            max_threads: The largest number of threads.
            max_retrying: See the class.
        """
        queue = cls(lambda _: None, name=name, max_threads=max_threads, max_retrying=max_retrying)
        queue._handle, queue._max_items = handle, max_items
        return queue

    def reset_after_fork(self) -> None:
        """Drop everything in the child of a fork: the items and the threads belong to the parent."""
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # there is something to do for a thread, or nothing any more
        self._shrunk = threading.Condition(lock)  # there are fewer items
        self._lines: dict[Hashable, _Line[_Item]] = {}  # only lines with items
        self._running: set[Hashable] = set()  # keys with an item that is being handled, also if it was discarded
        self._retrying = 0  # how many of them have failed before
        self._threads: set[threading.Thread] = set()
        self._count = 0

    def __len__(self) -> int:
        """Return the number of items that wait or are being handled."""
        return self._count

    def __contains__(self, key: Hashable) -> bool:
        """Return whether an item of this key waits or is being handled. Takes no lock."""
        return key in self._lines

    def count(self, key: Hashable) -> int:
        """Return the number of items of a key that wait or are being handled. Takes no lock."""
        line = self._lines.get(key)
        return 0 if line is None else len(line.items)

    def items(self, key: Hashable) -> list[_Item]:
        """Return the items of a key that wait or are being handled, in order."""
        with self._changed:
            line = self._lines.get(key)
            return [] if line is None else list(line.items)

    def put(self, key: Hashable, item: _Item, *, should_replace: bool = False) -> bool:
        """Add an item to those of its key.

        Args:
            key: The key.
            item: The item.
            should_replace: Whether to discard the items of the key that are not being handled yet.

        Returns:
            False if the queue is closed.
        """
        with self._changed:
            if self._close_deadline is not None:
                return False
            line = self._lines.setdefault(key, _Line(time.monotonic()))
            while should_replace and len(line.items) > line.taken:
                line.items.pop()
                self._count -= 1
            line.items.append(item)
            self._count += 1
            self._start_thread()
            self._changed.notify()
        return True

    @property
    def is_waiting(self) -> bool:
        """Whether there are items and no thread handles any, because the process could start none."""
        return bool(self._lines) and not self._threads

    def wake(self) -> None:
        """Start the threads that are missing, because the process could start none when there was something to do."""
        with self._changed:
            self._start_thread()

    def discard(self, key: Hashable) -> bool:
        """Discard the items of a key; one that is being handled is not handled again. Return whether there were any."""
        with self._changed:
            line = self._lines.pop(key, None)
            if line is None:
                return False
            self._count -= len(line.items)
            line.items.clear()
            self._changed.notify_all()
            self._shrunk.notify_all()
        return True

    def wait_until_below(self, count: int, timeout_s: float) -> bool:
        """Wait until fewer than ``count`` items wait or are being handled. Return False after the timeout."""
        with self._changed:
            self._start_thread()
            return self._shrunk.wait_for(lambda: self._count < count, timeout_s)

    def wait_until_done(self, key: Hashable, timeout_s: float) -> bool:
        """Wait until no item of a key waits or is being handled.

        Returns:
            False after the timeout, or as soon as an attempt to handle the items has failed.
        """
        with self._changed:
            line = self._lines.get(key)
            if line is None:
                return True
            self._shrunk.wait_for(lambda: not line.items or line.is_retrying, timeout_s)
            return key not in self._lines

    def close(self, drain_s: float = 0.0, join_timeout_s: float | None = None) -> int:
        """Accept no more items, go on with the others for ``drain_s``, and wait for those that are being handled.

        Args:
            drain_s: Seconds after which no item is handled any more.
            join_timeout_s: Seconds to wait for the end of each thread, without a limit by default.

        Returns:
            The number of items that were not done. They are discarded.
        """
        with self._changed:
            self._close_deadline = time.monotonic() + drain_s
            for line in self._lines.values():
                line.due_at = 0.0
            if drain_s:
                self._start_thread()
            self._changed.notify_all()
            threads = list(self._threads)
        if drain_s and not threads:  # the process can start none: this thread does the work
            self._run()
        for thread in threads:
            thread.join(join_timeout_s)
        with self._changed:
            left = self._count
            for key in list(self._lines):
                self.discard(key)
        return left

    def _start_thread(self) -> None:
        """Start a thread if there are more keys with items than threads without. The lock must be held."""
        if len(self._threads) >= self._max_threads:
            return
        idle = len(self._threads) - len(self._running)
        if idle < len(self._lines.keys() - self._running):
            try:
                thread = start_thread(self._run, name=self._name)
            except ThreadUnavailableError:  # the items wait, see the class
                return
            # It waits for the lock with the first thing that it does, so it cannot have ended, and taken itself out,
            # before it is added.
            self._threads.add(thread)

    def _run(self) -> None:
        try:
            run_loop(self._step, report=self._report, wait=time.sleep)
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())
                self._changed.notify()

    def _step(self) -> bool:
        """Handle the next items that are due; return False if the thread is to end."""
        due = self._wait_for_due()
        if due is None:
            return False
        self._handle_first(*due)
        return True

    def _wait_for_due(self) -> tuple[Hashable, _Line[_Item], list[_Item]] | None:
        """Wait until items are due and return them with their key and line; return None if the thread is to end."""
        linger_until = time.monotonic() + self._linger_s
        with self._changed:
            while True:
                now, deadline = time.monotonic(), self._close_deadline
                waiting = [entry for entry in self._lines.items() if entry[0] not in self._running]
                if waiting and (deadline is None or now < deadline):
                    may_retry = self._retrying < self._max_retrying
                    ready = [entry for entry in waiting if may_retry or not entry[1].is_retrying]
                    key, line = min(ready, key=lambda entry: entry[1].due_at, default=(None, None))
                    if line is not None and line.due_at <= now:
                        items = list(islice(line.items, self._max_items))
                        self._running.add(key)
                        self._retrying += line.is_retrying
                        line.taken = len(items)
                        if len(waiting) > 1:  # another thread must wait for those, whichever `put` has woken
                            self._changed.notify()
                        return key, line, items
                    # Without a line, all that wait have failed before, and the end of another attempt wakes this one.
                    self._changed.wait(None if line is None else line.due_at - now)
                elif deadline is not None or now >= linger_until:
                    # In the same step as the check: an item that is added now must not count on this thread.
                    self._threads.discard(threading.current_thread())
                    return None
                else:
                    self._changed.wait(linger_until - now)

    def _handle_first(self, key: Hashable, line: _Line[_Item], items: list[_Item]) -> None:
        has_failed_before = line.is_retrying
        progress = Progress(1)
        try:
            progress = self._handle(items)
        except Exception as error:  # noqa: BLE001 - the items after it, and those of other keys, must be handled
            self._report(error)
        finally:
            with self._changed:
                self._running.discard(key)
                self._retrying -= has_failed_before
                line.taken = 0
                line.is_retrying = progress.retry_after_s is not None
                # Behind the other keys: one with many items must not keep them waiting.
                line.due_at = time.monotonic()
                if progress.retry_after_s is not None:
                    pause_s = progress.retry_after_s
                    line.due_at += pause_s if self._close_deadline is None else min(pause_s, _MAX_CLOSING_PAUSE_S)
                if progress.done and line.items:  # otherwise they were discarded
                    for _ in range(progress.done):
                        line.items.popleft()
                    self._count -= progress.done
                    if not line.items:
                        del self._lines[key]
                    self._shrunk.notify_all()
                elif line.is_retrying:
                    self._shrunk.notify_all()  # there are not fewer items, but who waits for these need not go on
                if has_failed_before:  # another key that has failed may be handled now
                    self._changed.notify()

    def _report(self, error: Exception) -> None:
        """Log an error by its type: its message may contain what a caller said."""
        log.error(
            "an item of a queue was not handled: action=item_failed queue=%s why=%s", self._name, type(error).__name__
        )
