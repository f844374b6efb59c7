"""The sessions of one user: found by id, read when first named, and all of them read in the background at the start."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from memoair_runtime.errors import StorageUnavailableError
from memoair_runtime.memory.session import EphemeralSession, LoggedSession, Session, SessionState
from memoair_runtime.storage.events import Event
from memoair_runtime.storage.user_folder import LogVersionKey, UserFolder

log = logging.getLogger(__name__)


class Sessions:
    """Every session of the user. Safe to use from any thread."""

    def __init__(
        self,
        folder: UserFolder,
        on_event: Callable[[Event], None],
        on_logged: Callable[[Sequence[Event]], None],
        *,
        is_durable: bool,
    ) -> None:
        self._folder = folder
        self._on_event = on_event
        self._on_logged = on_logged
        self._is_durable = is_durable
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._used_ids: set[str] = set()
        self._loaded_versions: dict[str, LogVersionKey] = {}  # of the logs that were read to their end

    def open(self, session_id: str, *, is_ephemeral: bool) -> Session:
        """The session of this id, about to be started; of an ``unkept`` one nothing will be written."""
        with self._lock:
            known = self._sessions.get(session_id)
            if known is not None and isinstance(known, EphemeralSession) != (is_ephemeral or not self._is_durable):
                del self._sessions[session_id]  # started in the other mode than before: the new start counts
        return self.get(session_id, is_ephemeral=is_ephemeral)

    def get(self, session_id: str, *, is_ephemeral: bool = False) -> Session:
        """The session of this id, for a request that names it."""
        with self._lock:
            self._used_ids.add(session_id)
        return self._get_loaded(session_id, is_ephemeral=is_ephemeral)[0]

    def evict_unknown(self, session: Session) -> None:
        """Let go of a session of which nothing is known."""
        with self._lock:
            if session.is_unknown and self._sessions.get(session.id) is session:
                del self._sessions[session.id]
                self._used_ids.discard(session.id)

    def mark_loaded(self, versions: Mapping[str, LogVersionKey]) -> None:
        """Take these logs as read up to these writes, and every other one as unread."""
        self._loaded_versions = dict(versions)

    def loaded_versions(self) -> Mapping[str, LogVersionKey]:
        """The logs that were read to their end, up to which write."""
        return dict(self._loaded_versions)

    def load_all(self) -> int:
        """Read every log there is, and of those that were read what has come since, the oldest first.

        Returns how many could not be read; the next call tries these again.
        """
        unread = 0
        for session_id, version_key in self._folder.list_session_logs():
            if self._loaded_versions.get(session_id) != version_key:
                _, is_complete = self._get_loaded(session_id, reload=True)
                if is_complete:
                    self._loaded_versions[session_id] = version_key
                else:
                    unread += 1
        return unread

    def reset(self) -> None:
        """Forget what the logs held: some of them have been deleted, and the others will be read again."""
        self._loaded_versions = {}
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            if isinstance(session, LoggedSession):
                session.reset()

    def count_active(self) -> int:
        """The number of sessions that were used here and have not ended."""
        with self._lock:
            return sum(
                self._sessions[each].state is SessionState.OPEN for each in self._used_ids if each in self._sessions
            )

    def _get_loaded(self, session_id: str, *, is_ephemeral: bool = False, reload: bool = False) -> tuple[Session, bool]:
        """The session, and whether all of its log has been read."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                session = self._sessions[session_id] = self._create(session_id, is_ephemeral=is_ephemeral)
        if isinstance(session, LoggedSession):
            try:
                session.load(reload=reload)
            except StorageUnavailableError as error:
                # Recall goes on with what is known; a turn will be refused by the same disk.
                log.warning("a session's log can't be read: action=session_unread errno=%s", error.details.get("errno"))
                return session, False
        return session, True

    def _create(self, session_id: str, *, is_ephemeral: bool) -> Session:
        if is_ephemeral or not self._is_durable:
            return EphemeralSession(session_id)
        return LoggedSession(session_id, self._folder, self._on_event, self._on_logged)
