"""What a runtime does, without HTTP: one method for each endpoint, from a checked request to the body of the reply."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from memoair_runtime.coalescing_job import CoalescingJob
from memoair_runtime.enums import LaneName, Variant
from memoair_runtime.errors import BadRequestError, DrainingError, IdentityMismatchError, StorageUnavailableError
from memoair_runtime.lifecycle import Lifecycle, LifecycleState
from memoair_runtime.memory.session import EphemeralSession, SessionState, check_not_ended
from memoair_runtime.memory.user_store import UserStore
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.readiness import Readiness
from memoair_runtime.recall.lanes.org_lane import OrgLane
from memoair_runtime.recall.lanes.permanent_lane import PermanentLane
from memoair_runtime.recall.lanes.profile_lane import ProfileLane
from memoair_runtime.recall.lanes.working_lane import WorkingLane
from memoair_runtime.recall.org_documents import FileOrg, OrgDocuments
from memoair_runtime.recall.org_manifest import CloudOrg
from memoair_runtime.recall.org_source import OrgSource
from memoair_runtime.recall.search_service import SearchService
from memoair_runtime.requests import (
    DeadlineRequest,
    EndRequest,
    ForgetRequest,
    IdentifiedRequest,
    PullRequest,
    SearchRequest,
    StartRequest,
    TurnRequest,
)
from memoair_runtime.settings import ORG_ONLY, RuntimeSettings
from memoair_runtime.storage.events import Event
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import create_project, org_index
from memoair_runtime.sync.null_sync import NullSync, SyncInterface
from memoair_runtime.sync.scheduler import ALL_SCOPES, SyncScheduler

DEFAULT_FLUSH_MS = DEFAULT_PULL_MS = DEFAULT_ERASE_MS = 5_000
# Who begins to forget should come to the end of it: what is being read then is waited for so long in any case.
MIN_ERASE_S = 1.0
_ORG_LANE_ONLY = frozenset({LaneName.ORG})
_ALL_LANES = frozenset(LaneName)


class RuntimeService:
    """One runtime: one project, one user. Safe to use from any thread."""

    def __init__(self, settings: RuntimeSettings, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self.metrics = RuntimeMetrics()
        self._started_at = time.monotonic()
        self._version = installed_version()
        self._store = UserStore(settings, self._on_events_logged)
        self._org_lane = OrgLane(_make_org_source(settings), self._store.memory.talk)
        self._sync: SyncInterface = (
            SyncScheduler(settings, self._store, self._org_lane, self.metrics) if settings.has_cloud else NullSync()
        )
        self._sessions_loader = CoalescingJob("load-sessions", self._store.load)
        self._variants: dict[str, Variant] = {}  # of sessions that were started with another than the default
        memory = self._store.memory
        self._search_service = SearchService(
            [
                ProfileLane(memory),
                WorkingLane(memory),
                PermanentLane(memory, self._store.gate, self._store.second),
                self._org_lane,
            ],
            self.metrics,
        )

    def start_loading(self) -> None:
        """Begin to read what is on the disk, in the background; lanes that are not read yet say so."""
        self._sessions_loader.start()
        self._org_lane.load_in_background()
        self._sync.start()

    def health(self) -> dict[str, Any]:
        """Tell that the process lives and whom it serves."""
        if self._lifecycle.state is LifecycleState.DRAINING:
            raise DrainingError("the runtime is about to end")
        return {
            "status": "ok",
            "version": self._version,
            "active_sessions": self._store.sessions.active(),
            "uptime_ms": int((time.monotonic() - self._started_at) * 1e3),
            "workspaceId": self._settings.project_id,
            "userId": self._settings.user_id,
            "lanes": self._search_service.lane_readiness(),
            "sync": self._sync.health(),
        }

    def start_session(self, request: StartRequest) -> dict[str, Any]:
        """Open a session."""
        self._check_request(request)
        if request.user_id is None or (request.workspace_id is None and request.project_id is None):
            raise BadRequestError("workspaceId and userId say whose session it is; one is missing")
        if request.mode not in (None, ORG_ONLY):
            raise BadRequestError(f"mode can be {ORG_ONLY!r} or left out", field="mode")
        storage_error = self._store.start(request, unkept=request.mode == ORG_ONLY)
        self.start_loading()  # what other processes have written since
        self._sync.wake()
        self._variants.pop(request.session_id, None)
        if request.variant() is Variant.MEDIUM:
            self._variants[request.session_id] = Variant.MEDIUM
            self._store.read_again()
        folder = self._store.folder(request.session_id)
        return {
            "sessionId": request.session_id,
            "bootstrap": {
                "profileVersion": self._store.memory.portrait.version,
                "permanentManifestVersion": self._permanent_version(),
                "orgManifestVersion": self._org_lane.version,
                "syncToken": self._sync.sync_token,
                "budgets": self._search_service.bootstrap_budgets(),
            },
            "paths": {"sessionJsonl": str(folder.log), "workingBrief": str(folder.brief)},
            **({"storage": {"available": False, "message": storage_error.message}} if storage_error else {}),
            **({"org": {"available": False, "message": self._org_lane.error}} if self._org_lane.error else {}),
        }

    def search_memory(self, request: SearchRequest, reply: Callable[[Mapping[str, Any]], None]) -> None:
        """Recall what matters for a question, and give it to ``reply``: once, from whichever thread has it in time."""
        started_at = time.monotonic()
        self._check_request(request)
        session = self._store.sessions.use(request.session_id)
        check_not_ended(session)
        notes = ["the session was never started; opened silently"] if session.state is SessionState.NEW else []
        if self._store.unread:
            notes.append(f"{self._store.unread} earlier sessions can't be read")
        variant = self._variants.get(request.session_id, Variant.DEFAULT)
        if variant is Variant.MEDIUM and self._store.second.problem:
            notes.append("there is no second reading here: the model is missing or can't be used")
        is_org_only = self._settings.org_only or isinstance(session, EphemeralSession)
        if session.is_unknown:
            self._store.sessions.forget(session)  # or every id that is ever searched would be kept in mind
        allowed_lanes = _ORG_LANE_ONLY if is_org_only else _ALL_LANES
        self._search_service.search(request, allowed_lanes, variant, notes, started_at, reply)
        self._sync.wake()

    def save_turn(self, request: TurnRequest) -> dict[str, Any]:
        """Keep a turn: it is on the disk when this returns."""
        self._check_request(request)
        try:
            event_id = self._store.save_turn(request)
        except StorageUnavailableError:
            self.metrics.turns_refused.inc()
            raise
        if event_id is not None:
            self.metrics.turns_kept.inc()
        return {"localEventId": event_id}

    def end_session(self, request: EndRequest) -> dict[str, Any]:
        """Close a session."""
        self._check_request(request)
        session = self._store.end(request)
        self._variants.pop(session.id, None)
        return {"status": "ok", "flushed": {"turns": self._store.memory.count(session.id)}}

    def flush(self, request: DeadlineRequest) -> dict[str, Any]:
        """Wait until nothing is pending: what is made from the logs is written, and the cloud has what it lacked.

        A turn is on the disk before it is acknowledged, so none is lost where this does not come to its end.
        """
        self._check_request(request)
        deadline = _deadline_of(request, DEFAULT_FLUSH_MS)
        pending = self._store.flush(deadline) + self._sync.flush(deadline)
        return {"status": "partial" if pending else "ok", "pending": pending}

    def pull(self, request: PullRequest) -> dict[str, Any]:
        """Ask the cloud now; what it had can be searched when this returns."""
        self._check_request(request)
        scopes = ALL_SCOPES if request.scopes is None else frozenset(map(LaneName, request.scopes))
        status, versions = self._sync.pull(list(scopes), _deadline_of(request, DEFAULT_PULL_MS))
        return {"status": status, "versions": versions}

    def erase_user(self, request: ForgetRequest) -> dict[str, Any]:
        """Forget the caller on this machine; the process goes on, and so does his call."""
        self._check_request(request)
        if self._settings.org_only:
            return {"status": "ok", "removed": {"sessions": 0, "turns": 0}}
        forgotten_at = request.forgotten_time()
        deadline = max(_deadline_of(request, DEFAULT_ERASE_MS), time.monotonic() + MIN_ERASE_S)
        erased = self._store.forget(deadline)
        self._sync.forgotten(forgotten_at)
        return {"status": "ok", "removed": {"sessions": erased.sessions, "turns": erased.turns}}

    def shut_down(self, request: DeadlineRequest) -> dict[str, Any]:
        """Ask the process to drain and end."""
        self._check_request(request)
        self._lifecycle.request_stop(request.deadline_ms / 1e3 if request.deadline_ms else None)
        return {"status": "draining"}

    def close(self, deadline: float) -> None:
        """Finish what is under way by the deadline (monotonic seconds)."""
        self._search_service.close()
        self._store.close(deadline)
        self._sync.close(deadline)
        self._store.clear_away()

    def _on_events_logged(self, events: Sequence[Event]) -> None:
        self._sync.note(events)

    def _permanent_version(self) -> int | None:
        """The cloud's, where it has told; else how much there is."""
        if self._store.gate.readiness is not Readiness.READY:
            return None
        pulled_version = self._sync.permanent_version
        return len(self._store.memory) if pulled_version is None else pulled_version

    def _check_request(self, request: IdentifiedRequest) -> None:
        if self._lifecycle.state is LifecycleState.DRAINING:
            raise DrainingError("the runtime is about to end")
        for kind, requested_id, served_id in (
            ("project", request.workspace_id, self._settings.project_id),
            ("project", request.project_id, self._settings.project_id),
            ("user", request.user_id, self._settings.user_id),
        ):
            if requested_id is not None and requested_id != served_id:
                raise IdentityMismatchError(f"the request names another {kind} than the one that this runtime serves")


def _make_org_source(settings: RuntimeSettings) -> OrgSource:
    """Where the organisation's documents come from: a file that is given, or else the cloud, now or earlier."""
    root, project_id = settings.storage_root, settings.project_id
    if settings.org_file is None:
        return CloudOrg(ProjectFolder(root, project_id), settings.cloud_id)
    return FileOrg(
        OrgDocuments(
            settings.org_file,
            org_index(root, project_id, settings.org_file),
            create_folder=lambda: create_project(root, project_id),
        )
    )


def _deadline_of(request: DeadlineRequest, default_ms: float) -> float:
    return time.monotonic() + (request.deadline_ms or default_ms) / 1e3


@lru_cache(maxsize=1)
def installed_version() -> str:
    """The version of this distribution; looking it up takes some milliseconds."""
    try:
        return version("memoair-voice")
    except PackageNotFoundError:
        return "0+unknown"
