"""Writes the user's sessions to their logs, and the files that are derived from them in the background."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import msgspec

from memoair_protocol.durable import write_file
from memoair_protocol.interruption import truncate_to_heard
from memoair_protocol.timestamps import format_utc, utc_now
from memoair_runtime.errors import ErasedTurnError, IdentityMismatchError, StorageUnavailableError
from memoair_runtime.memory.profile import UserProfile, encode_snapshot
from memoair_runtime.memory.reranker import BackgroundReranker
from memoair_runtime.memory.saved_turns import SavedTurn, SpokenTurn
from memoair_runtime.memory.session import Session, SessionStart, SessionState
from memoair_runtime.memory.turn import StoredTurn
from memoair_runtime.memory.user_store import UserStore
from memoair_runtime.requests import EndRequest, StartRequest, TurnRequest
from memoair_runtime.storage.background_writer import BackgroundWriter
from memoair_runtime.storage.process_lock import ProcessLock

log = logging.getLogger(__name__)

_MAX_BRIEF_TURNS = 4


class SessionWriter:
    """Starts and ends the user's sessions, and saves their turns. Thread-safe.

    Args:
        store: The user's store.
        reranker: Encodes new turns in the background.
        prepare_talk: Called in the background after each turn, with the session's id: the next search comes soon.
    """

    def __init__(
        self, store: UserStore, reranker: BackgroundReranker, prepare_talk: Callable[[str], None] = lambda _: None
    ) -> None:
        self._folder = store.folder
        self._memory = store.memory
        self._sessions = store.sessions
        self._reranker = reranker
        self._prepare_talk = prepare_talk
        self._lock = threading.Lock()  # held while derived files are written, and during an erasure
        self._profile_lock = ProcessLock(store.folder.lock("profile"))
        self._stored_profile = store.memory.profile
        self._background = BackgroundWriter()

    def start_session(self, request: StartRequest, *, is_ephemeral: bool) -> StorageUnavailableError | None:
        """Start a session.

        Args:
            request: The request.
            is_ephemeral: Whether nothing of the session is to be stored.

        Returns:
            The error, if the start cannot be written: recall goes on without storage.

        Raises:
            IdentityMismatchError: The metadata names another user.
            SessionNotFoundError: The session has ended, and the request does not open it again.
            StorageUnavailableError: The session has ended, and the new start cannot be written.
        """
        known_metadata = request.known_metadata()
        if known_metadata.user and known_metadata.user.id not in (None, self._folder.user_id):
            raise IdentityMismatchError("metadata.user.id is not the user that this runtime serves")
        metadata = dict(request.metadata or {})
        start = SessionStart({"id": self._folder.user_id, **(metadata.pop("user", None) or {})}, metadata)
        session = self._sessions.open(request.session_id, is_ephemeral=is_ephemeral)
        try:
            session.start(start, utc_now(), reopens=request.reopen is not False)
        except StorageUnavailableError as error:
            if session.state is SessionState.ENDED:
                raise
            log.warning("a session start is not saved yet: action=start_unsaved errno=%s", error.details.get("errno"))
            return error
        if self._memory.profile != self._stored_profile:
            self._background.schedule("profile", self._write_profile)
        return None

    def save_turn(self, request: TurnRequest) -> str | None:
        """Save one turn, and return the id of its event; None if nothing is stored. See `save_turns`.

        Raises:
            ErasedTurnError: The turn is from before an erasure of its user.
        """
        [saved] = self.save_turns(request.session_id, [request])
        if saved.is_erased:
            raise ErasedTurnError
        return saved.event_id

    def save_turns(self, session_id: str, requests: Sequence[TurnRequest]) -> list[SavedTurn]:
        """Save turns of a session.

        Args:
            session_id: The session.
            requests: The turns, in order.

        Returns:
            What became of each, see `Session.save_turns`.

        Raises:
            BadRequestError: A time is invalid.
            SessionNotFoundError: The session has ended.
            StorageUnavailableError: The turns cannot be written.
        """
        turns = [
            SpokenTurn(
                truncate_to_heard(
                    {
                        "turnId": request.turn_id,
                        "userText": request.user_text,
                        "assistantText": request.assistant_text,
                        "toolCalls": request.tool_calls or [],
                        "metadata": request.metadata or {},
                    }
                ),
                request.occurred_at(),
            )
            for request in requests
        ]
        session = self._sessions.get(session_id)
        saved = session.save_turns(turns, utc_now())
        if any(turn.event_id is not None for turn in saved):
            self._reranker.add_session(session.id, is_complete=False)
            self._background.schedule("memory", self._memory.index_pending)
            self._background.schedule(f"talk {session.id}", lambda: self._prepare_talk(session.id))
            self._background.schedule(f"brief {session.id}", lambda: self._write_brief(session.id))
        return saved

    def end_session(self, request: EndRequest, *, is_known_elsewhere: bool = False) -> Session:
        """End a session and return it.

        Args:
            request: The request.
            is_known_elsewhere: See `Session.end`.

        Raises:
            StorageUnavailableError: The end cannot be written.
        """
        session = self._sessions.get(request.session_id)
        session.end(request.reason or "completed", utc_now(), is_known_elsewhere=is_known_elsewhere)
        if session.is_unknown:
            self._sessions.evict_unknown(session)  # otherwise every id that is ever ended would stay in memory
        self._reranker.add_session(session.id, is_complete=True)
        return session

    def flush(self, deadline: float) -> int:
        """Wait until all derived files are written.

        Args:
            deadline: When to stop waiting, in monotonic seconds.

        Returns:
            The number of files that are not written.
        """
        return self._background.flush(deadline)

    def retry_if_due(self) -> None:
        """Start the thread of the derived files if there was none to be had for what waits."""
        self._background.retry_if_due()

    def close(self, deadline: float) -> None:
        """Write the remaining files and release the lock of the profile.

        Args:
            deadline: When to give up, in monotonic seconds.
        """
        self._background.close(deadline)
        self._profile_lock.release()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep derived files from being written within the block, which erases the user's data."""
        with self._lock:
            try:
                yield
            finally:
                self._stored_profile = UserProfile()

    def _write_profile(self) -> None:
        with self._lock:
            profile = self._memory.profile
            if profile != self._stored_profile and self._profile_lock.try_acquire():
                write_file(self._folder.profile, encode_snapshot(profile), durable=False)
                self._stored_profile = profile

    def _write_brief(self, session_id: str) -> None:
        with self._lock:
            turns = self._memory.get_turns(session_id)
            folder = self._folder.session(session_id)
            if turns and folder.log.exists():  # else it has been erased
                write_file(folder.brief, _encode_brief(session_id, turns, utc_now()), durable=False)


def _encode_brief(session_id: str, turns: Sequence[StoredTurn], now: datetime) -> bytes:
    """Return the content of ``working_brief.json``: how a session opened, and its last turns.

    It is for people who look at the folder, and never read back.
    """
    return msgspec.json.encode(
        {
            "sessionId": session_id,
            "updatedAt": format_utc(now),
            "turnCount": len(turns),
            "openedWith": turns[0].user_text if turns else "",
            "lastTurns": [
                {
                    "turnId": turn.turn_id,
                    "occurredAt": format_utc(turn.occurred_at),
                    "userText": turn.user_text,
                    "assistantText": turn.assistant_text,
                }
                for turn in turns[-_MAX_BRIEF_TURNS:]
            ],
        }
    )
