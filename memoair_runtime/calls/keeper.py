"""The keeper: what is said goes through it to the log, into memory, and to the files that are made from both."""

import logging

from memoair_runtime.calls.brief import brief
from memoair_runtime.calls.caller_memory import CallerMemory
from memoair_runtime.calls.memory_file import MemoryFile
from memoair_runtime.calls.profile import read_snapshot, snapshot
from memoair_runtime.calls.second_reading import SecondReading
from memoair_runtime.calls.session import Opening, Session, SessionState
from memoair_runtime.calls.sessions import Sessions
from memoair_runtime.clock import utc_now
from memoair_runtime.faults import IdentityMismatch, StorageUnavailable
from memoair_runtime.gate import Gate, Readiness
from memoair_runtime.settings import Settings
from memoair_runtime.storage.durable import write_file
from memoair_runtime.storage.role import Role
from memoair_runtime.storage.upkeep import Upkeep
from memoair_runtime.storage.user_folder import SessionFolder, UserFolder
from memoair_runtime.wire import EndRequest, StartRequest, TurnRequest

log = logging.getLogger(__name__)


class Keeper:
    """Keeps one caller's turns. Safe to use from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._user_id = settings.user_id
        self._folder = UserFolder(settings.storage_root, settings.project_id, settings.user_id)
        self.memory = CallerMemory(read_snapshot(self._folder))
        self.sessions = Sessions(self._folder, self.memory.observe, keeps=not settings.org_only)
        self.gate = Gate()  # opens once every earlier session has been read
        self.unread = 0  # logs of earlier sessions that could not be read; tried again with every load
        self._keeps = not settings.org_only
        self._file = MemoryFile(self._folder, self.memory)
        self._is_file_open = False
        self.second = SecondReading(settings.medium_model, self._folder.vectors, self.memory.group)
        self._profile_role = Role(self._folder.role("profile"))
        self._stored_profile = self.memory.profile
        self._upkeep = Upkeep()

    def load(self) -> None:
        """Read what earlier calls left on the disk, or what has come since it was read; may take long."""
        if self._keeps:
            try:
                if not self._is_file_open:
                    self.sessions.trust(self._file.open())
                    self._is_file_open = True
                self.unread = self.sessions.load_all()
            except Exception as error:  # noqa: BLE001 - whatever it was, searches must not wait for it for ever
                log.error("earlier sessions can't be read: action=load_failed error=%s", type(error).__name__)
                if self.gate.readiness is not Readiness.READY:  # what was read before is still there
                    self.gate.open(Readiness.ERROR)
                return
        self.memory.catch_up()
        self.gate.open()
        if self._keeps:
            self._file.write_if_due(self.sessions.stamps())

    def read_again(self) -> None:
        """Prepare the second reading, in the background."""
        self.second.begin([session_id for session_id, _ in self._folder.session_logs()])

    def folder(self, session_id: str) -> SessionFolder:
        """Where a session lies on the disk."""
        return self._folder.session(session_id)

    def start(self, request: StartRequest, *, unkept: bool) -> StorageUnavailable | None:
        """Open a session. A disk that refuses does not stand in the way of recall: its fault is returned."""
        known = request.known_metadata()
        if known.user and known.user.id not in (None, self._user_id):
            raise IdentityMismatch("metadata.user is another user than the one that this runtime serves")
        metadata = dict(request.metadata or {})
        opening = Opening({"id": self._user_id, **(metadata.pop("user", None) or {})}, metadata)
        session = self.sessions.begin(request.session_id, unkept=unkept)
        try:
            session.start(opening, utc_now())
        except StorageUnavailable as fault:
            if session.state is SessionState.ENDED:
                raise
            log.warning(
                "a session's start is not on the disk yet: action=start_unsaved errno=%s", fault.details.get("errno")
            )
            return fault
        if self.memory.profile != self._stored_profile:
            self._upkeep.soon("profile", self._write_profile)
        return None

    def save_turn(self, request: TurnRequest) -> str | None:
        """Keep a turn and return its event's id; None where nothing is kept."""
        now = utc_now()
        occurred_at = request.occurred_at() or now
        payload = {
            "turnId": request.turn_id,
            "userText": request.user_text,
            "assistantText": request.assistant_text,
            "toolCalls": request.tool_calls or [],
            "metadata": request.metadata or {},
        }
        session = self.sessions.use(request.session_id)
        event_id = session.save_turn(payload, occurred_at, now)
        if event_id is not None:
            self.second.hear(session.id, is_whole=False)
            self._upkeep.soon("memory", self.memory.catch_up)
            self._upkeep.soon(f"brief {session.id}", lambda: self._write_brief(session.id))
        return event_id

    def end(self, request: EndRequest) -> Session:
        """Close a session."""
        session = self.sessions.use(request.session_id)
        session.end(request.reason or "completed", utc_now())
        self.second.hear(session.id, is_whole=True)
        return session

    def flush(self, deadline: float) -> int:
        """Wait until everything is written that is made from the log, and return how much is left at the deadline."""
        return self._upkeep.flush(deadline)

    def close(self, deadline: float) -> None:
        """Write what is left, by the deadline (monotonic seconds), and free the roles."""
        self._upkeep.close(deadline)
        self._profile_role.leave()
        self._file.close()

    def _write_profile(self) -> None:
        profile = self.memory.profile
        if self._profile_role.take():
            write_file(self._folder.profile, snapshot(profile), durable=False)
            self._stored_profile = profile

    def _write_brief(self, session_id: str) -> None:
        content = brief(session_id, self.memory.turns(session_id), utc_now())
        write_file(self._folder.session(session_id).brief, content, durable=False)
