"""Interrupted answers: the text that the caller heard is recalled; the rest is stored and never recalled."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.devices import device
from support.runtimes import PATIENT_MS, RunningRuntime
from support.scripted_cloud import ScriptedCloud, remote_turn

from memoair_protocol.interruption import FULL_TEXT_KEY, truncate_to_heard

HEARD = "I have found your parcel in Leeds"
FULL = f"{HEARD}, and the zanzibarplum voucher is on its way."


def recalled_text(found: Any) -> str:
    return json.dumps([found[lane] for lane in ("contextText", "working", "permanent", "profile", "sources")])


@pytest.mark.parametrize("heard", [HEARD, ""])
def test_only_heard_text_is_recalled_in_this_session_the_next_and_after_a_restart(
    start_runtime: Callable[..., RunningRuntime], heard: str
) -> None:
    runtime = start_runtime()
    runtime.save("call-1", "t1", "Where is my parcel?", FULL, interrupted=True, heard=heard)
    found = [runtime.search(session, "the zanzibarplum voucher for the parcel") for session in ("call-1", "call-2")]
    runtime.post("sync/flush", deadlineMs=PATIENT_MS)
    brief = Path(runtime.start("call-1")["paths"]["workingBrief"]).read_text()
    runtime.terminate()
    again = start_runtime()
    again.wait_until_loaded()
    found.append(again.search("call-3", "the zanzibarplum voucher for the parcel"))

    for reply in found:
        assert "zanzibarplum" not in recalled_text(reply)
        assert "Where is my parcel?" in recalled_text(reply)
        assert ("in Leeds" in recalled_text(reply)) == bool(heard)
    assert found[0]["working"][0]["metadata"] == {"interrupted": True}
    assert "zanzibarplum" not in brief
    [turn] = [event["payload"] for event in again.log_lines("call-1") if event["type"] == "turn"]
    assert turn == {
        "turnId": "t1",
        "userText": "Where is my parcel?",
        "assistantText": heard,
        "toolCalls": [],
        "metadata": {"interrupted": True},
        "assistantFullText": FULL,
    }


def test_an_answer_that_was_heard_to_its_end_is_stored_once(runtime: RunningRuntime) -> None:
    runtime.save("call-1", "t1", "Where is my parcel?", HEARD, heard=HEARD)
    runtime.save("call-1", "t2", "And now?", "At your door.", interrupted=False, heard=None)

    first, second = [event["payload"] for event in runtime.log_lines("call-1") if event["type"] == "turn"]
    assert (first["assistantText"], first["metadata"], FULL_TEXT_KEY in first) == (HEARD, {}, False)
    assert (second["assistantText"], FULL_TEXT_KEY in second) == ("At your door.", False)


@pytest.mark.parametrize("heard", [7, True, ["I have"], {"text": "I have"}])
def test_a_turn_whose_heard_text_is_not_a_string_is_rejected(runtime: RunningRuntime, heard: Any) -> None:
    turn = {"sessionId": "call-1", "turnId": "t1", "userText": "Hello?", "assistantText": FULL}
    status, body = runtime.post("turn/after", **turn, metadata={"heard": heard})

    assert (status, body["error"]["code"]) == (400, "runtime.bad_request")
    assert "heard" in body["error"]["message"]
    assert [event["type"] for event in runtime.log_lines("call-1")] == ["session_start"]


@pytest.mark.usefixtures("short_pauses")
def test_both_texts_are_pushed_and_a_pulled_turn_with_heard_metadata_is_truncated(
    cloud: ScriptedCloud, tmp_path: Path
) -> None:
    imported = remote_turn("e-1", "Where is my parcel?", assistant_text=FULL)
    imported["payload"]["metadata"] = {"heard": HEARD}
    cloud.add_event(imported)
    with device(cloud, tmp_path / "storage") as runtime:
        assert runtime.find_texts("the zanzibarplum voucher for the parcel") == [
            f"Caller: Where is my parcel?\nAgent: {HEARD}"
        ]
        runtime.save("t1", "And the boots?", FULL, metadata={"heard": HEARD})
        runtime.flush()

    [sent] = [
        event["payload"]
        for request in cloud.requests_to("events")
        for event in request.body["events"]
        if "boots" in str(event)
    ]
    assert (sent["assistantText"], sent[FULL_TEXT_KEY], sent["metadata"]) == (HEARD, FULL, {})


values = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)
payloads = st.fixed_dictionaries(
    {},
    optional={
        "assistantText": values,
        "metadata": values | st.dictionaries(st.sampled_from(["heard", "interrupted"]), values),
    },
)


@given(payloads)
def test_truncation_of_any_payload_is_idempotent(payload: dict[str, Any]) -> None:
    metadata = payload.get("metadata")
    heard = metadata.get("heard") if isinstance(metadata, dict) else None
    truncated = truncate_to_heard(payload)

    assert truncate_to_heard(truncated) == truncated
    if not isinstance(heard, str):
        assert truncated == payload
        return
    assert truncated["assistantText"] == heard
    assert truncated.get(FULL_TEXT_KEY, truncated["assistantText"]) == payload.get("assistantText")
