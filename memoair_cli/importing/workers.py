"""Threads that bring batches to a target: each caller's in their order, different callers' at once, few in memory."""

import threading
from collections import deque
from collections.abc import Callable

from memoair_cli.importing.batches import EventBatch


class WorkerPool:
    """A bounded queue with its threads. A caller's next batch waits until the one before it has been delivered.

    ``deliver`` is called with each batch; what it raises ends everything, and stands in ``failure``.
    """

    def __init__(self, threads: int, most_waiting: int, deliver: Callable[[EventBatch], None]) -> None:
        self._deliver = deliver
        self._most_waiting = most_waiting
        self._changed = threading.Condition()
        self._waiting: deque[EventBatch] = deque()
        self._busy: set[str] = set()  # the callers of whom a batch is on its way
        self._is_over = False
        self.failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"memoair-import-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, batch: EventBatch, timeout_s: float) -> bool:
        """Hand over a batch; tell whether there was room for it in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_over or self._has_room(), timeout_s) or self._is_over:
                return False
            self._waiting.append(batch)
            self._changed.notify_all()
            return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until all is delivered; tell whether that came true in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_over or not (self._waiting or self._busy), timeout_s)

    def stop(self) -> None:
        """Begin no other batch, and wait for those that are on their way. Twice is no harm."""
        with self._changed:
            self._is_over = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _has_room(self) -> bool:
        return len(self._waiting) < self._most_waiting

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            try:
                self._deliver(batch)
            except BaseException as error:  # noqa: BLE001 - told by whoever waits for the end
                with self._changed:
                    self.failure = self.failure or error
                    self._is_over = True
            with self._changed:
                self._busy.discard(batch.user_id)
                self._changed.notify_all()

    def _take(self) -> EventBatch | None:
        with self._changed:
            while not self._is_over:
                batch = next((each for each in self._waiting if each.user_id not in self._busy), None)
                if batch is not None:
                    self._waiting.remove(batch)
                    self._busy.add(batch.user_id)
                    return batch
                self._changed.wait()
            return None
