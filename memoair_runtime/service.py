"""The runtime's service, without HTTP: one method per endpoint, from a validated request to the body of the reply."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from memoair_protocol.defaults import ORG_ONLY_MODE
from memoair_protocol.enums import LaneName, TraceMode, Variant
from memoair_protocol.erasure_marks import DeviceTime
from memoair_protocol.timestamps import utc_now
from memoair_runtime.cloud_sync import make_sync
from memoair_runtime.coalescing_job import CoalescingJob
from memoair_runtime.errors import (
    BadRequestError,
    DrainingError,
    StorageUnavailableError,
)
from memoair_runtime.identity import check_identity, check_savable
from memoair_runtime.lifecycle import Lifecycle, LifecycleState
from memoair_runtime.memory.ephemeral_session import EphemeralSession
from memoair_runtime.memory.eraser import Eraser
from memoair_runtime.memory.reranker import BackgroundReranker
from memoair_runtime.memory.saved_turns import SavedTurn
from memoair_runtime.memory.session import SessionState, check_not_ended
from memoair_runtime.memory.session_writer import SessionWriter
from memoair_runtime.memory.user_store import UserStore
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.org.documents import FileOrg
from memoair_runtime.org.lane import OrgLane
from memoair_runtime.org.manifest import CloudOrg
from memoair_runtime.org.reranker import OrgReranker
from memoair_runtime.org.source import OrgSource
from memoair_runtime.readiness import Readiness, ReadinessGate
from memoair_runtime.recall.lanes.permanent_lane import PermanentLane
from memoair_runtime.recall.lanes.profile_lane import ProfileLane
from memoair_runtime.recall.lanes.working_lane import WorkingLane
from memoair_runtime.recall.search_service import SearchService
from memoair_runtime.requests import (
    DeadlineRequest,
    EndRequest,
    ForgetRequest,
    IdentifiedRequest,
    PullRequest,
    RecallTraceRequest,
    SearchRequest,
    StartRequest,
    TurnRequest,
    TurnsRequest,
)
from memoair_runtime.settings import RuntimeSettings
from memoair_runtime.storage.erasure_record import CloudErasure
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.trace_file import TraceFile
from memoair_runtime.sync.request import ALL_SCOPES
from memoair_runtime.trace_recorder import TraceRecorder
from memoair_runtime.transformer_model import TransformerModel
from memoair_runtime.version import installed_version

log = logging.getLogger(__name__)

DEFAULT_FLUSH_MS = DEFAULT_PULL_MS = DEFAULT_ERASE_MS = 5_000
# An erasure waits at least this long for logs that are being read, whatever its deadline: it should run to completion.
MIN_ERASE_S = 1.0
# How long the end of a call of which nothing is known here waits for what the cloud knows of it.
_PULL_BEFORE_END_S = 1.0
# Recall traces are worth no more waiting than this.
_TRACE_FLUSH_S = 0.5
_ORG_LANE_ONLY = frozenset({LaneName.ORG})
_ALL_LANES = frozenset(LaneName)
_DRAINING_MESSAGE = "the runtime is shutting down; start another one and send the request again"


class RuntimeService:
    """The service of one runtime, for one project and one user. Thread-safe.

    Requests are records of `memoair_runtime.requests`. Every endpoint's method returns the body of the reply, a JSON
    object. All of them raise `DrainingError` if the process is shutting down, and all but `health` raise
    `IdentityMismatchError` if the request names another project or user.
    """

    def __init__(self, settings: RuntimeSettings, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self.metrics = RuntimeMetrics()
        self._started_at = time.monotonic()
        self._version = installed_version()
        self._gate = ReadinessGate()
        self._store = UserStore(settings, self._gate, lambda events: self._sync.record_logged(events))
        self._memory = memory = self._store.memory
        self._model = TransformerModel(settings.medium_model)
        self._reranker = BackgroundReranker(self._model, self._store.folder.vectors, memory.get_documents)
        org_reranker = OrgReranker(self._model, ProjectFolder(settings.storage_root, settings.project_id))
        self._org_lane = OrgLane(_make_org_source(settings), memory.get_recent_texts, org_reranker)
        self._writer = SessionWriter(self._store, self._reranker, self._org_lane.prepare_talk)
        self._traces = self._make_trace_recorder()
        self._eraser = Eraser(self._store, self._writer, self._reranker, self._traces.erase)
        self._sync = make_sync(settings, self._store, self._gate, self._eraser, self._org_lane.load, self.metrics)
        self._sessions_loader = CoalescingJob("load-sessions", self._store.load)
        self._shared_sessions: set[str] = set()  # open ones whose next turn may reach another machine
        self._variants: dict[str, Variant] = {}  # of sessions with another variant than the default
        permanent_lane = PermanentLane(memory, self._gate, self._reranker)
        self._search_service = SearchService(
            [ProfileLane(memory), WorkingLane(memory), permanent_lane, self._org_lane], self.metrics
        )
        # To be called every second: each starts what there was no thread for, or what has failed for a moment.
        self.retries: tuple[Callable[[], None], ...] = (
            *(self._sessions_loader.retry_if_due, self._org_lane.retry_if_due, self._reranker.retry_if_due),
            *(self._writer.retry_if_due, self._traces.retry_if_due, self._sync.start),
        )

    def _make_trace_recorder(self) -> TraceRecorder:
        settings = self._settings
        # Org-only mode stores nothing on this machine unless it is to be sent.
        is_kept = not settings.org_only or settings.has_cloud
        return TraceRecorder(
            TraceFile(self._store.folder.recall_traces, self._store.folder.create) if is_kept else None,
            settings.recall_traces,
            lambda: self._sync.project_trace_mode,
            lambda: {"org": self._org_lane.version, "memory": self._permanent_version()},
            self._store.sessions.find_prompt_version,
            settings.cloud_id,
            self.metrics,
            lambda: self._sync.on_traces_written(),
        )

    def start_loading(self) -> None:
        """Start to load stored data in the background and return immediately.

        Lanes report `Readiness.LOADING` until their data is there.
        """
        self._sessions_loader.start()
        self._org_lane.load_in_background()
        self._sync.start()

    def health(self) -> dict[str, Any]:
        """Return the identity, the state of the lanes and of the sync.

        Raises:
            DrainingError: If the process is shutting down.
        """
        if self._lifecycle.state is LifecycleState.DRAINING:
            raise DrainingError(_DRAINING_MESSAGE)
        return {
            "status": "ok",
            "version": self._version,
            "active_sessions": self._store.sessions.count_active(),
            "uptime_ms": int((time.monotonic() - self._started_at) * 1e3),
            "workspaceId": self._settings.project_id,
            "userId": self._settings.user_id,
            "lanes": self._search_service.lane_readiness(),
            "sync": self._sync.health(),
        }

    def start_session(self, request: StartRequest) -> dict[str, Any]:
        """Start a session, or resume it.

        A storage error does not prevent recall: the session opens, and the reply reports the error under ``storage``.

        Raises:
            BadRequestError: If the identity is missing or a field is invalid.
        """
        self._check_request(request)
        check_savable(self._settings)
        if request.user_id is None or (request.workspace_id is None and request.project_id is None):
            raise BadRequestError("workspaceId and userId are required")
        if request.mode not in (None, ORG_ONLY_MODE):
            raise BadRequestError(f"invalid mode: use {ORG_ONLY_MODE!r} or omit it", field="mode")
        is_new = self._store.sessions.get(request.session_id).is_unknown
        storage_error = self._writer.start_session(request, is_ephemeral=request.mode == ORG_ONLY_MODE)
        if is_new:  # another machine may have begun the call, or just have ended the one before it
            self._sync.pull_user_soon()
        if request.shared:
            self._shared_sessions.add(request.session_id)
        self.start_loading()  # picks up what other processes have written since
        self._sync.end_startup_delay()
        self._variants.pop(request.session_id, None)
        if request.variant() is Variant.MEDIUM:
            self._variants[request.session_id] = Variant.MEDIUM
            self._reranker.start([session_id for session_id, _ in self._store.folder.list_session_logs()])
            self._org_lane.encode_in_background()
        folder = self._store.folder.session(request.session_id)
        return {
            "sessionId": request.session_id,
            "bootstrap": {
                "profileVersion": self._memory.merged_profile.version,
                "permanentManifestVersion": self._permanent_version(),
                "orgManifestVersion": self._org_lane.version,
                "syncToken": self._sync.sync_token,
                "budgets": self._search_service.bootstrap_budgets(),
            },
            "paths": {"sessionJsonl": str(folder.log), "workingBrief": str(folder.brief)},
            **({"storage": {"available": False, "message": storage_error.message}} if storage_error else {}),
            **({"org": {"available": False, "message": self._org_lane.error}} if self._org_lane.error else {}),
            **self._report_rejection(),
        }

    def search_memory(self, request: SearchRequest, reply: Callable[[Mapping[str, Any]], None]) -> None:
        """Search the lanes and build the context.

        Args:
            request: The search.
            reply: Called once with the body of the reply, by the deadline, possibly from another thread.

        Raises:
            SessionNotFoundError: If the session has ended.
            BadRequestError: If the filter is invalid.
        """
        started_at = time.monotonic()
        self._check_request(request)
        session = self._store.sessions.get(request.session_id)
        check_not_ended(session)
        notes = ["the session was never started; it was opened implicitly"] if session.state is SessionState.NEW else []
        if self._store.unread_logs:
            notes.append(f"{self._store.unread_logs} earlier sessions could not be read")
        variant = self._variants.get(request.session_id, Variant.DEFAULT)
        if variant is Variant.MEDIUM and self._model.error:
            notes.append("the variant medium is not available: its model is missing or invalid; hits are not reranked")
        is_org_only = self._settings.org_only or isinstance(session, EphemeralSession)
        if session.is_unknown:
            self._store.sessions.evict_unknown(session)  # otherwise every id that is ever searched would stay in memory
        allowed_lanes = _ORG_LANE_ONLY if is_org_only else _ALL_LANES
        if report := self._report_rejection():
            reply = partial(_reply_with_trace, reply, report)
        on_answered = None
        # Nothing is stored of an org-only session in a user's runtime.
        is_ephemeral = isinstance(session, EphemeralSession) and not self._settings.org_only
        mode = TraceMode.OFF if is_ephemeral else self._traces.mode_of(request.recall_trace)
        if mode is not TraceMode.OFF:
            on_answered = partial(self._traces.record, mode=mode)
            # Its client redacts the words and sends them.
            if mode is TraceMode.TEXT and request.recall_trace is not None:
                reply = partial(_reply_with_trace, reply, {"recallTrace": {"mode": mode.value}})
        self._search_service.search(request, allowed_lanes, variant, notes, started_at, reply, on_answered)
        self._sync.end_startup_delay()
        self._follow_if_shared(request.session_id)

    def save_turn(self, request: TurnRequest) -> dict[str, Any]:
        """Save a turn; it is on the disk when this returns. In an org-only session nothing is saved; the id is null.

        A turn from before an erasure of its user is not saved either, and the reply says so under ``forgotten``.

        Raises:
            StorageUnavailableError: If the turn could not be saved.
            SessionNotFoundError: If the session has ended.
        """
        self._check_request(request)
        check_savable(self._settings)
        [saved] = self._save_turns(request.session_id, [request])
        reply = {"localEventId": None, "forgotten": True} if saved.is_erased else {"localEventId": saved.event_id}
        return reply | self._report_rejection()

    def save_turns(self, request: TurnsRequest) -> dict[str, Any]:
        """Save several turns of a session as `save_turn` does, with one write. Under ``forgotten``, how many were."""
        self._check_request(request)
        check_savable(self._settings)
        saved = self._save_turns(request.session_id, request.each())
        forgotten = sum(turn.is_erased for turn in saved)
        event_ids = [turn.event_id for turn in saved]
        return {"localEventIds": event_ids, "forgotten": forgotten, **self._report_rejection()}

    def _save_turns(self, session_id: str, requests: Sequence[TurnRequest]) -> list[SavedTurn]:
        try:
            saved = self._writer.save_turns(session_id, requests)
        except StorageUnavailableError:
            self.metrics.turns_refused.inc(len(requests))
            raise
        for request, turn in zip(requests, saved, strict=True):
            if turn.event_id is not None:
                self.metrics.turns_kept.inc()
                self._traces.on_turn(session_id, request.turn_id, turn.event_id)
        if erased := sum(turn.is_erased for turn in saved):
            self.metrics.turns_forgotten.inc(erased)
            log.warning(
                "turns from before the erasure of their user are not saved: action=turn_forgotten turns=%d", erased
            )
        self._follow_if_shared(session_id)
        return saved

    def amend_trace(self, request: RecallTraceRequest) -> dict[str, Any]:
        """Add what only the client knows to the trace of a search; ``unknown`` if it does not wait any more."""
        self._check_request(request)
        return {"status": "ok" if self._traces.amend(request) else "unknown"}

    def _report_rejection(self) -> dict[str, Any]:
        """Return the part of a reply that says why the cloud rejects this runtime; empty if it does not."""
        rejection = self._sync.rejection
        return {} if rejection is None else {"cloudRejection": rejection}

    def end_session(self, request: EndRequest) -> dict[str, Any]:
        """End a session.

        Raises:
            StorageUnavailableError: If the end could not be saved.
        """
        self._check_request(request)
        if self._store.sessions.get(request.session_id).is_unknown:  # all of it may have been said on other machines
            self._sync.pull([LaneName.PERMANENT], time.monotonic() + _PULL_BEFORE_END_S)
        is_known_elsewhere = self._store.is_known_elsewhere(request.session_id)
        session = self._writer.end_session(request, is_known_elsewhere=is_known_elsewhere)
        self._variants.pop(session.id, None)
        self._shared_sessions.discard(session.id)
        self._traces.on_session_end(session.id)
        return {"status": "ok", "flushed": {"turns": self._memory.count_turns(session.id)}}

    def flush(self, request: DeadlineRequest) -> dict[str, Any]:
        """Wait until the derived files are written and the cloud has all events, or until the deadline.

        Turns are on the disk before they are acknowledged, so none is lost if the deadline passes first.
        """
        self._check_request(request)
        deadline = _deadline_of(request, DEFAULT_FLUSH_MS)
        self._traces.flush(min(deadline, time.monotonic() + _TRACE_FLUSH_S))
        pending = self._writer.flush(deadline) + self._sync.flush(deadline)
        return {"status": "partial" if pending else "ok", "pending": pending}

    def pull(self, request: PullRequest) -> dict[str, Any]:
        """Pull from the cloud now; with status ``ok``, the pulled data can be searched when this returns."""
        self._check_request(request)
        scopes = ALL_SCOPES if request.scopes is None else frozenset(map(LaneName, request.scopes))
        status = self._sync.pull(list(scopes), _deadline_of(request, DEFAULT_PULL_MS))
        versions: dict[str, int | None] = {"profile": None, "permanent": None, "org": None}
        if self._settings.has_cloud:
            versions |= {"profile": self._store.profile_version, "permanent": self._store.permanent_version}
            versions["org"] = None if self._settings.org_file else self._org_lane.version
        return {"status": status, "versions": versions}

    def erase_user(self, request: ForgetRequest) -> dict[str, Any]:
        """Erase the user's data on this machine. The process and a running call continue.

        Raises:
            StorageUnavailableError: If not everything could be deleted, or not by the deadline.
        """
        self._check_request(request)
        if self._settings.org_only:
            return {"status": "ok", "removed": {"sessions": 0, "turns": 0}}
        forgotten_at = request.forgotten_time()
        deadline = max(_deadline_of(request, DEFAULT_ERASE_MS), time.monotonic() + MIN_ERASE_S)
        cloud_id = self._settings.cloud_id
        in_cloud = CloudErasure(cloud_id, forgotten_at, request.erasure) if cloud_id and forgotten_at else None
        erased = self._eraser.erase(deadline, utc_now(), in_cloud=in_cloud, clock=DeviceTime.now())
        if in_cloud is not None and in_cloud.mark is not None:
            self._store.set_erasure_mark(in_cloud.mark)
        self._sync.on_erased(forgotten_at, request.erasure)
        return {"status": "ok", "removed": {"sessions": erased.sessions, "turns": erased.turns}}

    def shut_down(self, request: DeadlineRequest) -> dict[str, Any]:
        """Ask the process to drain and stop."""
        self._check_request(request)
        self._lifecycle.request_stop(request.deadline_ms / 1e3 if request.deadline_ms else None)
        return {"status": "draining"}

    def close(self, deadline: float) -> None:
        """Finish pending work and release all resources.

        Args:
            deadline: Time of the monotonic clock by which to finish, in seconds.
        """
        self._search_service.close()
        self._traces.close(min(deadline, time.monotonic() + _TRACE_FLUSH_S))
        self._writer.close(deadline)
        self._store.close()
        self._sync.close(deadline)
        self._eraser.remove_folder_if_empty()

    def _follow_if_shared(self, session_id: str) -> None:
        """Pull more often if another machine takes part in a call that goes on here, or may do so."""
        is_known_elsewhere = self._store.is_known_elsewhere(session_id)
        if is_known_elsewhere or session_id in self._shared_sessions:
            self._sync.follow_call(is_known_elsewhere=is_known_elsewhere)

    def _permanent_version(self) -> int | None:
        """Return the cloud's version, or the number of stored items if nothing was pulled yet."""
        if self._gate.readiness is not Readiness.READY:
            return None
        pulled_version = self._store.permanent_version if self._settings.has_cloud else None
        return len(self._memory) if pulled_version is None else pulled_version

    def _check_request(self, request: IdentifiedRequest) -> None:
        if self._lifecycle.state is LifecycleState.DRAINING:
            raise DrainingError(_DRAINING_MESSAGE)
        check_identity(request, self._settings)


def _reply_with_trace(
    reply: Callable[[Mapping[str, Any]], None], report: Mapping[str, Any], body: Mapping[str, Any]
) -> None:
    reply({**body, "trace": {**body["trace"], **report}})


def _make_org_source(settings: RuntimeSettings) -> OrgSource:
    """Return the source of the organization's documents: the configured file, otherwise what the cloud sent."""
    folder = ProjectFolder(settings.storage_root, settings.project_id)
    return FileOrg(folder, settings.org_file) if settings.org_file else CloudOrg(folder, settings.cloud_id)


def _deadline_of(request: DeadlineRequest, default_ms: float) -> float:
    return time.monotonic() + (request.deadline_ms or default_ms) / 1e3
