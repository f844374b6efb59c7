"""A turn id that comes again: the same words count once, and other words correct the turn."""

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.devices import device
from support.runtimes import RunningRuntime
from support.waiting import eventually

from memoair_protocol.enums import EventType
from memoair_runtime.memory.profile import UserProfile
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.storage.events import Event


def texts_of(found: Any) -> str:
    """Return the texts of all hits of a search."""
    return "\n".join(hit["text"] for lane in ("working", "permanent") for hit in found[lane])


def turn_lines(runtime: RunningRuntime, session_id: str) -> list[dict[str, Any]]:
    return [line for line in runtime.log_lines(session_id) if line["type"] == "turn"]


def test_other_words_correct_the_turn_and_the_earlier_ones_stay_in_the_log(runtime: RunningRuntime) -> None:
    first = runtime.save("call-1", "t1", "My boots are size nine.", "Noted.")
    runtime.save("call-1", "t2", "They are red boots.", "Very well.")
    second = runtime.save("call-1", "t1", "My boots are size eleven.", "Noted.")

    assert second != first
    lines = turn_lines(runtime, "call-1")
    assert [(line["eventId"], line["payload"].get("corrects")) for line in lines[::2]] == [
        (first, None),
        (second, first),
    ]
    assert lines[2]["occurredAt"] == lines[0]["occurredAt"], "it was spoken when the turn was"
    for session_id in ("call-1", "later"):
        found = texts_of(runtime.search(session_id, "which boots?"))
        assert "eleven" in found
        assert "nine" not in found
    assert runtime.post("session/end", sessionId="call-1")[1]["flushed"] == {"turns": 2}


def test_a_repeated_delivery_of_any_version_adds_nothing(start_runtime: Callable[..., RunningRuntime]) -> None:
    versions = [("The code is", ""), ("The code is plum.", ""), ("The code is plum.", "Plum it is.")]
    first = start_runtime()
    event_ids = [first.save("call-1", "t1", *words) for words in versions]
    assert len(set(event_ids)) == 3
    lines = first.log_lines("call-1")
    assert [first.save("call-1", "t1", *words) for words in versions] == event_ids
    first.kill()

    second = start_runtime()
    second.wait_until_loaded()
    assert [second.save("call-1", "t1", *words) for words in versions] == event_ids
    assert second.log_lines("call-1") == lines
    found = second.search("later", "what is the code?")
    assert [hit["id"] for hit in found["permanent"]] == event_ids[2:]


@pytest.mark.parametrize("text", ["I live in  Lisbon.\n", "\tI live\u00a0in Lisbon."])
def test_words_that_differ_only_in_whitespace_are_the_same(runtime: RunningRuntime, text: str) -> None:
    first = runtime.save("call-1", "t1", "I live in Lisbon.", "Noted.")
    assert runtime.save("call-1", "t1", text, "Noted. ", occurredAt="2026-03-01T10:00:00Z") == first
    assert len(turn_lines(runtime, "call-1")) == 1


def test_a_delivery_with_one_side_keeps_the_other_side(runtime: RunningRuntime) -> None:
    question = runtime.save("call-1", "t1", "Where is my parcel?", "", topic="parcel")
    answer = runtime.save("call-1", "t1", "", "In Leeds.", sender="agent")
    assert question != answer

    [_, line] = turn_lines(runtime, "call-1")
    assert (line["payload"]["userText"], line["payload"]["assistantText"]) == ("Where is my parcel?", "In Leeds.")
    assert line["payload"]["metadata"] == {"topic": "parcel", "sender": "agent"}
    assert runtime.save("call-1", "t1", "", "In Leeds.") == answer
    assert runtime.save("call-1", "t1", "Where is my parcel?") == question
    assert len(turn_lines(runtime, "call-1")) == 2
    # A delivery that knows less than the turn and was never seen adds nothing either.
    whole = runtime.save("call-1", "t2", "And the boots?", "In York.")
    assert runtime.save("call-1", "t2", "And the boots?") == whole


def test_what_was_heard_of_an_answer_corrects_it_also_if_that_is_nothing(runtime: RunningRuntime) -> None:
    full = runtime.save("call-1", "t1", "Tell me a story.", "Once upon a time, a marmot lived.")
    heard = runtime.save("call-1", "t1", "Tell me a story.", "Once upon a time, a marmot lived.", heard="")
    assert heard != full
    assert "marmot" not in texts_of(runtime.search("call-1", "story marmot"))


def test_a_turn_id_counts_within_its_call(runtime: RunningRuntime) -> None:
    first = runtime.save("call-1", "t1", "My boots are size nine.")
    second = runtime.save("call-2", "t1", "My gloves are size ten.")
    assert first != second
    found = texts_of(runtime.search("later", "boots and gloves"))
    assert "nine" in found
    assert "ten" in found


def test_a_correction_after_the_end_is_refused_until_the_session_is_started_again(runtime: RunningRuntime) -> None:
    first = runtime.save("call-1", "t1", "My boots are size nine.")
    runtime.post("session/end", sessionId="call-1")
    assert runtime.save("call-1", "t1", "My boots are size nine.") == first
    body = {"sessionId": "call-1", "turnId": "t1", "userText": "Size eleven.", "assistantText": ""}
    status, reply = runtime.post("turn/after", **body)
    assert (status, reply["error"]["code"]) == (404, "runtime.session_not_found")
    runtime.start("call-1")
    assert runtime.save("call-1", "t1", "Size eleven.") != first


def test_two_processes_agree_on_the_versions_of_a_turn(start_runtime: Callable[..., RunningRuntime]) -> None:
    one, other = start_runtime(), start_runtime()
    first = one.save("call-1", "t1", "My boots are size nine.")
    assert other.save("call-1", "t1", "My boots are size nine.") == first
    second = other.save("call-1", "t1", "My boots are size eleven.")
    assert second != first
    assert one.save("call-1", "t1", "My boots are size eleven.") == second
    assert one.save("call-1", "t1", "My boots are size nine.") == first
    for runtime in (one, other):
        assert [hit["id"] for hit in runtime.search("call-1", "boots")["working"]] == [second]


def test_corrected_turns_stay_in_their_place(runtime: RunningRuntime) -> None:
    words = ["one apple", "two pears", "three plums", "four figs"]
    for number, text in enumerate(words):
        runtime.save("call-1", f"t{number}", text)
    runtime.search("call-1", "apple")  # all turns are indexed
    runtime.save("call-1", "t1", "twelve pears")
    found = runtime.search("call-1", "what did I say?", intent="earlier_in_call", topK={"working": 10})
    context = found["contextText"]
    assert sorted(["one apple", "twelve pears", "three plums", "four figs"], key=context.index) == [
        "one apple",
        "twelve pears",
        "three plums",
        "four figs",
    ]
    assert "two pears" not in context


@pytest.mark.parametrize("is_written_before", [True, False], ids=["older-file", "newer-file"])
def test_a_corrected_turn_stays_corrected_with_an_index_file(is_written_before: bool, tmp_path: Path) -> None:
    """A file from before the correction, and one from after it, which is read together with the logs."""

    def correct() -> None:
        with device(None, tmp_path) as runtime:
            runtime.save("t0", "The word is eleven.", session_id="many")

    with device(None, tmp_path) as runtime:
        for number in range(450):
            runtime.save(f"t{number}", f"The word is nine and {number}.", session_id="many")
        runtime.flush()
    if not is_written_before:
        correct()
    with device(None, tmp_path) as runtime:
        runtime.search("word")
        eventually(lambda: list(runtime.folder.path.glob("permanent-*.index")))
    if is_written_before:
        correct()
    for _ in range(2):
        with device(None, tmp_path) as runtime:
            eventually(lambda runtime=runtime: "loading" not in runtime.service.health()["lanes"].values())
            turns = runtime.service._memory.get_turns("many")
            assert [turn.ordinal for turn in turns] == list(range(450))
            assert [turn.user_text for turn in turns[:2]] == ["The word is eleven.", "The word is nine and 1."]
            runtime.save("t1", "One more.", session_id="other")


@given(st.permutations(range(4)))
@settings(deadline=None, max_examples=30)
def test_events_in_any_order_leave_the_last_version(order: list[int]) -> None:
    """The cloud may send the versions of a turn, which another machine has logged, in any order."""
    memory = UserMemory(UserProfile())
    moment = datetime(2026, 3, 1, tzinfo=timezone.utc)
    events = []
    for number, (text, corrects) in enumerate([("a", None), ("b", 0), ("c", 1), ("d", 2)]):
        payload = {"turnId": "t", "userText": text, **({} if corrects is None else {"corrects": f"e{corrects}"})}
        events.append(Event(f"e{number}", EventType.TURN, "s", number, moment, payload))
    for at in order:
        memory.apply_event(events[at])
        memory.index_pending()
    assert [turn.user_text for turn in memory.get_turns("s")] == ["d"]
    assert all(memory.has_turn(event.event_id) for event in events)
