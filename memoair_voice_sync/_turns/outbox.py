"""Turns that could not be saved yet: retried in the background for as long as the client lives."""

import threading
import time
from collections import deque
from collections.abc import Callable

import attrs

from memoair_protocol.backoff import Backoff
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._pool.handle import CLIENT_CLOSED
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync._turns.user import User
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

_BACKOFF = Backoff(0.1, 5.0, jitter=0)
# While the client is being closed, its time is short.
_CLOSING_BACKOFF = Backoff(0.1, 0.1, jitter=0)
# A call has some hundred turns. More pending turns than this mean an outage of hours, and memory is finite.
_MAX_PENDING_TURNS = 10_000


@attrs.frozen
class UnsavedTurn:
    """A turn to save, and its session. The ``repr`` does not show what was said."""

    user: User = attrs.field(repr=False)
    turn: Turn = attrs.field(repr=False)
    session_id: str | None


@attrs.define
class _UserQueue:
    """The pending turns of one user, in the order in which they were spoken."""

    turns: deque[UnsavedTurn] = attrs.field(factory=deque)
    next_attempt_at: float = 0.0
    failures: int = 0  # in a row


class TurnOutbox:
    """Pending turns, saved for each user in order, each until it is saved or fails permanently.

    Turns of one user that cannot be saved do not delay those of other users. Safe to use from any thread.
    """

    def __init__(
        self, save: Callable[[UnsavedTurn], object], is_permanent: Callable[[MemoAirVoiceMemoryError], bool]
    ) -> None:
        """Create an empty outbox.

        ``save`` saves a turn or raises; ``is_permanent`` tells whether retrying after an error is useless.
        """
        self._save = save
        self._is_permanent = is_permanent
        self._changed = threading.Condition()
        self._queues: dict[str, _UserQueue] = {}
        self._thread: threading.Thread | None = None
        self._close_deadline: float | None = None
        self.lost = 0

    def __len__(self) -> int:
        """Return the number of pending turns."""
        with self._changed:
            return sum(len(queue.turns) for queue in self._queues.values())

    def has_pending(self, user: User) -> bool:
        """Return whether turns of this user are pending: a later turn must not overtake them."""
        return user.id in self._queues

    def put(self, turn: UnsavedTurn) -> None:
        """Save a turn as soon as possible; raise ``pool.closed`` after `close`."""
        with self._changed:
            if self._close_deadline is not None:
                raise MemoAirVoiceMemoryError("pool.closed", CLIENT_CLOSED)
            if len(self) >= _MAX_PENDING_TURNS:
                self.lost += 1
                log.error("too many turns are pending, and one is lost: action=turn_lost lost=%d", self.lost)
                return
            self._queues.setdefault(turn.user.id, _UserQueue()).turns.append(turn)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="memoair-outbox", daemon=True)
                self._thread.start()

    def discard(self, user: User) -> bool:
        """Discard the turns of a user who is erased; return whether there were any."""
        with self._changed:
            dropped = self._queues.pop(user.id, None)
            self._changed.notify_all()
        return dropped is not None

    def close(self, timeout_s: float) -> None:
        """Try for ``timeout_s`` to save the pending turns; log how many are lost."""
        with self._changed:
            self._close_deadline = time.monotonic() + timeout_s
            for queue in self._queues.values():
                queue.next_attempt_at, queue.failures = 0.0, 0
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s + _BACKOFF.max_s)
        with self._changed:
            unsaved = len(self)
            self._queues.clear()
        if unsaved:
            self.lost += unsaved
            log.error("turns could not be saved before the client was closed: action=turns_lost turns=%d", unsaved)

    def reset_after_fork(self) -> None:
        """Drop the turns in the child of a fork: the parent saves them."""
        self._changed, self._thread = threading.Condition(), None
        self._queues.clear()

    def _run(self) -> None:
        while (queue := self._wait_for_due_queue()) is not None:
            turn = queue.turns[0]
            try:
                self._save(turn)
            except Exception as error:  # noqa: BLE001 - the turns after it must be saved whatever the error is
                if isinstance(error, MemoAirVoiceMemoryError) and not self._is_permanent(error):
                    self._schedule_retry(queue)
                    continue
                self.lost += 1
                code = getattr(error, "code", type(error).__name__)
                log.error("a turn cannot be saved and is lost: action=turn_lost code=%s", code)
            self._remove_first(turn, queue)

    def _wait_for_due_queue(self) -> _UserQueue | None:
        """Wait until a queue is due and return it; return None if all are empty or the close deadline has passed."""
        with self._changed:
            while self._queues:
                now = time.monotonic()
                if self._close_deadline is not None and now > self._close_deadline:
                    break
                queue = min(self._queues.values(), key=lambda queue: queue.next_attempt_at)
                if queue.next_attempt_at <= now:
                    return queue
                self._changed.wait(queue.next_attempt_at - now)
            self._thread = None
            return None

    def _schedule_retry(self, queue: _UserQueue) -> None:
        with self._changed:
            queue.failures += 1
            backoff = _BACKOFF if self._close_deadline is None else _CLOSING_BACKOFF
            queue.next_attempt_at = time.monotonic() + backoff.pause_s(queue.failures)

    def _remove_first(self, turn: UnsavedTurn, queue: _UserQueue) -> None:
        with self._changed:
            if queue.turns and queue.turns[0] is turn:  # otherwise `close` or `discard` has emptied the queue
                queue.turns.popleft()
            queue.failures = 0
            # Behind the other queues: a user who goes on talking must not keep them waiting.
            queue.next_attempt_at = time.monotonic()
            if not queue.turns and self._queues.get(turn.user.id) is queue:
                del self._queues[turn.user.id]
