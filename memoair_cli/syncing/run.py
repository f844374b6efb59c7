"""A run of ``memoair sync``: all users of a project, round by round, until nothing is left or nothing goes on."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.settings import cloud_id_of
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.backlog import BacklogCounts, ProjectBacklog
from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.outbox import Selection
from memoair_runtime.sync.status import BACKOFF, MAX_RETRY_AFTER_S
from memoair_runtime.sync.transport import CloudTransport

# How long to wait for another process that is sending for the same user.
_BUSY_PAUSE_S = 0.2


@attrs.frozen
class SyncTarget:
    """What is sent, and where.

    Attributes:
        project: The project's folder on this machine.
        base_url: The URL of the cloud.
        api_key: The API key.
        agent_id: The agent, for events whose agent is unknown.
        includes_local: Whether to send what was said without a cloud, too.
        former_url: The URL that the cloud had before, if it has moved.
    """

    project: ProjectFolder
    base_url: str
    api_key: str = attrs.field(repr=False)
    agent_id: str | None
    includes_local: bool
    former_url: str | None

    @property
    def cloud_id(self) -> str:
        """The id of the cloud."""
        return cloud_id_of(self.base_url)


@attrs.define
class SyncOutcome:
    """The result of a run.

    Attributes:
        sent_turns: Turns that are now in the cloud, and were not at the beginning as far as this machine knew.
        sent_users: Their users.
        left: What is left.
        local: What was said without a cloud and stays on this machine.
        error: Why something is left; None if that is unknown or nothing is left.
        seconds: How long the run took.
    """

    sent_turns: int = 0
    sent_users: int = 0
    left: BacklogCounts = attrs.field(factory=BacklogCounts)
    local: BacklogCounts = attrs.field(factory=BacklogCounts)
    error: str | None = None
    seconds: float = 0.0


class SyncRun:
    """One run.

    Args:
        target: What to send, and where.
        retry_timeout_s: How long to go on without progress, in seconds.
        report: Called with the events that are sent and those that are left, whenever that changes.
    """

    def __init__(self, target: SyncTarget, retry_timeout_s: float, report: Callable[[int, int], None]) -> None:
        self._target = target
        self._retry_timeout_s = retry_timeout_s
        self._report = report
        self._transport = CloudTransport(
            target.base_url, target.api_key, target.project.project_id, target.agent_id, None
        )
        selections: list[Selection | str] = [Selection.FOR_CLOUD]
        selections += [Selection.LOCAL] if target.includes_local else []
        selections += [cloud_id_of(target.former_url)] if target.former_url else []
        self._backlogs = [self._make_backlog(selection) for selection in selections]
        self._sent_events = 0
        self._sent_users: set[str] = set()
        self._failures = 0
        self._progress_at = time.monotonic()
        self._outcome = SyncOutcome()

    def run(self) -> SyncOutcome:
        """Send what waits, and return the outcome. An interruption (Ctrl-C) ends the run early."""
        started_at = time.monotonic()
        try:
            self._connect()
            if self._outcome.error is None:
                self._send_all()
        except KeyboardInterrupt:
            self._outcome.error = "interrupted"
        finally:
            self._transport.close()
        self._count_rest()
        self._outcome.sent_users = len(self._sent_users)
        self._outcome.seconds = time.monotonic() - started_at
        return self._outcome

    def _make_backlog(self, selection: Selection | str) -> ProjectBacklog:
        return ProjectBacklog(
            self._target.project,
            self._target.cloud_id,
            self._transport,
            RuntimeMetrics(),
            selection=selection,
            skips_served=False,
        )

    def _connect(self) -> None:
        """Connect each part: erasures come first, and the epoch says what counts as sent."""
        for backlog in self._backlogs:
            while not self._attempt(partial(_connect, backlog)):
                if self._outcome.error is not None:
                    return
        for backlog in self._backlogs:
            _refresh(backlog)
        self._show()

    def _send_all(self) -> None:
        while work := [(backlog, folder) for backlog in self._backlogs for folder in _waiting(backlog)]:
            for backlog, folder in work:
                self._push(backlog, folder)
                if time.monotonic() - self._progress_at > self._retry_timeout_s:
                    self._outcome.error = self._outcome.error or "another process is sending for these users"
                    return
                if self._outcome.error is not None:
                    return

    def _push(self, backlog: ProjectBacklog, folder: UserFolder) -> None:
        before = backlog.counts
        if not self._attempt(lambda: backlog.push(folder)) and self._outcome.error is None:
            time.sleep(_BUSY_PAUSE_S)
        after = backlog.counts
        if after.events < before.events:
            self._sent_events += before.events - after.events
            self._outcome.sent_turns += max(0, before.turns - after.turns)
            self._sent_users.add(folder.user_id)
            self._progress_at, self._failures = time.monotonic(), 0
            self._show()

    def _attempt(self, action: Callable[[], bool]) -> bool:
        """Run an action; return its result. After an error that may pass, wait; after another one, note it."""
        try:
            return action()
        except CloudError as error:
            failure = error.without_traceback()
        except OSError as error:
            failure = CloudError(FailureKind.TRANSIENT, f"disk error: {error.strerror}")
        self._failures += 1
        time_left_s = self._progress_at + self._retry_timeout_s - time.monotonic()
        pause_s = BACKOFF.pause_s(self._failures, retry_after_s=min(failure.retry_after_s or 0.0, MAX_RETRY_AFTER_S))
        if failure.kind is FailureKind.REJECTED or pause_s > time_left_s:
            self._outcome.error = failure.message
        else:
            time.sleep(pause_s)
        return False

    def _show(self) -> None:
        self._report(self._sent_events, sum(backlog.counts.events for backlog in self._backlogs))

    def _count_rest(self) -> None:
        for backlog in self._backlogs:
            _refresh(backlog)
        self._outcome.left = _sum_counts([backlog.counts for backlog in self._backlogs])
        if not self._target.includes_local:
            local = self._make_backlog(Selection.LOCAL)
            _refresh(local)
            self._outcome.local = local.counts


def _connect(backlog: ProjectBacklog) -> bool:
    backlog.connect()
    return True


def _refresh(backlog: ProjectBacklog) -> None:
    for _ in backlog.refresh(is_full=True):
        pass


def _waiting(backlog: ProjectBacklog) -> list[UserFolder]:
    return backlog.waiting_users(skips_failed=False)


def _sum_counts(counts: Sequence[BacklogCounts]) -> BacklogCounts:
    oldest = [count.oldest_at for count in counts if count.oldest_at is not None]
    return BacklogCounts(
        sum(count.turns for count in counts),
        sum(count.events for count in counts),
        sum(count.users for count in counts),
        min(oldest, default=None),
        max(count.refused for count in counts),  # each part counts those of all users
    )
