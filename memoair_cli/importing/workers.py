"""Threads that send batches to a target: those of one user in order, those of different users in parallel."""

import threading
from collections import deque
from collections.abc import Callable

from memoair_cli.importing.batches import EventBatch


class WorkerPool:
    """A bounded queue and its threads. A user's next batch waits until the previous one is delivered.

    Args:
        threads: The number of threads.
        max_waiting: The number of batches in the queue.
        deliver: Called with each batch. If it raises, the pool stops, and the error is in ``failure``.
    """

    def __init__(self, threads: int, max_waiting: int, deliver: Callable[[EventBatch], None]) -> None:
        self._deliver = deliver
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[EventBatch] = deque()
        self._busy_users: set[str] = set()  # users with a batch in flight
        self._is_stopped = False
        self.failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"memoair-import-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, batch: EventBatch, timeout_s: float) -> bool:
        """Submit a batch. Return False if the queue stayed full for the timeout, or the pool is stopped."""
        with self._changed:
            if (
                not self._changed.wait_for(lambda: self._is_stopped or self._has_capacity(), timeout_s)
                or self._is_stopped
            ):
                return False
            self._waiting.append(batch)
            self._changed.notify_all()
            return True

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until all batches are delivered. Return False if the timeout expires first."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._is_stopped or not (self._waiting or self._busy_users), timeout_s
            )

    def stop(self) -> None:
        """Discard waiting batches, and wait for those in flight. Safe to call twice."""
        with self._changed:
            self._is_stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _has_capacity(self) -> bool:
        return len(self._waiting) < self._max_waiting

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                self._deliver(batch)
            except BaseException as error:  # noqa: BLE001 - the thread that reads `failure` reports it
                with self._changed:
                    self.failure = self.failure or error
                    self._is_stopped = True
            with self._changed:
                self._busy_users.discard(batch.user_id)
                self._changed.notify_all()

    def _next_batch(self) -> EventBatch | None:
        with self._changed:
            while not self._is_stopped:
                batch = next((batch for batch in self._waiting if batch.user_id not in self._busy_users), None)
                if batch is not None:
                    self._waiting.remove(batch)
                    self._busy_users.add(batch.user_id)
                    return batch
                self._changed.wait()
            return None
