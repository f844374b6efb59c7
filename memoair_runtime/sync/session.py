"""What is said to the cloud and asked of it: all of one pull in its order, and a push. Used by one thread."""

import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import datetime

from memoair_runtime.enums import LaneName
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
from memoair_runtime.sync.transport import CloudIdentity, CloudTransport

# How long a pull waits for what lies on the disk to be read first: what is in our own logs is not kept twice.
_LOAD_TIMEOUT_S = 10.0


class SyncSession:
    """One runtime's talk with its cloud. All but `abort` and `sync_token` belong to one thread."""

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
            CloudIdentity(
                settings.cloud_base_url or "",
                settings.cloud_key or "",
                settings.project_id,
                settings.agent_id,
                None if settings.org_only else settings.user_id,
            )
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
        """What the cloud calls the state that it told last."""
        return self._user_puller.sync_token

    @property
    def has_seen_erasure(self) -> bool:
        """Whether the cloud has forgotten the caller, as a push found out, and no pull has looked since."""
        return self._pusher.has_seen_erasure

    def scan(self, *, all_sessions: bool) -> None:
        """See what waits on the disk: of what this process logged, or ``everywhere``, whoever left it there."""
        if self._is_durable:
            if all_sessions:
                self._rejected_events.load()
            with suppress(OSError):  # a pull and a push look again, and say so
                self._outbox.scan(all_sessions=all_sessions)

    def pull(self, scopes: AbstractSet[LaneName], lock_deadline: float, on_authorized: Callable[[], None]) -> bool:
        """Bring what has changed in some scopes; False where another process is at one of them and did not come to its
        end by ``waits_until`` (monotonic seconds). ``admit`` is called once the cloud has accepted the key.

        Raises `CloudError`, `memoair_runtime.errors.StorageUnavailableError` or OSError.
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
        """Send what waits, by the deadline (monotonic seconds); False where another process is at it.

        Raises `CloudError`, or OSError.
        """
        return self._pusher.push(deadline)

    def apply_erasure(self, at: datetime | None) -> None:
        """The caller has been forgotten here, and in the cloud at a moment, where that is known."""
        self._user_puller.record_erasure(at)
        self._outbox.scan(all_sessions=True)

    def abort(self) -> None:
        """Let a pull that is under way end soon."""
        self._transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _resend_all(self) -> None:
        """The cloud has less than it had: what it lost may be in our logs."""
        self._outbox.rewind()
        self._outbox.scan(all_sessions=True)

    def _wait_until_loaded(self) -> None:
        try:
            self._store.gate.wait(time.monotonic() + _LOAD_TIMEOUT_S)
        except NotReadyError as error:
            if error.readiness is Readiness.LOADING:
                raise CloudError(FailureKind.TRANSIENT, "the logs are still being read") from None
