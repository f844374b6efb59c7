"""Devices of a cloud: runtimes within this process, which start in milliseconds, each with its own disk."""

import gc
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec

from memoair_runtime import requests
from memoair_runtime.lifecycle import Lifecycle
from memoair_runtime.service import RuntimeService
from memoair_runtime.settings import RuntimeSettings
from memoair_runtime.storage.user_folder import UserFolder
from support.runtimes import PROJECT, USER
from support.scripted_cloud import KEY, ScriptedCloud
from support.waiting import eventually


class Device:
    """A runtime of one user. Its methods return the bodies of replies."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self.settings = settings
        self.folder = UserFolder(settings.storage_root, settings.project_id, settings.user_id)
        self.lifecycle = Lifecycle()
        self.service = RuntimeService(settings, self.lifecycle)
        self.service.start_loading()

    def close(self, within_s: float = 1.5) -> None:
        self.service.close(time.monotonic() + within_s)
        self.lifecycle.close()

    def start(self, session_id: str = "now", name: str = "", **metadata: Any) -> Any:
        user = {"id": self.settings.user_id, **({"name": name} if name else {})}
        body = {"sessionId": session_id, "workspaceId": PROJECT, "userId": self.settings.user_id}
        return self.service.start_session(
            msgspec.convert({**body, "metadata": {**metadata, "user": user}}, requests.StartRequest)
        )

    def save(
        self, turn_id: str, user_text: str, agent_text: str = "", session_id: str = "now", metadata: Any = None
    ) -> str:
        body = {"sessionId": session_id, "turnId": turn_id, "userText": user_text, "assistantText": agent_text}
        body |= {} if metadata is None else {"metadata": metadata}
        return str(self.service.save_turn(msgspec.convert(body, requests.TurnRequest))["localEventId"])

    def end(self, session_id: str = "now") -> None:
        self.service.end_session(msgspec.convert({"sessionId": session_id}, requests.EndRequest))

    def search(self, query: str, session_id: str = "asking", **options: Any) -> Any:
        body = {"sessionId": session_id, "query": query, "timeoutMs": 5_000, **options}
        replies: list[Any] = []
        self.service.search_memory(msgspec.convert(body, requests.SearchRequest), replies.append)
        return replies[0]

    def amend_trace(self, trace_id: str, **fields: Any) -> Any:
        return self.service.amend_trace(msgspec.convert({"traceId": trace_id, **fields}, requests.RecallTraceRequest))

    def traces(self) -> list[dict[str, Any]]:
        """Return the recall traces on the disk."""
        files = sorted(self.folder.path.glob("recall_traces*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]

    def find_texts(self, query: str, lane: str = "permanent") -> list[str]:
        """Return the texts of a lane's hits."""
        return [hit["text"] for hit in self.search(query)[lane]]

    def flush(self, deadline_ms: float = 5_000) -> Any:
        return self.service.flush(requests.DeadlineRequest(deadline_ms=deadline_ms))

    def pull(self, *scopes: str, deadline_ms: float = 10_000) -> Any:
        body = {"deadlineMs": deadline_ms, **({"scopes": list(scopes)} if scopes else {})}
        return self.service.pull(msgspec.convert(body, requests.PullRequest))

    def forget(self, at: str | None = None, erasure: str | None = None) -> Any:
        return self.service.erase_user(requests.ForgetRequest(forgotten_at=at, erasure=erasure))

    @property
    def sync(self) -> Any:
        """The sync part of the health report."""
        return self.service.health()["sync"]

    def wait_for_state(self, state: str) -> Any:
        eventually(lambda: self.sync["state"] == state)
        return self.sync

    def wait_for_first_pull(self) -> None:
        eventually(lambda: self.sync["hasPulled"])


def settings_for(cloud: ScriptedCloud | None, root: Path, **changes: Any) -> RuntimeSettings:
    """Return the settings of a device that pulls only once by itself."""
    settings = RuntimeSettings(PROJECT, USER, root, cloud_base_url=None, pull_interval_s=1_000)
    if cloud is not None:
        settings = attrs.evolve(settings, cloud_key=KEY, cloud_base_url=cloud.url)
    return attrs.evolve(settings, **changes)


@contextmanager
def device(cloud: ScriptedCloud | None, root: Path, *, waits_for_pull: bool = True, **changes: Any) -> Iterator[Device]:
    """Run a device. With ``waits_for_pull`` it has pulled once, if there is a cloud."""
    running = Device(settings_for(cloud, root, **changes))
    try:
        if cloud is not None and waits_for_pull:
            running.wait_for_first_pull()
        yield running
    finally:
        running.close()
        del running
        gc.collect()  # a file stays open as long as an index that maps it exists
