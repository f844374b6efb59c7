"""The requests of a sync with the cloud: all steps of a pull in their order, and a push."""

import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import datetime

from memoair_protocol.enums import LaneName
from memoair_runtime.memory.user_store import UserStore
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.readiness import NotReadyError, Readiness
from memoair_runtime.recall.lanes.org_lane import OrgLane
from memoair_runtime.settings import RuntimeSettings
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.rejected_events import RejectedEvents
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.outbox import Outbox
from memoair_runtime.sync.pull_erasures import ErasurePuller
from memoair_runtime.sync.pull_org import OrgPuller
from memoair_runtime.sync.pull_user import UserPuller
from memoair_runtime.sync.push import Pusher
from memoair_runtime.sync.transport import CloudTransport

# How long a pull waits for the logs on the disk to be read: events that are in our own logs are not stored twice.
_LOAD_TIMEOUT_S = 10.0


class SyncSession:
    """The connection of one runtime to its cloud. For one thread, except `abort` and `sync_token`.

    Args:
        settings: The runtime's settings, with a cloud.
        store: Holds the user's data.
        org_lane: Reloads when documents have been pulled.
        outbox: The user's unsent events.
        rejected_events: Where rejected events are recorded.
        metrics: The runtime's metrics.
    """

    def __init__(
        self,
        settings: RuntimeSettings,
        store: UserStore,
        org_lane: OrgLane,
        outbox: Outbox,
        rejected_events: RejectedEvents,
        metrics: RuntimeMetrics,
    ) -> None:
        cloud, project = settings.cloud_id or "", ProjectFolder(settings.storage_root, settings.project_id)
        folder = UserFolder(settings.storage_root, settings.project_id, settings.user_id)
        self._transport = CloudTransport(
            settings.cloud_base_url or "",
            settings.cloud_key or "",
            settings.project_id,
            settings.agent_id,
            None if settings.org_only else settings.user_id,
        )
        self._store = store
        self._outbox = outbox
        self._rejected_events = rejected_events
        self._is_durable = not settings.org_only
        self._user_puller = UserPuller(folder, cloud, store, self._transport, self._resend_all)
        self._org_puller = None if settings.org_file else OrgPuller(project, cloud, self._transport, org_lane.load)
        self._erasure_puller = ErasurePuller(project, cloud, self._transport, folder)
        self._pusher = Pusher(folder, outbox, rejected_events, self._transport, metrics)

    @property
    def sync_token(self) -> str | None:
        """The cloud's token for the state that it reported last."""
        return self._user_puller.sync_token

    @property
    def has_seen_erasure(self) -> bool:
        """Whether a push has found out that the cloud has erased the user, and no pull has checked since."""
        return self._pusher.has_seen_erasure

    def scan(self, *, all_sessions: bool) -> None:
        """Count the unsent events on the disk.

        Args:
            all_sessions: Whether to look at every session; else only at those in which this process has logged events.
        """
        if self._is_durable:
            if all_sessions:
                self._rejected_events.load()
            with suppress(OSError):  # a pull and a push scan again and report the error
                self._outbox.scan(all_sessions=all_sessions)

    def pull(self, scopes: AbstractSet[LaneName], lock_deadline: float, on_authorized: Callable[[], None]) -> bool:
        """Pull what has changed.

        Args:
            scopes: The lanes to pull.
            lock_deadline: How long to wait for another process that is pulling, in monotonic seconds.
            on_authorized: Called once the cloud has accepted the key.

        Returns:
            False if another process is pulling one of the scopes and did not finish in time.

        Raises:
            CloudError: A request failed.
            StorageUnavailableError: The user could not be erased.
            OSError: A file cannot be written.
        """
        bootstrap = self._user_puller.fetch_bootstrap()
        on_authorized()
        is_complete = True
        if self._is_durable:
            self._wait_until_loaded()
            if self._user_puller.is_erasure_due(bootstrap):
                self._user_puller.erase(bootstrap)
                self._outbox.clear()
                self._rejected_events.reset()
            self._pusher.has_seen_erasure = False
            self._outbox.scan(all_sessions=True)
            if LaneName.PROFILE in scopes:
                self._user_puller.pull_profile(bootstrap)
            if LaneName.PERMANENT in scopes:
                is_complete &= self._user_puller.pull_permanent(bootstrap, lock_deadline)
        if LaneName.ORG in scopes and self._org_puller is not None:
            is_complete &= self._org_puller.pull(bootstrap.org_manifest_version, bootstrap.org_file, lock_deadline)
        self._erasure_puller.pull(bootstrap.forgotten_version)
        if self._is_durable:
            self._user_puller.save_state()
            self._store.write_snapshot_if_due()
        return is_complete

    def push(self, deadline: float) -> bool:
        """Send every unsent event.

        Args:
            deadline: When to stop, in monotonic seconds.

        Returns:
            False if another process is pushing.

        Raises:
            CloudError: A request failed.
            OSError: A file cannot be written.
        """
        return self._pusher.push(deadline)

    def apply_erasure(self, at: datetime | None) -> None:
        """Record that the user was erased on this machine, and when in the cloud, if known; then scan again."""
        self._user_puller.record_erasure(at)
        self._outbox.scan(all_sessions=True)

    def abort(self) -> None:
        """Let a running pull end soon. Thread-safe."""
        self._transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _resend_all(self) -> None:
        """Send all events again: the cloud has lost data, which our logs may still hold."""
        self._outbox.rewind()
        self._outbox.scan(all_sessions=True)

    def _wait_until_loaded(self) -> None:
        try:
            self._store.gate.wait(time.monotonic() + _LOAD_TIMEOUT_S)
        except NotReadyError as error:
            if error.readiness is Readiness.LOADING:
                raise CloudError(FailureKind.TRANSIENT, "the session logs are still being read") from None
