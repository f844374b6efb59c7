"""Helpers of the tests that cut the power: how many disks to try, and turns that are said on them."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest import mock

from support.crash_disk import CrashDisk
from support.crash_states import Crash

from memoair_protocol.enums import EventType
from memoair_runtime.memory.session import LoggedSession
from memoair_runtime.storage.events import Event, EventOrigin
from memoair_runtime.storage.user_folder import UserFolder

# Disks of each test. `MEMOAIR_CRASHES=5000 pytest tests/crash` tries more of them, for as long as that takes.
CRASHES = int(os.environ.get("MEMOAIR_CRASHES", "60"))
PROJECT, USER = "proj_test", "caller_42"
NOW = datetime(2026, 3, 3, 12, 0, tzinfo=timezone.utc)


def survivors(disk: CrashDisk, folder: Path, seed: int = 0, count: int = CRASHES) -> Iterator[tuple[Crash, Path]]:
    """Yield the disks that a power failure could have left, each in a folder of its own for the length of the loop.

    Within the loop nothing waits for the real disk: thousands of syncs would take minutes, and prove nothing.
    """
    with mock.patch.multiple(os, fsync=_skip_sync, fdatasync=_skip_sync):
        for number, crash in enumerate(disk.crashes(count=count, seed=seed)):
            root = crash.write_to(folder / f"after-{number}")
            try:
                yield crash, root
            except GeneratorExit:
                sys.stderr.write(f"with the disk of {crash}\n")  # shown if the loop has failed
                raise
            shutil.rmtree(root)


def _skip_sync(_: object) -> None:
    pass


def user_folder(root: Path) -> UserFolder:
    return UserFolder(root / "storage", PROJECT, USER)


class SimulatedProcess:
    """A session as one process sees it."""

    def __init__(self, root: Path, session_id: str, cloud: str | None = None) -> None:
        self.events: list[Event] = []
        self.session = LoggedSession(
            session_id, user_folder(root), self.events.append, origin=EventOrigin(cloud, "agent")
        )
        self.session.load()

    def save(self, turn_id: str, text: str, at: datetime = NOW) -> str:
        """Save a turn and return its event id."""
        return self.session.save_turn(payload(turn_id, text), at, at)

    def turns(self) -> dict[str, tuple[str, str]]:
        """Return event id and words of each turn by its id; no turn may be there twice."""
        turns = [event for event in self.events if event.type is EventType.TURN]
        assert len({event.payload["turnId"] for event in turns}) == len(turns)
        return {event.payload["turnId"]: (event.event_id, event.payload["userText"]) for event in turns}


def payload(turn_id: str, text: str) -> Mapping[str, Any]:
    return {"turnId": turn_id, "userText": text, "assistantText": "certainly", "toolCalls": [], "metadata": {}}
