"""The replica of the cloud's data on a user: kept in files beside the logs, and applied to the user's memory.

All of it can be pulled again. Data that is lost or damaged costs a pull, and nothing else.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from memoair_protocol.durable import write_file
from memoair_protocol.enums import EventType
from memoair_protocol.interruption import truncate_to_heard
from memoair_protocol.private_files import read_private_file
from memoair_runtime.memory.facts import lasting_fact_texts
from memoair_runtime.memory.profile import CloudProfile
from memoair_runtime.memory.turn import to_turns
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.storage.events import Event, is_valid
from memoair_runtime.storage.replica_file import ReplicaChange, ReplicaFile, ReplicaPage, fact_fingerprint
from memoair_runtime.storage.user_folder import LogVersionKey, UserFolder

log = logging.getLogger(__name__)


class ReplicaState(msgspec.Struct, frozen=True, array_like=True):
    """What an index file holds of a replica.

    Attributes:
        replica_id: Which replica; None if there was none.
        event_count: How many of its events.
        fact_fingerprints: The fingerprints of its facts, by their ids.
    """

    replica_id: str | None = None
    event_count: int = 0
    fact_fingerprints: dict[str, int] = {}


class _ProfileFile(msgspec.Struct, frozen=True):
    cloud: str
    profile: CloudProfile


_decode_profile_file = msgspec.json.Decoder(_ProfileFile).decode


class CloudReplica:
    """The replica of one user. Not thread-safe: the store locks. Writers hold the process lock ``pull``.

    Attributes:
        profile: The profile that was pulled last, if any.
    """

    def __init__(self, folder: UserFolder, memory: UserMemory, cloud: str | None) -> None:
        """``cloud`` names the cloud in use: a replica of another one is ignored. With None, any is used."""
        self._folder = folder
        self._memory = memory
        self._cloud = cloud
        self._file = ReplicaFile(folder.cloud_replica, cloud)
        self._indexed_state = ReplicaState()  # what the index file already holds of the replica
        self._pending_change: ReplicaChange | None = None  # loaded, but not applied yet
        self._last_seqs: dict[str, int] = {}  # the largest `seq` of the events, by session
        self._profile_version_key: LogVersionKey | None = None
        self.profile: CloudProfile | None = None
        self._read_profile()  # it is small, and the first search should know the caller

    @property
    def version(self) -> int | None:
        """Version up to which events and facts have been pulled; None if none have been."""
        return self._file.version

    def last_seq(self, session_id: str) -> int:
        """Return the largest ``seq`` of a session's events from other machines; 0 if none are known."""
        return self._last_seqs.get(session_id, 0)

    def find_turn(self, session_id: str, turn_id: str) -> Event | None:
        """Return the event of a turn of a session in which another machine takes part; None if none is known."""
        if not self.last_seq(session_id):
            return None
        documents = self._memory.get_documents(session_id)
        turns = to_turns(document for document in documents if document.metadata["turnId"] == turn_id)
        return turns[-1].to_event() if turns else None

    def load(self) -> None:
        """Read the files; the next `refresh` applies them to the memory."""
        self._pending_change = self._read_change()
        self._note_seqs(self._pending_change.events)

    def matches(self, indexed_state: Any) -> bool:
        """Return whether the memory can continue with an index file, and remember what the file holds.

        Args:
            indexed_state: What the file's metadata says of the replica.

        Raises:
            ValueError: The metadata has another structure.
        """
        state = msgspec.convert(indexed_state, ReplicaState) if indexed_state is not None else ReplicaState()
        if state.replica_id is not None and (
            state.replica_id != self._file.replica_id or state.event_count > self._file.event_count
        ):
            log.warning("the cloud replica has changed, the logs are read again: action=index_outdated")
            return False
        self._indexed_state = state
        return True

    def current_state(self) -> ReplicaState:
        """Return what an index file that is written now will hold."""
        return ReplicaState(
            self._file.replica_id,
            self._file.event_count,
            {fact_id: fact_fingerprint(fact) for fact_id, fact in self._file.facts.items()},
        )

    def is_stale(self, state: ReplicaState) -> bool:
        """Return whether an index file holds outdated facts."""
        current: Mapping[str, int] = self.current_state().fact_fingerprints
        return any(current.get(fact_id) != crc for fact_id, crc in state.fact_fingerprints.items())

    def refresh(self) -> None:
        """Apply what was loaded, or what another process has written since."""
        pending, self._pending_change = self._pending_change, None
        if pending is not None:
            indexed = self._indexed_state
            self._indexed_state = ReplicaState()
            facts = [
                fact
                for fact in self._file.facts.values()
                if indexed.fact_fingerprints.get(fact.id) != fact_fingerprint(fact)
            ]
            removed = [fact_id for fact_id in indexed.fact_fingerprints if fact_id not in self._file.facts]
            self._apply(ReplicaChange(pending.events[indexed.event_count :], facts, removed))
        else:
            self._apply(self._read_change())
        self._read_profile()

    def store_page(self, page: ReplicaPage, *, is_snapshot: bool) -> None:
        """Store a page and apply it to the memory. Events that are in a log on this machine are not stored again.

        Args:
            page: The page.
            is_snapshot: Whether it replaces the whole replica.

        Raises:
            OSError: The page cannot be written.
        """
        self._folder.create()
        events = [event for event in page.events if is_valid(event) and not self._is_logged_here(event)]
        new_page = msgspec.structs.replace(page, events=events)
        change = self._file.replace(new_page) if is_snapshot else self._file.append(new_page)
        try:
            self._apply(change)
        except BaseException:
            self._file = ReplicaFile(self._folder.cloud_replica, self._cloud)  # the next refresh reads all of the file
            raise

    def store_profile(self, profile: CloudProfile) -> None:
        """Store the profile and apply it to the memory.

        Raises:
            OSError: The profile cannot be written.
        """
        self._folder.create()
        content = msgspec.json.encode(_ProfileFile(self._cloud or "", profile))
        write_file(self._folder.cloud_profile, content, durable=False)
        self._read_profile()

    def reset(self) -> None:
        """Start over after the files have been deleted. The caller clears the memory."""
        self._file = ReplicaFile(self._folder.cloud_replica, self._cloud)
        self.profile, self._profile_version_key = None, None
        self._pending_change, self._indexed_state = None, ReplicaState()
        self._last_seqs = {}

    def _is_logged_here(self, event: Event) -> bool:
        """Return whether an event is in a log on this machine, so that the cloud sends back our own."""
        return self._folder.session(event.session_id).log.exists() and (
            event.type is EventType.SESSION_START or self._memory.has_turn(event.event_id)
        )

    def _read_change(self) -> ReplicaChange:
        try:
            return self._file.refresh()
        except OSError as error:
            log.warning("cannot read the cloud replica: action=copy_unread errno=%s", error.errno)
            return ReplicaChange()

    def _note_seqs(self, events: Iterable[Event]) -> None:
        for event in events:
            self._last_seqs[event.session_id] = max(event.seq, self.last_seq(event.session_id))

    def _apply(self, change: ReplicaChange) -> None:
        self._note_seqs(change.events)
        self._memory.remove_turns(change.removed_event_ids)
        for event in change.events:
            # Not all turns of the cloud were sent by a runtime, which would have truncated them.
            self._memory.apply_event(msgspec.structs.replace(event, payload=truncate_to_heard(event.payload)))
        self._memory.remove_facts(change.removed_fact_ids)
        self._memory.add_facts(change.facts)
        if change.facts or change.removed_fact_ids:
            self._publish_profile()

    def _read_profile(self) -> None:
        path = self._folder.cloud_profile
        try:
            stat = path.stat()
            version_key = stat.st_mtime_ns, stat.st_size
            if version_key == self._profile_version_key:
                return
            stored = _decode_profile_file(read_private_file(path))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        self._profile_version_key = version_key
        if self._cloud in (None, stored.cloud):
            self.profile = stored.profile
            self._publish_profile()

    def _publish_profile(self) -> None:
        self._memory.set_derived_profile(self.profile or CloudProfile(), lasting_fact_texts(self._file.facts))
