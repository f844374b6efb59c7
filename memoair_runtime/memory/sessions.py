"""The sessions of one user: found by id, read when first used; all of them are read in the background at start."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from memoair_protocol.starvation import is_starved
from memoair_runtime.errors import StorageUnavailableError
from memoair_runtime.memory.ephemeral_session import EphemeralSession
from memoair_runtime.memory.session import Elsewhere, LoggedSession, Session, SessionState
from memoair_runtime.storage.events import Event, EventOrigin
from memoair_runtime.storage.user_folder import LogVersionKey, UserFolder

log = logging.getLogger(__name__)


class Sessions:
    """All sessions of the user. Thread-safe.

    Args:
        folder: The user's folder.
        on_event: Called once for every event in a log. Must not block.
        on_logged: Called with the events that this process has written. Must not block.
        is_durable: Whether sessions are logged at all.
        origin: Who logs the events, and for which cloud.
        elsewhere: What other machines have written, see `LoggedSession`.
    """

    def __init__(
        self,
        folder: UserFolder,
        on_event: Callable[[Event], None],
        on_logged: Callable[[Sequence[Event]], None],
        *,
        is_durable: bool,
        origin: EventOrigin = EventOrigin(),  # noqa: B008 - immutable
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._folder = folder
        self._elsewhere = elsewhere
        self._on_event = on_event
        self._on_logged = on_logged
        self._is_durable = is_durable
        self._origin = origin
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self.is_starved = False  # whether a log could not be read for want of descriptors or memory
        self._used_ids: set[str] = set()
        self._loaded_versions: dict[str, LogVersionKey] = {}  # of logs that have been read to the end

    def open(self, session_id: str, *, is_ephemeral: bool) -> Session:
        """Return a session that is about to be started.

        Args:
            session_id: The session.
            is_ephemeral: Whether nothing of it is to be stored.
        """
        with self._lock:
            known = self._sessions.get(session_id)
            if known is not None and isinstance(known, EphemeralSession) != (is_ephemeral or not self._is_durable):
                del self._sessions[session_id]  # started in the other mode before: the new start counts
        return self.get(session_id, is_ephemeral=is_ephemeral)

    def get(self, session_id: str, *, is_ephemeral: bool = False) -> Session:
        """Return a session, for a request that names it.

        Args:
            session_id: The session.
            is_ephemeral: Whether nothing of it is to be stored, if it is new.
        """
        with self._lock:
            self._used_ids.add(session_id)
        return self._get_loaded(session_id, is_ephemeral=is_ephemeral)[0]

    def evict_unknown(self, session: Session) -> None:
        """Remove a session from memory if nothing is known of it."""
        with self._lock:
            if session.is_unknown and self._sessions.get(session.id) is session:
                del self._sessions[session.id]
                self._used_ids.discard(session.id)

    def mark_loaded(self, versions: Mapping[str, LogVersionKey]) -> None:
        """Set which logs count as read, and up to which version; all others count as unread."""
        self._loaded_versions = dict(versions)

    def loaded_versions(self) -> Mapping[str, LogVersionKey]:
        """Return the logs that have been read, with the version key up to which."""
        return dict(self._loaded_versions)

    def load_all(self) -> int:
        """Read what is new in every log, oldest first.

        Returns:
            The number of logs that could not be read. The next call tries them again.
        """
        unread, self.is_starved = 0, False
        for session_id, version_key in self._folder.list_session_logs():
            if self._loaded_versions.get(session_id) != version_key:
                _, is_complete = self._get_loaded(session_id, reload=True)
                if is_complete:
                    self._loaded_versions[session_id] = version_key
                else:
                    unread += 1
        return unread

    def reset(self) -> None:
        """Start over: some logs have been deleted, and the others will be read again."""
        self._loaded_versions = {}
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            if isinstance(session, LoggedSession):
                session.reset()

    def find_prompt_version(self, session_id: str) -> int | None:
        """Return the version of the agent's prompt in a session, if it is known here. Reads nothing from the disk."""
        session = self._sessions.get(session_id)
        return None if session is None else session.prompt_version

    def count_active(self) -> int:
        """Count the sessions that were used in this process and have not ended."""
        with self._lock:
            return sum(
                self._sessions[session_id].state is SessionState.OPEN
                for session_id in self._used_ids
                if session_id in self._sessions
            )

    def _get_loaded(self, session_id: str, *, is_ephemeral: bool = False, reload: bool = False) -> tuple[Session, bool]:
        """Return a session, and whether all of its log has been read."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                session = self._sessions[session_id] = self._create(session_id, is_ephemeral=is_ephemeral)
        if isinstance(session, LoggedSession):
            try:
                session.load(reload=reload)
            except StorageUnavailableError as error:
                # Recall goes on with what is known. Saving a turn will fail with an error of the same disk.
                self.is_starved |= is_starved(error)
                log.warning("cannot read a session log: action=session_unread errno=%s", error.details.get("errno"))
                return session, False
        return session, True

    def _create(self, session_id: str, *, is_ephemeral: bool) -> Session:
        if is_ephemeral or not self._is_durable:
            return EphemeralSession(session_id)
        return LoggedSession(session_id, self._folder, self._on_event, self._on_logged, self._elsewhere, self._origin)
