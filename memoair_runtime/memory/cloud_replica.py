"""What the cloud told of the caller: kept beside his logs, and in memory with what is in them.

It was told once and can be asked for again: what is lost or damaged costs a pull, and nothing else.
"""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from memoair_runtime.memory.facts import lasting_fact_texts
from memoair_runtime.memory.profile import CloudProfile
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.storage.durable import write_file
from memoair_runtime.storage.events import Event, EventType, is_valid
from memoair_runtime.storage.replica_file import ReplicaChange, ReplicaFile, ReplicaPage, fact_fingerprint
from memoair_runtime.storage.user_folder import LogVersionKey, UserFolder

log = logging.getLogger(__name__)


class ReplicaState(msgspec.Struct, frozen=True, array_like=True):
    """A copy as far as an index file holds it: which one, how many of its events, and its facts by their checksums."""

    replica_id: str | None = None
    event_count: int = 0
    fact_fingerprints: dict[str, int] = {}


class _ProfileFile(msgspec.Struct, frozen=True):
    cloud: str
    profile: CloudProfile


_decode_profile_file = msgspec.json.Decoder(_ProfileFile).decode


class CloudReplica:
    """One caller's copy of what the cloud knows. Not thread-safe: the keeper locks, who writes holds the role for it.

    ``cloud`` names the one that we talk to; without one, what any has told is used.
    """

    def __init__(self, folder: UserFolder, memory: UserMemory, cloud: str | None) -> None:
        self._folder = folder
        self._memory = memory
        self._cloud = cloud
        self._file = ReplicaFile(folder.cloud_replica, cloud)
        self._indexed_state = ReplicaState()  # what the memory had of the copy before any of it was taken in
        self._pending_change: ReplicaChange | None = None  # what was read and is not in memory yet
        self._profile_version_key: LogVersionKey | None = None
        self.profile: CloudProfile | None = None
        self._read_profile()  # it is small, and who calls should be known from the first question on

    @property
    def version(self) -> int | None:
        """Up to which version events and facts are here; None where there are none."""
        return self._file.version

    def load(self) -> None:
        """Read what lies on the disk, and let the memory have it with the next `catch_up`."""
        self._pending_change = self._read_change()

    def matches(self, note: Any) -> bool:
        """Whether an index file that notes this can be gone on with; raises ValueError for another note."""
        state = msgspec.convert(note, ReplicaState) if note is not None else ReplicaState()
        if state.replica_id is not None and (
            state.replica_id != self._file.replica_id or state.event_count > self._file.event_count
        ):
            log.warning("what the cloud told is not what it was, logs are read again: action=index_outdated")
            return False
        self._indexed_state = state
        return True

    def current_state(self) -> ReplicaState:
        """What a file that is written now will hold."""
        return ReplicaState(
            self._file.replica_id,
            self._file.event_count,
            {fact_id: fact_fingerprint(fact) for fact_id, fact in self._file.facts.items()},
        )

    def is_stale(self, state: ReplicaState) -> bool:
        """Whether a file holds facts that stand no longer."""
        current: Mapping[str, int] = self.current_state().fact_fingerprints
        return any(current.get(fact_id) != crc for fact_id, crc in state.fact_fingerprints.items())

    def refresh(self) -> None:
        """Let the memory have what was read, and what another process has written since."""
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
        """Keep what the cloud told, and let the memory have it; raises OSError where the disk refuses.

        What stands in our own logs is not kept again.
        """
        self._folder.create()
        events = [event for event in page.events if is_valid(event) and not self._is_logged_here(event)]
        new_page = msgspec.structs.replace(page, events=events)
        change = self._file.replace(new_page) if is_snapshot else self._file.append(new_page)
        try:
            self._apply(change)
        except BaseException:
            self._file = ReplicaFile(
                self._folder.cloud_replica, self._cloud
            )  # the next look takes in all that is there
            raise

    def store_profile(self, profile: CloudProfile) -> None:
        """Keep who the caller is, as the cloud found; raises OSError where the disk refuses."""
        self._folder.create()
        content = msgspec.json.encode(_ProfileFile(self._cloud or "", profile))
        write_file(self._folder.cloud_profile, content, durable=False)
        self._read_profile()

    def reset(self) -> None:
        """Let go of it all; the files have been deleted, and the memory is cleared by whoever asks for this."""
        self._file = ReplicaFile(self._folder.cloud_replica, self._cloud)
        self.profile, self._profile_version_key, self._pending_change, self._indexed_state = (
            None,
            None,
            None,
            ReplicaState(),
        )

    def _is_logged_here(self, event: Event) -> bool:
        """Whether an event stands in a log here, so that it comes back to us."""
        return self._folder.session(event.session_id).log.exists() and (
            event.type is EventType.SESSION_START or self._memory.has_turn(event.event_id)
        )

    def _read_change(self) -> ReplicaChange:
        try:
            return self._file.refresh()
        except OSError as error:
            log.warning("what the cloud told can't be read: action=copy_unread errno=%s", error.errno)
            return ReplicaChange()

    def _apply(self, change: ReplicaChange) -> None:
        self._memory.remove_turns(change.removed_event_ids)
        for event in change.events:
            self._memory.apply_event(event)
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
            stored = _decode_profile_file(path.read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return
        self._profile_version_key = version_key
        if self._cloud in (None, stored.cloud):
            self.profile = stored.profile
            self._publish_profile()

    def _publish_profile(self) -> None:
        self._memory.set_derived_profile(self.profile or CloudProfile(), lasting_fact_texts(self._file.facts))
