"""The store of one user: sessions, memory and the cloud's replica, read from the files of the user's folder."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from memoair_protocol.starvation import is_starved, raise_if_starved
from memoair_protocol.timestamps import utc_now
from memoair_runtime.errors import StorageUnavailableError
from memoair_runtime.memory.cloud_replica import CloudReplica
from memoair_runtime.memory.index_snapshot import IndexSnapshot
from memoair_runtime.memory.profile import CloudProfile, read_snapshot
from memoair_runtime.memory.sessions import Sessions
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.readiness import Readiness, ReadinessGate
from memoair_runtime.settings import RuntimeSettings
from memoair_runtime.storage import erasure
from memoair_runtime.storage.erasure_record import read_erasure_mark
from memoair_runtime.storage.events import ErasureKnowledge, Event, EventOrigin
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.replica_file import ReplicaPage
from memoair_runtime.storage.retention import drop_old_turns, find_user_cutoff, read_rules
from memoair_runtime.storage.user_folder import UserFolder

log = logging.getLogger(__name__)


class UserStore:
    """Everything that a runtime stores of its user. Thread-safe.

    Sessions are written by `memoair_runtime.memory.session_writer`, and erased by `memoair_runtime.memory.eraser`.

    Args:
        settings: The runtime's settings.
        gate: Opens once every earlier session has been read.
        on_logged: Called with every event that this process has logged. Must not block.

    Attributes:
        folder: The user's folder.
        memory: Turns, facts and profile, ready to be searched.
        sessions: The user's sessions.
        unread_logs: Number of logs that could not be read. Each `load` tries them again.
    """

    def __init__(
        self,
        settings: RuntimeSettings,
        gate: ReadinessGate,
        on_logged: Callable[[Sequence[Event]], None] = lambda _: None,
    ) -> None:
        self.folder = UserFolder(settings.storage_root, settings.project_id, settings.user_id)
        self.memory = UserMemory(read_snapshot(self.folder))
        self._replica = CloudReplica(self.folder, self.memory, settings.cloud_id)
        self._erasures = ErasureKnowledge(read_erasure_mark(self.folder, settings.cloud_id))
        self.sessions = Sessions(
            self.folder,
            self.memory.apply_event,
            on_logged,
            is_durable=not settings.org_only,
            origin=EventOrigin(settings.cloud_id, settings.agent_id, self._erasures),
            elsewhere=self._replica,
        )
        self.unread_logs = 0
        self._gate = gate
        self._is_durable = not settings.org_only
        self._settings = settings
        self._snapshot = IndexSnapshot(self.folder, self.memory, self._replica)
        self._is_snapshot_loaded = False
        # Held while logs or the replica are read into memory, and during an erasure; not by searches and saves.
        self._read_lock = threading.Lock()
        self._generation = 0  # number of erasures

    def load(self) -> bool:
        """Read what is on the disk, or what has been written since the last call. This may take long.

        Returns:
            False if not all could be read for want of descriptors or memory, and it should be read again.
        """
        with self._read_lock:
            if self._is_durable:
                try:
                    self._load()
                except Exception as error:  # noqa: BLE001 - searches must not wait forever, whatever has failed
                    log.error("cannot read earlier sessions: action=load_failed error=%s", type(error).__name__)
                    if self._gate.readiness is not Readiness.READY:  # else what was read before can be searched
                        self._gate.open(Readiness.ERROR)
                    return not is_starved(error)
            self.memory.index_pending()
            self._gate.open()
            if self._is_durable:
                self._snapshot.write_if_due(self.sessions.loaded_versions())
            return not self.sessions.is_starved

    def _load(self) -> None:
        if not self._is_snapshot_loaded:
            try:
                erasure.finish_interrupted(self.folder)
            except OSError as error:  # the next erasure tries again
                raise_if_starved(error)
            with suppress(OSError):  # the next pull tries again
                self._drop_old_turns()
            self._replica.load()
            self.sessions.mark_loaded(self._snapshot.load())
            self._is_snapshot_loaded = True
        self.unread_logs = self.sessions.load_all()
        self._replica.refresh()

    def _drop_old_turns(self) -> None:
        """Drop what is too old before it is read, by the rules that the cloud sent last."""
        rules = read_rules(ProjectFolder(self.folder.root, self.folder.project_id))
        if rules is not None and self._settings.cloud_id not in (None, rules.cloud):
            rules = None
        cutoff = find_user_cutoff(rules, self._settings.retention_days, self.folder, utc_now())
        if cutoff is not None and (dropped := drop_old_turns(self.folder, cutoff)).event_ids:
            log.info("dropped old turns: action=retained turns=%d", dropped.turns)

    def close(self) -> None:
        """Release the lock of the index files."""
        self._snapshot.close()

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

    def is_known_elsewhere(self, session_id: str) -> bool:
        """Return whether the cloud has sent events of a session that are not in its log on this machine."""
        return self._replica.last_seq(session_id) > 0

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

    # Erasure

    def set_erasure_mark(self, mark: str) -> None:
        """Mark what is logged from now on: the erasure that the mark names has been carried out here."""
        self._erasures.mark = mark

    @contextmanager
    def exclusive(self, deadline: float) -> Iterator[None]:
        """Keep logs and replica from being read within the block, which erases the user. A new `generation` begins.

        Args:
            deadline: How long to wait for logs that are being read, in monotonic seconds.

        Raises:
            StorageUnavailableError: The deadline has passed.
        """
        if not self._read_lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StorageUnavailableError("the session logs are still being read; nothing was deleted, try again")
        self._generation += 1
        try:
            yield
        finally:
            self._read_lock.release()

    def remove_dropped(self, event_ids: Sequence[str]) -> None:
        """Remove turns from the memory that have been dropped from the files. Within `exclusive`."""
        self.memory.remove_turns(event_ids)
        self.sessions.reset()  # their logs have been replaced or deleted
        self._replica.refresh()
        self.unread_logs = self.sessions.load_all()
        self._snapshot.reset()
        self._snapshot.write_if_due(self.sessions.loaded_versions(), is_forced=True)

    def reset(self) -> None:
        """Start over with the files that an erasure has left. Within `exclusive`."""
        self.sessions.reset()  # waits for threads that read or write a log that was just deleted
        self.memory.clear()
        self._replica.reset()
        self._snapshot.reset()
        self.sessions.reset()  # again, for events that were logged in between
        self.unread_logs = self.sessions.load_all()
        self.memory.index_pending()
