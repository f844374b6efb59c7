"""Whoever saves an answer that was interrupted says what was heard of it, and that is what is remembered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.clients import NewClient, logged, recall

from memoair_voice_sync import MemoAirVoiceMemorySync

pytestmark = pytest.mark.usefixtures("patient_saves")

ADA = {"id": "ada"}
HEARD, MEANT = "We open at nine", "We open at nine, and the zanzibarplum sale begins at ten."


def test_a_client_recalls_what_was_heard_and_logs_what_was_meant(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    client.load_index(user=ADA)
    told = {"interrupted": True, "heard": HEARD}
    assert client.save_response(user=ADA, user_text="When?", assistant_text=MEANT, metadata=told)
    with client.session(user=ADA) as call:
        assert call.save_response(user_text="And the sale?", assistant_text=MEANT, metadata={"heard": ""})
    turn = {"turn_id": "t1", "user_text": "When is the sale?", "assistant_text": MEANT, "metadata": {"heard": HEARD}}
    client.import_call("old", [turn], user=ADA)
    found = recall(client, "ada", "when does the zanzibarplum sale begin?")

    assert "zanzibarplum" not in str(found)
    assert HEARD in found.contextText
    kept = {each["payload"]["userText"]: each["payload"] for each in logged(storage_root, "ada", "turn")}
    assert [kept[asked]["assistantText"] for asked in ("When?", "And the sale?", "When is the sale?")] == [
        HEARD,
        "",
        HEARD,
    ]
    assert {each["assistantFullText"] for each in kept.values()} == {MEANT}
    assert told == {"interrupted": True, "heard": HEARD}, "what the application handed in is its own"


def test_a_raw_memory_does_the_same(memory: MemoAirVoiceMemorySync) -> None:
    memory.after_turn("When?", MEANT, "t1", metadata={"heard": HEARD})
    found = memory.search_memory("when does the zanzibarplum sale begin?", timeout_ms=10_000)

    assert "zanzibarplum" not in str(found)
    assert HEARD in found.contextText


@pytest.mark.parametrize("heard", [7, True, b"We", ["We"]])
def test_what_was_heard_is_a_text(new_client: NewClient, heard: Any) -> None:
    client = new_client()
    memory = MemoAirVoiceMemorySync(project_id="p", user_id="ada", runtime_url="http://127.0.0.1:0")
    told: dict[str, Any] = {"metadata": {"heard": heard}}
    turn = {"turn_id": "t1", "user_text": "When?", "assistant_text": MEANT, **told}
    calls: list[Callable[[], object]] = [
        lambda: client.save_response(user=ADA, user_text="When?", assistant_text=MEANT, **told),
        lambda: client.import_call("old", [turn], user=ADA),
        lambda: memory.after_turn("When?", MEANT, "t1", **told),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="metadata"):
            call()
    assert client.stats()["runtimes"] == []
    assert memory.runtime_pid is None
