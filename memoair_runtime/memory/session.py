"""One session (a call): its state, and what may happen in which."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

import attrs

from memoair_runtime.errors import SessionNotFoundError
from memoair_runtime.storage.events import Event, EventType, new_event
from memoair_runtime.storage.session_log import SessionLog, storage_error
from memoair_runtime.storage.user_folder import UserFolder


class SessionState(Enum):
    """Where a session stands."""

    NEW = "unheard"  # nobody has started it and nothing is logged
    OPEN = "open"  # started, by name or by its first turn
    ENDED = "ended"  # told to end; neither searched nor written until it is started again


# What each event makes of a session, whatever it was. A start after the end opens it again: a batch that is run a
# second time, whose turns are known. A turn without a start, whose line a bad disk lost, still counts.
_STATE_AFTER = {
    EventType.SESSION_START: SessionState.OPEN,
    EventType.TURN: SessionState.OPEN,
    EventType.SESSION_END: SessionState.ENDED,
}


@attrs.frozen
class SessionStart:
    """What a session is started with: who calls, and what else the agent wants noted."""

    user: Mapping[str, Any]
    metadata: Mapping[str, Any]


class Session(Protocol):
    """A call, as the runtime handles it. Safe to use from any thread."""

    @property
    def id(self) -> str:
        """The session's id."""

    @property
    def state(self) -> SessionState:
        """Where the session stands now."""

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known of it: neither on the disk nor from a start that the disk refused."""

    def start(self, info: SessionStart, now: datetime) -> None:
        """Open the session, or open it again."""

    def save_turn(self, payload: Mapping[str, Any], occurred_at: datetime, now: datetime) -> str | None:
        """Keep a turn and return its event id: the first one's where the turn id is known; None where none is kept."""

    def end(self, reason: str, now: datetime) -> None:
        """Close the session. Ending one that has ended, or that nothing is known of, changes nothing."""


def check_not_ended(session: Session) -> None:
    """Raise `SessionNotFoundError` where the session has ended."""
    if session.state is SessionState.ENDED:
        raise SessionNotFoundError("the session has ended; start it again or use a new session id")


class LoggedSession:
    """A session of the one user whom this process serves; its log is the truth.

    ``on_event`` is called once for every event, whether this process wrote it, another did, or it is from before;
    ``on_logged`` with those that this process has written, once they are on the disk. Both must not wait for anything.
    """

    def __init__(
        self,
        session_id: str,
        folder: UserFolder,
        on_event: Callable[[Event], None],
        on_logged: Callable[[Sequence[Event]], None] = lambda _: None,
    ) -> None:
        self.id = session_id
        self._folder = folder
        self._on_event = on_event
        self._on_logged = on_logged
        self._lock = threading.Lock()
        self._requested_start = SessionStart({"id": folder.user_id}, {})  # as last asked for
        self._is_start_pending = False  # whether a start has not come to the disk yet
        self._reset_state()

    def _reset_state(self) -> None:
        self._log = SessionLog(self._folder.session(self.id), self._apply_event)
        self._state = SessionState.NEW
        self._event_ids: dict[str, str] = {}  # by turn id
        self._last_seq = 0
        self._is_loaded = False
        self._logged_start: SessionStart | None = None

    @property
    def state(self) -> SessionState:
        """Where the session stands now."""
        return self._state

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known of it."""
        return self._state is SessionState.NEW and not self._is_start_pending

    def load(self, *, reload: bool = False) -> None:
        """Read what the log holds so far; once it was read, only where that is asked for again.

        Raises `StorageUnavailableError` where it can't be read; the next call tries again.
        """
        if self._is_loaded and not reload:
            return  # without the lock, which a turn that is being written holds for as long as the disk takes
        with self._lock:
            if reload or not self._is_loaded:
                self._log.read()
                self._is_loaded = True

    def reset(self) -> None:
        """Forget what the log held: it has been deleted, or will be read again. A call that goes on has a new log."""
        with self._lock:
            # What was started here stays started, and is logged anew with the next turn.
            self._is_start_pending |= self._state is SessionState.OPEN and self._requested_start == self._logged_start
            self._reset_state()

    def start(self, info: SessionStart, now: datetime) -> None:
        """Open the session; a repeated start that says nothing new is not logged.

        Where the disk refuses, the fault is raised, and the opening is logged with the first turn that the disk takes.
        """
        with self._lock:
            is_new = self._state is not SessionState.OPEN or info != self._logged_start
            self._requested_start, self._is_start_pending = info, self._is_start_pending or is_new
        with self._open_for_append() as append:
            if self._state is not SessionState.OPEN or info != self._logged_start:
                append([self._new_start_event(now)])
            self._is_start_pending = False

    def save_turn(self, payload: Mapping[str, Any], occurred_at: datetime, now: datetime) -> str:
        """Log a turn, durable when this returns; a known turn id writes nothing."""
        with self._open_for_append() as append:
            known_event_id = self._event_ids.get(payload["turnId"])
            if known_event_id is not None:  # also after the end: a retry that crossed it must not read as a lost turn
                return known_event_id
            check_not_ended(self)
            is_start_due = self._is_start_pending or self._state is SessionState.NEW
            events = [self._new_start_event(min(now, occurred_at))] if is_start_due else []
            turn = self._new_event(EventType.TURN, occurred_at, payload, len(events))
            append([*events, turn])
            self._is_start_pending = False
            return turn.event_id

    def end(self, reason: str, now: datetime) -> None:
        """Close the session."""
        self.load(reload=True)  # another process may have written
        if self._state is SessionState.NEW:
            return
        with self._open_for_append() as append:
            if self._state is SessionState.OPEN:
                append([self._new_event(EventType.SESSION_END, now, {"reason": reason})])

    @contextmanager
    def _open_for_append(self) -> Iterator[Callable[[Sequence[Event]], None]]:
        with self._lock:
            try:
                self._folder.create_session(self.id)
            except OSError as error:
                raise storage_error("the session's folder can't be made under the storage root", error) from error
            with self._log.open_for_append() as append:

                def log(events: Sequence[Event]) -> None:
                    append(events)
                    self._on_logged(events)

                yield log

    def _new_start_event(self, at: datetime) -> Event:
        payload = {"user": self._requested_start.user, "metadata": self._requested_start.metadata}
        return self._new_event(EventType.SESSION_START, at, payload)

    def _new_event(self, type_: EventType, at: datetime, payload: Mapping[str, Any], seq_offset: int = 0) -> Event:
        return new_event(type_, self.id, self._last_seq + seq_offset + 1, at, payload)

    def _apply_event(self, event: Event) -> None:
        self._state = _STATE_AFTER[event.type]
        self._last_seq = max(self._last_seq, event.seq)
        if event.type is EventType.SESSION_START:
            self._logged_start = SessionStart(event.payload.get("user") or {}, event.payload.get("metadata") or {})
            self._is_start_pending &= self._logged_start != self._requested_start
        elif event.type is EventType.TURN:
            self._event_ids[str(event.payload.get("turnId"))] = event.event_id
        self._on_event(event)


class EphemeralSession:
    """A session of which nothing is kept: it asks the organisation's documents only."""

    def __init__(self, session_id: str) -> None:
        self.id = session_id
        self.state = SessionState.NEW

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known of it."""
        return self.state is SessionState.NEW

    def start(self, info: SessionStart, now: datetime) -> None:  # noqa: ARG002
        """Open the session."""
        self.state = SessionState.OPEN

    def save_turn(self, payload: Mapping[str, Any], occurred_at: datetime, now: datetime) -> None:  # noqa: ARG002
        """Keep nothing."""
        check_not_ended(self)

    def end(self, reason: str, now: datetime) -> None:  # noqa: ARG002
        """Close the session."""
        if self.state is SessionState.OPEN:
            self.state = SessionState.ENDED
