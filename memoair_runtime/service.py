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
from memoair_runtime.storage.user_folder import create_project_folder, org_index_path
from memoair_runtime.sync.interface import SyncInterface
from memoair_runtime.sync.null_sync import NullSync
from memoair_runtime.sync.scheduler import ALL_SCOPES, SyncScheduler

DEFAULT_FLUSH_MS = DEFAULT_PULL_MS = DEFAULT_FORGET_MS = 5_000
# Who begins to forget should come to the end of it: what is being read then is waited for so long in any case.
LEAST_FORGET_S = 1.0
_ORG_ALONE = frozenset({LaneName.ORG})
_ALL_LANES = frozenset(LaneName)


class RuntimeService:
    """One runtime: one project, one user. Safe to use from any thread."""

    def __init__(self, settings: RuntimeSettings, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self.metrics = RuntimeMetrics()
        self._began_at = time.monotonic()
        self._version = installed_version()
        self._keeper = UserStore(settings, self._note)
        self._org = OrgLane(_org_source(settings), self._keeper.memory.get_recent_texts)
        self._sync: SyncInterface = (
            SyncScheduler(settings, self._keeper, self._org, self.metrics) if settings.has_cloud else NullSync()
        )
        self._sessions_loader = CoalescingJob("load-sessions", self._keeper.load)
        self._variants: dict[str, Variant] = {}  # of sessions that were started with another than the default
        memory = self._keeper.memory
        self._searcher = SearchService(
            [
                ProfileLane(memory),
                WorkingLane(memory),
                PermanentLane(memory, self._keeper.gate, self._keeper.reranker),
                self._org,
            ],
            self.metrics,
        )

    def load(self) -> None:
        """Begin to read what is on the disk, in the background; lanes that are not read yet say so."""
        self._sessions_loader.start()
        self._org.load_soon()
        self._sync.start()

    def health(self) -> dict[str, Any]:
        """Tell that the process lives and whom it serves."""
        if self._lifecycle.state is LifecycleState.DRAINING:
            raise DrainingError("the runtime is about to end")
        return {
            "status": "ok",
            "version": self._version,
            "active_sessions": self._keeper.sessions.count_active(),
            "uptime_ms": int((time.monotonic() - self._began_at) * 1e3),
            "workspaceId": self._settings.project_id,
            "userId": self._settings.user_id,
            "lanes": self._searcher.readiness(),
            "sync": self._sync.health(),
        }

    def start_session(self, request: StartRequest) -> dict[str, Any]:
        """Open a session."""
        self._admit(request)
        if request.user_id is None or (request.workspace_id is None and request.project_id is None):
            raise BadRequestError("workspaceId and userId say whose session it is; one is missing")
        if request.mode not in (None, ORG_ONLY):
            raise BadRequestError(f"mode can be {ORG_ONLY!r} or left out", field="mode")
        fault = self._keeper.start_session(request, is_ephemeral=request.mode == ORG_ONLY)
        self.load()  # what other processes have written since
        self._sync.end_startup_delay()
        self._variants.pop(request.session_id, None)
        if request.variant() is Variant.MEDIUM:
            self._variants[request.session_id] = Variant.MEDIUM
            self._keeper.start_reranker()
        folder = self._keeper.session_folder(request.session_id)
        return {
            "sessionId": request.session_id,
            "bootstrap": {
                "profileVersion": self._keeper.memory.merged_profile.version,
                "permanentManifestVersion": self._permanent_version(),
                "orgManifestVersion": self._org.version,
                "syncToken": self._sync.sync_token,
                "budgets": self._searcher.bootstrap_budgets(),
            },
            "paths": {"sessionJsonl": str(folder.log), "workingBrief": str(folder.brief)},
            **({"storage": {"available": False, "message": fault.message}} if fault else {}),
            **({"org": {"available": False, "message": self._org.problem}} if self._org.problem else {}),
        }

    def search_memory(self, request: SearchRequest, reply: Callable[[Mapping[str, Any]], None]) -> None:
        """Recall what matters for a question, and give it to ``reply``: once, from whichever thread has it in time."""
        began_at = time.monotonic()
        self._admit(request)
        session = self._keeper.sessions.get(request.session_id)
        check_not_ended(session)
        notes = ["the session was never started; opened silently"] if session.state is SessionState.NEW else []
        if self._keeper.unread_logs:
            notes.append(f"{self._keeper.unread_logs} earlier sessions can't be read")
        variant = self._variants.get(request.session_id, Variant.DEFAULT)
        if variant is Variant.MEDIUM and self._keeper.reranker.error:
            notes.append("there is no second reading here: the model is missing or can't be used")
        org_alone = self._settings.org_only or isinstance(session, EphemeralSession)
        if session.is_unknown:
            self._keeper.sessions.evict_unknown(session)  # or every id that is ever searched would be kept in mind
        allowed = _ORG_ALONE if org_alone else _ALL_LANES
        self._searcher.search(request, allowed, variant, notes, began_at, reply)
        self._sync.end_startup_delay()

    def after_turn(self, request: TurnRequest) -> dict[str, Any]:
        """Keep a turn: it is on the disk when this returns."""
        self._admit(request)
        try:
            event_id = self._keeper.save_turn(request)
        except StorageUnavailableError:
            self.metrics.turns_refused.inc()
            raise
        if event_id is not None:
            self.metrics.turns_kept.inc()
        return {"localEventId": event_id}

    def end_session(self, request: EndRequest) -> dict[str, Any]:
        """Close a session."""
        self._admit(request)
        session = self._keeper.end_session(request)
        self._variants.pop(session.id, None)
        return {"status": "ok", "flushed": {"turns": self._keeper.memory.count_turns(session.id)}}

    def flush(self, request: DeadlineRequest) -> dict[str, Any]:
        """Wait until nothing is pending: what is made from the logs is written, and the cloud has what it lacked.

        A turn is on the disk before it is acknowledged, so none is lost where this does not come to its end.
        """
        self._admit(request)
        deadline = _deadline(request, DEFAULT_FLUSH_MS)
        pending = self._keeper.flush(deadline) + self._sync.flush(deadline)
        return {"status": "partial" if pending else "ok", "pending": pending}

    def pull(self, request: PullRequest) -> dict[str, Any]:
        """Ask the cloud now; what it had can be searched when this returns."""
        self._admit(request)
        scopes = ALL_SCOPES if request.scopes is None else frozenset(map(LaneName, request.scopes))
        status, versions = self._sync.pull(list(scopes), _deadline(request, DEFAULT_PULL_MS))
        return {"status": status, "versions": versions}

    def forget(self, request: ForgetRequest) -> dict[str, Any]:
        """Forget the caller on this machine; the process goes on, and so does his call."""
        self._admit(request)
        if self._settings.org_only:
            return {"status": "ok", "removed": {"sessions": 0, "turns": 0}}
        at = request.forgotten()
        deadline = max(_deadline(request, DEFAULT_FORGET_MS), time.monotonic() + LEAST_FORGET_S)
        erased = self._keeper.erase(deadline)
        self._sync.on_erased(at)
        return {"status": "ok", "removed": {"sessions": erased.sessions, "turns": erased.turns}}

    def shut_down(self, request: DeadlineRequest) -> dict[str, Any]:
        """Ask the process to drain and end."""
        self._admit(request)
        self._lifecycle.ask_to_end(request.deadline_ms / 1e3 if request.deadline_ms else None)
        return {"status": "draining"}

    def close(self, deadline: float) -> None:
        """Finish what is under way by the deadline (monotonic seconds)."""
        self._searcher.close()
        self._keeper.close(deadline)
        self._sync.close(deadline)
        self._keeper.remove_folder_if_empty()

    def _note(self, events: Sequence[Event]) -> None:
        self._sync.record_logged(events)

    def _permanent_version(self) -> int | None:
        """The cloud's, where it has told; else how much there is."""
        if self._keeper.gate.readiness is not Readiness.READY:
            return None
        pulled = self._sync.permanent_version
        return len(self._keeper.memory) if pulled is None else pulled

    def _admit(self, request: IdentifiedRequest) -> None:
        if self._lifecycle.state is LifecycleState.DRAINING:
            raise DrainingError("the runtime is about to end")
        for what, named, served in (
            ("project", request.workspace_id, self._settings.project_id),
            ("project", request.project_id, self._settings.project_id),
            ("user", request.user_id, self._settings.user_id),
        ):
            if named is not None and named != served:
                raise IdentityMismatchError(f"the request names another {what} than the one that this runtime serves")


def _org_source(settings: RuntimeSettings) -> OrgSource:
    """Where the organisation's documents come from: a file that is given, or else the cloud, now or earlier."""
    root, project_id = settings.storage_root, settings.project_id
    if settings.org_file is None:
        return CloudOrg(ProjectFolder(root, project_id), settings.cloud_id)
    return FileOrg(
        OrgDocuments(
            settings.org_file,
            org_index_path(root, project_id, settings.org_file),
            prepare=lambda: create_project_folder(root, project_id),
        )
    )


def _deadline(request: DeadlineRequest, default_ms: float) -> float:
    return time.monotonic() + (request.deadline_ms or default_ms) / 1e3


@lru_cache(maxsize=1)
def installed_version() -> str:
    """The version of this distribution; looking it up takes some milliseconds."""
    try:
        return version("memoair-voice")
    except PackageNotFoundError:
        return "0+unknown"
