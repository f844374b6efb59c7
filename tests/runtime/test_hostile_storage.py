"""Files of the storage root with other values than any release wrote: reading them raises documented errors only."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from support.calls import user_folder, write_call
from support.runtimes import USER

from memoair_cli.users.local_export import encode_local_export
from memoair_runtime.errors import StorageUnavailableError
from memoair_runtime.inspection import inspect_storage
from memoair_runtime.memory import profile
from memoair_runtime.org.manifest import read_manifest
from memoair_runtime.storage import erasure_record, retention
from memoair_runtime.storage.backlog_status import read_status
from memoair_runtime.storage.cursors import Cursors
from memoair_runtime.storage.lease import find_holder
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.rejected_events import count_rejected
from memoair_runtime.storage.replica_file import ReplicaFile
from memoair_runtime.storage.session_log import SessionLog
from memoair_runtime.storage.turn_words import TurnWords
from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync._processes.backlog_process import read_backlog

NOW = "2026-05-05T05:05:05Z"
_VALUES = (
    *(None, True, 0, -1, 2**63, 2**64, 10**30, 0.5, 1e308, "", "é", "\ud800", [], {}, [[]], {"": 1}),
    *("9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+14:00", NOW),
)
_DEEP = "[" * 100_000 + "]" * 100_000
_EVENT = {
    "eventId": "e",
    "type": "turn",
    "sessionId": "s1",
    "seq": 1,
    "occurredAt": NOW,
    "cloud": None,
    "agentId": "a",
    "payload": {"turnId": "t", "userText": "x", "assistantText": "y", "metadata": {"interruptedAt": 3}},
}


def _change(sample: Any, source: random.Random) -> Any:
    """Return a JSON value with another value somewhere, or without one."""
    changed = json.loads(json.dumps(sample))
    target, key = changed, source.choice(list(changed))
    while isinstance(target[key], dict) and target[key] and source.random() > 0.2:
        target = target[key]
        key = source.choice(list(target))
    if source.random() < 0.2:
        del target[key]
    else:
        target[key] = source.choice(_VALUES)
    return changed


def _encode(sample: dict[str, Any], source: random.Random) -> bytes:
    chance = source.random()
    encoded = json.dumps(_change(sample, source) if chance > 0.2 else sample).encode()
    if chance < 0.1:
        return encoded.removesuffix(b"}") + f',"payload":{_DEEP},"more":{_DEEP}}}'.encode()
    if chance < 0.2:
        return bytes(byte ^ 1 << source.randrange(8) if source.random() < 0.05 else byte for byte in encoded)
    return encoded


def _samples(user: UserFolder, project: ProjectFolder) -> dict[Path, dict[str, Any]]:
    cursor = {"offset": 3, "fingerprint": 5, "mtime": 7}
    return {
        user.outbox: {"cloud": "c", "sessions": {"s1": cursor}, "epoch": "e", "others": {}, "unmarked": None},
        user.pull_state: {"cloud": "c", "profileVersion": 1, "permanentVersion": 2, "marks": True, "epoch": "e"},
        user.cloud_profile: {"cloud": "c", "profile": {"name": "x", "version": 3}},
        user.profile: {"name": "x", "summary": "s", "version": 1, "statedAt": NOW},
        user.erasure_record: {"erasedAt": NOW, "turns": [1, 2], "clouds": {"c": NOW}},
        user.lease: {"pid": 1, "createTime": 1.0, "host": "127.0.0.1", "port": 1, "token": None, "sessionId": None},
        project.org_manifest: {"cloud": "c", "version": 1, "base": None, "documents": [], "removed": [], "epoch": "e"},
        project.retention: {"cloud": "c", "turnsDays": 3, "held": False, "heldUsers": ["x"], "at": NOW},
        project.erasures: {"cloud": "c", "version": 3, "users": {"x": NOW}},
        project.backlog_status("c"): {"turns": 1, "users": 2, "refused": 3, "state": "x", "oldestAt": 4.0, "pid": 5},
    }


def _read_cursors(user: UserFolder) -> None:
    for destination in ("c", "other"):
        cursors = Cursors(user, destination)
        cursors.refresh()
        cursors.set_epoch("z")
        cursors.refresh()
        cursors.update({}, lambda _: True)


def _read_replica(user: UserFolder) -> None:
    file = ReplicaFile(user.cloud_replica, None)
    file.refresh()
    file.drop_before(datetime(2027, 1, 1, tzinfo=timezone.utc))


def _readers(root: Path, user: UserFolder, project: ProjectFolder) -> list[Callable[[], object]]:
    now = datetime.now(timezone.utc)
    return [
        lambda: find_holder(user),
        lambda: read_manifest(project),
        lambda: profile.read_snapshot(user),
        lambda: retention.find_user_cutoff(retention.read_rules(project), 3, user, now),
        lambda: erasure_record.read_last_erasure(user),
        lambda: erasure_record.ErasedTurns(user).contains("t1", TurnWords("a", "b", "c"), None),
        lambda: erasure_record.find_cloud_erasures(project.path, "c"),
        lambda: read_status(project.backlog_status("c")),
        lambda: read_backlog(project.backlog_status("c")),
        lambda: _read_cursors(user),
        lambda: count_rejected(user.rejected_events, frozenset()),
        lambda: _read_replica(user),
        lambda: SessionLog(user.session("s1"), lambda _: None).read(),
        lambda: list(inspect_storage(root, "http://127.0.0.1:1", 100)),
        lambda: list(encode_local_export(user)),
        lambda: retention.drop_old_turns(user, datetime(2020, 1, 1, tzinfo=timezone.utc)),
    ]


@pytest.mark.parametrize("seed", range(12))
def test_hostile_files_raise_only_documented_errors(seed: int, tmp_path: Path) -> None:
    source = random.Random(seed)
    write_call(tmp_path, "s1", [("My cat is called Mila.", "")])
    user = user_folder(tmp_path)
    project = ProjectFolder(tmp_path, user.project_id)
    for path, sample in _samples(user, project).items():
        path.write_bytes(_encode(sample, source))
    rejected = {"eventId": "e", "code": "c", "at": NOW}
    for path, sample in ((user.session("s1").log, _EVENT), (user.rejected_events, rejected)):
        path.write_bytes(b"".join(_encode(sample, source) + b"\n" for _ in range(3)))
    pages: list[dict[str, Any]] = [
        {"copy": "c", "cloud": "c"},
        {"event": _EVENT},
        {"fact": {"id": "f", "text": USER, "createdAt": NOW}},
        {"version": 3, "crc": 0},
    ]
    user.cloud_replica.write_bytes(b"".join(_encode(page, source) + b"\n" for page in pages))

    for read in _readers(tmp_path, user, project):
        with suppress(OSError, StorageUnavailableError):
            read()
