"""Turns that could not be saved yet: retried in the background for as long as the client lives."""

from collections.abc import Callable

import attrs

from memoair_protocol.backoff import Backoff
from memoair_protocol.keyed_queue import KeyedQueue
from memoair_voice_sync._closing import closed_error
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync._turns.user import User
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

_BACKOFF = Backoff(0.1, 5.0, jitter=0)
# A call has some hundred turns. More pending turns than this mean an outage of hours, and memory is finite.
_MAX_PENDING_TURNS = 10_000


@attrs.define
class UnsavedTurn:
    """A turn to save, and its session. The ``repr`` does not show what was said."""

    user: User = attrs.field(repr=False)
    turn: Turn = attrs.field(repr=False)
    session_id: str | None
    failures: int = 0


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
        self._queue = KeyedQueue(self._try_to_save, name="memoair-outbox")  # by user id
        self.lost = 0

    def __len__(self) -> int:
        """Return the number of pending turns."""
        return len(self._queue)

    def has_pending(self, user: User) -> bool:
        """Return whether turns of this user are pending: a later turn must not overtake them."""
        return user.id in self._queue

    def turns_of_call(self, user: User, session_id: str, *, is_unnamed: bool) -> list[UnsavedTurn]:
        """Return the pending turns of a call, in order; of a turn and its correction, only the correction.

        With ``is_unnamed``, turns that were put without a session belong to it, too.
        """
        turns: dict[str, UnsavedTurn] = {}
        for unsaved in self._queue.items(user.id):
            if unsaved.session_id == session_id or (is_unnamed and unsaved.session_id is None):
                turns[unsaved.turn.turn_id] = unsaved
        return list(turns.values())

    def put(self, turn: UnsavedTurn) -> None:
        """Save a turn as soon as possible; raise ``pool.closed`` after `close`."""
        if len(self._queue) >= _MAX_PENDING_TURNS:
            self.lost += 1
            log.error("too many turns are pending, and one is lost: action=turn_lost lost=%d", self.lost)
        elif not self._queue.put(turn.user.id, turn):
            raise closed_error()

    def discard(self, user: User) -> bool:
        """Discard the turns of a user who is erased; return whether there were any."""
        return self._queue.discard(user.id)

    def close(self, timeout_s: float) -> None:
        """Try for ``timeout_s`` to save the pending turns; log how many are lost."""
        unsaved = self._queue.close(timeout_s, join_timeout_s=timeout_s + _BACKOFF.max_s)
        if unsaved:
            self.lost += unsaved
            log.error("turns could not be saved before the client was closed: action=turns_lost turns=%d", unsaved)

    def reset_after_fork(self) -> None:
        """Drop the turns in the child of a fork: the parent saves them."""
        self._queue.reset_after_fork()

    def _try_to_save(self, turn: UnsavedTurn) -> float | None:
        """Save a turn. Return the seconds until the next attempt, or None if it is saved or lost."""
        try:
            self._save(turn)
        except Exception as error:  # noqa: BLE001 - the turns after it must be saved whatever the error is
            if isinstance(error, MemoAirVoiceMemoryError) and not self._is_permanent(error):
                turn.failures += 1
                return _BACKOFF.pause_s(turn.failures)
            self.lost += 1
            code = getattr(error, "code", type(error).__name__)
            log.error("a turn cannot be saved and is lost: action=turn_lost code=%s", code)
        return None
