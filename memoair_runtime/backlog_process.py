"""The backlog process: it sends what waits of all users of a project, also of those who never call again.

A client with a cloud has one. Of the processes of one project, storage root and cloud, the one that holds the lock does
the work, at a low priority and a bounded rate; the others wait to take over when it ends, however it ends. It serves no
requests: a client reads the status from the file that the first event names.

The fork server forks it. Where forking is not safe, it is started as ``python -m memoair_runtime.backlog_process``.
"""

import logging
import math
import os
import random
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any

from memoair_protocol.private_files import UnsafePathError
from memoair_protocol.threads import run_loop
from memoair_protocol.timestamps import utc_now
from memoair_runtime.main import EXIT_SETTINGS, configure_logging
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.parent_watch import ParentWatch
from memoair_runtime.settings import RuntimeSettings, SettingsError
from memoair_runtime.storage.backlog_status import BacklogStatus, write_status
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.sync.backlog import Pace, ProjectBacklog
from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.status import SyncState, SyncStatus
from memoair_runtime.sync.transport import CloudTransport

log = logging.getLogger("memoair_runtime")

# The first answers of a client that has just started come first.
START_DELAY_S = 0.5
# How often to try to take the role over.
TAKEOVER_INTERVAL_S = 1.0
# How often to look for new turns: not more often than this, nor for more than this share of the time.
REFRESH_INTERVAL_S, _REFRESH_SHARE = 2.0, 0.05
# How often to look at every folder, also at those that seem unchanged.
_FULL_REFRESH_S = 600.0
# How long to look before sending what was found so far, and for how long to send then.
_SLICE_S = 3.0
# See docs/performance.md for what this costs the calls that take place at the same time.
MAX_USERS_PER_S, REQUEST_SHARE = 50.0, 0.5
# What is sent when the client is closed, before the process ends.
FINAL_S = 1.0
# After so many rejected pushes in a row, something is wrong for all users.
_MAX_REJECTIONS = 5
_STATUS_INTERVAL_S = 0.5
# Low, but not the lowest: on a machine that is always busy, that would mean never.
_PRIORITY = 10


class BacklogSender:
    """Sends the backlog of one project until it is asked to stop.

    Args:
        settings: The project, the cloud and the storage root; without a user.
        stop: Set when the client ends.
    """

    def __init__(self, settings: RuntimeSettings, stop: threading.Event) -> None:
        self._stop = stop
        self._project = ProjectFolder(settings.storage_root, settings.project_id)
        self._cloud = settings.cloud_id or ""
        self._pull_interval_s = settings.pull_interval_s
        self._transport = CloudTransport(
            settings.cloud_base_url or "", settings.cloud_key or "", settings.project_id, settings.agent_id, None
        )
        self._backlog = ProjectBacklog(
            self._project,
            self._cloud,
            self._transport,
            RuntimeMetrics(),
            retention_days=settings.retention_days,
        )
        self._retained: tuple[int, int | None] | None = None  # the hour and the rules of the last drop of old turns
        self._lock = ProcessLock(self._project.backlog_lock(self._cloud))
        self._status = SyncStatus()
        self._connect_at = 0.0
        self._resend_at = 0.0  # after a restore of the cloud, machines do not all begin at once
        self._full_refresh_at = 0.0
        self._publish_at = 0.0
        self._written: BacklogStatus | None = None

    @property
    def status_path(self) -> str:
        """The path of the file with the status."""
        return str(self._project.backlog_status(self._cloud))

    def run(self) -> None:
        """Wait for the role, send what waits, and make a last attempt at the end."""
        self._stop.wait(START_DELAY_S)
        try:
            while not self._acquire() and not self._stop.wait(TAKEOVER_INTERVAL_S):
                pass
            if not self._acquire():
                return
            while not self._stop.is_set():
                self._stop.wait(self._work())
            self._finish(time.monotonic() + FINAL_S)
        finally:
            self._transport.close()
            self._lock.release()

    def _acquire(self) -> bool:
        return self._project.path.is_dir() and self._lock.try_acquire()

    def _work(self) -> float:
        """Connect, look for what waits, and send it; return how long to wait, in seconds."""
        started_at = time.monotonic()
        if started_at >= max(self._connect_at, self._status.paused_until):
            self._attempt(self._connect)
        cpu_s = time.process_time()
        try:
            self._refresh()
        except Exception as error:  # noqa: BLE001 - one folder must not end the process
            log.error("cannot look for unsent turns: action=backlog_failed error=%s", type(error).__name__)
        self._attempt_retention()
        pause_s = max(REFRESH_INTERVAL_S, (time.process_time() - cpu_s) / _REFRESH_SHARE)
        self._send_for(math.inf)
        self._publish(is_forced=True)
        is_interrupted = self._status.state is SyncState.OK and time.monotonic() >= self._connect_at
        return 0.0 if is_interrupted else pause_s  # it goes on as soon as the cloud was asked for erasures

    def _connect(self) -> None:
        jitter = random.uniform(0.8, 1.2)
        if self._backlog.connect():
            self._full_refresh_at = 0.0
            self._resend_at = time.monotonic() + random.uniform(0.0, self._pull_interval_s / 2)
        self._connect_at = time.monotonic() + self._pull_interval_s * jitter

    def _refresh(self) -> None:
        is_full = time.monotonic() >= self._full_refresh_at
        pace = Pace(math.inf, 0.5, self._stop.wait)
        read_at = slice_began_at = time.monotonic()
        for _ in self._backlog.refresh(is_full=is_full):
            now = time.monotonic()
            if now - read_at > 0.02:  # in slices, so that it never holds a processor for long
                pace.pause(now - read_at)
                read_at = time.monotonic()
            if now - slice_began_at > _SLICE_S:  # thousands of folders take long to read
                self._send_for(_SLICE_S)
                read_at = slice_began_at = time.monotonic()
            if self._stop.is_set():
                return
        if is_full:
            self._full_refresh_at = time.monotonic() + _FULL_REFRESH_S
        self._publish(is_forced=True)

    def _attempt_retention(self) -> None:
        """Drop old turns, once an hour, and when the rules have changed."""
        now = utc_now()
        due = int(now.timestamp() // 3_600), self._backlog.rules_version
        if due == self._retained:
            return
        pace = Pace(math.inf, 0.5, self._stop.wait)
        began_at = time.monotonic()
        try:
            for _ in self._backlog.drop_old_turns(now):
                pace.pause(time.monotonic() - began_at)
                began_at = time.monotonic()
                if self._stop.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - what waits to be sent is more urgent
            log.error("cannot drop old turns: action=retain_failed error=%s", type(error).__name__)
        self._retained = due

    def _send_for(self, duration_s: float) -> None:
        if self._status.state is SyncState.OK and time.monotonic() >= self._resend_at:
            self._attempt(partial(self._send, time.monotonic() + duration_s))

    def _send(self, deadline: float) -> None:
        pace, rejections = Pace(MAX_USERS_PER_S, REQUEST_SHARE, self._stop.wait), 0
        for folder in self._backlog.waiting_users():
            if self._stop.is_set() or time.monotonic() >= min(deadline, self._connect_at):
                return  # before more is sent, the cloud is asked for erasures and its epoch
            started_at = time.monotonic()
            try:
                self._backlog.push(folder)
                rejections = 0
            except CloudError as error:
                # It may be this user only, whose id does not fit into a header; or the key, for everyone.
                rejections += 1
                if error.kind is not FailureKind.REJECTED or rejections >= _MAX_REJECTIONS:
                    raise
            self._publish()
            pace.pause(time.monotonic() - started_at)

    def _finish(self, deadline: float) -> None:
        """Send what is possible in a short time, without pauses."""
        if self._status.state in (SyncState.RETRYING, SyncState.REFUSED):
            return

        def send_all() -> None:
            for _ in self._backlog.refresh():
                if time.monotonic() >= deadline:
                    break
            users = self._backlog.waiting_users()
            if users and self._status.state is not SyncState.OK:
                self._backlog.connect(deadline)
            for folder in users:
                if time.monotonic() >= deadline:
                    return
                self._backlog.push(folder, deadline)

        self._attempt(send_all)
        self._publish(is_forced=True)

    def _attempt(self, action: Any) -> None:
        """Run an action; record whether it succeeded. No error ends the process."""
        try:
            action()
        except CloudError as error:
            failure = error
        except OSError as error:
            failure = CloudError(FailureKind.TRANSIENT, f"disk error: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - the next attempt may succeed
            log.error("the backlog failed: action=backlog_failed error=%s", type(error).__name__)
            failure = CloudError(FailureKind.TRANSIENT, f"internal error: {type(error).__name__}")
        else:
            self._status = self._status.after_success(authorizes=True)
            return
        before, self._status = self._status, self._status.after_failure(failure, time.monotonic())
        self._connect_at = 0.0  # as soon as the pause is over
        if before.state is not self._status.state:
            log.warning("the backlog waits: action=backlog_waits why=%s", failure.message)

    def _publish(self, *, is_forced: bool = False) -> None:
        """Write the status if it has changed, not too often: to sum up thousands of users takes milliseconds."""
        now = time.monotonic()
        if now < self._publish_at and not is_forced:
            return
        self._publish_at = now + _STATUS_INTERVAL_S
        counts = self._backlog.counts
        status = BacklogStatus(
            counts.turns, counts.users, counts.refused, self._status.state.value, counts.oldest_at, os.getpid()
        )
        if status != self._written:
            with suppress(OSError):
                write_status(self._project.backlog_status(self._cloud), status)
                self._written = status


def run(settings: RuntimeSettings, parent: ParentWatch) -> None:
    """Send the backlog until the client ends.

    Args:
        settings: The project, the cloud and the storage root.
        parent: Receives the first event, and stops the process when it ends.
    """
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(_PRIORITY)
    stop = threading.Event()
    # Without descriptors or threads for the moment, it begins a moment later. The client starts it only once.
    run_loop(partial(_watch_parent, parent, stop), report=_report_start, wait=stop.wait)
    run_loop(partial(_run_sender, settings, parent, stop), report=_report_start, wait=stop.wait)


def _watch_parent(parent: ParentWatch, stop: threading.Event) -> bool:
    parent.watch(stop.set)
    return False


def _run_sender(settings: RuntimeSettings, parent: ParentWatch, stop: threading.Event) -> bool:
    if stop.is_set():
        return False
    try:
        ProjectFolder(settings.storage_root, settings.project_id).check()
    except UnsafePathError as error:
        parent.emit({"event": "failed", "code": "runtime.start_failed", "message": str(error)})
        return False
    sender = BacklogSender(settings, stop)
    parent.emit({"event": "backlog", "pid": os.getpid(), "statusFile": sender.status_path})
    if settings.has_cloud:
        sender.run()
    return False


def _report_start(error: Exception) -> None:
    log.error("the backlog process failed, trying again: action=backlog_failed error=%s", type(error).__name__)


def main() -> int:
    """Run a backlog process that is configured by the environment, until its standard input ends."""
    configure_logging()
    try:
        settings = RuntimeSettings.from_environ(os.environ)
    except SettingsError as error:
        print(f"memoair_runtime.backlog_process: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_SETTINGS
    run(settings, ParentWatch(0, 1))
    logging.shutdown()
    os._exit(0)  # as `memoair_runtime.main`


if __name__ == "__main__":
    sys.exit(main())
