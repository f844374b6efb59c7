"""The hits and the context hold what matters: no repeats, the caller's own words, what is new, and all of a little."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from support.runtimes import RunningRuntime

Exchanges = list[tuple[str, str]]

# A long answer that shares more words with the question than what the caller said.
LONG_REPLY = (
    "Thank you for telling me about your {topic}. There is a lot to know about a {topic}. When people think about"
    " their {topic}, they should first write down when and where their {topic} is. Then they should think about"
    " who else needs to know about the {topic}. It helps to read about the {topic} in advance. Many people keep a list"
    " for each {topic}. A good {topic} takes time. If anything about it is unclear, ask. We can talk about it later."
)


def save_calls(runtime: RunningRuntime, *calls: Exchanges, **metadata: Any) -> None:
    """Save calls, the first one longest ago."""
    for number, exchanges in enumerate(calls):
        said_at = datetime.now(timezone.utc) - timedelta(days=30 * (len(calls) - number))
        for turn, (user_text, agent_text) in enumerate(exchanges):
            occurred_at = (said_at + timedelta(minutes=turn)).isoformat()
            runtime.save(f"call-{number}", f"t{turn}", user_text, agent_text, occurredAt=occurred_at, **metadata)
    runtime.wait_until_loaded()


def turn_ids(hits: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(hit["source"]["sessionId"], hit["source"]["turnId"]) for hit in hits]


# Repeats


@pytest.mark.parametrize(
    "questions",
    [
        ["What is my locker code?"] * 6,
        ["what is my locker code"] * 3 + ["So what was my locker code again, please?"] * 3,
        ["What is my locker code?", "Do you have my locker code?", "Can you tell me my locker code?"] * 2,
    ],
)
def test_repeats_of_a_question_leave_the_turn_that_answers_it(runtime: RunningRuntime, questions: list[str]) -> None:
    replies = ["I don't know.", "Sorry, I'm not sure.", "Let me check that for you.", "I have no record of that."]
    runtime.save("call-1", "fact", "The code of my locker is seven four one nine.", "Good to know.")
    for number, topic in enumerate(["weather", "train", "parcel"]):
        runtime.save("call-1", f"other-{number}", f"I wonder about the {topic}.", f"The {topic} is fine.")
    for number, question in enumerate(questions):
        runtime.save("call-1", f"repeat-{number}", question, replies[number % 4])
    runtime.wait_until_loaded()
    for session, lane in (("call-1", "working"), ("call-2", "permanent")):
        found = runtime.search(session, "What is my locker code?", topK={lane: 3})
        assert ("call-1", "fact") in turn_ids(found[lane])
        assert "seven four one nine" in found["contextText"]


def test_the_question_is_once_in_the_context_however_it_was_asked(runtime: RunningRuntime) -> None:
    asked = ["Where is my parcel?", "where is my parcel", "So, where is my parcel, please?", "Where's my parcel?"]
    save_calls(runtime, [(question, "Let me look.") for question in asked], [("My parcel is at Number 9.", "Thanks.")])
    context = runtime.search("now", "Where is my parcel?")["contextText"]
    assert "Number 9" in context
    assert context.lower().count("where is my parcel") == 1


def test_statements_that_differ_in_one_word_are_both_kept(runtime: RunningRuntime) -> None:
    save_calls(runtime, [("My sister lives in Rome.", "Nice.")], [("My sister lives in Oslo.", "Nice.")])
    context = runtime.search("now", "Where does my sister live?")["contextText"]
    assert "Rome" in context
    assert "Oslo" in context


def test_all_repeats_are_returned_if_there_is_space(runtime: RunningRuntime) -> None:
    save_calls(runtime, [("Where is my parcel?", "Let me look.")] * 4 + [("My parcel is at Number 9.", "Thanks.")])
    found = runtime.search("now", "Where is my parcel?", topK={"permanent": 50}, explain=True)
    assert len(found["permanent"]) == 5
    assert turn_ids(found["permanent"])[0] == ("call-0", "t4")
    scores = [hit["score"] for hit in found["permanent"]]
    assert scores == sorted(scores, reverse=True)
    for hit in found["permanent"]:
        terms = found["trace"]["explain"]["permanent"][hit["id"]]
        assert sum(terms.values()) == pytest.approx(hit["score"], abs=0.01)


def test_greetings_and_answers_without_content_rank_behind(runtime: RunningRuntime) -> None:
    save_calls(
        runtime,
        [
            ("Hello!", "Hi, how can I help?"),
            ("Do I have an appointment with the dentist?", "I don't see any appointment with the dentist."),
            ("When is my appointment with the dentist?", "I'm not sure about the dentist."),
        ],
        [("The dentist gave me the sixth of June.", "I have noted it.")],
    )
    found = runtime.search("now", "When is my appointment with the dentist?", topK={"permanent": 1})
    assert turn_ids(found["permanent"]) == [("call-1", "t0")]


# The caller's own words


@pytest.mark.parametrize(
    ("topic", "old", "new", "question", "value"),
    [
        (
            "dentist",
            "My dentist is in Elm Street.",
            "My new dentist is in Oak Lane.",
            "Where is my dentist?",
            "Oak Lane",
        ),
        ("flight", "My flight leaves at nine.", "My flight now leaves at noon.", "When does my flight leave?", "noon"),
        ("gym", "I go to the gym on Mondays.", "I go to the gym on Fridays.", "When do I go to the gym?", "Fridays"),
        ("budget", "My budget is 900.", "Let's make it 1,200, my budget.", "What is my budget?", "1,200"),
        ("diet", "I follow a vegan diet.", "I no longer follow a vegan diet.", "Which diet do I follow?", "no longer"),
    ],
)
def test_what_replaced_a_fact_is_in_the_context(
    runtime: RunningRuntime, topic: str, old: str, new: str, question: str, value: str
) -> None:
    reply = LONG_REPLY.format(topic=topic)
    filler = [(f"Tell me more about the {topic}, part {number}.", f"Part {number}. {reply}") for number in range(8)]
    save_calls(runtime, [(old, reply), *filler], [(new, f"{reply} {reply}"), *filler])
    context = runtime.search("now", question)["contextText"]
    assert value in context
    if old in context:
        assert context.index(old) < context.index(value)


def test_long_replies_do_not_displace_what_the_caller_said(runtime: RunningRuntime) -> None:
    reply = LONG_REPLY.format(topic="garden")
    said = (
        "After the weekend with my cousin, who always has opinions about these things, I thought about it for a while,"
        " and then took what my neighbor recommended when we met at the station, which was item {}."
    )
    calls = [
        [(said.format(number), " ".join(f"Who will buy part {part} for garden {number}? {reply}" for part in range(5)))]
        for number in range(8)
    ]
    save_calls(runtime, *calls)
    context = runtime.search("now", "What did I buy for the garden?")["contextText"]
    for number in range(8):
        assert f"item {number}." in context


# Short memories


def test_a_short_memory_is_given_whole(runtime: RunningRuntime) -> None:
    save_calls(
        runtime,
        [("I am allergic to walnuts.", "I have noted that."), ("My daughter is called Mia.", "A lovely name.")],
        [("We take the blue tent.", "Enjoy the trip."), ("Hello?", "Hi, how can I help?")],
    )
    for question in ("Anything I can't eat?", "Who is my child?", "zanzibarplum", "Which color did we pick?"):
        context = runtime.search("now", question)["contextText"]
        for text in ("allergic to walnuts", "called Mia", "blue tent"):
            assert text in context
    # Programs get what was found, not what was added.
    assert runtime.search("now", "zanzibarplum")["permanent"] == []


def test_a_short_memory_is_given_within_the_filter_and_without_this_call(runtime: RunningRuntime) -> None:
    save_calls(runtime, [("I am allergic to walnuts.", "Noted.")], topic="food")
    runtime.save("call-9", "t1", "My tent is blue.", "Nice.", topic="camping")
    runtime.wait_until_loaded()
    assert "walnuts" in runtime.search("call-9", "zanzibarplum", lanes=["permanent"])["contextText"]
    assert "tent" not in runtime.search("call-9", "zanzibarplum", lanes=["permanent"])["contextText"]
    context = runtime.search("now", "zanzibarplum", filter={"topic": "camping"})["contextText"]
    assert "tent" in context
    assert "walnuts" not in context
    assert runtime.search("now", "walnuts", filter={"topic": "fruit"})["contextText"] == ""


def test_a_long_memory_is_not_given_whole(runtime: RunningRuntime) -> None:
    save_calls(runtime, [(f"Today the parcel number {number} came.", "Thank you very much.") for number in range(90)])
    assert runtime.search("now", "zanzibarplum")["contextText"] == ""


# Intents


def test_summarise_recent_brings_the_last_turns_of_the_memory_first(runtime: RunningRuntime) -> None:
    calls = [[(f"Call {number}: the roses need water.", "Yes."), ("Bye.", "Goodbye.")] for number in range(60)]
    save_calls(runtime, *calls, [("We talked about the fence.", "It will be white.")])
    found = runtime.search("now", "roses", intent="summarise_recent")
    assert turn_ids(found["permanent"]) == [(f"call-{number}", "t0") for number in range(60, 54, -1)]
    assert "the fence" in found["contextText"]
    assert "the fence" not in runtime.search("now", "roses")["contextText"]
    filtered = runtime.search("now", "roses", intent="summarise_recent", filter={"topic": "none"})
    assert (filtered["permanent"], filtered["contextText"]) == ([], "")


def test_earlier_in_call_brings_the_matching_turns_and_then_the_rest_of_this_call(runtime: RunningRuntime) -> None:
    runtime.save("call-1", "t0", "My locker code is 7419.", "Noted.")
    for number in range(1, 10):
        runtime.save("call-1", f"t{number}", f"I also bought item {number}.", f"Item {number} is nice.")
    found = runtime.search("call-1", "What was the locker code?", intent="earlier_in_call")
    assert turn_ids(found["working"])[0] == ("call-1", "t0")
    assert len(found["working"]) == 4
    for number in range(1, 10):  # the context holds more than the hits
        assert f"item {number}." in found["contextText"]
    unmatched = runtime.search("call-1", "zanzibarplum", intent="earlier_in_call", topK={"working": 2})
    assert [turn for _, turn in turn_ids(unmatched["working"])] == ["t9", "t8"]
    usual = runtime.search("call-1", "What was the locker code?")
    assert [turn for _, turn in turn_ids(usual["working"])][:2] == ["t9", "t8"]
    assert "item 5." not in usual["contextText"]


# Documents


def test_copies_of_a_document_do_not_take_the_place_of_others(
    start_runtime: Callable[..., RunningRuntime], tmp_path: Path
) -> None:
    copies = [{"id": f"copy-{number}", "text": "Boots are returned within 30 days."} for number in range(4)]
    others = [
        {"id": "other", "text": "Worn boots cannot be returned, except with a defect of the sole or the seam."},
        {"id": "branch", "text": "Boots are returned within 30 days.", "metadata": {"branch": "Cork"}},
    ]
    org_file = tmp_path / "org.jsonl"
    org_file.write_text("".join(json.dumps(document) + "\n" for document in [*copies, *others]))
    runtime = start_runtime(ORG_FILE=str(org_file))
    runtime.wait_until_loaded()
    found = runtime.search("call-1", "When are boots returned?", topK={"org": 3})["org"]
    assert sorted(hit["id"] for hit in found) == ["branch", "copy-0", "other"]
    scores = [hit["score"] for hit in found]
    assert scores == sorted(scores, reverse=True)
    assert len(runtime.search("call-1", "When are boots returned?", topK={"org": 50})["org"]) == 6
