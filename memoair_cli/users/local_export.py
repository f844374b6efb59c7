"""Export what this machine has of a caller: for a project without a cloud, or to see what a device holds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from memoair_protocol.private_files import open_private_reader, read_private_file
from memoair_protocol.timestamps import format_utc, utc_now
from memoair_runtime.storage.events import Event, decode_line
from memoair_runtime.storage.replica_file import ReplicaFile
from memoair_runtime.storage.user_folder import UserFolder


def has_local_data(folder: UserFolder) -> bool:
    """Return whether this machine has anything of a caller."""
    return bool(folder.list_session_logs()) or folder.cloud_replica.exists()


def encode_local_export(folder: UserFolder) -> Iterator[bytes]:
    """Yield a JSON document with everything that this machine has of a caller.

    Its events are those of the logs, as they were saved, and those that were pulled from the cloud.

    Args:
        folder: The folder of the caller.

    Raises:
        OSError: A file cannot be read.
    """
    head = {
        "format": "memoair.device-export",
        "schemaVersion": 1,
        "exportedAt": format_utc(utc_now()),
        "projectId": folder.project_id,
        "userId": folder.user_id,
        "profile": _read_json(folder.profile),
        "cloudProfile": _read_json(folder.cloud_profile),
    }
    yield json.dumps(head)[:-1].encode()
    replica = ReplicaFile(folder.cloud_replica, None)
    pulled = replica.refresh().events
    yield from _encode_list("events", _events(folder, pulled))
    yield from _encode_list("facts", (msgspec.json.encode(fact) for fact in replica.facts.values()))
    yield b"}\n"


def _events(folder: UserFolder, pulled: tuple[Event, ...]) -> Iterator[bytes]:
    for session_id, _ in folder.list_session_logs():
        with open_private_reader(folder.session(session_id).log) as log:
            for line in log:
                if decode_line(line.removesuffix(b"\n")) is not None:  # neither damaged nor still being written
                    yield line.removesuffix(b"\n")
    yield from map(msgspec.json.encode, pulled)


def _encode_list(name: str, items: Iterator[bytes]) -> Iterator[bytes]:
    yield f',\n"{name}": ['.encode()
    for number, item in enumerate(items):
        yield (b",\n" if number else b"\n") + item
    yield b"]"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_private_file(path))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):  # it is derived, and written again by the next runtime
        return None
