"""Report what is in the storage root: leases, unsent events, events that the cloud rejected. Counts only."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec

from memoair_cli.doctor.findings import DoctorContext, Finding, note, ok, pluralize, problem
from memoair_runtime.settings import RuntimeSettings
from memoair_runtime.storage.folder_names import read_identifier
from memoair_runtime.storage.lease import LeaseRecord
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.outbox import Outbox

# Bounds the time of the check. If a machine has more calls than this, the report says that the rest is left out.
_MAX_SESSIONS = 50_000
# Events are sent within seconds while their user's runtime lives. Older ones wait for the next call, or for the cloud.
_MAX_UNSENT_AGE_S = 3_600.0

_read_lease = msgspec.json.Decoder(LeaseRecord).decode


@attrs.define
class _ProjectReport:
    """The counts of one project's folder."""

    users: int = 0
    sessions: int = 0
    active_leases: int = 0
    stale_leases: int = 0  # leases of processes that no longer exist
    has_outbox: bool = False  # whether events were ever sent to a cloud
    unsent: int = 0
    unsent_since: float | None = None  # the last write to the log that has waited longest, in seconds since the epoch
    rejected: Counter[str] = attrs.field(factory=Counter)  # events that the cloud rejected permanently, by error code


def check_storage_contents(context: DoctorContext) -> Iterator[Finding]:
    """Check the folder of every project."""
    cloud_id = _configured_cloud_id(context)
    projects = {}
    remaining = _MAX_SESSIONS
    for folder in _list_projects(context.storage_root):
        if remaining > 0:
            projects[folder.project_id] = _count_project(folder, cloud_id, remaining)
            remaining -= projects[folder.project_id].sessions
    if remaining <= 0:
        yield note("memory", f"there are more than {_MAX_SESSIONS:,} calls; the rest was not checked")
    for project_id, project in projects.items():
        yield from _describe_project(f"project {project_id}", project, has_cloud=cloud_id is not None)


def _configured_cloud_id(context: DoctorContext) -> str | None:
    """Return the id of the configured cloud, as runtimes write it to their outboxes, or None."""
    base_url, key = context.base_url.rstrip("/") or None, context.api_key or None
    return RuntimeSettings("", "", context.storage_root, cloud_key=key, cloud_base_url=base_url).cloud_id


def _describe_project(check: str, project: _ProjectReport, *, has_cloud: bool) -> Iterator[Finding]:
    leases = pluralize(project.active_leases, "active lease") if project.active_leases else "no active lease"
    if project.stale_leases:
        leases += f", {pluralize(project.stale_leases, 'stale lease')} (the next call takes over)"
    yield ok(check, f"{pluralize(project.users, 'caller')}, {pluralize(project.sessions, 'call')}; {leases}")
    if project.rejected:
        codes = ", ".join(f"{code} {count:,}" for code, count in project.rejected.most_common(5))
        remedy = (
            "they stay on this machine; refused.jsonl in a caller's folder lists them; fix the cause, delete the file"
        )
        yield problem(
            check, f"the cloud permanently rejected {pluralize(project.rejected.total(), 'event')} ({codes})", remedy
        )
    if not (project.has_outbox or has_cloud):
        yield note(check, "nothing was ever sent to a cloud")
    elif project.unsent_since is None:
        yield ok(check, "all events are sent to the cloud")
    else:
        age_s = max(0.0, time.time() - project.unsent_since)
        unsent, age = pluralize(project.unsent, "event"), _format_duration(age_s)
        message = f"{unsent} not sent to the cloud yet; the oldest has waited for {age}"
        remedy = "check that the cloud is reachable (below); events are sent when a runtime of their caller starts"
        yield problem(check, message, remedy) if age_s > _MAX_UNSENT_AGE_S else note(check, message)


def _count_project(folder: ProjectFolder, cloud_id: str | None, max_sessions: int) -> _ProjectReport:
    report = _ProjectReport()
    for user in folder.list_users():
        if report.sessions >= max_sessions:
            break
        report.users += 1
        report.sessions += len(user.list_session_logs())
        _count_lease(user, report)
        _count_rejected(user, report)
        _count_unsent(user, cloud_id, report)
    return report


def _count_lease(user: UserFolder, report: _ProjectReport) -> None:
    try:
        lease = _read_lease(user.lease.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return
    is_active = lease.is_alive()
    report.active_leases += is_active
    report.stale_leases += not is_active


def _count_rejected(user: UserFolder, report: _ProjectReport) -> None:
    codes: dict[str, str] = {}  # by event: one that is rejected again after a crash counts once
    try:
        with user.rejected_events.open("rb") as lines:
            for ordinal, line in enumerate(lines):
                record = _parse_object(line)
                codes[str(record.get("eventId", ordinal))] = str(record.get("code", "unknown"))
    except OSError:
        pass
    report.rejected.update(codes.values())


def _count_unsent(user: UserFolder, cloud_id: str | None, report: _ProjectReport) -> None:
    """Count unsent events as a runtime would: for the configured cloud, else for the one they were last sent to."""
    report.has_outbox |= user.outbox.exists()
    outbox = Outbox(user, cloud_id or _read_cloud_id(user.outbox))
    outbox.scan(all_sessions=True)
    report.unsent += outbox.count
    if outbox.oldest_at is not None:
        report.unsent_since = min(report.unsent_since or outbox.oldest_at, outbox.oldest_at)


def _read_cloud_id(outbox: Path) -> str:
    try:
        return str(_parse_object(outbox.read_bytes()).get("cloud"))
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


def _format_duration(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return pluralize(int(seconds / length), unit)
    return pluralize(int(seconds), "second")
