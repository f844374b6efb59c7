"""Calls as earlier processes left them on the disk, and keepers over them in this process."""

import gc
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec

from memoair_runtime.memory.user_store import UserStore
from memoair_runtime.requests import StartRequest, TurnRequest
from memoair_runtime.settings import RuntimeSettings
from memoair_runtime.storage.events import EventType, encode_line, new_event
from memoair_runtime.storage.user_folder import UserFolder
from support.runtimes import PROJECT, USER

LONG_AGO = datetime(2026, 3, 2, 9, 30, tzinfo=timezone.utc)


def user_folder(root: Path) -> UserFolder:
    """The folder of the caller whom tests speak for."""
    return UserFolder(root, PROJECT, USER)


def write_call(
    root: Path,
    session_id: str,
    said: Iterable[tuple[str, str]],
    at: datetime = LONG_AGO,
    user: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write the log of a call, a turn a minute, as a process would have left it, and return its path."""
    opening = {"user": {"id": USER, **(user or {})}, "metadata": metadata or {}}
    events = [new_event(EventType.SESSION_START, session_id, 1, at, opening)]
    for number, (user_text, assistant_text) in enumerate(said):
        payload = {
            "turnId": f"t{number}",
            "userText": user_text,
            "assistantText": assistant_text,
            "toolCalls": [],
            "metadata": {},
        }
        events.append(new_event(EventType.TURN, session_id, number + 2, at + timedelta(minutes=number), payload))
    folder = user_folder(root).create_session(session_id)
    folder.log.write_bytes(b"".join(map(encode_line, events)))
    return folder.log


@contextmanager
def keeping(root: Path, *, is_loaded: bool = True) -> Iterator[UserStore]:
    """A keeper of the caller, as a process has one, which has read what is on the disk or not yet."""
    keeper = UserStore(RuntimeSettings(PROJECT, USER, root))
    try:
        if is_loaded:
            keeper.load()
        yield keeper
    finally:
        keeper.close(time.monotonic() + 10)
        del keeper
        gc.collect()  # a file stays open for as long as an index that maps it lives


def start(keeper: UserStore, session_id: str, **metadata: Any) -> None:
    """Start a session."""
    request = {"sessionId": session_id, "metadata": metadata}
    assert keeper.start_session(msgspec.convert(request, StartRequest), is_ephemeral=False) is None


def save(keeper: UserStore, session_id: str, turn_id: str, user: str, agent: str = "", **metadata: Any) -> None:
    """Save a turn."""
    request = {
        "sessionId": session_id,
        "turnId": turn_id,
        "userText": user,
        "assistantText": agent,
        "metadata": metadata,
    }
    assert keeper.save_turn(msgspec.convert(request, TurnRequest))


def found(keeper: UserStore, question: str, limit: int = 5, group: str | None = None) -> list[str]:
    """The passages that a question finds, best first."""
    query = keeper.memory.build_query(question, None, group=group)
    return [hit.document.text for hit in keeper.memory.search(query, limit)]
