"""What the cloud told of the caller: kept beside his logs, and in memory with what is in them.

It was told once and can be asked for again: what is lost or damaged costs a pull, and nothing else.
"""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from memoair_runtime.memory.facts import lasting_texts
from memoair_runtime.memory.profile import CloudProfile
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.storage.durable import write_file
from memoair_runtime.storage.events import Event, EventType, is_sound
from memoair_runtime.storage.replica_file import ReplicaChange, ReplicaFile, ReplicaPage, fingerprint
from memoair_runtime.storage.user_folder import LogStamp, UserFolder

log = logging.getLogger(__name__)


class ReplicaState(msgspec.Struct, frozen=True, array_like=True):
    """A copy as far as an index file holds it: which one, how many of its events, and its facts by their checksums."""

    name: str | None = None
    events: int = 0
    facts: dict[str, int] = {}


class _ProfileFile(msgspec.Struct, frozen=True):
    cloud: str
    profile: CloudProfile


_read_profile = msgspec.json.Decoder(_ProfileFile).decode


class CloudReplica:
    """One caller's copy of what the cloud knows. Not thread-safe: the keeper locks, who writes holds the role for it.

    ``cloud`` names the one that we talk to; without one, what any has told is used.
    """

    def __init__(self, folder: UserFolder, memory: UserMemory, cloud: str | None) -> None:
        self._folder = folder
        self._memory = memory
        self._cloud = cloud
        self._copy = ReplicaFile(folder.cloud_copy, cloud)
        self._held = ReplicaState()  # what the memory had of the copy before any of it was taken in
        self._unheard: ReplicaChange | None = None  # what was read and is not in memory yet
        self._profile_stamp: LogStamp | None = None
        self.profile: CloudProfile | None = None
        self._read_profile()  # it is small, and who calls should be known from the first question on

    @property
    def version(self) -> int | None:
        """Up to which version events and facts are here; None where there are none."""
        return self._copy.version

    def read(self) -> None:
        """Read what lies on the disk, and let the memory have it with the next `catch_up`."""
        self._unheard = self._change()

    def backs(self, note: Any) -> bool:
        """Whether an index file that notes this can be gone on with; raises ValueError for another note."""
        held = msgspec.convert(note, ReplicaState) if note is not None else ReplicaState()
        if held.name is not None and (held.name != self._copy.name or held.events > self._copy.events):
            log.warning("what the cloud told is not what it was, logs are read again: action=index_outdated")
            return False
        self._held = held
        return True

    def holding(self) -> ReplicaState:
        """What a file that is written now will hold."""
        return ReplicaState(
            self._copy.name,
            self._copy.events,
            {fact_id: fingerprint(fact) for fact_id, fact in self._copy.facts.items()},
        )

    def has_outdone(self, held: ReplicaState) -> bool:
        """Whether a file holds facts that stand no longer."""
        now: Mapping[str, int] = self.holding().facts
        return any(now.get(fact_id) != crc for fact_id, crc in held.facts.items())

    def catch_up(self) -> None:
        """Let the memory have what was read, and what another process has written since."""
        first, self._unheard = self._unheard, None
        if first is not None:
            known = self._held
            self._held = ReplicaState()
            facts = [fact for fact in self._copy.facts.values() if known.facts.get(fact.id) != fingerprint(fact)]
            gone = [fact_id for fact_id in known.facts if fact_id not in self._copy.facts]
            self._tell(ReplicaChange(first.events[known.events :], facts, gone))
        else:
            self._tell(self._change())
        self._read_profile()

    def take(self, page: ReplicaPage, *, is_snapshot: bool) -> None:
        """Keep what the cloud told, and let the memory have it; raises OSError where the disk refuses.

        What stands in our own logs is not kept again.
        """
        self._folder.create()
        events = [event for event in page.events if is_sound(event) and not self._is_ours(event)]
        news = msgspec.structs.replace(page, events=events)
        change = self._copy.replace(news) if is_snapshot else self._copy.append(news)
        try:
            self._tell(change)
        except BaseException:
            self._copy = ReplicaFile(self._folder.cloud_copy, self._cloud)  # the next look takes in all that is there
            raise

    def take_profile(self, profile: CloudProfile) -> None:
        """Keep who the caller is, as the cloud found; raises OSError where the disk refuses."""
        self._folder.create()
        content = msgspec.json.encode(_ProfileFile(self._cloud or "", profile))
        write_file(self._folder.cloud_profile, content, durable=False)
        self._read_profile()

    def forget(self) -> None:
        """Let go of it all; the files have been deleted, and the memory is cleared by whoever asks for this."""
        self._copy = ReplicaFile(self._folder.cloud_copy, self._cloud)
        self.profile, self._profile_stamp, self._unheard, self._held = None, None, None, ReplicaState()

    def _is_ours(self, event: Event) -> bool:
        """Whether an event stands in a log here, so that it comes back to us."""
        return self._folder.session(event.session_id).log.exists() and (
            event.type is EventType.SESSION_START or self._memory.knows(event.event_id)
        )

    def _change(self) -> ReplicaChange:
        try:
            return self._copy.catch_up()
        except OSError as error:
            log.warning("what the cloud told can't be read: action=copy_unread errno=%s", error.errno)
            return ReplicaChange()

    def _tell(self, change: ReplicaChange) -> None:
        self._memory.unhear(change.dropped)
        for event in change.events:
            self._memory.observe(event)
        self._memory.unlearn(change.removed)
        self._memory.learn(change.facts)
        if change.facts or change.removed:
            self._show()

    def _read_profile(self) -> None:
        path = self._folder.cloud_profile
        try:
            state = path.stat()
            stamp = state.st_mtime_ns, state.st_size
            if stamp == self._profile_stamp:
                return
            stored = _read_profile(path.read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return
        self._profile_stamp = stamp
        if self._cloud in (None, stored.cloud):
            self.profile = stored.profile
            self._show()

    def _show(self) -> None:
        self._memory.find(self.profile or CloudProfile(), lasting_texts(self._copy.facts))
