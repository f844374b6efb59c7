"""The backlog of a project: what the logs of all its users hold that the cloud does not have yet.

It is sent user by user, with the outbox and the push of each user's folder. Nothing of a user's memory is loaded, and
no runtime is started. This module decides what is sent next; `memoair_runtime.backlog_process` and ``memoair sync``
decide when.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime

import attrs

from memoair_protocol.defaults import ORG_ONLY_USER
from memoair_protocol.identifiers import identifier_problem
from memoair_protocol.starvation import raise_if_starved
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.storage.lease import find_holder
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.rejected_events import RejectedEvents, count_rejected
from memoair_runtime.storage.retention import drop_unserved, find_user_cutoff, read_rules
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.outbox import Outbox, Selection
from memoair_runtime.sync.pull_attempts import PullAttempts
from memoair_runtime.sync.pull_erasures import ErasurePuller
from memoair_runtime.sync.pull_retention import RetentionPuller
from memoair_runtime.sync.push import ERASED_CODE, Pusher
from memoair_runtime.sync.responses import Bootstrap
from memoair_runtime.sync.transport import CALL_TIMEOUT_S, CloudTransport

log = logging.getLogger(__name__)

# After a failed push, the other users come first for so long.
_FAILED_USER_PAUSE_S = 10.0


@attrs.frozen
class BacklogCounts:
    """How much of a project waits on this machine.

    Attributes:
        turns: Turns that are not in the cloud yet.
        events: Turns, and starts and ends of sessions.
        users: Users with unsent turns.
        oldest_at: When the oldest of them was logged, in seconds since the epoch; None without any.
        refused: Events that the cloud has permanently rejected, without those of erased users.
    """

    turns: int = 0
    events: int = 0
    users: int = 0
    oldest_at: float | None = None
    refused: int = 0


@attrs.frozen
class _UserBacklog:
    """What waits of one user, as of the last look at the folder. It stays true until the folder changes.

    Attributes:
        version_key: Time of the last change of the folder. Each event that is logged changes it.
        is_served: Whether a runtime was serving the user.
    """

    version_key: int
    is_served: bool
    turns: int
    events: int
    oldest_at: float
    refused: int


class ProjectBacklog:
    """The backlog of one project on this machine. For one thread.

    Args:
        project: The project's folder.
        cloud: Identifies the cloud.
        transport: The connection to the cloud, without a user.
        metrics: Counts what is sent.
        selection: Which events to send, see `Outbox`.
        skips_served: Whether to leave users that a runtime serves to that runtime.
        retention_days: For how many days turns are kept on this machine, whatever the cloud says; None for ever.
    """

    def __init__(
        self,
        project: ProjectFolder,
        cloud: str,
        transport: CloudTransport,
        metrics: RuntimeMetrics,
        *,
        selection: Selection | str = Selection.FOR_CLOUD,
        skips_served: bool = True,
        retention_days: int | None = None,
    ) -> None:
        self._project = project
        self._cloud = cloud
        self._transport = transport
        self._metrics = metrics
        self._selection = selection
        self._skips_served = skips_served
        own_folder = UserFolder(project.root, project.project_id, ORG_ONLY_USER)
        self._erasures = ErasurePuller(project, cloud, transport, own_folder)
        self._retention = RetentionPuller(project, cloud, transport)
        rules = read_rules(project)  # they hold until the cloud answers: it may know of a legal hold
        self._rules = rules if rules is not None and rules.cloud == cloud else None
        self._retention_days = retention_days
        self._attempts = PullAttempts()
        self._users: dict[str, _UserBacklog] = {}
        self._bootstrap: tuple[Bootstrap, str] | None = None
        self._paused_until: dict[str, float] = {}  # by user, after a failed push

    @property
    def epoch(self) -> str | None:
        """The cloud's epoch; None if it is unknown or the cloud names none."""
        return self._bootstrap[0].epoch if self._bootstrap else None

    @property
    def counts(self) -> BacklogCounts:
        """How much waits, as of the last `refresh` and what was sent since."""
        waiting = [user for user in self._users.values() if user.events]
        return BacklogCounts(
            sum(user.turns for user in waiting),
            sum(user.events for user in waiting),
            sum(bool(user.turns) for user in waiting),
            min((user.oldest_at for user in waiting), default=None),
            sum(user.refused for user in self._users.values()),
        )

    def connect(self, deadline: float = math.inf) -> bool:
        """Ask the cloud for its versions, and erase from this machine the users that it has erased.

        Args:
            deadline: When to give up, in monotonic seconds.

        Returns:
            Whether the cloud has another epoch than before: what was sent before no longer counts as sent.

        Raises:
            CloudError: A request failed.
            OSError: A file cannot be written.
        """
        deadline = min(deadline, time.monotonic() + CALL_TIMEOUT_S)
        known = self._bootstrap
        response = self._transport.fetch_bootstrap(known[1] if known else None, deadline)
        if response is not None:
            self._bootstrap = response
        if self._bootstrap is None:
            return False
        if self._project.path.is_dir():
            bootstrap = self._bootstrap[0]
            self._attempts.run("erasures", lambda: self._pull_erasures(bootstrap))
            self._attempts.run("retention", lambda: self._pull_rules(bootstrap))
        return known is not None and self.epoch not in (None, known[0].epoch)

    def _pull_erasures(self, bootstrap: Bootstrap) -> bool:
        self._erasures.pull(bootstrap)
        return True

    def _pull_rules(self, bootstrap: Bootstrap) -> bool:
        self._rules = self._retention.pull(bootstrap)
        return True

    @property
    def rules_version(self) -> int | None:
        """The version of how long turns are kept; None if that is unknown."""
        return self._rules.version if self._rules else None

    def drop_old_turns(self, now: datetime) -> Iterator[None]:
        """Drop turns that are too old of users that no runtime serves. Yield after each, so that others can work.

        Args:
            now: The present time.
        """
        for folder in self._project.list_users():
            cutoff = find_user_cutoff(self._rules, self._retention_days, folder, now)
            if cutoff is None:
                continue
            try:
                dropped = drop_unserved(folder, cutoff)
            except OSError as error:
                log.error("cannot drop old turns: action=retain_failed errno=%s", error.errno)
                continue
            if dropped.event_ids:
                log.info("dropped old turns: action=retained turns=%d", dropped.turns)
            yield

    def refresh(self, *, is_full: bool = False) -> Iterator[None]:
        """Look at the folders of all users for what waits. Yield after each that was read, so that others can work.

        Args:
            is_full: Whether to read all folders, and not only those that have changed.
        """
        found: dict[str, _UserBacklog] = {}
        for folder in self._project.list_users():
            known = self._users.get(folder.user_id)
            try:
                version_key = folder.path.stat().st_mtime_ns
            except OSError:  # erased since
                continue
            if known is None or is_full or known.is_served or known.version_key != version_key:
                self._read(folder)
                yield
            if folder.user_id in self._users:
                found[folder.user_id] = self._users[folder.user_id]
        self._users = found

    def waiting_users(self, *, skips_failed: bool = True) -> list[UserFolder]:
        """Return the users with unsent events, those who have waited longest first.

        Args:
            skips_failed: Whether to leave out users whose last push has just failed.
        """
        now = time.monotonic()
        waiting = [
            (user.oldest_at, user_id)
            for user_id, user in self._users.items()
            if user.events
            and not (self._skips_served and user.is_served)
            and not (skips_failed and self._paused_until.get(user_id, 0.0) > now)
        ]
        return [UserFolder(self._project.root, self._project.project_id, user_id) for _, user_id in sorted(waiting)]

    def push(self, folder: UserFolder, deadline: float = math.inf) -> bool:
        """Send one batch of a user: those of others do not wait until all of one user are sent.

        Args:
            folder: The user's folder.
            deadline: When to give up, in monotonic seconds.

        Returns:
            False if another process is sending for this user.

        Raises:
            CloudError: The request failed.
            OSError: A file cannot be written.
        """
        if self._skips_served and self._is_served(folder):
            self._read(folder)
            return True
        outbox = self._open_outbox(folder)
        outbox.scan(all_sessions=True)
        transport = self._transport.as_user(folder.user_id)
        pusher = Pusher(folder, outbox, RejectedEvents(folder.rejected_events), transport, self._metrics)
        self._paused_until[folder.user_id] = time.monotonic() + _FAILED_USER_PAUSE_S
        try:
            has_pushed = pusher.push(deadline, max_batches=1)
            del self._paused_until[folder.user_id]
            return has_pushed
        finally:
            self._record(folder, outbox)

    def _read(self, folder: UserFolder) -> None:
        outbox = self._open_outbox(folder)
        try:
            outbox.scan(all_sessions=True)
        except OSError as error:  # without the record of an erasure, nothing of the user is sent
            raise_if_starved(error)  # the next refresh reads it
            log.warning("cannot read what a user has left to send: action=backlog_unread errno=%s", error.errno)
            outbox.clear()
        self._record(folder, outbox)

    def _record(self, folder: UserFolder, outbox: Outbox) -> None:
        with suppress(OSError):  # erased since
            refused = count_rejected(folder.rejected_events, {ERASED_CODE})
            turns, events = outbox.turn_count, outbox.count
            if identifier_problem(folder.user_id):  # of an earlier version: the cloud accepts nothing of this user
                turns, events, refused = 0, 0, refused + events
            self._users[folder.user_id] = _UserBacklog(
                folder.path.stat().st_mtime_ns,
                self._is_served(folder),
                turns,
                events,
                outbox.oldest_at or 0.0,
                refused,
            )
            return
        self._users.pop(folder.user_id, None)

    def _open_outbox(self, folder: UserFolder) -> Outbox:
        outbox = Outbox(folder, self._cloud, self._selection)
        outbox.set_epoch(self.epoch)
        return outbox

    def _is_served(self, folder: UserFolder) -> bool:
        holder = find_holder(folder)
        return holder is not None and holder.cloud == self._cloud


@attrs.define
class Pace:
    """How fast a backlog is sent: neither the cloud nor this machine is to notice it.

    Attributes:
        max_per_s: Requests per second, at most.
        share: The share of the time that requests may take: a slow cloud is asked less often.
        sleep: Waits for a number of seconds.
    """

    max_per_s: float
    share: float
    sleep: Callable[[float], object]

    def pause(self, busy_s: float) -> None:
        """Wait after a request.

        Args:
            busy_s: How long the request has taken, in seconds.
        """
        self.sleep(max(1 / self.max_per_s - busy_s, busy_s * (1 / self.share - 1)))
