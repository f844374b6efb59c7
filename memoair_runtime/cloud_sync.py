"""Assembles the sync of a runtime with its cloud: this alone knows all that is pulled and pushed."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from memoair_runtime.memory.eraser import Eraser
from memoair_runtime.memory.user_store import UserStore
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.readiness import ReadinessGate
from memoair_runtime.settings import RuntimeSettings
from memoair_runtime.storage.backlog_status import cached_reader
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.rejected_events import RejectedEvents
from memoair_runtime.sync.interface import NullSync, SyncInterface
from memoair_runtime.sync.outbox import Outbox
from memoair_runtime.sync.scheduler import SyncScheduler

if TYPE_CHECKING:
    from memoair_runtime.sync.session import SyncSession


def make_sync(
    settings: RuntimeSettings,
    store: UserStore,
    gate: ReadinessGate,
    eraser: Eraser,
    reload_documents: Callable[[], object],
    metrics: RuntimeMetrics,
) -> SyncInterface:
    """Return the sync of a runtime, which is not started yet.

    Args:
        settings: The runtime's settings.
        store: Holds the user's data.
        gate: Open once the session logs have been read.
        eraser: Erases the user's data.
        reload_documents: Called when the organization's documents may have changed.
        metrics: The runtime's metrics.
    """
    if settings.cloud_id is None:
        return NullSync()
    cloud, folder = settings.cloud_id, store.folder
    project = ProjectFolder(settings.storage_root, settings.project_id)
    metrics.show_backlog(cached_reader(project.backlog_status(cloud)))
    outbox, rejected_events = Outbox(folder, cloud), RejectedEvents(folder.rejected_events)

    def open_session() -> "SyncSession":
        # These import ``requests``, which is slow unless a fork server has imported it already.
        from memoair_runtime.org.pull import OrgPuller
        from memoair_runtime.sync.pull_attempts import PullAttempts
        from memoair_runtime.sync.pull_erasures import ErasurePuller
        from memoair_runtime.sync.pull_retention import RetentionPuller
        from memoair_runtime.sync.pull_user import UserPuller
        from memoair_runtime.sync.push import Pusher
        from memoair_runtime.sync.push_traces import TracePusher
        from memoair_runtime.sync.session import SyncSession
        from memoair_runtime.sync.transport import CloudTransport

        user_id = None if settings.org_only else settings.user_id
        transport = CloudTransport(
            settings.cloud_base_url or "", settings.cloud_key or "", settings.project_id, settings.agent_id, user_id
        )
        attempts = PullAttempts()
        return SyncSession(
            transport,
            UserPuller(
                cloud, transport, store, gate, eraser, outbox, rejected_events, attempts, settings.retention_days
            ),
            None if settings.org_file else OrgPuller(project, cloud, transport, reload_documents).pull,
            ErasurePuller(project, cloud, transport, folder),
            RetentionPuller(project, cloud, transport),
            Pusher(folder, outbox, rejected_events, transport, metrics),
            TracePusher(folder, cloud, transport, metrics),
            attempts,
            is_durable=not settings.org_only,
        )

    return SyncScheduler(settings.pull_interval_s, outbox, rejected_events, open_session, metrics)
