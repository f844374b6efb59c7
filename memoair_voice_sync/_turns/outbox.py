"""Turns that could not be saved yet: on the disk, and saved in the background by this client or a later one."""

import threading
import time
import weakref
from collections.abc import Callable, Sequence

from memoair_protocol.backoff import Backoff
from memoair_protocol.keyed_queue import KeyedQueue, Progress
from memoair_protocol.limits import MAX_TURNS
from memoair_protocol.threads import ThreadUnavailableError, run_loop, start_thread
from memoair_voice_sync._closing import closed_error
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._turns.spool import TurnSpool
from memoair_voice_sync._turns.unsaved_turn import UnsavedTurn
from memoair_voice_sync._turns.user import User
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

_BACKOFF = Backoff(0.1, 5.0, jitter=0)
# A call has some hundred turns. More pending turns than this mean an outage of hours, and memory is finite.
_MAX_PENDING_TURNS = 10_000
_MAX_PENDING_TURNS_OF_USER = 5_000
# One request takes a megabyte. A batch that fills it would take the time of several.
_MAX_BATCH_BYTES = 256 << 10
# How often to look for turns of clients that have ended, and for threads that could not be started.
_TEND_INTERVAL_S = 2.0
# A batch takes a few milliseconds.
_CATCH_UP_TIMEOUT_S = 0.05


class TurnOutbox:
    """Pending turns, saved for each user in order, each until it is saved or fails permanently.

    A turn that waits is in the spool, if there is one, so that it survives this client; turns that a client has left
    are saved by the next one, or by another one that is running. Several turns of a user are saved with one request.
    Users whose turns cannot be saved now take at most half of the threads, so the turns of the others need not wait for
    them. Safe to use from any thread.
    """

    def __init__(
        self,
        save: Callable[[Sequence[UnsavedTurn]], object],
        is_permanent: Callable[[MemoAirVoiceMemoryError], bool],
        *,
        spool: TurnSpool | None = None,
        max_threads: int = 2,
    ) -> None:
        """Create an empty outbox.

        Args:
            save: Saves turns of one user and session, all or some of them, and raises unless it has saved all.
            is_permanent: Tells whether retrying after an error is useless.
            spool: Where turns wait on the disk. None means in memory alone.
            max_threads: The largest number of threads that save, at least 2.
        """
        self._save = save
        self._is_permanent = is_permanent
        self._spool = spool
        self._queue = KeyedQueue.batched(  # by user id
            self._try_to_save,
            max_items=MAX_TURNS,
            name="memoair-outbox",
            max_threads=max_threads,
            max_retrying=max_threads // 2,
        )
        self._is_closed = False
        self.lost = 0
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Drop the turns in the child of a fork: the parent saves them."""
        self._lock = threading.Lock()
        self._adopted = 0  # pending turns of clients that have ended
        self._tender: threading.Thread | None = None
        self._tend_at = 0.0  # the next time (monotonic seconds)
        self._stop = threading.Event()
        self._queue.reset_after_fork()
        if self._spool is not None:
            self._spool.reset_after_fork()

    def __len__(self) -> int:
        """Return the number of pending turns."""
        return len(self._queue)

    def has_pending(self, user: User) -> bool:
        """Return whether turns of this user are pending: a later turn must not overtake them."""
        return user.id in self._queue

    def catch_up(self, user: User) -> bool:
        """Wait a moment for the pending turns of a user, as long as saving them succeeds.

        A caller who speaks without a pause would otherwise add a turn behind each one that is saved.

        Returns:
            Whether no turn of the user is pending any more.
        """
        return self._queue.wait_until_done(user.id, _CATCH_UP_TIMEOUT_S)

    def turns_of_call(self, user: User, session_id: str, *, is_unnamed: bool) -> list[UnsavedTurn]:
        """Return the pending turns of a call, in order; of a turn and its correction, only the correction.

        With ``is_unnamed``, turns that were put without a session belong to it, too.
        """
        turns: dict[str, UnsavedTurn] = {}
        for unsaved in self._queue.items(user.id):
            if unsaved.session_id == session_id or (is_unnamed and unsaved.session_id is None):
                turns[unsaved.turn.turn_id] = unsaved
        return list(turns.values())

    def count_spooled(self) -> int:
        """Return how many turns wait on the disk, of all clients with this storage root, project and cloud."""
        return 0 if self._spool is None else self._spool.count()

    def tend(self) -> None:
        """Look after turns that clients have left, and start threads that are missing; at most every two seconds.

        Each call of the client does this. A thread runs only while there is a spool: most clients never have one.
        """
        now = time.monotonic()
        if now < self._tend_at:
            return
        self._tend_at = now + _TEND_INTERVAL_S
        if self._queue:
            self._queue.wake()
        if self._spool is None or not self._spool.exists():
            return
        with self._lock:
            if self._tender is None and not self._is_closed:
                stop = self._stop
                # The thread must not keep an unclosed client alive.
                outbox = weakref.ref(self, lambda _: stop.set())
                try:
                    self._tender = start_thread(_tend, name="memoair-spool", args=(outbox, stop))
                except ThreadUnavailableError:  # the next call tries again
                    self._tend_at = 0.0
                    log.warning("the spool is not looked after yet: action=spool_untended")

    @property
    def is_waiting(self) -> bool:
        """Whether turns wait for a thread, because the process could start none."""
        return self._queue.is_waiting

    def start_waiting(self) -> None:
        """Try again to start the threads."""
        self._queue.wake()

    def put(self, turn: UnsavedTurn) -> None:
        """Save a turn as soon as possible; with a spool, it is on the disk when this returns.

        Raises:
            MemoAirVoiceMemoryError: ``pool.closed`` after `close`, ``pool.outbox_full`` if too many turns wait, or
                ``runtime.storage_unavailable`` if the turn cannot be written to the spool. It is then not kept.
        """
        if self._is_closed:
            raise closed_error()
        if (
            len(self._queue) - self._adopted >= _MAX_PENDING_TURNS
            or self._queue.count(turn.user.id) >= _MAX_PENDING_TURNS_OF_USER
        ):
            message = f"{len(self._queue):,} turns wait to be saved, and no more are accepted: check disk and runtimes"
            raise MemoAirVoiceMemoryError("pool.outbox_full", message)
        if self._spool is None:
            turn.size_bytes = len(turn.encode())
        else:
            try:
                turn.entry = self._spool.append(turn)
            except OSError as error:
                message = f"no runtime has saved the turn, and it cannot be written to the outbox: {error.strerror}"
                raise MemoAirVoiceMemoryError("runtime.storage_unavailable", message) from error
        if not self._queue.put(turn.user.id, turn):
            self._mark_done([turn])
            raise closed_error()

    def discard(self, user: User) -> bool:
        """Discard the turns of a user who is erased, also those of other clients; return whether there were any.

        Raises:
            MemoAirVoiceMemoryError: ``runtime.storage_unavailable`` if they cannot be removed from the disk.
        """
        turns = self._queue.items(user.id)
        had_any = self._queue.discard(user.id)
        self._uncount_adopted(turns)
        try:
            return (self._spool is not None and self._spool.erase(user.id)) or had_any
        except OSError as error:
            message = f"turns that wait to be saved cannot be erased: {error.strerror}"
            raise MemoAirVoiceMemoryError("runtime.storage_unavailable", message) from error

    def close(self, timeout_s: float) -> None:
        """Try for ``timeout_s`` to save the pending turns; log how many are left to other clients, or lost."""
        with self._lock:
            self._is_closed = True
            tender, self._tender = self._tender, None
            self._stop.set()
        if tender is not None:
            tender.join()
        left = self._queue.close(timeout_s if self._queue else 0.0, join_timeout_s=timeout_s + _BACKOFF.max_s)
        if self._spool is not None:
            self._spool.close()
            if left:
                log.warning("turns wait on the disk for another client: action=turns_left turns=%d", left)
        elif left:
            self.lost += left
            log.error("turns could not be saved before the client was closed: action=turns_lost turns=%d", left)

    def tend_once(self) -> bool:
        """Save what clients have left; return whether there is still something to look after."""
        self._queue.wake()
        for turn in () if self._spool is None else self._spool.adopt(_MAX_PENDING_TURNS - self._adopted):
            with self._lock:
                self._adopted += 1
            if not self._queue.put(turn.user.id, turn):  # this client is being closed: the next one saves it
                return False
        with self._lock:
            if self._spool is None or not self._spool.exists():
                self._tender = None  # in the same step as the check, see `tend`
                return False
        return True

    def _try_to_save(self, turns: Sequence[UnsavedTurn]) -> Progress:
        """Save turns of a user, as many as fit into one request. Those that are lost are done, too."""
        head, batch = turns[0], _choose_batch(turns)
        try:
            self._save(batch)
        except Exception as error:  # noqa: BLE001 - the turns after it must be saved whatever the error is
            if not self._is_lost(error):
                head.failures += 1
                return Progress(0, _BACKOFF.pause_s(head.failures))
            if len(batch) > 1:  # it may be any of them
                return self._try_to_save(batch[:1])
            self.lost += 1
            code = getattr(error, "code", type(error).__name__)
            log.error("a turn cannot be saved and is lost: action=turn_lost code=%s", code)
        self._mark_done(batch)
        return Progress(len(batch))

    def _is_lost(self, error: Exception) -> bool:
        """Return whether a turn can never be saved. A moment without memory, threads or descriptors passes."""
        if isinstance(error, MemoAirVoiceMemoryError):
            return self._is_permanent(error)
        return isinstance(error, TypeError | ValueError)

    def _uncount_adopted(self, turns: Sequence[UnsavedTurn]) -> None:
        with self._lock:
            for turn in turns:
                self._adopted -= turn.is_adopted
                turn.is_adopted = False

    def _mark_done(self, turns: Sequence[UnsavedTurn]) -> None:
        self._uncount_adopted(turns)
        if self._spool is not None:
            self._spool.mark_done(turn.entry for turn in turns if turn.entry is not None)


def _choose_batch(turns: Sequence[UnsavedTurn]) -> Sequence[UnsavedTurn]:
    """Return the first turns that can be saved with one request: those of one call, with the same user fields."""
    head, size = turns[0], 0
    for position, turn in enumerate(turns):
        size += turn.size_bytes
        belongs = turn.session_id == head.session_id and turn.user == head.user
        if position and (not belongs or size > _MAX_BATCH_BYTES):
            return turns[:position]
    return turns


def _tend(reference: "weakref.ref[TurnOutbox]", stop: threading.Event) -> None:
    """Tend an outbox until it is closed or collected."""

    def step() -> bool:
        outbox = reference()
        if outbox is None or stop.is_set():
            return False
        goes_on = outbox.tend_once()
        del outbox
        return goes_on and not stop.wait(_TEND_INTERVAL_S)

    run_loop(step, report=_report, wait=stop.wait)


def _report(error: Exception) -> None:
    log.error("the spool cannot be looked after: action=spool_failed why=%s", type(error).__name__)
