"""Data written before this release opens unchanged: storage root, cloud database, index files, import state.

``tools/make_release_data.py`` wrote ``tests/fixtures/release-0.4.0.tar.xz`` with the commit before this release.
"""

import json
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import urllib3
from filelock import FileLock
from support.clients import clients_over, recall, runtime_of
from support.commands import environment, memoair, run_in_background
from support.waiting import eventually

from memoair_index.index_file import IndexFile
from memoair_voice_sync import MemoAirVoiceClientSync

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "release-0.4.0.tar.xz"
ADA, BOB = "caller/ada ü", "caller_bob"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Unpack the data that was written before this release."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "data"


@pytest.fixture
def about(data: Path) -> dict[str, str]:
    """Return the cloud's address, the key, and the ids that the data was written with."""
    return dict(json.loads((data / "about.json").read_bytes()))


@pytest.fixture
def cloud(data: Path, about: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Serve the old database at its old address: the data on the machine belongs to that address."""
    address = urllib3.util.parse_url(about["url"])
    lock = FileLock(Path(tempfile.gettempdir(), f"memoair-tests-{address.netloc}.lock"))
    options = ("--host", str(address.host), "--port", str(address.port), "--database-url", f"sqlite:///{data}/cloud.db")
    blobs = (data / "blobs").as_uri()
    with (
        lock.acquire(timeout=100),
        run_in_background("cloud", "serve", *options, "--blob-url", blobs, home=tmp_path) as server,
    ):
        eventually(lambda: server.poll() is not None or is_ready(about["url"]), 60)
        assert server.poll() is None, "the server exited: is its address in use?"
        yield about["url"]


def is_ready(url: str) -> bool:
    try:
        return urllib3.request("GET", f"{url}/readyz", timeout=2, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


@pytest.fixture
def client(data: Path, about: dict[str, str], cloud: str) -> Iterator[MemoAirVoiceClientSync]:
    identity = {"api_key": about["apiKey"], "project_id": about["projectId"], "agent_id": about["agentId"]}
    with clients_over(data / "storage") as new_client:
        yield new_client(cloud_base_url=cloud, **identity)


def contents(root: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob(pattern)) if path.is_file()}


def events_of(data: Path, user_id: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(data / "cloud.db")) as connection:
        rows = "SELECT id, type, session_id, payload FROM call_events WHERE user_id = ? ORDER BY received_at, seq"
        return connection.execute(rows, (user_id,)).fetchall()


def test_a_storage_root_opens_and_its_logs_and_documents_stay_unchanged(
    data: Path, client: MemoAirVoiceClientSync
) -> None:
    storage = data / "storage"
    indexes, logs = contents(storage, "*.index"), contents(storage, "session.jsonl")
    assert len(indexes) == 2, "one of the user's memory, one of the documents"
    client.load_index(user={"id": ADA}, timeout_s=60)

    found = recall(client, ADA, "What am I allergic to?")
    assert found.profile is not None
    assert found.profile["name"] == "Ada"
    assert found.profile["metadata"]["plan"] == "premium"
    assert "allergic to strapping tape" in found.contextText
    assert {hit["source"]["kind"] for hit in found.permanent} == {"turn", "fact"}
    assert "parcel number 7123" in recall(client, ADA, "Did I ask about parcel number 7123?").contextText
    heard = recall(client, ADA, "Which boots did I order?").contextText
    assert "The boots I ordered are blue." in heard
    assert "blue boots here" not in heard, "the caller did not hear it: the answer was interrupted"
    found = recall(client, ADA, "How many days do I have for returns?", filter={"topic": "returns"})
    assert found.org[0]["id"] == "returns"
    client.close()

    current = contents(storage, "*.index")
    [memory_index] = [path for path in current if "permanent" in path]
    assert not IndexFile.open(storage / memory_index).is_outdated, "the memory was analyzed again, behind the calls"
    documents = {path: content for path, content in indexes.items() if "permanent" not in path}
    assert {path: current.get(path) for path in documents} == documents, "the documents were opened as they are"
    current = contents(storage, "session.jsonl")
    assert {path: content for path, content in current.items() if path in logs} == logs


def test_only_the_unsent_turn_is_pushed(data: Path, client: MemoAirVoiceClientSync) -> None:
    before = {user_id: events_of(data, user_id) for user_id in (ADA, BOB)}
    assert all(before.values())
    assert not any("quince" in event[3] for event in before[BOB])
    for user_id in (ADA, BOB):
        client.load_index(user={"id": user_id}, timeout_s=60)
        eventually(lambda user_id=user_id: runtime_of(client, user_id)["unsynced_events"] == 0, 30)  # type: ignore[misc]
    client.close()

    new = [event for event in events_of(data, BOB) if event not in before[BOB]]
    assert ["quince" in event[3] for event in new if event[1] == "turn"] == [True]
    assert "turn" not in [event[1] for event in events_of(data, ADA) if event not in before[ADA]]


def test_the_cloud_keeps_its_memories_and_indexes(data: Path, client: MemoAirVoiceClientSync) -> None:
    [memory] = client.list_memories(user={"id": ADA})
    assert memory["text"] == "Ada is allergic to strapping tape."
    assert memory["attribute"] == "allergy to strapping tape"
    history = client.memory_history(memory["memoryId"], user={"id": ADA})
    assert [change["action"] for change in history] == ["learned"]
    [index] = client.list_indexes()
    assert (index["name"], index["documentCount"]) == ("faq", 3)
    client.update_memory(memory["memoryId"], user={"id": ADA}, text="Ada is allergic to parcel tape.")
    removed = client.forget_user(user={"id": ADA})["removed"]
    assert removed["local"]["turns"] == 207
    assert not contents(data / "storage", "permanent-*.index")


def test_an_import_with_its_earlier_state_file_saves_nothing_twice(
    data: Path, about: dict[str, str], cloud: str, tmp_path: Path
) -> None:
    identity = {
        "MEMOAIR_API_KEY": about["apiKey"],
        "MEMOAIR_PROJECT_ID": about["projectId"],
        "MEMOAIR_AGENT_ID": about["agentId"],
        "MEMOAIR_BASE_URL": cloud,
    }
    state = data / "import-state.json"
    [known] = json.loads(state.read_bytes())["files"].values()
    assert known["acknowledged"] == 7, "five turns, the start and the end of the call"
    before = events_of(data, "caller_cleo")

    for _ in range(2):  # the second run finds the state in its present form
        done = memoair("import", data / "calls.jsonl", "--state", state, "--json", **environment(tmp_path, **identity))
        assert json.loads(done.out)["turns"] == {"kept": 0, "alreadyThere": 5, "refused": 0}
        assert events_of(data, "caller_cleo") == before
