"""What lies in the storage root: who is served, what has not been sent, what a cloud refused. Counts only."""

import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec

from memoair_cli.doctor.findings import Finding, Surroundings, note, ok, problem, some
from memoair_runtime.storage.folder_names import identifier_of
from memoair_runtime.storage.lease import Holder

# The looking must end: of a machine with more calls than this, the rest is left out, which is told.
_MOST_CALLS = 50_000
# Events are sent within seconds while a caller's runtime lives. What is older waits for his next call, or for a cloud.
_LONG_S = 3_600.0
_BLOCK = 1 << 20
_MARK_BYTES = 48  # of a log's beginning, by whose CRC-32 its cursor in outbox.json is known

_read_lease = msgspec.json.Decoder(Holder).decode


@attrs.define
class _Project:
    """What was counted in one project's folder."""

    callers: int = 0
    calls: int = 0
    served: int = 0
    abandoned: int = 0  # leases of processes that are gone
    sends: bool = False  # whether anything was ever sent to a cloud
    unsent: int = 0
    unsent_since: float | None = None  # when the log that has waited longest was written last
    refused: Counter[str] = attrs.field(factory=Counter)  # events that the cloud will never take, by code


def check_held(surroundings: Surroundings) -> Iterator[Finding]:
    """Look at every project's folder."""
    root = surroundings.storage_root
    projects = {}
    left = _MOST_CALLS
    for folder in _folders(root):
        project_id = identifier_of(folder)
        if project_id is not None and left > 0:
            projects[project_id] = _counted(folder, left)
            left -= projects[project_id].calls
    if left <= 0:
        yield note("memory", f"there are more than {_MOST_CALLS:,} calls; the rest was not looked at")
    for project_id, project in projects.items():
        yield from _told(f"project {project_id}", project)


def _told(check: str, project: _Project) -> Iterator[Finding]:
    leases = f"{project.served} served now" if project.served else "nobody is served now"
    if project.abandoned:
        leases += f", {some(project.abandoned, 'lease')} of processes that are gone (the next call takes over)"
    yield ok(check, f"{some(project.callers, 'caller')}, {some(project.calls, 'call')}; {leases}")
    if project.refused:
        codes = ", ".join(f"{code} {count:,}" for code, count in project.refused.most_common(5))
        remedy = "they stay here; refused.jsonl in a caller's folder names them: see to it, then remove that file"
        yield problem(check, f"the cloud refused {some(project.refused.total(), 'event')} for good ({codes})", remedy)
    if not project.sends:
        yield note(check, "nothing was ever sent to a cloud from here")
    elif project.unsent_since is None:
        yield ok(check, "everything has been sent to the cloud")
    else:
        age_s = max(0.0, time.time() - project.unsent_since)
        told = f"{some(project.unsent, 'event')} not sent to the cloud yet; the oldest waits for {_spoken(age_s)}"
        remedy = "see that the cloud can be reached (below); what waits is sent when a runtime of its caller starts"
        yield problem(check, told, remedy) if age_s > _LONG_S else note(check, told)


def _counted(folder: Path, most_calls: int) -> _Project:
    project = _Project()
    for caller in _folders(folder):
        if project.calls >= most_calls:
            break
        project.callers += 1
        _count_lease(caller / "lease.json", project)
        _count_refused(caller / "refused.jsonl", project)
        sent = _cursors(caller / "outbox.json")
        project.sends |= sent is not None
        for call in _folders(caller):
            _count_call(call, sent or {}, project)
    return project


def _count_lease(path: Path, project: _Project) -> None:
    try:
        holder = _read_lease(path.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return
    lives = holder.lives()
    project.served += lives
    project.abandoned += not lives


def _count_refused(path: Path, project: _Project) -> None:
    codes: dict[str, str] = {}  # by event: one that was refused before a crash, and again after it, is one
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines):
                told = _parsed(line)
                codes[str(told.get("eventId", number))] = str(told.get("code", "unknown"))
    except OSError:
        pass
    project.refused.update(codes.values())


def _cursors(path: Path) -> dict[str, Any] | None:
    """How far each log was sent, by session: a count of bytes, and the mark of that log. None: nothing ever was."""
    try:
        sessions = _parsed(path.read_bytes()).get("sessions")
    except OSError:
        return None
    return sessions if isinstance(sessions, dict) else {}


def _count_call(folder: Path, sent: dict[str, Any], project: _Project) -> None:
    log = folder / "session.jsonl"
    try:
        written_at = log.stat().st_mtime
        unsent = _lines_behind(log, sent.get(identifier_of(folder) or ""))
    except OSError:
        return  # a folder that holds no log yet, or one that is being removed
    project.calls += 1
    if unsent:
        project.unsent += unsent
        project.unsent_since = min(project.unsent_since or written_at, written_at)


def _lines_behind(log: Path, cursor: object) -> int:
    """How many whole lines stand behind a cursor; behind one that is of another log, all of them do."""
    with log.open("rb") as file:
        mark, size = zlib.crc32(file.read(_MARK_BYTES)), os.fstat(file.fileno()).st_size
        file.seek(_offset(cursor, mark, size))
        count = 0
        while block := file.read(_BLOCK):
            count += block.count(b"\n")
        return count


def _offset(cursor: object, mark: int, size: int) -> int:
    if not (isinstance(cursor, list) and len(cursor) == 2 and cursor[1] == mark):
        return 0
    return cursor[0] if isinstance(cursor[0], int) and 0 <= cursor[0] <= size else 0


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder that were named by us for somebody or something."""
    try:
        return sorted(path for path in folder.iterdir() if "." not in path.name and path.is_dir())
    except OSError:
        return []


def _spoken(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return some(int(seconds / length), unit)
    return some(int(seconds), "second")
