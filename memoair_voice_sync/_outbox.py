"""Turns that no runtime has taken yet: tried again behind the calls, for as long as the client lives."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._log import log
from memoair_voice_sync._user import User

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
# A call has some hundred turns; what waits beyond this is a fault of hours, and memory is not for ever.
_MOST = 10_000


@attrs.frozen
class UnsavedTurn:
    """A turn that is to be saved. What was said stays out of the ``repr``."""

    user: User = attrs.field(repr=False)
    turn: dict[str, Any] = attrs.field(repr=False)  # the arguments of `MemoAirVoiceMemorySync.after_turn`


class Outbox:
    """Saves turns in the order in which they came, each until it is taken or refused for good. Thread-safe."""

    def __init__(
        self, save: Callable[[UnsavedTurn], object], is_final: Callable[[MemoAirVoiceMemoryError], bool]
    ) -> None:
        """``is_final`` tells an error after which there is no use in trying again."""
        self._save = save
        self._is_final = is_final
        self._changed = threading.Condition()
        self._turns: deque[UnsavedTurn] = deque()
        self._thread: threading.Thread | None = None
        self._closes_at: float | None = None
        self.lost = 0

    def __len__(self) -> int:
        """Count the turns that wait."""
        return len(self._turns)

    def holds(self, user: User) -> bool:
        """Whether a turn of this caller waits: one that was spoken later must not overtake it."""
        with self._changed:
            return any(each.user.id == user.id for each in self._turns)

    def put(self, turn: UnsavedTurn) -> None:
        """Save a turn as soon as it can be."""
        with self._changed:
            if len(self._turns) >= _MOST:
                self._turns.popleft()
                self.lost += 1
                log.error("too many turns could not be saved, the oldest is lost: action=turn_lost lost=%d", self.lost)
            self._turns.append(turn)
            if self._thread is None and self._closes_at is None:
                self._thread = threading.Thread(target=self._run, name="memoair-outbox", daemon=True)
                self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Try for so long to save what is left; tell of what is not."""
        with self._changed:
            self._closes_at = time.monotonic() + timeout_s
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s + _LONGEST_PAUSE_S)
        with self._changed:
            if self._turns:
                self.lost += len(self._turns)
                log.error("turns could not be saved before the end: action=turns_lost turns=%d", len(self._turns))
                self._turns.clear()

    def forget(self) -> None:
        """After a fork, in the child: the parent saves them."""
        self._changed, self._thread = threading.Condition(), None
        self._turns.clear()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            with self._changed:
                if not self._turns or (self._closes_at is not None and time.monotonic() > self._closes_at):
                    self._thread = None
                    return
                turn = self._turns[0]
            try:
                self._save(turn)
            except MemoAirVoiceMemoryError as error:
                if not self._is_final(error):
                    with self._changed:
                        self._changed.wait(_FIRST_PAUSE_S if self._closes_at is not None else pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                    continue
                self.lost += 1
                log.error("a turn is refused for good: action=turn_lost code=%s", error.code)
            pause_s = _FIRST_PAUSE_S
            with self._changed:
                if self._turns and self._turns[0] is turn:
                    self._turns.popleft()
