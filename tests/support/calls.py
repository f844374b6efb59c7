"""Sessions as earlier processes left them on the disk, and stores over them in this process."""

import gc
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec

from memoair_protocol.enums import EventType
from memoair_runtime.memory.reranker import BackgroundReranker
from memoair_runtime.memory.session_writer import SessionWriter
from memoair_runtime.memory.user_store import UserStore
from memoair_runtime.readiness import ReadinessGate
from memoair_runtime.requests import StartRequest, TurnRequest
from memoair_runtime.settings import RuntimeSettings, cloud_id_of
from memoair_runtime.storage.events import EventOrigin, encode_line, new_event
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.transformer_model import TransformerModel
from support.runtimes import PROJECT, USER

LONG_AGO = datetime(2026, 3, 2, 9, 30, tzinfo=timezone.utc)


def user_folder(root: Path) -> UserFolder:
    """Return the folder of the user of most tests."""
    return UserFolder(root, PROJECT, USER)


def write_call(
    root: Path,
    session_id: str,
    turns: Iterable[tuple[str, str]],
    started_at: datetime = LONG_AGO,
    user: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    cloud_url: str | None = None,
) -> Path:
    """Write the log of a session, one turn per minute, as a process would have left it, and return its path.

    The process had the cloud of ``cloud_url``, or else none.
    """
    origin = EventOrigin(cloud_id_of(cloud_url) if cloud_url else None)
    start_payload = {"user": {"id": USER, **(user or {})}, "metadata": metadata or {}}
    events = [new_event(EventType.SESSION_START, session_id, 1, started_at, start_payload, origin)]
    for number, (user_text, assistant_text) in enumerate(turns):
        payload = {
            "turnId": f"t{number}",
            "userText": user_text,
            "assistantText": assistant_text,
            "toolCalls": [],
            "metadata": {},
        }
        events.append(
            new_event(EventType.TURN, session_id, number + 2, started_at + timedelta(minutes=number), payload, origin)
        )
    folder = user_folder(root).create_session(session_id)
    folder.log.write_bytes(b"".join(map(encode_line, events)))
    return folder.log


class WritableStore(UserStore):
    """A store of the user of most tests, with its writer."""

    def __init__(self, root: Path) -> None:
        self.gate = ReadinessGate()
        super().__init__(RuntimeSettings(PROJECT, USER, root), self.gate)
        self.writer = SessionWriter(
            self, BackgroundReranker(TransformerModel(None), self.folder.vectors, self.memory.get_documents)
        )


@contextmanager
def open_store(root: Path, *, is_loaded: bool = True) -> Iterator[WritableStore]:
    """Open a store of the user, which has read what is on the disk if ``is_loaded``."""
    store = WritableStore(root)
    try:
        if is_loaded:
            store.load()
        yield store
    finally:
        store.writer.close(time.monotonic() + 10)
        store.close()
        del store
        gc.collect()  # a file stays open as long as an index that maps it exists


def start_session(store: WritableStore, session_id: str, **metadata: Any) -> None:
    """Start a session."""
    request = {"sessionId": session_id, "metadata": metadata}
    assert store.writer.start_session(msgspec.convert(request, StartRequest), is_ephemeral=False) is None


def save_turn(
    store: WritableStore, session_id: str, turn_id: str, user_text: str, assistant_text: str = "", **metadata: Any
) -> None:
    """Save a turn."""
    request = {
        "sessionId": session_id,
        "turnId": turn_id,
        "userText": user_text,
        "assistantText": assistant_text,
        "metadata": metadata,
    }
    assert store.writer.save_turn(msgspec.convert(request, TurnRequest))


def find_texts(store: UserStore, question: str, limit: int = 5, group: str | None = None) -> list[str]:
    """Return the passages that a question finds, best first."""
    query = store.memory.build_query(question, None, group=group)
    return [hit.document.text for hit in store.memory.search(query, limit)]
