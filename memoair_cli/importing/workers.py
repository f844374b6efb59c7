"""Threads that bring batches to a target: each caller's in their order, different callers' at once, few in memory."""

import threading
from collections import deque
from collections.abc import Callable

from memoair_cli.importing.batches import EventBatch


class WorkerPool:
    """A bounded queue with its threads. A caller's next batch waits until the one before it has been delivered.

    ``deliver`` is called with each batch; what it raises ends everything, and stands in ``failure``.
    """

    def __init__(self, threads: int, max_waiting: int, deliver: Callable[[EventBatch], None]) -> None:
        self._deliver = deliver
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[EventBatch] = deque()
        self._busy_users: set[str] = set()  # the callers of whom a batch is on its way
        self._is_stopped = False
        self.failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"memoair-import-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, batch: EventBatch, timeout_s: float) -> bool:
        """Hand over a batch; tell whether there was room for it in time."""
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
        """Wait until all is delivered; tell whether that came true in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._is_stopped or not (self._waiting or self._busy_users), timeout_s
            )

    def stop(self) -> None:
        """Begin no other batch, and wait for those that are on their way. Twice is no harm."""
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
            except BaseException as error:  # noqa: BLE001 - told by whoever waits for the end
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
