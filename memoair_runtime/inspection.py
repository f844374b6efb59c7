"""Inspect a storage root without a runtime: what is in each project's folder. Counts only, and nothing is changed."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec

from memoair_protocol.private_files import UnsafePathError, open_private_reader, read_private_file
from memoair_runtime.settings import cloud_id_of
from memoair_runtime.storage.folder_names import read_identifier
from memoair_runtime.storage.lease import LeaseRecord
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.outbox import Outbox, Selection

_read_lease = msgspec.json.Decoder(LeaseRecord).decode


@attrs.define
class ProjectReport:
    """The counts of one project's folder.

    Attributes:
        project_id: The project.
        users: Users.
        sessions: Their calls.
        unsafe: Folders that another user of the machine could have prepared. They are not counted.
        active_leases: Users with a runtime.
        stale_leases: Leases of processes that no longer exist.
        has_outbox: Whether events were ever sent to a cloud.
        unsent: Events that are not sent to the cloud that they were logged for.
        local: Events that were logged without a cloud, and stay on this machine.
        unsent_since: The last write to the log that has waited longest, in seconds since the epoch.
        rejected: Events that the cloud rejected permanently, by error code.
    """

    project_id: str
    users: int = 0
    sessions: int = 0
    unsafe: list[UnsafePathError] = attrs.field(factory=list)
    active_leases: int = 0
    stale_leases: int = 0
    has_outbox: bool = False
    unsent: int = 0
    local: int = 0
    unsent_since: float | None = None
    rejected: Counter[str] = attrs.field(factory=Counter)


def inspect_storage(root: Path, cloud_base_url: str | None, max_sessions: int) -> Iterator[ProjectReport]:
    """Yield a report of each project, until ``max_sessions`` calls are counted.

    Args:
        root: The storage root.
        cloud_base_url: The configured cloud. Events that were logged for it count as unsent if it does not have them;
            without one, those that were logged for any cloud, if the one that was used last does not have them.
        max_sessions: The number of calls that bounds the time. A report may end within a project.
    """
    cloud_id = cloud_id_of(cloud_base_url) if cloud_base_url else None
    for folder in _list_projects(root):
        if max_sessions <= 0:
            return
        report = _count_project(folder, cloud_id, max_sessions)
        max_sessions -= report.sessions
        yield report


def _count_project(folder: ProjectFolder, cloud_id: str | None, max_sessions: int) -> ProjectReport:
    report = ProjectReport(folder.project_id)
    try:
        folder.check()
    except UnsafePathError as error:
        report.unsafe.append(error)
        return report
    for user in folder.list_users():
        if report.sessions >= max_sessions:
            break
        try:
            user.check()
        except UnsafePathError as error:
            report.unsafe.append(error)
            continue
        report.users += 1
        report.sessions += len(user.list_session_logs())
        _count_lease(user, report)
        _count_rejected(user, report)
        _count_unsent(user, cloud_id, report)
    return report


def _count_lease(user: UserFolder, report: ProjectReport) -> None:
    try:
        lease = _read_lease(read_private_file(user.lease))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    is_active = lease.is_alive()
    report.active_leases += is_active
    report.stale_leases += not is_active


def _count_rejected(user: UserFolder, report: ProjectReport) -> None:
    codes: dict[str, str] = {}  # by event: one that is rejected again after a crash counts once
    try:
        with open_private_reader(user.rejected_events) as lines:
            for ordinal, line in enumerate(lines):
                record = _parse_object(line)
                codes[str(record.get("eventId", ordinal))] = str(record.get("code", "unknown"))
    except OSError:
        pass  # no event was rejected, or the rest cannot be read: report what was
    report.rejected.update(codes.values())


def _count_unsent(user: UserFolder, cloud_id: str | None, report: ProjectReport) -> None:
    """Count unsent events as a runtime would: for the configured cloud, else for any."""
    report.has_outbox |= user.outbox.exists()
    cloud = cloud_id or _read_cloud_id(user.outbox)
    outbox = Outbox(user, cloud, Selection.FOR_CLOUD if cloud_id else Selection.FOR_ANY_CLOUD)
    local = Outbox(user, cloud, Selection.LOCAL)
    try:
        outbox.scan(all_sessions=True)
        local.scan(all_sessions=True)
    except OSError:  # the record of an erasure is damaged: nothing is sent
        return
    report.unsent += outbox.count
    report.local += local.count
    if outbox.oldest_at is not None:
        report.unsent_since = min(report.unsent_since or outbox.oldest_at, outbox.oldest_at)


def _read_cloud_id(outbox: Path) -> str:
    try:
        return str(_parse_object(read_private_file(outbox)).get("cloud"))
    except OSError:
        return ""


def _parse_object(content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _list_projects(root: Path) -> list[ProjectFolder]:
    """Return the project folders in the storage root."""
    try:
        folders = sorted(path for path in root.iterdir() if "." not in path.name and path.is_dir())
    except OSError:
        return []
    project_ids = [read_identifier(folder) for folder in folders]
    return [ProjectFolder(root, project_id) for project_id in project_ids if project_id is not None]
