"""A session (one call): its state, and what is allowed in each state."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

import attrs
import msgspec

from memoair_protocol.enums import EventType
from memoair_protocol.session_prompt import find_prompt_version
from memoair_runtime.errors import ErasedTurnError, SessionNotFoundError
from memoair_runtime.memory.saved_turns import SavedTurn, SpokenTurn, TurnVersion, as_correction, find_version
from memoair_runtime.storage.erasure_record import ErasedTurns
from memoair_runtime.storage.events import Event, EventOrigin, new_event
from memoair_runtime.storage.session_log import SessionLog, storage_error
from memoair_runtime.storage.turn_words import TurnWords
from memoair_runtime.storage.user_folder import UserFolder


class SessionState(Enum):
    """The state of a session."""

    NEW = "new"  # not started, and nothing is logged
    OPEN = "open"  # started explicitly, or by its first turn
    ENDED = "ended"  # can neither be searched nor written until it is started again


# The state after each event, whatever the state before it. A start after the end opens the session again, as when a
# batch import is repeated, whose turns are known. A turn counts without a start: a bad disk may have lost that line.
_STATE_AFTER = {
    EventType.SESSION_START: SessionState.OPEN,
    EventType.TURN: SessionState.OPEN,
    EventType.SESSION_END: SessionState.ENDED,
}


@attrs.frozen
class SessionStart:
    """What a session is started with.

    Attributes:
        user: Who is calling: ``{id, name, metadata}``.
        metadata: What else the application wants recorded.
    """

    user: Mapping[str, Any]
    metadata: Mapping[str, Any]


class Elsewhere(Protocol):
    """What other machines have written to the user's sessions, as far as the cloud has sent it. Thread-safe."""

    def last_seq(self, session_id: str) -> int:
        """Return the largest ``seq`` of a session's events from other machines, or 0.

        Events here continue from there, so that the order of a call over several machines is that in which each of
        them knew of the others.
        """

    def find_turn(self, session_id: str, turn_id: str) -> Event | None:
        """Return the event of a turn that another machine has saved, with its words; None if none is known."""


class NowhereElse:
    """The user's sessions are on this machine alone."""

    def last_seq(self, session_id: str) -> int:  # noqa: ARG002
        """Return 0."""
        return 0

    def find_turn(self, session_id: str, turn_id: str) -> None:  # noqa: ARG002
        """Return None."""
        return


class Session(Protocol):
    """A session as the runtime handles it. Thread-safe."""

    @property
    def id(self) -> str:
        """The session's id."""

    @property
    def state(self) -> SessionState:
        """The current state."""

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known of it: neither from the disk nor from a start that could not be written."""

    @property
    def prompt_version(self) -> int | None:
        """The version of the agent's prompt that its latest start with one has named. Takes no lock."""

    def start(self, info: SessionStart, now: datetime, *, reopens: bool = True) -> None:
        """Start the session, or start it again.

        Args:
            info: What it is started with.
            now: The current time.
            reopens: Whether a session that has ended is opened again.

        Raises:
            SessionNotFoundError: It has ended and is not to be opened again.
            StorageUnavailableError: The start cannot be written.
        """

    def save_turns(self, turns: Sequence[SpokenTurn], now: datetime) -> list[SavedTurn]:
        """Save turns, in order. Those with different ids are written at once: all of them are stored, or none.

        A turn id that is known with the same words adds nothing. With other words, they correct the turn: they are
        logged as an event of their own, whose payload names the event that it corrects under `CORRECTS_KEY`.

        Args:
            turns: The turns.
            now: The current time.

        Returns:
            What became of each.

        Raises:
            SessionNotFoundError: The session has ended, and not all turns are known.
            StorageUnavailableError: The turns cannot be written.
        """

    def end(self, reason: str, now: datetime, *, is_known_elsewhere: bool = False) -> None:
        """End the session. Does nothing if it has ended or is unknown.

        Args:
            reason: Why it ends.
            now: The current time.
            is_known_elsewhere: Whether another machine has written to the session, so that its end is logged here even
                if nothing else is.

        Raises:
            StorageUnavailableError: The end cannot be written.
        """


def check_not_ended(session: Session) -> None:
    """Check that a session has not ended.

    Raises:
        SessionNotFoundError: It has ended.
    """
    if session.state is SessionState.ENDED:
        raise SessionNotFoundError("the session has ended; start it again or use a new session id")


class LoggedSession:
    """A session of the user that this process serves. Its log is the source of truth.

    Args:
        session_id: The session.
        folder: The user's folder.
        on_event: Called once for every event, whether this process or another one has written it. Must not block.
        on_logged: Called with the events that this process has written, once they are on the disk. Must not block.
        origin: Who logs the events, and for which cloud.
        elsewhere: What other machines have written to the session, as far as it is known here.
    """

    def __init__(
        self,
        session_id: str,
        folder: UserFolder,
        on_event: Callable[[Event], None],
        on_logged: Callable[[Sequence[Event]], None] = lambda _: None,
        elsewhere: "Elsewhere | None" = None,
        origin: EventOrigin = EventOrigin(),  # noqa: B008 - immutable
    ) -> None:
        self.id = session_id
        self._origin = origin
        self._elsewhere = elsewhere or NowhereElse()
        self._folder = folder
        self._on_event = on_event
        self._on_logged = on_logged
        self._erased_turns = ErasedTurns(folder)
        self._lock = threading.Lock()
        self._requested_start = SessionStart({"id": folder.user_id}, {})  # as last requested
        self._is_start_pending = False  # whether a start still has to be written
        self._prompt_version: int | None = None
        self._reset_state()

    def _reset_state(self) -> None:
        self._log = SessionLog(self._folder.session(self.id), self._apply_event)
        self._state = SessionState.NEW
        self._turn_versions: dict[str, tuple[TurnVersion, ...]] = {}  # by turn id, the latest last
        self._last_seq = 0
        self._is_loaded = False
        self._logged_start: SessionStart | None = None

    @property
    def state(self) -> SessionState:
        """The current state."""
        return self._state

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known of it."""
        return self._state is SessionState.NEW and not self._is_start_pending

    @property
    def prompt_version(self) -> int | None:
        """The version of the agent's prompt."""
        return self._prompt_version

    def load(self, *, reload: bool = False) -> None:
        """Read the log, unless that has been done.

        Args:
            reload: Whether to read what was written since.

        Raises:
            StorageUnavailableError: The log cannot be read. The next call tries again.
        """
        if self._is_loaded and not reload:
            return  # without the lock, which a thread that writes a turn holds as long as the disk needs
        with self._lock:
            if reload or not self._is_loaded:
                self._log.read()
                self._is_loaded = True

    def reset(self) -> None:
        """Start over: the log has been deleted, or will be read again. An active call continues with a new log."""
        with self._lock:
            # A session that was started here stays started; its start is logged again with the next turn.
            self._is_start_pending |= self._state is SessionState.OPEN and self._requested_start == self._logged_start
            self._reset_state()

    def start(self, info: SessionStart, now: datetime, *, reopens: bool = True) -> None:
        """Start the session. A repeated start with the same content is not logged; see `Session.start`.

        If the start cannot be written, it is logged with the first turn that can be.
        """
        with self._lock:
            is_new = self._state is not SessionState.OPEN or info != self._logged_start
            self._requested_start, self._is_start_pending = info, self._is_start_pending or is_new
            self._note_prompt(info)  # also if the start cannot be written
        with self._open_for_append() as append:
            if self._state is SessionState.ENDED and not reopens:  # by another process, perhaps a moment ago
                self._is_start_pending = False
                check_not_ended(self)
            if self._state is not SessionState.OPEN or info != self._logged_start:
                append([self._new_start_event(now, is_live=True)])
            self._is_start_pending = False

    def save_turn(self, payload: Mapping[str, Any], occurred_at: datetime | None, now: datetime) -> str:
        """Log one turn, and return the id of its event; see `save_turns`.

        Raises:
            ErasedTurnError: The turn is from before an erasure of its user.
        """
        [saved] = self.save_turns([SpokenTurn(payload, occurred_at)], now)
        if saved.event_id is None:
            raise ErasedTurnError
        return saved.event_id

    def save_turns(self, turns: Sequence[SpokenTurn], now: datetime) -> list[SavedTurn]:
        """Log turns, which are durable on return; see `Session.save_turns`."""
        saved: list[SavedTurn] = []
        while len(saved) < len(turns):
            # A second delivery of a turn is compared with the first one in the log.
            distinct: dict[str, SpokenTurn] = {}
            for turn in turns[len(saved) :]:
                if distinct.setdefault(turn.payload["turnId"], turn) is not turn:
                    break
            saved += self._save_distinct(list(distinct.values()), now)
        return saved

    def _save_distinct(self, turns: Sequence[SpokenTurn], now: datetime) -> list[SavedTurn]:
        """Log turns with different ids, with one write."""
        all_words = [TurnWords.of(turn.payload) for turn in turns]  # takes a while for long ones
        # Before the folder of a user who is gone is created again.
        saved = [
            SavedTurn(is_erased=True) if self._is_erased(turn, words) else None
            for turn, words in zip(turns, all_words, strict=True)
        ]
        if None not in saved:
            return [each for each in saved if each is not None]
        with self._open_for_append() as append:
            events: list[Event] = []
            for position, (turn, words) in enumerate(zip(turns, all_words, strict=True)):
                saved[position] = saved[position] or self._prepare(turn, words, now, events)
            if events:
                append(events)
                self._is_start_pending = False
        return [each for each in saved if each is not None]

    def _prepare(self, turn: SpokenTurn, words: TurnWords, now: datetime, events: list[Event]) -> SavedTurn:
        """Add what is to be logged of a turn to the events; nothing if it is known or erased."""
        payload, occurred_at = turn.payload, turn.occurred_at
        versions = self._turn_versions.get(payload["turnId"], ())
        turn_elsewhere = None if versions else self._elsewhere.find_turn(self.id, payload["turnId"])
        if turn_elsewhere is not None:  # a webhook that was delivered again has reached this machine
            versions = (TurnVersion(turn_elsewhere.event_id, TurnWords.of(turn_elsewhere.payload).version_key()),)
        known = find_version(versions, words.version_key())
        if known is not None:  # even after the end: a late retry must not look like a lost turn
            return SavedTurn(known.event_id)
        if not versions and self._is_erased(turn, words):  # again: together with this log, the user may be gone by now
            return SavedTurn(is_erased=True)
        check_not_ended(self)
        corrected: Event | None = None
        if versions:
            # Not kept in memory: corrections are rare.
            corrected = turn_elsewhere or self._log.find_event(versions[-1].event_id)
            payload, occurred_at = as_correction(payload, occurred_at, versions[-1].event_id, corrected)
        is_live, occurred_at = occurred_at is None, occurred_at or now
        if not events and (self._is_start_pending or self._state is SessionState.NEW):
            events.append(self._new_start_event(min(now, occurred_at), is_live=is_live))
        event = self._new_event(EventType.TURN, occurred_at, payload, len(events), is_live=is_live)
        if corrected is not None and turn_elsewhere is None:
            # It may repeat words of the turn that it corrects, so it goes where that one goes.
            event = msgspec.structs.replace(
                event, cloud=corrected.cloud, erasure=corrected.erasure, clock=corrected.clock
            )
        events.append(event)
        return SavedTurn(event.event_id)

    def _is_erased(self, turn: SpokenTurn, words: TurnWords) -> bool:
        """Return whether a turn that is not in the log was erased. After an erasure, the log is a new one."""
        turn_id = turn.payload["turnId"]
        if turn_id in self._turn_versions:
            return False
        try:
            return self._erased_turns.contains(turn_id, words, turn.occurred_at)
        except OSError as error:
            raise storage_error("cannot read what was erased", error) from error

    def end(self, reason: str, now: datetime, *, is_known_elsewhere: bool = False) -> None:
        """End the session; see `Session.end`."""
        self.load(reload=True)  # another process may have written
        if self._state is SessionState.NEW and not is_known_elsewhere:
            return
        with self._open_for_append() as append:
            if self._state is not SessionState.ENDED:
                append([self._new_event(EventType.SESSION_END, now, {"reason": reason}, is_live=True)])

    @contextmanager
    def _open_for_append(self) -> Iterator[Callable[[Sequence[Event]], None]]:
        with self._lock:
            try:
                self._folder.create_session(self.id)
            except OSError as error:
                raise storage_error("cannot create the session's folder in the storage root", error) from error
            with self._log.open_for_append() as append:

                def log(events: Sequence[Event]) -> None:
                    append(events)
                    self._on_logged(events)

                yield log

    def _new_start_event(self, at: datetime, *, is_live: bool) -> Event:
        payload = {"user": self._requested_start.user, "metadata": self._requested_start.metadata}
        return self._new_event(EventType.SESSION_START, at, payload, is_live=is_live)

    def _new_event(
        self, type_: EventType, at: datetime, payload: Mapping[str, Any], seq_offset: int = 0, *, is_live: bool
    ) -> Event:
        last_seq = max(self._last_seq, self._elsewhere.last_seq(self.id))
        return new_event(type_, self.id, last_seq + seq_offset + 1, at, payload, self._origin, is_live=is_live)

    def _apply_event(self, event: Event) -> None:
        self._state = _STATE_AFTER[event.type]
        self._last_seq = max(self._last_seq, event.seq)
        if event.type is EventType.SESSION_START:
            self._logged_start = SessionStart(event.payload.get("user") or {}, event.payload.get("metadata") or {})
            self._is_start_pending &= self._logged_start != self._requested_start
            self._note_prompt(self._logged_start)
        elif event.type is EventType.TURN:
            turn_id = str(event.payload.get("turnId"))
            version = TurnVersion(event.event_id, TurnWords.of(event.payload).version_key())
            self._turn_versions[turn_id] = (*self._turn_versions.get(turn_id, ()), version)
        self._on_event(event)

    def _note_prompt(self, start: SessionStart) -> None:
        self._prompt_version = find_prompt_version(start.metadata) or self._prompt_version
