"""Pull of a user's data: first the versions, then an erasure if one is due, then only what has changed."""

import logging
import math
import time
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import datetime

import msgspec

from memoair_protocol.durable import write_file
from memoair_protocol.enums import LaneName
from memoair_protocol.private_files import read_private_file
from memoair_protocol.timestamps import utc_now
from memoair_runtime.memory.eraser import Eraser
from memoair_runtime.memory.user_store import UserStore
from memoair_runtime.readiness import NotReadyError, Readiness, ReadinessGate
from memoair_runtime.storage.erasure_record import CloudErasure
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.rejected_events import RejectedEvents
from memoair_runtime.storage.replica_file import ReplicaPage
from memoair_runtime.storage.retention import RetentionRules, find_user_cutoff
from memoair_runtime.sync.errors import CloudError, FailureKind, invalid_response
from memoair_runtime.sync.outbox import Outbox
from memoair_runtime.sync.responses import Bootstrap
from memoair_runtime.sync.transport import CALL_TIMEOUT_S, CloudTransport

log = logging.getLogger(__name__)

# How long a pull waits for the logs on the disk to be read: events that are in our own logs are not stored twice.
_LOAD_TIMEOUT_S = 10.0
# How long an erasure may wait for logs that are being read.
_ERASE_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.02


class UserPullState(msgspec.Struct, frozen=True):
    """The cloud's last reply to bootstrap, stored in ``cloud_state.json``.

    Attributes:
        cloud: Identifies the cloud.
        etag: Tag for the next conditional request.
        bootstrap: The versions that the cloud reported.
        forgotten_at: When the cloud erased the user, as of the last erasure on this machine.
        epoch: The epoch of the cloud from which profile, events and facts have been pulled.
        marks: Whether all events of the user have been logged with their cloud, as far as this file tells; see
            `memoair_runtime.storage.cursors`. It stays False in a file of an earlier version.
    """

    cloud: str
    etag: str | None = None
    bootstrap: Bootstrap | None = None
    forgotten_at: datetime | None = None
    epoch: str | None = None
    marks: bool = False


_decode_state = msgspec.json.Decoder(UserPullState).decode


class UserPuller:
    """Keeps the replica of one user up to date. For one thread.

    Args:
        cloud: Identifies the cloud.
        transport: The connection to the cloud.
        store: Holds the user's data.
        gate: Open once the session logs have been read.
        eraser: Erases the user's data.
        outbox: The user's unsent events, which are counted before a pull.
        rejected_events: Where rejected events are recorded.
        retention_days: For how many days turns are kept on this machine, whatever the cloud says; None for ever.
    """

    def __init__(
        self,
        cloud: str,
        transport: CloudTransport,
        store: UserStore,
        gate: ReadinessGate,
        eraser: Eraser,
        outbox: Outbox,
        rejected_events: RejectedEvents,
        retention_days: int | None = None,
    ) -> None:
        self._folder = store.folder
        self._transport = transport
        self._store = store
        self._gate = gate
        self._eraser = eraser
        self._outbox = outbox
        self._rejected_events = rejected_events
        self._lock = ProcessLock(store.folder.lock("pull"))
        self._state = UserPullState(cloud, marks=True)
        self._is_state_loaded = False
        self._retention_days = retention_days
        self._cutoff: datetime | None = None  # what is older is not kept on this machine
        self._applied_cutoff: datetime | None = None
        # The lanes whose data is of another epoch of the cloud: its versions say nothing about them.
        self._outdated_scopes: set[LaneName] = set()

    @property
    def sync_token(self) -> str | None:
        """The cloud's token for the state that it reported last."""
        return self._state.bootstrap.sync_token if self._state.bootstrap else None

    @property
    def trace_mode(self) -> str | None:
        """What the project says is to be kept of searches, as the cloud reported it last."""
        return self._state.bootstrap.recall_traces if self._state.bootstrap else None

    def fetch_bootstrap(self, deadline: float = math.inf) -> Bootstrap:
        """Fetch the versions of everything.

        Args:
            deadline: When to give up, in monotonic seconds.

        Raises:
            CloudError: The request failed.
        """
        if not self._is_state_loaded:
            self._load_state()
        deadline = min(deadline, time.monotonic() + CALL_TIMEOUT_S)
        response = self._transport.fetch_bootstrap(self._state.etag, deadline)
        if response is not None:
            bootstrap, etag = response
            self._state = msgspec.structs.replace(self._state, etag=etag, bootstrap=bootstrap)
        if self._state.bootstrap is None:
            raise invalid_response("304 Not Modified in reply to an unconditional request")
        return self._state.bootstrap

    def pull(self, bootstrap: Bootstrap, scopes: AbstractSet[LaneName], lock_deadline: float) -> bool:
        """Pull what has changed of the user, after erasing the user if the cloud has.

        Args:
            bootstrap: The versions.
            scopes: The lanes to pull.
            lock_deadline: How long to wait for another process that is pulling, in monotonic seconds.

        Returns:
            False if another process is pulling and has not reached the version in time.

        Raises:
            CloudError: A request failed.
            StorageUnavailableError: The user could not be erased.
            OSError: A file cannot be written.
        """
        try:
            self._gate.wait(time.monotonic() + _LOAD_TIMEOUT_S)
        except NotReadyError as error:
            if error.readiness is Readiness.LOADING:
                raise CloudError(FailureKind.TRANSIENT, "the session logs are still being read") from None
        self.erase_if_due(bootstrap)
        if bootstrap.epoch not in (None, self._state.epoch):
            self._outdated_scopes = {LaneName.PROFILE, LaneName.PERMANENT}
            self._state = msgspec.structs.replace(self._state, epoch=bootstrap.epoch)
        self._outbox.set_epoch(bootstrap.epoch)
        self._outbox.scan(all_sessions=True)
        if LaneName.PROFILE in scopes:
            self._pull_profile(bootstrap)
        return LaneName.PERMANENT not in scopes or self._pull_permanent(bootstrap, lock_deadline)

    def set_rules(self, rules: RetentionRules | None) -> None:
        """Set how long turns are kept, before a pull. What is older is neither pulled nor kept."""
        self._cutoff = find_user_cutoff(rules, self._retention_days, self._folder, utc_now())

    def drop_old_turns(self) -> None:
        """Drop turns that are too old from this machine, if more have become so since the last time.

        Raises:
            StorageUnavailableError: Something could not be deleted.
        """
        if self._cutoff is None or self._cutoff == self._applied_cutoff or not self._folder.path.is_dir():
            return
        dropped = self._eraser.drop_old_turns(time.monotonic() + _ERASE_TIMEOUT_S, self._cutoff)
        self._applied_cutoff = self._cutoff
        if dropped.event_ids:
            log.info("dropped old turns: action=retained turns=%d", dropped.turns)
            self._outbox.scan(all_sessions=True)

    def finish_pull(self) -> None:
        """Store the state of a pull that has succeeded, and an index file if it is worth it."""
        self._save_state()
        self._store.write_snapshot_if_due()

    def record_erasure(self, at: datetime | None) -> None:
        """Record that the user was erased on this machine, and when in the cloud, if known; then count the events."""
        self._state = UserPullState(self._state.cloud, forgotten_at=at or self._state.forgotten_at, marks=True)
        self._save_state()
        self._outbox.scan(all_sessions=True)

    def erase_if_due(self, bootstrap: Bootstrap) -> None:
        """Erase the user on this machine, if the cloud has since the last erasure here.

        Raises:
            StorageUnavailableError: The user could not be erased.
        """
        cloud_erased_at, local_erased_at = bootstrap.forgotten_at, self._state.forgotten_at
        if cloud_erased_at is None or (local_erased_at is not None and cloud_erased_at <= local_erased_at):
            return
        deadline, in_cloud = time.monotonic() + _ERASE_TIMEOUT_S, CloudErasure(self._state.cloud, cloud_erased_at)
        erased = self._eraser.erase(deadline, cloud_erased_at, keeps_later=True, in_cloud=in_cloud)
        log.warning("erased a user: action=forgotten sessions=%d turns=%d", erased.sessions, erased.turns)
        self._state = msgspec.structs.replace(self._state, forgotten_at=cloud_erased_at)
        self._save_state()
        self._outbox.clear()
        self._rejected_events.reset()

    def _pull_profile(self, bootstrap: Bootstrap) -> None:
        generation, known_version = self._store.generation, self._store.profile_version
        if LaneName.PROFILE in self._outdated_scopes:
            known_version = None
        elif (bootstrap.profile_version or 0) == (known_version or 0):
            return
        response = self._transport.fetch_profile(known_version, time.monotonic() + CALL_TIMEOUT_S)
        if response is not None:
            self._store.store_profile(response.to_profile(), generation)
        self._outdated_scopes.discard(LaneName.PROFILE)

    def _pull_permanent(self, bootstrap: Bootstrap, lock_deadline: float) -> bool:
        """Pull events and facts; return False if another process is pulling and has not finished in time."""
        self._store.refresh_replica()
        target_version = bootstrap.permanent_manifest_version or 0
        is_outdated = LaneName.PERMANENT in self._outdated_scopes
        if target_version == (self._store.permanent_version or 0) and not is_outdated:
            return True
        self._folder.create()
        while not self._lock.try_acquire():
            if time.monotonic() >= lock_deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)
            self._store.refresh_replica()
            if (self._store.permanent_version or 0) >= target_version and not is_outdated:
                return True
        try:
            self._store.refresh_replica()
            self._pull_pages()
        finally:
            self._lock.release()
        return True

    def _save_state(self) -> None:
        """Write the state for the next process. If it is lost, that costs one request."""
        if self._folder.path.is_dir():
            epoch = None if self._outdated_scopes else self._state.epoch
            state = msgspec.structs.replace(self._state, epoch=epoch)
            with suppress(OSError):
                write_file(self._folder.pull_state, msgspec.json.encode(state), durable=False)

    def _pull_pages(self) -> None:
        while True:
            generation, since = self._store.generation, self._store.permanent_version
            since = None if LaneName.PERMANENT in self._outdated_scopes else since
            response = self._transport.fetch_permanent(since, time.monotonic() + CALL_TIMEOUT_S)
            if response is None:
                return
            is_snapshot = response.mode == "snapshot"
            if since is None and not is_snapshot:
                raise invalid_response("a delta in reply to a request for a snapshot")
            if since is not None and response.version < since:
                log.warning("the cloud has lost data, all events are sent again: action=cloud_lost")
                self._outbox.rewind()  # our logs may still hold it
                self._outbox.scan(all_sessions=True)
            if response.more and response.version == since and not is_snapshot:
                raise invalid_response("more data is announced but the version does not advance")
            self._store.store_page(self._without_old(response.to_page()), generation, is_snapshot=is_snapshot)
            self._outdated_scopes.discard(LaneName.PERMANENT)
            if not response.more or generation != self._store.generation:
                return

    def _without_old(self, page: ReplicaPage) -> ReplicaPage:
        """Return a page without turns that are too old: the cloud may be about to drop them."""
        cutoff = self._cutoff
        if cutoff is None:
            return page
        return msgspec.structs.replace(page, events=[event for event in page.events if event.occurred_at >= cutoff])

    def _load_state(self) -> None:
        self._is_state_loaded = True
        try:
            state = _decode_state(read_private_file(self._folder.pull_state))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        if state.cloud == self._state.cloud:
            self._state = state
