"""Turns that no runtime has taken yet: tried again behind the calls, for as long as the client lives."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._handle import CLOSED
from memoair_voice_sync._log import log
from memoair_voice_sync._user import User

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
# A call has some hundred turns; what waits beyond this is a fault of hours, and memory is not for ever.
_MOST = 10_000


@attrs.frozen
class UnsavedTurn:
    """A turn that is to be saved, and in which call. What was said stays out of the ``repr``."""

    user: User = attrs.field(repr=False)
    turn: dict[str, Any] = attrs.field(repr=False)  # the arguments of `MemoAirVoiceMemorySync.after_turn`
    session_id: str | None


@attrs.define
class _UserQueue:
    """One caller's turns, in the order in which they were spoken."""

    turns: deque[UnsavedTurn] = attrs.field(factory=deque)
    tried_next_at: float = 0.0
    pause_s: float = _FIRST_PAUSE_S


class TurnOutbox:
    """Saves the turns of each caller in the order in which they came, each until it is taken or refused for good.

    A caller whose turns are not taken holds up nobody else's. Safe to use from any thread.
    """

    def __init__(
        self, save: Callable[[UnsavedTurn], object], is_final: Callable[[MemoAirVoiceMemoryError], bool]
    ) -> None:
        """``is_final`` tells an error after which there is no use in trying again."""
        self._save = save
        self._is_final = is_final
        self._changed = threading.Condition()
        self._callers: dict[str, _UserQueue] = {}
        self._thread: threading.Thread | None = None
        self._closes_at: float | None = None
        self.lost = 0

    def __len__(self) -> int:
        """Count the turns that wait."""
        with self._changed:
            return sum(len(each.turns) for each in self._callers.values())

    def holds(self, user: User) -> bool:
        """Whether a turn of this caller waits: one that was spoken later must not overtake it."""
        return user.id in self._callers

    def put(self, turn: UnsavedTurn) -> None:
        """Save a turn as soon as it can be; raises ``pool.closed`` where nothing will be saved any more."""
        with self._changed:
            if self._closes_at is not None:
                raise MemoAirVoiceMemoryError("pool.closed", CLOSED)
            if len(self) >= _MOST:
                self.lost += 1
                log.error("too many turns could not be saved, another one is lost: action=turn_lost lost=%d", self.lost)
                return
            self._callers.setdefault(turn.user.id, _UserQueue()).turns.append(turn)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="memoair-outbox", daemon=True)
                self._thread.start()

    def drop(self, user: User) -> bool:
        """Let go of a caller's turns: he is forgotten. Tells whether there were some."""
        with self._changed:
            dropped = self._callers.pop(user.id, None)
            self._changed.notify_all()
        return dropped is not None

    def close(self, timeout_s: float) -> None:
        """Try for so long to save what is left; tell of what is not."""
        with self._changed:
            self._closes_at = time.monotonic() + timeout_s
            for each in self._callers.values():
                each.tried_next_at, each.pause_s = 0.0, _FIRST_PAUSE_S
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s + _LONGEST_PAUSE_S)
        with self._changed:
            left = len(self)
            self._callers.clear()
        if left:
            self.lost += left
            log.error("turns could not be saved before the end: action=turns_lost turns=%d", left)

    def forget(self) -> None:
        """After a fork, in the child: the parent saves them."""
        self._changed, self._thread = threading.Condition(), None
        self._callers.clear()

    def _run(self) -> None:
        while (waiting := self._next()) is not None:
            turn = waiting.turns[0]
            try:
                self._save(turn)
            except Exception as error:  # noqa: BLE001 - the turns behind it are to be saved, whatever it was
                if isinstance(error, MemoAirVoiceMemoryError) and not self._is_final(error):
                    self._try_later(waiting)
                    continue
                self.lost += 1
                code = getattr(error, "code", type(error).__name__)
                log.error("a turn is refused for good: action=turn_lost code=%s", code)
            self._saved(turn, waiting)

    def _next(self) -> _UserQueue | None:
        """The caller whose turn is to be tried next, once it is time; None where none is left or the end has come."""
        with self._changed:
            while self._callers:
                now = time.monotonic()
                if self._closes_at is not None and now > self._closes_at:
                    break
                waiting = min(self._callers.values(), key=lambda each: each.tried_next_at)
                if waiting.tried_next_at <= now:
                    return waiting
                self._changed.wait(waiting.tried_next_at - now)
            self._thread = None
            return None

    def _try_later(self, waiting: _UserQueue) -> None:
        with self._changed:
            waiting.tried_next_at = time.monotonic() + waiting.pause_s
            longest_s = _LONGEST_PAUSE_S if self._closes_at is None else _FIRST_PAUSE_S
            waiting.pause_s = min(2 * waiting.pause_s, longest_s)

    def _saved(self, turn: UnsavedTurn, waiting: _UserQueue) -> None:
        with self._changed:
            if waiting.turns and waiting.turns[0] is turn:  # else the end has come meanwhile
                waiting.turns.popleft()
            waiting.pause_s = _FIRST_PAUSE_S
            waiting.tried_next_at = time.monotonic()  # one after the other: no caller who talks on keeps others waiting
            if not waiting.turns and self._callers.get(turn.user.id) is waiting:
                del self._callers[turn.user.id]
