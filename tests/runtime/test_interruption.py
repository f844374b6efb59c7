"""An answer that was interrupted is remembered as far as it was heard; the rest is kept, and never recalled."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.devices import device
from support.runtimes import PATIENT_MS, RunningRuntime
from support.scripted_cloud import ScriptedCloud, elsewhere

from memoair_runtime.memory.interruption import FULL_TEXT, as_heard

HEARD = "I have found your parcel in Leeds"
MEANT = f"{HEARD}, and the zanzibarplum voucher is on its way."


def recalled(found: Any) -> str:
    return json.dumps([found[lane] for lane in ("contextText", "working", "permanent", "profile", "sources")])


@pytest.mark.parametrize("heard", [HEARD, ""])
def test_only_what_was_heard_is_recalled_in_this_call_and_in_the_next_and_after_a_restart(
    start_runtime: Callable[..., RunningRuntime], heard: str
) -> None:
    runtime = start_runtime()
    runtime.save("call-1", "t1", "Where is my parcel?", MEANT, interrupted=True, heard=heard)
    found = [runtime.search(session, "the zanzibarplum voucher for the parcel") for session in ("call-1", "call-2")]
    runtime.post("sync/flush", deadlineMs=PATIENT_MS)
    brief = Path(runtime.start("call-1")["paths"]["workingBrief"]).read_text()
    runtime.terminate()
    again = start_runtime()
    again.wait_until_loaded()
    found.append(again.search("call-3", "the zanzibarplum voucher for the parcel"))

    for each in found:
        assert "zanzibarplum" not in recalled(each)
        assert "Where is my parcel?" in recalled(each)
        assert ("in Leeds" in recalled(each)) == bool(heard)
    assert found[0]["working"][0]["metadata"] == {"interrupted": True}
    assert "zanzibarplum" not in brief
    [turn] = [each["payload"] for each in again.log_lines("call-1") if each["type"] == "turn"]
    assert turn == {
        "turnId": "t1",
        "userText": "Where is my parcel?",
        "assistantText": heard,
        "toolCalls": [],
        "metadata": {"interrupted": True},
        "assistantFullText": MEANT,
    }


def test_an_answer_that_was_heard_to_its_end_is_kept_once(runtime: RunningRuntime) -> None:
    runtime.save("call-1", "t1", "Where is my parcel?", HEARD, heard=HEARD)
    runtime.save("call-1", "t2", "And now?", "At your door.", interrupted=False, heard=None)

    first, second = [each["payload"] for each in runtime.log_lines("call-1") if each["type"] == "turn"]
    assert (first["assistantText"], first["metadata"], FULL_TEXT in first) == (HEARD, {}, False)
    assert (second["assistantText"], FULL_TEXT in second) == ("At your door.", False)


@pytest.mark.parametrize("heard", [7, True, ["I have"], {"text": "I have"}])
def test_what_was_heard_is_a_text_or_the_turn_is_refused(runtime: RunningRuntime, heard: Any) -> None:
    told = {"sessionId": "call-1", "turnId": "t1", "userText": "Hello?", "assistantText": MEANT}
    status, body = runtime.post("turn/after", **told, metadata={"heard": heard})

    assert (status, body["error"]["code"]) == (400, "runtime.bad_request")
    assert "heard" in body["error"]["message"]
    assert [each["type"] for each in runtime.log_lines("call-1")] == ["session_start"]


@pytest.mark.usefixtures("short_pauses")
def test_the_cloud_is_told_both_apart_and_what_it_tells_unsorted_is_recalled_as_heard(
    cloud: ScriptedCloud, tmp_path: Path
) -> None:
    imported = elsewhere("e-1", "Where is my parcel?", answer=MEANT)
    imported["payload"]["metadata"] = {"heard": HEARD}
    cloud.tell(imported)
    with device(cloud, tmp_path / "storage") as runtime:
        assert runtime.found("the zanzibarplum voucher for the parcel") == [
            f"Caller: Where is my parcel?\nAgent: {HEARD}"
        ]
        runtime.save("t1", "And the boots?", MEANT, metadata={"heard": HEARD})
        runtime.flush()

    [sent] = [
        event["payload"] for each in cloud.asked("events") for event in each.body["events"] if "boots" in str(event)
    ]
    assert (sent["assistantText"], sent[FULL_TEXT], sent["metadata"]) == (HEARD, MEANT, {})


values = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)
payloads = st.fixed_dictionaries(
    {},
    optional={
        "assistantText": values,
        "metadata": values | st.dictionaries(st.sampled_from(["heard", "interrupted"]), values),
    },
)


@given(payloads)
def test_whatever_a_payload_holds_what_was_heard_is_taken_once(payload: dict[str, Any]) -> None:
    metadata = payload.get("metadata")
    heard = metadata.get("heard") if isinstance(metadata, dict) else None
    told = as_heard(payload)

    assert as_heard(told) == told
    if not isinstance(heard, str):
        assert told == payload
        return
    assert told["assistantText"] == heard
    assert told.get(FULL_TEXT, told["assistantText"]) == payload.get("assistantText")
