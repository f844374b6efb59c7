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
_LONGEST_READ_S = 10.0


class SyncSession:
    """One runtime's talk with its cloud. All but `abort` and `sync_token` belong to one thread."""

    def __init__(
        self,
        settings: RuntimeSettings,
        keeper: UserStore,
        org: OrgLane,
        outbox: Outbox,
        refusals: RejectedEvents,
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
        self._keeper = keeper
        self._outbox = outbox
        self._refusals = refusals
        self._is_kept = not settings.org_only
        self._caller = UserPuller(folder, cloud, keeper, self._transport, self._send_again)
        self._org = None if settings.org_file else OrgPuller(project, cloud, self._transport, org.load)
        self._forgotten = ErasurePuller(project, cloud, self._transport, folder)
        self._pusher = Pusher(folder, outbox, refusals, self._transport, metrics)

    @property
    def sync_token(self) -> str | None:
        """What the cloud calls the state that it told last."""
        return self._caller.sync_token

    @property
    def has_met_forgotten(self) -> bool:
        """Whether the cloud has forgotten the caller, as a push found out, and no pull has looked since."""
        return self._pusher.has_met_forgotten

    def look(self, *, everywhere: bool) -> None:
        """See what waits on the disk: of what this process logged, or ``everywhere``, whoever left it there."""
        if self._is_kept:
            if everywhere:
                self._refusals.look()
            with suppress(OSError):  # a pull and a push look again, and say so
                self._outbox.look(everywhere=everywhere)

    def pull(self, scopes: AbstractSet[LaneName], waits_until: float, admit: Callable[[], None]) -> bool:
        """Bring what has changed in some scopes; False where another process is at one of them and did not come to its
        end by ``waits_until`` (monotonic seconds). ``admit`` is called once the cloud has accepted the key.

        Raises `CloudError`, `memoair_runtime.errors.StorageUnavailableError` or OSError.
        """
        bootstrap = self._caller.bootstrap()
        admit()
        is_whole = True
        if self._is_kept:
            self._wait_until_read()
            if self._caller.has_been_forgotten(bootstrap):
                self._caller.forget(bootstrap)
                self._outbox.forget()
                self._refusals.forget()
            self._pusher.has_met_forgotten = False
            self._outbox.look(everywhere=True)
            if LaneName.PROFILE in scopes:
                self._caller.pull_profile(bootstrap)
            if LaneName.PERMANENT in scopes:
                is_whole &= self._caller.pull_permanent(bootstrap, waits_until)
        if LaneName.ORG in scopes and self._org is not None:
            is_whole &= self._org.pull(bootstrap.org_manifest_version, bootstrap.org_file, waits_until)
        self._forgotten.pull(bootstrap.forgotten_version)
        if self._is_kept:
            self._caller.note()
            self._keeper.tidy()
        return is_whole

    def push(self, deadline: float) -> bool:
        """Send what waits, by the deadline (monotonic seconds); False where another process is at it.

        Raises `CloudError`, or OSError.
        """
        return self._pusher.push(deadline)

    def forgotten(self, at: datetime | None) -> None:
        """The caller has been forgotten here, and in the cloud at a moment, where that is known."""
        self._caller.forgotten(at)
        self._outbox.look(everywhere=True)

    def abort(self) -> None:
        """Let a pull that is under way end soon."""
        self._transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _send_again(self) -> None:
        """The cloud has less than it had: what it lost may be in our logs."""
        self._outbox.rewind()
        self._outbox.look(everywhere=True)

    def _wait_until_read(self) -> None:
        try:
            self._keeper.gate.wait(time.monotonic() + _LONGEST_READ_S)
        except NotReadyError as error:
            if error.readiness is Readiness.LOADING:
                raise CloudError(FailureKind.TRANSIENT, "the logs are still being read") from None
