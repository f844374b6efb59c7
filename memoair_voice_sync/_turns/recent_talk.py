"""What was said right before a turn, in memory: a number may continue there, or answer a question."""

import threading
from collections import OrderedDict
from collections.abc import Callable

import attrs

from memoair_voice_sync._after_fork import register_after_fork

# Calls in progress in one client; the call that was silent longest makes room.
_MAX_CALLS = 1_000
# A turn is saved again soon, or never.
_MAX_TURNS = 16

CallKey = tuple[str, object]  # the id of the user, and what identifies the call


@attrs.frozen
class Preceding:
    """What matters of what was said before a turn. The ``repr`` does not show it.

    Attributes:
        user: The end of what the caller has said, if a number in it may continue.
        assistant: The same of the agent.
        question: The end of what the agent has said last, which may ask for a number.
    """

    user: str = attrs.field(default="", repr=False)
    assistant: str = attrs.field(default="", repr=False)
    question: str = attrs.field(default="", repr=False)


@attrs.define
class _CallTalk:
    latest: Preceding = attrs.field(factory=Preceding)
    by_turn: OrderedDict[str, Preceding] = attrs.field(factory=OrderedDict)


class RecentTalk:
    """The ends of the last turns of each call. Safe to use from any thread.

    They are kept as they were said, since the parts of a number are recognized only together. They are in memory alone.
    """

    def __init__(self) -> None:
        """Create it without calls."""
        self._calls: OrderedDict[CallKey, _CallTalk] = OrderedDict()
        self._lock = threading.Lock()
        register_after_fork(self, RecentTalk._reset_after_fork)

    def advance(self, call: CallKey, turn_id: str, follow: Callable[[Preceding], Preceding]) -> Preceding:
        """Return what precedes a turn, and remember what ``follow`` makes of it for the turn after it.

        A turn that comes again has the same before it as the first time.
        """
        with self._lock:
            state = self._calls.setdefault(call, _CallTalk())
            self._calls.move_to_end(call)
            if turn_id in state.by_turn:
                return state.by_turn[turn_id]
            preceding = state.by_turn[turn_id] = state.latest
            state.latest = follow(preceding)
            if len(state.by_turn) > _MAX_TURNS:
                state.by_turn.popitem(last=False)
            if len(self._calls) > _MAX_CALLS:
                self._calls.popitem(last=False)
            return preceding

    def forget(self, user_id: str) -> None:
        """Drop what a user has said."""
        with self._lock:
            for call in [call for call in self._calls if call[0] == user_id]:
                del self._calls[call]

    def _reset_after_fork(self) -> None:
        self._calls, self._lock = OrderedDict(), threading.Lock()
