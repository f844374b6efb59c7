"""Check the storage root: writable, private to this user, with locks that work, and fast enough; and its contents."""

import os
import shutil
import stat
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import filelock
import psutil

from memoair_cli.doctor.checks import DoctorContext, Finding, note, ok, problem
from memoair_cli.options import pluralize
from memoair_protocol.durable import sync_data
from memoair_protocol.private_files import UnsafePathError, check_private_folders
from memoair_protocol.turn_spool import count_turns
from memoair_runtime.inspection import ProjectReport, inspect_storage

_MIN_FREE_BYTES = 500 << 20
_SLOW_MS = 20.0  # callers wait some 800 ms for an answer; more than this of it would be noticeable
_TEST_LINE = b"x" * 500  # about the length of a turn in a session log
_TEST_WRITES = 9
_LOCK_TIMEOUT_S = 20.0
# A client saves them within seconds once it can.
_MAX_OUTBOX_AGE_S = 600.0
_NETWORK_FILE_SYSTEMS = frozenset(
    ["nfs", "nfs4", "cifs", "smbfs", "smb3", "afs", "fuse.sshfs", "9p", "ceph", "glusterfs"]
)
# Bounds the time of the check. If a machine has more calls than this, the report says that the rest is left out.
_MAX_SESSIONS = 50_000
# Events are sent within seconds while their user's runtime lives. Older ones wait for the next call, or for the cloud.
_MAX_UNSENT_AGE_S = 3_600.0
# Takes the lock immediately or exits with 3. It runs in another process, because some systems let one process lock a
# file twice.
_LOCK_SCRIPT = (
    "import sys, filelock\n"
    "try:\n filelock.FileLock(sys.argv[1], timeout=0).acquire()\nexcept filelock.Timeout:\n sys.exit(3)"
)


def check_storage(context: DoctorContext) -> Iterator[Finding]:
    """Check the storage root. If it does not exist, check the folder that it will be created in."""
    root = context.storage_root
    folder = root
    if not root.exists():
        folder = next(parent for parent in root.parents if parent.exists())
        yield note("storage", f"{root} does not exist; the first call creates it")
    elif not root.is_dir():
        yield problem(
            "storage", f"{root} is not a folder", "move it away, or set MEMOAIR_RUNTIME_STORAGE_ROOT to another folder"
        )
        return
    else:
        try:
            check_private_folders(root, root)
        except UnsafePathError as error:
            yield problem("storage", f"{root} {error.problem}", error.remedy)
            return
        yield _check_permissions(root)
    probe = folder / f".doctor-{uuid.uuid4().hex[:8]}"  # project folders have no dot in their names
    try:
        probe.mkdir(mode=0o700)
    except OSError as error:
        reason = f"{folder} is not writable: {error.strerror}"
        yield problem("storage", reason, f"chown -R {_user_name()} {folder}")
        return
    try:
        yield from _check_disk(folder, probe)
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _check_permissions(root: Path) -> Finding:
    info = root.stat()
    mode = stat.S_IMODE(info.st_mode)
    if os.name != "nt" and info.st_uid != os.getuid():
        return problem("storage", f"{root} belongs to another user", f"chown -R {_user_name()} {root}")
    if os.name != "nt" and mode & 0o077:
        return problem(
            "storage",
            f"{root} contains what callers said, and other users can read it ({mode:04o})",
            f"chmod 700 {root}",
        )
    return ok("storage", f"{root} is private to this user")


def _check_disk(folder: Path, probe: Path) -> Iterator[Finding]:
    free_bytes = shutil.disk_usage(folder).free
    message = f"{free_bytes / (1 << 30):,.1f} GB free"
    if free_bytes < _MIN_FREE_BYTES:
        yield problem("disk", message, "free some space: on a full disk, turns are rejected")
    else:
        yield ok("disk", message)
    yield _check_write_speed(probe)
    yield _check_locks(probe)
    kind = _file_system_type(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        remedy = "set MEMOAIR_RUNTIME_STORAGE_ROOT to a folder on a local disk"
        yield note("file system", f"{folder} is on {kind}: every saved turn waits for the network", remedy)


def _check_write_speed(probe: Path) -> Finding:
    times_ms = []
    try:
        descriptor = os.open(probe / "speed", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for _ in range(_TEST_WRITES):
                started_at = time.perf_counter()
                os.write(descriptor, _TEST_LINE)
                sync_data(descriptor)
                times_ms.append((time.perf_counter() - started_at) * 1e3)
        finally:
            os.close(descriptor)
    except OSError as error:
        return problem(
            "disk", f"a line cannot be synced to disk: {error.strerror}", "use another disk for the storage root"
        )
    median_ms = statistics.median(times_ms)
    message = f"a line is synced to disk in {median_ms:.1f} ms (median of {_TEST_WRITES})"
    if median_ms > _SLOW_MS:
        return note("disk", message, "every saved turn waits for this; use a faster disk")
    return ok("disk", message)


def _check_locks(probe: Path) -> Finding:
    """Check that a lock excludes other processes while it is held, and no longer."""
    path = probe / "probe.lock"
    remedy = "use a local disk; on NFS, check that the lock service runs on client and server"
    try:
        with filelock.FileLock(path, timeout=0):
            acquired_while_held = _can_lock_from_subprocess(path)
        acquired_after_release = _can_lock_from_subprocess(path)
    except (OSError, filelock.Timeout, subprocess.TimeoutExpired) as error:
        return problem("locks", f"a file cannot be locked: {type(error).__name__}", remedy)
    if acquired_while_held or not acquired_after_release:
        reason = "a held lock does not exclude" if acquired_while_held else "a released lock still excludes"
        return problem("locks", f"{reason} other processes: two runtimes could write to one log", remedy)
    return ok("locks", "file locks exclude other processes")


def _can_lock_from_subprocess(path: Path) -> bool:
    command = [sys.executable, "-c", _LOCK_SCRIPT, str(path)]
    done = subprocess.run(command, timeout=_LOCK_TIMEOUT_S, capture_output=True, check=False)  # noqa: S603
    return done.returncode == 0


def _file_system_type(folder: Path) -> str | None:
    """Return the type of the file system that a folder is on, if the system reports it."""
    with suppress(OSError, psutil.Error, RuntimeError):
        mounts = {Path(partition.mountpoint): partition.fstype for partition in psutil.disk_partitions(all=True)}
        return next((mounts[path] for path in (folder, *folder.parents) if path in mounts), None)
    return None


def _user_name() -> str:
    with suppress(KeyError, OSError):
        return psutil.Process().username()
    return "this user"


def check_storage_contents(context: DoctorContext) -> Iterator[Finding]:
    """Check the folder of every project: leases, unsent events, events that the cloud rejected. Counts only."""
    base_url = context.base_url.rstrip("/") if context.api_key else None
    projects = list(inspect_storage(context.storage_root, base_url, _MAX_SESSIONS))
    if sum(project.sessions for project in projects) >= _MAX_SESSIONS:
        yield note("memory", f"there are more than {_MAX_SESSIONS:,} calls; the rest was not checked")
    for project in projects:
        yield from _describe_project(f"project {project.project_id}", project, has_cloud=bool(base_url))
    yield from _check_outbox(context.storage_root)


def _check_outbox(root: Path) -> Iterator[Finding]:
    """Check for turns that clients have promised to save, and that are in no log yet."""
    count = count_turns(root)
    if count.since is None:
        return
    age_s = max(0.0, time.time() - count.since)
    message = (
        f"{pluralize(count.turns, 'turn')} in the outbox of clients, not in the memory yet; the oldest has waited for "
        f"{_format_duration(age_s)}"
    )
    remedy = (
        "a client with this storage root, project and cloud saves them as soon as it is used; if one is running, its "
        "log says why it cannot (action=save_deferred)"
    )
    yield problem("outbox", message, remedy) if age_s > _MAX_OUTBOX_AGE_S else note("outbox", message, remedy)


def _describe_project(check: str, project: ProjectReport, *, has_cloud: bool) -> Iterator[Finding]:
    leases = pluralize(project.active_leases, "active lease") if project.active_leases else "no active lease"
    if project.stale_leases:
        leases += f", {pluralize(project.stale_leases, 'stale lease')} (the next call takes over)"
    for unsafe in project.unsafe:
        yield problem(check, f"{unsafe.path} {unsafe.problem}", unsafe.remedy)
    yield ok(check, f"{pluralize(project.users, 'caller')}, {pluralize(project.sessions, 'call')}; {leases}")
    if project.rejected:
        codes = ", ".join(f"{code} {count:,}" for code, count in project.rejected.most_common(5))
        remedy = (
            "they stay on this machine; refused.jsonl in a caller's folder lists them; fix the cause, delete the file"
        )
        yield problem(
            check, f"the cloud permanently rejected {pluralize(project.rejected.total(), 'event')} ({codes})", remedy
        )
    if not (project.has_outbox or has_cloud or project.unsent):
        yield note(check, "nothing was ever sent to a cloud")
    elif project.unsent_since is None:
        yield ok(check, "all events for the cloud are sent to it")
    else:
        age_s = max(0.0, time.time() - project.unsent_since)
        unsent, age = pluralize(project.unsent, "event"), _format_duration(age_s)
        message = f"{unsent} not sent to the cloud yet; the oldest has waited for {age}"
        remedy = "check that the cloud is reachable (below), and run `memoair sync`"
        yield problem(check, message, remedy) if age_s > _MAX_UNSENT_AGE_S else note(check, message)
    if project.local:
        yield ok(
            check,
            f"{pluralize(project.local, 'event')} said without a cloud, which stay on this machine unless "
            "`memoair sync --include-local` sends them",
        )


def _format_duration(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return pluralize(int(seconds / length), unit)
    return pluralize(int(seconds), "second")
