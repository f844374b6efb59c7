"""The store of one user: writes turns to the log, keeps the memory, and maintains the files derived from both."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

from memoair_protocol.durable import write_file
from memoair_protocol.interruption import truncate_to_heard
from memoair_protocol.moments import utc_now
from memoair_runtime.errors import IdentityMismatchError, StorageUnavailableError
from memoair_runtime.memory.brief import encode_brief
from memoair_runtime.memory.cloud_replica import CloudReplica
from memoair_runtime.memory.index_snapshot import IndexSnapshot
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
from memoair_runtime.storage.erasure import ErasedCounts
from memoair_runtime.storage.events import Event
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.replica_file import ReplicaPage
from memoair_runtime.storage.session_log import storage_error
from memoair_runtime.storage.user_folder import SessionFolder, UserFolder

log = logging.getLogger(__name__)


class UserStore:
    """Everything that a runtime stores of its user. Thread-safe.

    Args:
        settings: The runtime's settings.
        on_logged: Called with every event that this process has logged. Must not block.

    Attributes:
        memory: Turns, facts and profile, ready to be searched.
        sessions: The user's sessions.
        gate: Opens once every earlier session has been read.
        unread_logs: Number of logs that could not be read. Each `load` tries them again.
        reranker: Reranks search results in sessions with the variant ``medium``.
    """

    def __init__(
        self, settings: RuntimeSettings, on_logged: Callable[[Sequence[Event]], None] = lambda _: None
    ) -> None:
        self._user_id = settings.user_id
        self._folder = UserFolder(settings.storage_root, settings.project_id, settings.user_id)
        self.memory = UserMemory(read_snapshot(self._folder))
        self.sessions = Sessions(self._folder, self.memory.apply_event, on_logged, is_durable=not settings.org_only)
        self.gate = ReadinessGate()
        self.unread_logs = 0
        self._is_durable = not settings.org_only
        self._replica = CloudReplica(self._folder, self.memory, settings.cloud_id)
        self._snapshot = IndexSnapshot(self._folder, self.memory, self._replica)
        self._is_snapshot_loaded = False
        # Held while logs or the replica are read into memory, and during an erasure; not by searches and saves.
        self._read_lock = threading.Lock()
        self._write_lock = threading.Lock()  # held while derived files are written, and during an erasure
        self._generation = 0  # number of erasures
        self.reranker = BackgroundReranker(settings.medium_model, self._folder.vectors, self.memory.get_documents)
        self._profile_lock = ProcessLock(self._folder.lock("profile"))
        self._stored_profile = self.memory.profile
        self._writer = BackgroundWriter()

    def load(self) -> None:
        """Read what is on the disk, or what has been written since the last call. This may take long."""
        with self._read_lock:
            if self._is_durable:
                try:
                    self._load()
                except Exception as error:  # noqa: BLE001 - searches must not wait forever, whatever has failed
                    log.error("cannot read earlier sessions: action=load_failed error=%s", type(error).__name__)
                    if self.gate.readiness is not Readiness.READY:  # else what was read before can be searched
                        self.gate.open(Readiness.ERROR)
                    return
            self.memory.index_pending()
            self.gate.open()
            if self._is_durable:
                self._snapshot.write_if_due(self.sessions.loaded_versions())

    def _load(self) -> None:
        if not self._is_snapshot_loaded:
            with suppress(OSError):  # the next erasure tries again
                erasure.finish_interrupted(self._folder)
            self._replica.load()
            self.sessions.mark_loaded(self._snapshot.load())
            self._is_snapshot_loaded = True
        self.unread_logs = self.sessions.load_all()
        self._replica.refresh()

    def start_reranker(self) -> None:
        """Prepare the reranker in the background."""
        self.reranker.start([session_id for session_id, _ in self._folder.list_session_logs()])

    def session_folder(self, session_id: str) -> SessionFolder:
        """Return the folder of a session."""
        return self._folder.session(session_id)

    def start_session(self, request: StartRequest, *, is_ephemeral: bool) -> StorageUnavailableError | None:
        """Start a session.

        Args:
            request: The request.
            is_ephemeral: Whether nothing of the session is to be stored.

        Returns:
            The error, if the start cannot be written: recall goes on without storage.

        Raises:
            IdentityMismatchError: The metadata names another user.
            StorageUnavailableError: The session has ended, and the new start cannot be written.
        """
        known_metadata = request.known_metadata()
        if known_metadata.user and known_metadata.user.id not in (None, self._user_id):
            raise IdentityMismatchError("metadata.user.id is not the user that this runtime serves")
        metadata = dict(request.metadata or {})
        start = SessionStart({"id": self._user_id, **(metadata.pop("user", None) or {})}, metadata)
        session = self.sessions.open(request.session_id, is_ephemeral=is_ephemeral)
        try:
            session.start(start, utc_now())
        except StorageUnavailableError as error:
            if session.state is SessionState.ENDED:
                raise
            log.warning("a session start is not saved yet: action=start_unsaved errno=%s", error.details.get("errno"))
            return error
        if self.memory.profile != self._stored_profile:
            self._writer.schedule("profile", self._write_profile)
        return None

    def save_turn(self, request: TurnRequest) -> str | None:
        """Save a turn.

        Args:
            request: The request.

        Returns:
            The event id of the turn; None if nothing is stored.

        Raises:
            SessionNotFoundError: The session has ended.
            StorageUnavailableError: The turn cannot be written.
        """
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
        """End a session and return it.

        Raises:
            StorageUnavailableError: The end cannot be written.
        """
        session = self.sessions.get(request.session_id)
        session.end(request.reason or "completed", utc_now())
        self.reranker.add_session(session.id, is_complete=True)
        return session

    def flush(self, deadline: float) -> int:
        """Wait until all derived files are written.

        Args:
            deadline: When to stop waiting, in monotonic seconds.

        Returns:
            The number of files that are not written.
        """
        return self._writer.flush(deadline)

    def close(self, deadline: float) -> None:
        """Write the remaining files and release all locks.

        Args:
            deadline: When to give up, in monotonic seconds.
        """
        self._writer.close(deadline)
        self._profile_lock.release()
        self._snapshot.close()

    def remove_folder_if_empty(self) -> None:
        """Delete the user's folder if the user was erased and has not spoken since. To be called last."""
        if self._generation:
            erasure.remove_if_empty(self._folder)

    # Data from the cloud. The puller holds the process lock ``pull``, so that only one process at a time writes it.

    @property
    def generation(self) -> int:
        """Grows with every erasure: distinguishes what the cloud sent before an erasure from what it sent after."""
        return self._generation

    @property
    def permanent_version(self) -> int | None:
        """Version up to which events and facts have been pulled."""
        return self._replica.version

    @property
    def profile_version(self) -> int | None:
        """Version of the profile that has been pulled."""
        return self._replica.profile.version if self._replica.profile else None

    def refresh_replica(self) -> None:
        """Apply what other processes have pulled."""
        with self._read_lock:
            self._replica.refresh()

    def store_page(self, page: ReplicaPage, generation: int, *, is_snapshot: bool) -> None:
        """Store a page from the cloud and make it searchable. Does nothing if the user has been erased since.

        Args:
            page: The page.
            generation: The `generation` at the time of the request.
            is_snapshot: Whether the page replaces all data from the cloud.

        Raises:
            OSError: The page cannot be written.
        """
        with self._read_lock:
            if generation == self._generation:
                self._replica.store_page(page, is_snapshot=is_snapshot)

    def store_profile(self, profile: CloudProfile, generation: int) -> None:
        """Store the profile from the cloud. Does nothing if the user has been erased since.

        Args:
            profile: The profile.
            generation: The `generation` at the time of the request.

        Raises:
            OSError: The profile cannot be written.
        """
        with self._read_lock:
            if generation == self._generation:
                self._replica.store_profile(profile)

    def write_snapshot_if_due(self) -> None:
        """Write an index file after a pull, if it is worth it.

        The next start then need not read everything again, and, if no session is active, no file holds outdated facts.
        """
        with self._read_lock:
            self._snapshot.write_if_due(self.sessions.loaded_versions(), is_idle=not self.sessions.count_active())

    def erase(self, deadline: float, before: datetime | None = None) -> ErasedCounts:
        """Erase the user's data on this machine.

        Args:
            deadline: How long to wait for logs that are being read, in monotonic seconds.
            before: If given, keep the sessions in which every event is at or after this time.

        Returns:
            How much was deleted.

        Raises:
            StorageUnavailableError: Something could not be deleted, or the deadline has passed.
        """
        if not self._read_lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StorageUnavailableError("the session logs are still being read; nothing was deleted, try again")
        try:
            with self._write_lock:
                return self._erase(before)
        except OSError as error:
            raise storage_error("cannot delete all data of the user", error) from error
        finally:
            self._read_lock.release()

    def _erase(self, before: datetime | None) -> ErasedCounts:
        self._generation += 1
        try:
            return erasure.erase(self._folder, before)
        finally:
            self.sessions.reset()  # waits for threads that read or write a log that was just deleted
            self.memory.clear()
            self._replica.reset()
            self._snapshot.reset()
            self.reranker.erase()
            self._stored_profile = self.memory.profile
            self.sessions.reset()  # again, for events that were logged in between
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
            if turns and folder.log.exists():  # else it has been erased
                write_file(folder.brief, encode_brief(session_id, turns, utc_now()), durable=False)
