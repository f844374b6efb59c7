"""The one thread that talks with the cloud: it pulls now and then, pushes what waits, and does both when it is asked.

What it does is in `memoair_runtime.sync.session`; here it is decided when.
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

from memoair_runtime.enums import LaneName
from memoair_runtime.errors import StorageUnavailableError
from memoair_runtime.memory.user_store import UserStore
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.recall.lanes.org_lane import OrgLane
from memoair_runtime.settings import RuntimeSettings
from memoair_runtime.storage.events import Event, EventType
from memoair_runtime.storage.rejected_events import RejectedEvents
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.null_sync import Versions, health_of
from memoair_runtime.sync.outbox import Outbox
from memoair_runtime.sync.status import SyncState, SyncStatus

if TYPE_CHECKING:
    from memoair_runtime.sync.session import SyncSession

log = logging.getLogger(__name__)

# The first answer that a caller waits for comes before the first question to the cloud, which takes the processor, too.
HEAD_START_S = 0.1
# So many turns of a burst go out together, and hardly later.
LINGER_S = 0.3
_JITTER = 0.2
# Where another process is at it, it is looked at again.
BUSY_PAUSE_S = 1.0
# The last push: what the drain leaves for it, and how long ago a failure says that it would fail again.
LAST_PUSH_S, _FAILED_JUST_NOW_S = 1.0, 10.0
LONGEST_END_S = 1.1
ALL_SCOPES = frozenset([LaneName.PROFILE, LaneName.PERMANENT, LaneName.ORG])


@attrs.define(eq=False)
class _SyncRequest:
    """What somebody waits for: a pull of some scopes, or a push (None)."""

    scopes: frozenset[LaneName] | None
    deadline: float
    is_over: bool = False
    is_granted: bool = False


class SyncScheduler:
    """The talk of one runtime with the cloud; see `memoair_runtime.sync.null_sync.SyncInterface`."""

    def __init__(self, settings: RuntimeSettings, keeper: UserStore, org: OrgLane, metrics: RuntimeMetrics) -> None:
        self._settings = settings
        self._keeper = keeper
        self._org = org
        self._metrics = metrics
        self._interval_s = settings.pull_interval_s
        folder = UserFolder(settings.storage_root, settings.project_id, settings.user_id)
        self._outbox = Outbox(folder, settings.cloud_id or "")
        self._refusals = RejectedEvents(folder.refused)
        self._talk: SyncSession | None = None  # our thread's own
        self._changed = threading.Condition()
        # All below under that lock, which is held to look and to note, and never while anything is done.
        self._standing = SyncStatus()
        self._wishes: list[_SyncRequest] = []
        self._pull_at = 0.0
        self._push_at = math.inf
        self._is_awake = False  # whether anybody has been answered
        self._has_pulled = False
        self._forgotten: list[datetime | None] = []  # what the thread has not been told yet
        self._ends_at: float | None = None
        self._has_ended = False  # whether the last push was begun, or is not worth it
        self._thread: threading.Thread | None = None
        metrics.events_unsynced.set_function(lambda: self.unsynced)

    @property
    def unsynced(self) -> int:
        """How many events are not in the cloud."""
        return self._outbox.count

    @property
    def sync_token(self) -> str | None:
        """What the cloud calls the state that it told last."""
        return self._talk.sync_token if self._talk else None

    @property
    def permanent_version(self) -> int | None:
        """Up to which version events and facts were pulled."""
        return self._keeper.permanent_version

    def start(self) -> None:
        """Begin; twice is no harm."""
        with self._changed:
            if self._thread is None and self._ends_at is None:
                self._thread = threading.Thread(target=self._run, name="cloud-sync", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Somebody has been answered."""
        if not self._is_awake:
            with self._changed:
                self._is_awake = True
                self._changed.notify_all()

    def note(self, events: Sequence[Event]) -> None:
        """Events have been logged; that a call is over is sent at once."""
        is_first = self._outbox.note(events)
        is_urgent = any(event.type is EventType.SESSION_END for event in events)
        with self._changed:
            push_at = time.monotonic() + (0.0 if is_urgent else LINGER_S)
            if is_first or push_at < self._push_at:  # else the thread knows, and need not wake for each turn of a burst
                self._push_at = min(self._push_at, push_at)
                self._changed.notify_all()

    def pull(self, scopes: Sequence[LaneName], deadline: float) -> tuple[str, Versions]:
        """Ask the cloud now, and wait for it."""
        wish = self._wait_for(_SyncRequest(frozenset(scopes), deadline))
        return "ok" if wish.is_granted else "partial", self._versions()

    def flush(self, deadline: float) -> int:
        """Send what waits, and wait for it."""
        if self.unsynced:
            self._wait_for(_SyncRequest(None, deadline))
        return self.unsynced

    def forgotten(self, at: datetime | None) -> None:
        """The caller has been forgotten here; what was counted is no more."""
        self._outbox.forget()
        self._refusals.forget()
        with self._changed:
            self._forgotten.append(at)
            self._pull_at = 0.0
            self._changed.notify_all()

    def health(self) -> dict[str, Any]:
        """How it goes; asks neither disk nor network."""
        since = self._outbox.since
        oldest_ms = None if since is None else max(0, int((time.time() - since) * 1e3))
        return health_of(
            self._standing.state, self.unsynced, oldest_ms, self._refusals.count, has_pulled=self._has_pulled
        )

    def close(self, deadline: float) -> None:
        """End, after one more try to send what waits. Who hangs in a call to the cloud is left there."""
        with self._changed:
            self._ends_at = deadline
            for wish in self._wishes:
                wish.is_over = True
            self._changed.notify_all()
            thread, talk = self._thread, self._talk
        if talk is not None:
            talk.abort()
        if thread is not None:
            thread.join(min(max(0.0, deadline - time.monotonic()), LONGEST_END_S))

    def _wait_for(self, wish: _SyncRequest) -> _SyncRequest:
        with self._changed:
            if self._ends_at is None:
                self._wishes.append(wish)
                self._changed.notify_all()
                self._changed.wait_for(lambda: wish.is_over, max(0.0, wish.deadline - time.monotonic()))
                if wish in self._wishes:
                    self._wishes.remove(wish)
        return wish

    def _versions(self) -> Versions:
        org = None if self._settings.org_file else self._org.version
        return {"profile": self._keeper.profile_version, "permanent": self._keeper.permanent_version, "org": org}

    # The thread

    def _run(self) -> None:
        # It brings ``requests``, which takes long to import where no host has done so before.
        from memoair_runtime.sync.session import SyncSession

        with self._changed:
            self._changed.wait_for(lambda: self._is_awake or self._ends_at is not None or self._wishes, HEAD_START_S)
        talk = self._talk = SyncSession(
            self._settings, self._keeper, self._org, self._outbox, self._refusals, self._metrics
        )
        try:
            talk.look(everywhere=True)
            while (step := self._next()) is not None:
                step(talk)
        finally:
            talk.close()

    def _next(self) -> "Callable[[SyncSession], None] | None":
        """What to do next, as soon as it is time for it; None at the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._ends_at is not None:
                    return self._last_step(now)
                step = self._due_step(now)
                if step is not None:
                    return step
                self._changed.wait(max(0.0, self._next_at() - now))

    def _due_step(self, now: float) -> "Callable[[SyncSession], None] | None":
        standing = self._standing
        if self._forgotten:
            return self._take_note
        if self._wishes and not standing.may_try(now, is_asked=True):
            if self._outbox.has_news:
                return self._look
            self._grant(list(self._wishes), is_granted=False)
        if any(wish.scopes is not None or not standing.is_admitted for wish in self._wishes):
            return self._pull
        if self._wishes:
            return self._push
        if standing.may_try(now):
            if now >= self._pull_at:
                return self._pull
            if now >= self._push_at and self._outbox.count and standing.is_admitted:
                return self._push
        return self._look if now >= self._push_at and self._outbox.has_news else None

    def _next_at(self) -> float:
        is_push_wanted = self._outbox.count and self._standing.is_admitted
        talks_at = max(self._standing.paused_until, min(self._pull_at, self._push_at if is_push_wanted else math.inf))
        return min(talks_at, self._push_at if self._outbox.has_news else math.inf)

    def _last_step(self, now: float) -> "Callable[[SyncSession], None] | None":
        """One more push, where it is likely to come through."""
        standing, is_first = self._standing, not self._has_ended
        self._has_ended = True
        is_hopeful = standing.is_admitted and not standing.failed_since(now - _FAILED_JUST_NOW_S)
        return self._push if is_first and is_hopeful and self._outbox.count else None

    def _look(self, talk: "SyncSession") -> None:
        """Count what waits, where it can't be sent now."""
        talk.look(everywhere=False)

    def _take_note(self, talk: "SyncSession") -> None:
        with self._changed:
            moments, self._forgotten = self._forgotten, []
        for at in moments:
            talk.forgotten(at)

    def _pull(self, talk: "SyncSession") -> None:
        with self._changed:
            wishes = [wish for wish in self._wishes if wish.scopes is not None]
            is_due = time.monotonic() >= self._pull_at
            scopes = ALL_SCOPES if is_due else frozenset[LaneName]().union(*(wish.scopes or () for wish in wishes))
            waits_until = max([wish.deadline for wish in wishes], default=0.0)
        is_whole, failure = self._try(lambda: talk.pull(scopes, waits_until, self._admit))
        now = time.monotonic()
        with self._changed:
            if failure is not None:
                self._metrics.pull_failures.inc()
                self._pull_at = max(self._standing.paused_until, now)
                wishes = list(self._wishes)  # a push would fail as well
            else:
                self._has_pulled |= is_whole and scopes == ALL_SCOPES
                if is_due:
                    jitter = random.uniform(1 - _JITTER, 1 + _JITTER)
                    self._pull_at = now + (self._interval_s * jitter if is_whole else BUSY_PAUSE_S)
                if self._outbox.count:
                    self._push_at = min(self._push_at, now)
            self._grant(wishes, is_granted=is_whole)

    def _push(self, talk: "SyncSession") -> None:
        with self._changed:
            wishes = [wish for wish in self._wishes if wish.scopes is None]
            ends_at, self._push_at = self._ends_at, math.inf
        deadline = math.inf if ends_at is None else min(ends_at, time.monotonic() + LAST_PUSH_S)
        was_ours, failure = self._try(lambda: talk.push(deadline))
        with self._changed:
            if failure is not None:
                self._metrics.push_failures.inc()
            if self._outbox.count:
                pause_s = BUSY_PAUSE_S if failure is None and not was_ours else 0.0
                self._push_at = min(self._push_at, time.monotonic() + pause_s)
            if talk.has_met_forgotten:
                self._pull_at = 0.0
            self._grant(wishes, is_granted=was_ours)

    def _grant(self, wishes: Sequence[_SyncRequest], *, is_granted: bool) -> None:
        for wish in wishes:
            wish.is_over, wish.is_granted = True, is_granted
            if wish in self._wishes:
                self._wishes.remove(wish)
        self._changed.notify_all()

    def _try(self, act: Callable[[], bool]) -> tuple[bool, CloudError | None]:
        """Do something with the cloud, and tell whether it came to its end; nothing that goes wrong ends the thread."""
        is_whole, failure = False, None
        try:
            is_whole = act()
        except CloudError as error:
            failure = error.bare()  # its stack would keep the connection
        except StorageUnavailableError as fault:
            failure = CloudError(FailureKind.TRANSIENT, fault.message)
        except OSError as error:
            failure = CloudError(FailureKind.TRANSIENT, f"the disk refuses: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - what went wrong with this answer need not with the next
            failure = CloudError(FailureKind.TRANSIENT, f"a defect of ours: {type(error).__name__}")
            log.error("a talk with the cloud failed: action=sync_failed error=%s", type(error).__name__)
        with self._changed:
            if failure is None:
                self._stand(self._standing.succeeded())
            else:
                self._stand(self._standing.failed(failure, time.monotonic()), failure)
        return is_whole, failure

    def _admit(self) -> None:
        with self._changed:
            self._stand(self._standing.succeeded(admits=True))

    def _stand(self, standing: SyncStatus, failure: CloudError | None = None) -> None:
        """Change how it stands, and tell of it once."""
        before, self._standing = self._standing.state, standing
        if before is standing.state:
            return
        if standing.state is SyncState.RETRYING and failure:
            log.warning("turns wait for the cloud: action=sync_retrying why=%s", failure.message)
        elif standing.state is SyncState.REFUSED and failure:
            log.error("the cloud does not take us, turns stay here: action=sync_refused why=%s", failure.message)
        elif before is not SyncState.CONNECTING:
            log.warning("the cloud takes calls again: action=sync_ok")
