"""Interrupted answers: the application passes the part that was heard, and that part is remembered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.clients import NewClient, logged, recall

from memoair_voice_sync import MemoAirVoiceMemorySync

pytestmark = pytest.mark.usefixtures("patient_saves")

ADA = {"id": "ada"}
HEARD, FULL = "We open at nine", "We open at nine, and the zanzibarplum sale begins at ten."


def test_a_client_recalls_the_heard_text_and_logs_the_full_answer(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    client.load_index(user=ADA)
    metadata = {"interrupted": True, "heard": HEARD}
    assert client.save_response(user=ADA, user_text="When?", assistant_text=FULL, metadata=metadata)
    with client.session(user=ADA) as call:
        assert call.save_response(user_text="And the sale?", assistant_text=FULL, metadata={"heard": ""})
    turn = {"turn_id": "t1", "user_text": "When is the sale?", "assistant_text": FULL, "metadata": {"heard": HEARD}}
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
    assert {each["assistantFullText"] for each in kept.values()} == {FULL}
    assert metadata == {"interrupted": True, "heard": HEARD}, "the application's dict is not changed"


def test_a_memory_recalls_the_heard_text(memory: MemoAirVoiceMemorySync) -> None:
    memory.after_turn("When?", FULL, "t1", metadata={"heard": HEARD})
    found = memory.search_memory("when does the zanzibarplum sale begin?", timeout_ms=10_000)

    assert "zanzibarplum" not in str(found)
    assert HEARD in found.contextText


@pytest.mark.parametrize("heard", [7, True, b"We", ["We"]])
def test_heard_must_be_a_text(new_client: NewClient, heard: Any) -> None:
    client = new_client()
    memory = MemoAirVoiceMemorySync(project_id="p", user_id="ada", runtime_url="http://127.0.0.1:0")
    fields: dict[str, Any] = {"metadata": {"heard": heard}}
    turn = {"turn_id": "t1", "user_text": "When?", "assistant_text": FULL, **fields}
    calls: list[Callable[[], object]] = [
        lambda: client.save_response(user=ADA, user_text="When?", assistant_text=FULL, **fields),
        lambda: client.import_call("old", [turn], user=ADA),
        lambda: memory.after_turn("When?", FULL, "t1", **fields),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="metadata"):
            call()
    assert client.stats()["runtimes"] == []
    assert memory.runtime_pid is None
