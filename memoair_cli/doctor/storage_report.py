"""What lies in the storage root: who is served, what has not been sent, what a cloud refused. Counts only."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec

from memoair_cli.doctor.findings import DoctorContext, Finding, note, ok, problem, some
from memoair_runtime.settings import RuntimeSettings
from memoair_runtime.storage.folder_names import read_identifier
from memoair_runtime.storage.lease import LeaseRecord
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.outbox import Outbox

# The looking must end: of a machine with more calls than this, the rest is left out, which is told.
_MOST_CALLS = 50_000
# Events are sent within seconds while a caller's runtime lives. What is older waits for his next call, or for a cloud.
_LONG_S = 3_600.0

_read_lease = msgspec.json.Decoder(LeaseRecord).decode


@attrs.define
class _ProjectReport:
    """What was counted in one project's folder."""

    callers: int = 0
    calls: int = 0
    served: int = 0
    abandoned: int = 0  # leases of processes that are gone
    sends: bool = False  # whether anything was ever sent to a cloud
    unsent: int = 0
    unsent_since: float | None = None  # when the log that has waited longest was written last
    refused: Counter[str] = attrs.field(factory=Counter)  # events that the cloud will never take, by code


def check_held(surroundings: DoctorContext) -> Iterator[Finding]:
    """Look at every project's folder."""
    cloud = _cloud_id(surroundings)
    projects = {}
    left = _MOST_CALLS
    for folder in _projects(surroundings.storage_root):
        if left > 0:
            projects[folder.project_id] = _counted(folder, cloud, left)
            left -= projects[folder.project_id].calls
    if left <= 0:
        yield note("memory", f"there are more than {_MOST_CALLS:,} calls; the rest was not looked at")
    for project_id, project in projects.items():
        yield from _told(f"project {project_id}", project, has_cloud=cloud is not None)


def _cloud_id(surroundings: DoctorContext) -> str | None:
    """The cloud that is set, as runtimes note it in their outboxes; None where none is."""
    base_url, key = surroundings.base_url.rstrip("/") or None, surroundings.api_key or None
    return RuntimeSettings("", "", surroundings.storage_root, cloud_key=key, cloud_base_url=base_url).cloud_id


def _told(check: str, project: _ProjectReport, *, has_cloud: bool) -> Iterator[Finding]:
    leases = f"{project.served} served now" if project.served else "nobody is served now"
    if project.abandoned:
        leases += f", {some(project.abandoned, 'lease')} of processes that are gone (the next call takes over)"
    yield ok(check, f"{some(project.callers, 'caller')}, {some(project.calls, 'call')}; {leases}")
    if project.refused:
        codes = ", ".join(f"{code} {count:,}" for code, count in project.refused.most_common(5))
        remedy = "they stay here; refused.jsonl in a caller's folder names them: see to it, then remove that file"
        yield problem(check, f"the cloud refused {some(project.refused.total(), 'event')} for good ({codes})", remedy)
    if not (project.sends or has_cloud):
        yield note(check, "nothing was ever sent to a cloud from here")
    elif project.unsent_since is None:
        yield ok(check, "everything has been sent to the cloud")
    else:
        age_s = max(0.0, time.time() - project.unsent_since)
        told = f"{some(project.unsent, 'event')} not sent to the cloud yet; the oldest waits for {_spoken(age_s)}"
        remedy = "see that the cloud can be reached (below); what waits is sent when a runtime of its caller starts"
        yield problem(check, told, remedy) if age_s > _LONG_S else note(check, told)


def _counted(folder: ProjectFolder, cloud: str | None, most_calls: int) -> _ProjectReport:
    project = _ProjectReport()
    for caller in folder.list_users():
        if project.calls >= most_calls:
            break
        project.callers += 1
        project.calls += len(caller.list_session_logs())
        _count_lease(caller, project)
        _count_refused(caller, project)
        _count_unsent(caller, cloud, project)
    return project


def _count_lease(caller: UserFolder, project: _ProjectReport) -> None:
    try:
        holder = _read_lease(caller.lease.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return
    lives = holder.is_alive()
    project.served += lives
    project.abandoned += not lives


def _count_refused(caller: UserFolder, project: _ProjectReport) -> None:
    codes: dict[str, str] = {}  # by event: one that was refused before a crash, and again after it, is one
    try:
        with caller.rejected_events.open("rb") as lines:
            for number, line in enumerate(lines):
                told = _parsed(line)
                codes[str(told.get("eventId", number))] = str(told.get("code", "unknown"))
    except OSError:
        pass
    project.refused.update(codes.values())


def _count_unsent(caller: UserFolder, cloud: str | None, project: _ProjectReport) -> None:
    """Count as a runtime does that would send it: to the cloud that is set, or else to the one that was."""
    project.sends |= caller.outbox.exists()
    outbox = Outbox(caller, cloud or _cloud_of(caller.outbox))
    outbox.scan(all_sessions=True)
    project.unsent += outbox.count
    if outbox.oldest_at is not None:
        project.unsent_since = min(project.unsent_since or outbox.oldest_at, outbox.oldest_at)


def _cloud_of(outbox: Path) -> str:
    try:
        return str(_parsed(outbox.read_bytes()).get("cloud"))
    except OSError:
        return ""


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _projects(root: Path) -> list[ProjectFolder]:
    """The folders in the storage root that were named by us for a project."""
    try:
        folders = sorted(path for path in root.iterdir() if "." not in path.name and path.is_dir())
    except OSError:
        return []
    named = [read_identifier(folder) for folder in folders]
    return [ProjectFolder(root, project_id) for project_id in named if project_id is not None]


def _spoken(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return some(int(seconds / length), unit)
    return some(int(seconds), "second")
