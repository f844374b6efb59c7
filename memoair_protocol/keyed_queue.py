"""A queue whose few threads handle the items of each key in order, and those of different keys at once."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
# While the queue is being closed, its time is short.
_MAX_CLOSING_PAUSE_S = 0.1


class _Line(Generic[_Item]):
    """The items of one key. The first one is being handled if ``is_running``."""

    __slots__ = ("due_at", "is_running", "items")

    def __init__(self, due_at: float) -> None:
        self.items: deque[_Item] = deque()
        self.is_running = False
        self.due_at = due_at


class KeyedQueue(Generic[_Item]):
    """Items that a few threads handle in the background: those of one key one at a time and in order.

    The first item starts a thread. A thread ends when it has nothing to do, or the queue is closed. If the process can
    start no more threads, items wait for the next call of a method. Safe to use from any thread.

    Args:
        handle: Called with each item, in a thread. If it returns a number, it is called with the same item again after
            so many seconds, before it gets later items of the key. If it raises, the item is done, and its thread ends.
        name: The name of the threads.
        max_threads: The largest number of threads.
        linger_s: How long a thread waits for another item before it ends, in seconds.
    """

    def __init__(
        self, handle: Callable[[_Item], float | None], *, name: str, max_threads: int = 1, linger_s: float = 0.0
    ) -> None:
        self._handle = handle
        self._name = name
        self._max_threads = max_threads
        self._linger_s = linger_s
        self._close_deadline: float | None = None
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Drop everything in the child of a fork: the items and the threads belong to the parent."""
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # there is something to do for a thread, or nothing any more
        self._shrunk = threading.Condition(lock)  # there are fewer items
        self._lines: dict[Hashable, _Line[_Item]] = {}  # only lines with items
        self._running: set[Hashable] = set()  # keys with an item that is being handled, also if it was discarded
        self._threads: set[threading.Thread] = set()
        self._count = 0

    def __len__(self) -> int:
        """Return the number of items that wait or are being handled."""
        return self._count

    def __contains__(self, key: Hashable) -> bool:
        """Return whether an item of this key waits or is being handled. Takes no lock."""
        return key in self._lines

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
            while should_replace and len(line.items) > line.is_running:
                line.items.pop()
                self._count -= 1
            line.items.append(item)
            self._count += 1
            self._start_thread()
            self._changed.notify()
        return True

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
        for thread in threads:
            thread.join(join_timeout_s)
        with self._changed:
            left = self._count
            for key in list(self._lines):
                self.discard(key)
        return left

    def _start_thread(self) -> None:
        """Start a thread if there are more keys with items than threads without."""
        if len(self._threads) >= self._max_threads:
            return
        idle = len(self._threads) - len(self._running)
        if idle < len(self._lines.keys() - self._running):
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            with suppress(RuntimeError):  # the process is at its thread limit, or exiting
                thread.start()  # it waits for the lock
                self._threads.add(thread)

    def _run(self) -> None:
        try:
            while (due := self._wait_for_due()) is not None:
                self._handle_first(*due)
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())
                self._changed.notify()

    def _wait_for_due(self) -> tuple[Hashable, _Line[_Item], _Item] | None:
        """Wait until an item is due and return it with its key and line; return None if the thread is to end."""
        linger_until = time.monotonic() + self._linger_s
        with self._changed:
            while True:
                now, deadline = time.monotonic(), self._close_deadline
                waiting = [entry for entry in self._lines.items() if entry[0] not in self._running]
                if waiting and (deadline is None or now < deadline):
                    key, line = min(waiting, key=lambda entry: entry[1].due_at)
                    if line.due_at <= now:
                        self._running.add(key)
                        line.is_running = True
                        if len(waiting) > 1:  # another thread must wait for those, whichever `put` has woken
                            self._changed.notify()
                        return key, line, line.items[0]
                    self._changed.wait(line.due_at - now)
                elif deadline is not None or now >= linger_until:
                    # In the same step as the check: an item that is added now must not count on this thread.
                    self._threads.discard(threading.current_thread())
                    return None
                else:
                    self._changed.wait(linger_until - now)

    def _handle_first(self, key: Hashable, line: _Line[_Item], item: _Item) -> None:
        pause_s = None
        try:
            pause_s = self._handle(item)
        finally:
            with self._changed:
                self._running.discard(key)
                line.is_running = False
                # Behind the other keys: one with many items must not keep them waiting.
                line.due_at = time.monotonic()
                if pause_s is not None:
                    line.due_at += pause_s if self._close_deadline is None else min(pause_s, _MAX_CLOSING_PAUSE_S)
                elif line.items:  # otherwise they were discarded
                    line.items.popleft()
                    self._count -= 1
                    if not line.items:
                        del self._lines[key]
                    self._shrunk.notify_all()
