"""The keeper: what is said goes through it to the log, into memory, and to the files that are made from both."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

from memoair_runtime.errors import IdentityMismatchError, StorageUnavailableError
from memoair_runtime.memory.brief import encode_brief
from memoair_runtime.memory.cloud_replica import CloudReplica
from memoair_runtime.memory.index_snapshot import IndexSnapshot
from memoair_runtime.memory.interruption import truncate_to_heard
from memoair_runtime.memory.profile import CloudProfile, encode_snapshot, read_snapshot
from memoair_runtime.memory.reranker import BackgroundReranker
from memoair_runtime.memory.session import Session, SessionStart, SessionState
from memoair_runtime.memory.sessions import Sessions
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.readiness import Readiness, ReadinessGate
from memoair_runtime.requests import EndRequest, StartRequest, TurnRequest
from memoair_runtime.settings import RuntimeSettings
from memoair_runtime.storage import erasure
from memoair_runtime.storage.background_writer import BackgroundWriter
from memoair_runtime.storage.durable import write_file
from memoair_runtime.storage.erasure import ErasedCounts
from memoair_runtime.storage.events import Event
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.replica_file import ReplicaPage
from memoair_runtime.storage.session_log import storage_error
from memoair_runtime.storage.user_folder import SessionFolder, UserFolder
from memoair_runtime.timeutil import utc_now

log = logging.getLogger(__name__)


class UserStore:
    """Keeps one caller's turns. Safe to use from any thread.

    ``on_logged`` is told of every event that this process has logged, and must not wait for anything.
    """

    def __init__(
        self, settings: RuntimeSettings, on_logged: Callable[[Sequence[Event]], None] = lambda _: None
    ) -> None:
        self._user_id = settings.user_id
        self._folder = UserFolder(settings.storage_root, settings.project_id, settings.user_id)
        self.memory = UserMemory(read_snapshot(self._folder))
        self.sessions = Sessions(self._folder, self.memory.apply_event, on_logged, is_durable=not settings.org_only)
        self.gate = ReadinessGate()  # opens once every earlier session has been read
        self.unread_logs = 0  # logs of earlier sessions that could not be read; tried again with every load
        self._is_durable = not settings.org_only
        self._replica = CloudReplica(self._folder, self.memory, settings.cloud_id)
        self._snapshot = IndexSnapshot(self._folder, self.memory, self._replica)
        self._is_snapshot_loaded = False
        # Held by who reads logs or what the cloud told into memory, and by who forgets; by no search and no turn.
        self._read_lock = threading.Lock()
        self._write_lock = threading.Lock()  # held by who writes what is made from logs, and by who forgets
        self._generation = 0  # grows when the caller is forgotten
        self.reranker = BackgroundReranker(settings.medium_model, self._folder.vectors, self.memory.get_documents)
        self._profile_lock = ProcessLock(self._folder.lock("profile"))
        self._stored_profile = self.memory.profile
        self._writer = BackgroundWriter()

    def load(self) -> None:
        """Read what earlier calls left on the disk, or what has come since it was read; may take long."""
        with self._read_lock:
            if self._is_durable:
                try:
                    self._load()
                except Exception as error:  # noqa: BLE001 - whatever it was, searches must not wait for it for ever
                    log.error("earlier sessions can't be read: action=load_failed error=%s", type(error).__name__)
                    if self.gate.readiness is not Readiness.READY:  # what was read before is still there
                        self.gate.open(Readiness.ERROR)
                    return
            self.memory.index_pending()
            self.gate.open()
            if self._is_durable:
                self._snapshot.write_if_due(self.sessions.loaded_versions())

    def _load(self) -> None:
        if not self._is_snapshot_loaded:
            with suppress(OSError):  # it is tried again when somebody is forgotten
                erasure.finish_interrupted(self._folder)
            self._replica.load()
            self.sessions.mark_loaded(self._snapshot.load())
            self._is_snapshot_loaded = True
        self.unread_logs = self.sessions.load_all()
        self._replica.refresh()

    def start_reranker(self) -> None:
        """Prepare the second reading, in the background."""
        self.reranker.start([session_id for session_id, _ in self._folder.list_session_logs()])

    def session_folder(self, session_id: str) -> SessionFolder:
        """Where a session lies on the disk."""
        return self._folder.session(session_id)

    def start_session(self, request: StartRequest, *, is_ephemeral: bool) -> StorageUnavailableError | None:
        """Open a session. A disk that refuses does not stand in the way of recall: its fault is returned."""
        known_metadata = request.known_metadata()
        if known_metadata.user and known_metadata.user.id not in (None, self._user_id):
            raise IdentityMismatchError("metadata.user is another user than the one that this runtime serves")
        metadata = dict(request.metadata or {})
        start = SessionStart({"id": self._user_id, **(metadata.pop("user", None) or {})}, metadata)
        session = self.sessions.open(request.session_id, is_ephemeral=is_ephemeral)
        try:
            session.start(start, utc_now())
        except StorageUnavailableError as error:
            if session.state is SessionState.ENDED:
                raise
            log.warning(
                "a session's start is not on the disk yet: action=start_unsaved errno=%s", error.details.get("errno")
            )
            return error
        if self.memory.profile != self._stored_profile:
            self._writer.schedule("profile", self._write_profile)
        return None

    def save_turn(self, request: TurnRequest) -> str | None:
        """Keep a turn and return its event's id; None where nothing is kept."""
        now = utc_now()
        occurred_at = request.occurred_at() or now
        payload = truncate_to_heard(
            {
                "turnId": request.turn_id,
                "userText": request.user_text,
                "assistantText": request.assistant_text,
                "toolCalls": request.tool_calls or [],
                "metadata": request.metadata or {},
            }
        )
        session = self.sessions.get(request.session_id)
        event_id = session.save_turn(payload, occurred_at, now)
        if event_id is not None:
            self.reranker.add_session(session.id, is_complete=False)
            self._writer.schedule("memory", self.memory.index_pending)
            self._writer.schedule(f"brief {session.id}", lambda: self._write_brief(session.id))
        return event_id

    def end_session(self, request: EndRequest) -> Session:
        """Close a session."""
        session = self.sessions.get(request.session_id)
        session.end(request.reason or "completed", utc_now())
        self.reranker.add_session(session.id, is_complete=True)
        return session

    def flush(self, deadline: float) -> int:
        """Wait until everything is written that is made from the log, and return how much is left at the deadline."""
        return self._writer.flush(deadline)

    def close(self, deadline: float) -> None:
        """Write what is left, by the deadline (monotonic seconds), and free the roles."""
        self._writer.close(deadline)
        self._profile_lock.release()
        self._snapshot.close()

    def remove_folder_if_empty(self) -> None:
        """At the very end: of a caller who was forgotten, and has not spoken since, not even a folder is left."""
        if self._generation:
            erasure.remove_if_empty(self._folder)

    # What the cloud tells. Who asks it holds the caller's role for that, so that no two processes write it.

    @property
    def generation(self) -> int:
        """Tells what the cloud said before the caller was forgotten from what it said after."""
        return self._generation

    @property
    def permanent_version(self) -> int | None:
        """Up to which version it is here what the cloud has of events and facts."""
        return self._replica.version

    @property
    def profile_version(self) -> int | None:
        """The version of the profile that is here."""
        return self._replica.profile.version if self._replica.profile else None

    def refresh_replica(self) -> None:
        """Take in what other processes pulled."""
        with self._read_lock:
            self._replica.refresh()

    def store_page(self, page: ReplicaPage, generation: int, *, is_snapshot: bool) -> None:
        """Keep a page of the cloud's, and let it be found; raises OSError where the disk refuses."""
        with self._read_lock:
            if generation == self._generation:
                self._replica.store_page(page, is_snapshot=is_snapshot)

    def store_profile(self, profile: CloudProfile, generation: int) -> None:
        """Keep the cloud's profile; raises OSError where the disk refuses."""
        with self._read_lock:
            if generation == self._generation:
                self._replica.store_profile(profile)

    def write_snapshot_if_due(self) -> None:
        """After a pull, see that the next start need not read it all again, and, while nobody is calling, that no file
        holds what stands no longer.
        """
        with self._read_lock:
            self._snapshot.write_if_due(self.sessions.loaded_versions(), is_idle=not self.sessions.count_active())

    def erase(self, deadline: float, before: datetime | None = None) -> ErasedCounts:
        """Forget the caller on this machine, or what he said in calls that began ``before`` a moment.

        Raises `StorageUnavailableError` where something can't be deleted, or not by the deadline (monotonic seconds).
        """
        if not self._read_lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StorageUnavailableError("what was said is still being read; nothing was deleted")
        try:
            with self._write_lock:
                return self._erase(before)
        except OSError as error:
            raise storage_error("not everything could be deleted", error) from error
        finally:
            self._read_lock.release()

    def _erase(self, before: datetime | None) -> ErasedCounts:
        self._generation += 1
        try:
            return erasure.erase(self._folder, before)
        finally:
            self.sessions.reset()  # waits for who is reading or writing a log that was there until now
            self.memory.clear()
            self._replica.reset()
            self._snapshot.reset()
            self.reranker.erase()
            self._stored_profile = self.memory.profile
            self.sessions.reset()  # for what was logged meanwhile
            self.unread_logs = self.sessions.load_all()
            self.memory.index_pending()

    def _write_profile(self) -> None:
        with self._write_lock:
            profile = self.memory.profile
            if profile != self._stored_profile and self._profile_lock.try_acquire():
                write_file(self._folder.profile, encode_snapshot(profile), durable=False)
                self._stored_profile = profile

    def _write_brief(self, session_id: str) -> None:
        with self._write_lock:
            turns = self.memory.get_turns(session_id)
            folder = self._folder.session(session_id)
            if turns and folder.log.exists():  # else it has been forgotten
                write_file(folder.brief, encode_brief(session_id, turns, utc_now()), durable=False)
