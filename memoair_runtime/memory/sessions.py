"""The sessions of one user: found by id, read when first named, and all of them read in the background at the start."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from memoair_runtime.errors import StorageUnavailableError
from memoair_runtime.memory.session import EphemeralSession, LoggedSession, Session, SessionState
from memoair_runtime.storage.events import Event
from memoair_runtime.storage.user_folder import LogStamp, UserFolder

log = logging.getLogger(__name__)


class Sessions:
    """Every session of the user. Safe to use from any thread."""

    def __init__(
        self,
        folder: UserFolder,
        on_event: Callable[[Event], None],
        on_logged: Callable[[Sequence[Event]], None],
        *,
        keeps: bool,
    ) -> None:
        self._folder = folder
        self._on_event = on_event
        self._on_logged = on_logged
        self._keeps = keeps
        self._lock = threading.Lock()
        self._known: dict[str, Session] = {}
        self._in_use: set[str] = set()
        self._stamps: dict[str, LogStamp] = {}  # of the logs that were read to their end

    def begin(self, session_id: str, *, unkept: bool) -> Session:
        """The session of this id, about to be started; of an ``unkept`` one nothing will be written."""
        with self._lock:
            known = self._known.get(session_id)
            if known is not None and isinstance(known, EphemeralSession) != (unkept or not self._keeps):
                del self._known[session_id]  # started in the other mode than before: the new start counts
        return self.use(session_id, unkept=unkept)

    def use(self, session_id: str, *, unkept: bool = False) -> Session:
        """The session of this id, for a request that names it."""
        with self._lock:
            self._in_use.add(session_id)
        return self._read(session_id, unkept=unkept)[0]

    def forget(self, session: Session) -> None:
        """Let go of a session of which nothing is known."""
        with self._lock:
            if session.is_unknown and self._known.get(session.id) is session:
                del self._known[session.id]
                self._in_use.discard(session.id)

    def trust(self, stamps: Mapping[str, LogStamp]) -> None:
        """Take these logs as read up to these writes, and every other one as unread."""
        self._stamps = dict(stamps)

    def stamps(self) -> Mapping[str, LogStamp]:
        """The logs that were read to their end, up to which write."""
        return dict(self._stamps)

    def load_all(self) -> int:
        """Read every log there is, and of those that were read what has come since, the oldest first.

        Returns how many could not be read; the next call tries these again.
        """
        unread = 0
        for session_id, stamp in self._folder.session_logs():
            if self._stamps.get(session_id) != stamp:
                _, is_whole = self._read(session_id, again=True)
                if is_whole:
                    self._stamps[session_id] = stamp
                else:
                    unread += 1
        return unread

    def begin_again(self) -> None:
        """Forget what the logs held: some of them have been deleted, and the others will be read again."""
        self._stamps = {}
        with self._lock:
            known = list(self._known.values())
        for session in known:
            if isinstance(session, LoggedSession):
                session.begin_again()

    def active(self) -> int:
        """The number of sessions that were used here and have not ended."""
        with self._lock:
            return sum(self._known[each].state is SessionState.OPEN for each in self._in_use if each in self._known)

    def _read(self, session_id: str, *, unkept: bool = False, again: bool = False) -> tuple[Session, bool]:
        """The session, and whether all of its log has been read."""
        with self._lock:
            session = self._known.get(session_id)
            if session is None:
                session = self._known[session_id] = self._new(session_id, unkept=unkept)
        if isinstance(session, LoggedSession):
            try:
                session.load(again=again)
            except StorageUnavailableError as fault:
                # Recall goes on with what is known; a turn will be refused by the same disk.
                log.warning("a session's log can't be read: action=session_unread errno=%s", fault.details.get("errno"))
                return session, False
        return session, True

    def _new(self, session_id: str, *, unkept: bool) -> Session:
        if unkept or not self._keeps:
            return EphemeralSession(session_id)
        return LoggedSession(session_id, self._folder, self._on_event, self._on_logged)
