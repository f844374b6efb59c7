"""Two machines and a real cloud, through the SDK: turns saved on one are recalled on the other, and both erase."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from support.clients import PATIENT_MS, clients_over, recall
from support.clouds import Client, RunningCloud, running
from support.ports import free_port
from support.stored_files import read_stored_files
from support.waiting import eventually

from memoair_index.static_model import default_model
from memoair_voice_sync import MemoAirVoiceClientSync

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("long_background_timeouts", "patient_saves")]

ADA = {"id": "ada/../Zoë", "name": "Ada"}
SECRET = "zanzibarplum"


@pytest.fixture
def long_background_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give work in the background, and requests for its status, the time that a loaded machine needs."""
    monkeypatch.setattr("memoair_voice_sync._loopback.user_runtime_client._FIRST_PULL_TIMEOUT_S", 10.0)
    monkeypatch.setattr("memoair_voice_sync._pool.refresh._START_TIMEOUT_S", 60.0)
    monkeypatch.setattr("memoair_voice_sync._pool.refresh._PULL_TIMEOUT_S", 10.0)
    monkeypatch.setattr("memoair_voice_sync._pool.sync_health._TIMEOUT_S", 10.0)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    """Run a server with a worker."""
    default_model()
    folder = tmp_path_factory.mktemp("cloud")
    with running(f"sqlite:///{folder / 'cloud.db'}", folder) as cloud, _worker(cloud):
        yield cloud


@contextmanager
def _worker(cloud: RunningCloud) -> Iterator[None]:
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.05):
            cloud.run_tasks()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stopping.set()
    thread.join()


@pytest.fixture
def tenant(cloud: RunningCloud) -> Client:
    return cloud.tenant()


@pytest.fixture
def identity(cloud: RunningCloud, tenant: Client) -> dict[str, Any]:
    """Return the arguments of a client: its identity and the cloud."""
    return {
        "api_key": tenant.key,
        "project_id": tenant.identity["project"],
        "agent_id": tenant.identity["agent"],
        "cloud_base_url": cloud.url,
    }


@pytest.fixture
def machines(
    identity: dict[str, Any], tmp_path: Path
) -> Iterator[tuple[MemoAirVoiceClientSync, MemoAirVoiceClientSync]]:
    """Yield a client on each of two machines that share only the cloud."""
    process = psutil.Process()  # its server keeps database connections open, so only child processes are checked
    children = set(process.children())
    with clients_over(tmp_path / "A") as new_a, clients_over(tmp_path / "B") as new_b:
        yield new_a(**identity), new_b(**identity)
    eventually(lambda: set(process.children()) <= children)


def files_with(root: Path, words: str) -> list[str]:
    return [path.name for path, content in read_stored_files(root) if words.encode() in content]


def runtime_of(client: MemoAirVoiceClientSync) -> dict[str, Any]:
    [runtime] = [runtime for runtime in client.stats()["runtimes"] if runtime["user_id"] == ADA["id"]]
    return dict(runtime)


def test_turns_and_facts_of_one_machine_are_recalled_on_another_and_erased_on_both(
    machines: tuple[MemoAirVoiceClientSync, MemoAirVoiceClientSync], identity: dict[str, Any], tmp_path: Path
) -> None:
    here, there = machines
    here.load_index(user=ADA)
    here.save_response(user=ADA, user_text="I'm allergic to strapping tape.", assistant_text="I will note that.")
    here.save_response(user=ADA, user_text=f"And the word is {SECRET}.", assistant_text="Fine.")
    here.close()  # ends the session
    eventually(lambda: there.list_memories(user=ADA), 60)

    loaded = there.load_index(user=ADA)
    assert loaded.permanent_manifest_version
    assert loaded.profile_version
    found = recall(there, ADA["id"], "Which tape am I allergic to?")
    assert {hit["source"]["kind"] for hit in found.permanent} == {"turn", "fact"}
    assert "Ada: I'm allergic to strapping tape." in found.contextText
    assert "Name: Ada" in found.contextText
    assert SECRET in recall(there, ADA["id"], "What is the word?").contextText
    [memory] = [memory for memory in there.list_memories(user=ADA) if "tape" in memory["text"]]
    there.update_memory(memory["memoryId"], user=ADA, text="Is allergic to parcel tape.")
    texts = [hit["text"] for hit in recall(there, ADA["id"], "allergic tape").permanent]
    assert "Is allergic to parcel tape." in texts
    assert memory["text"] not in texts
    there.delete_memory(memory["memoryId"], user=ADA)
    assert "parcel tape" not in recall(there, ADA["id"], "allergic tape").contextText

    assert files_with(tmp_path / "A", SECRET)
    assert files_with(tmp_path / "B", SECRET)
    removed = there.forget_user(user=ADA)["removed"]
    assert removed["cloud"]["events"] >= 3
    assert removed["local"]["turns"] == 2
    assert files_with(tmp_path / "B", SECRET) == []
    assert SECRET not in recall(there, ADA["id"], "What is the word?").contextText
    with clients_over(tmp_path / "A") as new:
        again = new(**identity)
        again.load_index(user_id="bob")  # another user of the project on that machine
        eventually(lambda: files_with(tmp_path / "A", SECRET) == [], 60)
        again.load_index(user=ADA)
        assert SECRET not in recall(again, ADA["id"], "What is the word?").contextText
        again.save_response(user=ADA, user_text="I have come back.", assistant_text="Welcome.")
    there.close()
    with clients_over(tmp_path / "B") as new:
        back = new(**identity)
        back.load_index(user=ADA)
        assert "I have come back" in recall(back, ADA["id"], "Who has come back?").contextText
    assert files_with(tmp_path / "A", "I have come back.")


def test_the_example_of_the_reference_finds_a_new_document_on_either_machine(
    machines: tuple[MemoAirVoiceClientSync, MemoAirVoiceClientSync], tmp_path: Path
) -> None:
    here, there = machines
    documents = [
        {"id": "returns", "text": "Returns accepted within 30 days with a receipt.", "metadata": {"topic": "returns"}},
        {"id": "shipping", "text": "Express ships in 1-2 business days.", "metadata": {"topic": "shipping"}},
    ]
    here.create_index("agent-memory", documents)
    user = {"id": "caller_42", "name": "Alex"}
    found = here.search_memory("How long do I have to return something?", user=user, timeout_ms=PATIENT_MS)
    assert (found.org[0]["id"], found.org[0]["metadata"]) == ("returns", {"topic": "returns"})
    assert "within 30 days" in found.contextText
    there.load_index(user=user)
    assert recall(there, "caller_42", "How long do I have to return something?").org[0]["id"] == "returns"

    here.create_index("agent-memory", [{"id": "hours", "text": "We open at nine on weekdays."}])
    there.load_index(user=user)
    opens = lambda: recall(there, "caller_42", "When do you open on weekdays?").org[0]["id"]  # noqa: E731
    assert opens() != "hours", "the other machine pulls only at intervals"
    there._refresh_documents()
    assert opens() == "hours"
    here.delete_index("agent-memory")
    assert recall(here, "caller_42", "return something").org == []


def test_turns_saved_during_an_outage_are_sent_later(
    cloud: RunningCloud, identity: dict[str, Any], tenant: Client, tmp_path: Path
) -> None:
    port = free_port()
    identity = {**identity, "cloud_base_url": f"http://127.0.0.1:{port}"}  # nothing listens there yet
    with clients_over(tmp_path / "A") as new:
        client = new(**identity)
        client.load_index(user=ADA)
        assert client.save_response(user=ADA, user_text="The boots are red.", assistant_text="They are.")
        assert runtime_of(client)["unsynced_events"] == 2
    with running(str(cloud.services.engine.url), tmp_path / "cloud", port), clients_over(tmp_path / "A") as new:
        client = new(**identity)
        client.load_index(user=ADA)

        def stored() -> list[tuple[str, str, int]]:
            users = tenant.ok("GET", "/v1/voice-sdk/users")["users"]
            return [(user["userId"], user["name"], user["sessionCount"]) for user in users]

        # Until its runtime has looked at the logs, it counts nothing as unsent.
        eventually(lambda: stored() == [(ADA["id"], "Ada", 2)], 60)
        eventually(lambda: runtime_of(client)["unsynced_events"] == 0, 60)
        with clients_over(tmp_path / "B") as new_elsewhere:
            there = new_elsewhere(**identity)
            there.load_index(user=ADA)
            assert "boots are red" in recall(there, ADA["id"], "What colour are the boots?").contextText


def working(client: MemoAirVoiceClientSync, session_id: str) -> list[str]:
    """Return what the user said in a call, as far as the machine knows, oldest first."""
    found = recall(client, ADA["id"], "", session_id=session_id, intent="summarise_recent", top_k={"working": 20})
    turns = sorted(found.working, key=lambda hit: hit["source"]["createdAt"])
    return [hit["text"].splitlines()[0].partition(": ")[2] for hit in turns]


def test_a_call_with_a_name_goes_on_on_another_machine(
    machines: tuple[MemoAirVoiceClientSync, MemoAirVoiceClientSync], tenant: Client
) -> None:
    said: list[str] = []
    for number in range(10):
        speaking, listening = machines[number % 2], machines[(number + 1) % 2]
        text = f"Parcel {number} is late." if number else "I'm allergic to parcel tape."
        speaking.save_response(
            user=ADA, user_text=text, assistant_text="Noted.", session_id="CA1", turn_id=f"turn-{number}"
        )
        said.append(text)
        # Without the name, the other machine would look after half a minute, and find an earlier call.
        eventually(lambda: working(listening, "CA1") == said, 15)  # noqa: B023

    machines[0].end_call(user=ADA, session_id="CA1")
    eventually(lambda: machines[1].list_memories(user=ADA), 60)
    events = tenant.with_identity(user=ADA["id"]).ok("GET", "/v1/voice-sdk/sessions/CA1/events")["events"]
    ordered = sorted(events, key=lambda event: event["seq"])
    assert [event["payload"]["userText"] for event in ordered if event["type"] == "turn"] == said
    assert ordered[-1]["type"] == "session_end"
    [session] = tenant.ok("GET", f"/v1/voice-sdk/users/{quote(ADA['id'], safe='')}/sessions")["sessions"]
    assert (session["turnCount"], session["endedAt"] is not None) == (10, True)


def test_a_call_ends_on_a_machine_where_nothing_of_it_was_said(
    machines: tuple[MemoAirVoiceClientSync, MemoAirVoiceClientSync], tenant: Client
) -> None:
    here, there = machines
    there.load_index(user=ADA)  # its first pull comes before the call
    here.save_response(user=ADA, user_text="I'm allergic to nuts.", assistant_text="Noted.", session_id="CA1")
    identity = tenant.with_identity(user=ADA["id"])
    events = "/v1/voice-sdk/sessions/CA1/events"
    eventually(lambda: identity.call("GET", events).status == 200, 30)
    there.end_call(user=ADA, session_id="CA1")
    eventually(lambda: here.list_memories(user=ADA), 60)
    assert [event["type"] for event in identity.ok("GET", events)["events"]] == ["session_start", "turn", "session_end"]
