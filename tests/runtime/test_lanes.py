"""What the lanes find and put into the context, depending on recent turns, the speaker and the date."""

import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from support.calls import write_call
from support.runtimes import PATIENT_MS, RunningRuntime
from support.waiting import eventually

from memoair_index import Document, Index
from memoair_protocol.enums import EventType
from memoair_runtime.memory.profile import UserProfile
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.storage.events import new_event

ANCHOR = {"id": "anchor", "text": "It has a happy hour from five to seven.", "metadata": {"name": "The Blue Anchor"}}
LANTERN = {"id": "lantern", "text": "It has a happy hour on Fridays only.", "metadata": {"name": "Copper Lantern"}}
WILLOW = {"id": "willow", "text": "It has no happy hour, but a garden.", "metadata": {"name": "Old Willow Inn"}}


@pytest.fixture
def restaurants(start_runtime: Callable[..., RunningRuntime], tmp_path: Path) -> RunningRuntime:
    """Start a runtime with the documents of three restaurants, which differ only in a few words."""
    org_file = tmp_path / "org.jsonl"
    org_file.write_text("".join(json.dumps(document) + "\n" for document in (ANCHOR, LANTERN, WILLOW)))
    runtime = start_runtime(ORG_FILE=str(org_file))
    runtime.wait_until_loaded()
    return runtime


@pytest.fixture
def remember_calls(runtime: RunningRuntime) -> Callable[..., None]:
    """Return a function that writes earlier sessions to the disk, as another process would, and waits for them."""

    def remember(*calls: tuple[str, Iterable[tuple[str, str]]], days_ago: float = 30, **opening: Any) -> None:
        occurred_at = datetime.now(timezone.utc) - timedelta(days=days_ago)
        text_count = 0
        before = count_remembered(runtime)
        for session_id, exchanges in calls:
            turns = list(exchanges)
            write_call(runtime.storage_root, session_id, turns, occurred_at, **opening)
            text_count += sum(bool(text) for turn in turns for text in turn)
        eventually(lambda: count_remembered(runtime) >= before + text_count)

    return remember


def count_remembered(runtime: RunningRuntime) -> int:
    return int(runtime.start("now")["bootstrap"]["permanentManifestVersion"] or 0)


def hit_ids(hits: list[dict[str, Any]]) -> list[str]:
    return [hit["id"] for hit in hits]


def passage_lines(context: str) -> list[str]:
    return [line for line in context.splitlines() if line.startswith("- ")]


# Recent turns


def test_a_query_without_a_subject_is_understood_from_recent_turns(restaurants: RunningRuntime) -> None:
    for name, document in (("Copper Lantern", "lantern"), ("old willow inn", "willow"), ("The Blue Anchor", "anchor")):
        session = f"call about {document}"
        restaurants.start(session)
        restaurants.save(session, "t1", "Where could we go?", f"You could try {name}, for example.")
        restaurants.save(session, "t2", "Sounds good.", "Doesn't it?")
        found = restaurants.search(session, "and do they have a happy hour")
        assert hit_ids(found["org"])[0] == document
        assert found["contextText"].index("happy hour") > 0


def test_a_recently_named_subject_outweighs_an_earlier_one(restaurants: RunningRuntime) -> None:
    restaurants.start("call-1")
    restaurants.save("call-1", "t0", "Where could we go?", "You could try the Copper Lantern.")
    assert hit_ids(restaurants.search("call-1", "do they have a happy hour")["org"])[0] == "lantern"
    for number in range(6):
        restaurants.save("call-1", f"m{number}", "Let me think about it.", "Take your time.")
    restaurants.save("call-1", "t9", "Something with a garden?", "Then the Old Willow Inn is for you.")
    assert hit_ids(restaurants.search("call-1", "do they have a happy hour")["org"])[0] == "willow"
    assert hit_ids(restaurants.search("call-1", "does the Copper Lantern have a happy hour")["org"])[0] == "lantern"


def test_turns_of_another_session_do_not_affect_document_search(restaurants: RunningRuntime) -> None:
    restaurants.start("call-1")
    restaurants.save("call-1", "t1", "Where?", "Try the Old Willow Inn.")
    document_ids = hit_ids(restaurants.search("call-2", "do they have a happy hour")["org"])
    assert sorted(document_ids) == ["anchor", "lantern", "willow"]
    explained = restaurants.search("call-2", "do they have a happy hour", explain=True)["trace"]["explain"]["org"]
    assert all("label" not in terms for terms in explained.values())


def test_document_search_does_not_wait_for_a_turn_that_is_being_indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexing a turn of a megabyte holds the lock of the user's memory for a second."""
    memory = UserMemory(UserProfile())
    began, proceed = threading.Event(), threading.Event()

    def say(session_id: str, text: str) -> None:
        now = datetime.now(timezone.utc)
        memory.apply_event(new_event(EventType.TURN, session_id, 1, now, {"turnId": text, "userText": text}))

    def add_slowly(index: Index, documents: Iterable[Document]) -> None:
        began.set()
        assert proceed.wait(PATIENT_MS / 1e3)
        add(index, documents)

    say("call-1", "Boots?")
    say("read-before", "Sandals?")
    assert memory.get_recent_texts("read-before") == ("Sandals?",)
    memory.index_pending()
    say("call-1", "In red?")
    say("read-before", "In blue?")
    add = Index.add
    monkeypatch.setattr(Index, "add", add_slowly)
    indexing = threading.Thread(target=memory.index_pending)
    indexing.start()
    assert began.wait(PATIENT_MS / 1e3)
    with ThreadPoolExecutor() as threads:
        sessions = ("call-1", "read-before", "no-turns")
        readings = [threads.submit(memory.get_recent_texts, session) for session in sessions]
        done, _ = wait(readings, timeout=PATIENT_MS / 2e3)
        proceed.set()
        indexing.join()
    assert len(done) == len(readings), "they have waited for the indexing"
    expected = [("Boots?", "In red?"), ("Sandals?", "In blue?"), ()]
    assert [reading.result() for reading in readings] == expected
    assert [memory.get_recent_texts(session) for session in sessions] == expected


# Speakers


def test_a_query_that_names_a_speaker_prefers_what_that_speaker_said(runtime: RunningRuntime) -> None:
    runtime.start("call-1", name="Dana", assistantName="Juno")
    runtime.save("call-1", "t1", "I find the walnut cake far too sweet.", "Noted.")
    runtime.save("call-1", "t2", "Noted.", "I recommend the walnut cake with cream.")
    runtime.wait_until_loaded()

    def best_text(question: str) -> str:
        found = runtime.search("call-2", question, lanes=["permanent"])
        best = max(found["permanent"], key=lambda hit: hit["score"])
        return str(best["text"])

    assert "too sweet" in best_text("What does Dana think of the walnut cake?")
    assert "recommend" in best_text("What does Juno think of the walnut cake?")


def test_a_query_in_the_first_person_prefers_what_the_caller_said(runtime: RunningRuntime) -> None:
    runtime.start("call-1")
    runtime.save("call-1", "t1", "Walnut cake?", "Walnut cake!")
    runtime.wait_until_loaded()
    found = runtime.search("call-2", "Did I order my walnut cake?", lanes=["permanent"], explain=True)
    (terms,) = found["trace"]["explain"]["permanent"].values()
    assert terms["self"] > 0
    found = runtime.search("call-2", "Was there walnut cake?", lanes=["permanent"], explain=True)
    (terms,) = found["trace"]["explain"]["permanent"].values()
    assert "self" not in terms


# Dates


def test_a_query_that_names_a_day_finds_turns_of_that_day(runtime: RunningRuntime) -> None:
    year = datetime.now(timezone.utc).year - 1
    runtime.start("call-1")
    for number, day in enumerate(["03-01", "05-08", "09-20"]):
        text = f"The parcel number {number} was delivered."
        runtime.save("call-1", f"t{number}", text, occurredAt=f"{year}-{day}T10:00:00Z")
    runtime.wait_until_loaded()
    for question in ("What was delivered on 8 May?", f"what was delivered on the 8th of may {year}", f"{year}-05-08?"):
        found = runtime.search("call-2", question, lanes=["permanent"], explain=True)
        assert found["permanent"][0]["source"]["turnId"] == "t1"
        assert found["trace"]["explain"]["permanent"][found["permanent"][0]["id"]]["date"] > 0
        assert (
            passage_lines(found["contextText"])[0] == "- Caller: The parcel number 0 was delivered."
            or "8 May" in (found["contextText"])
        )


def test_relative_dates_are_resolved_from_the_time_of_the_query(runtime: RunningRuntime) -> None:
    now = datetime.now(timezone.utc)
    runtime.start("call-1")
    for turn_id, days in (("long-ago", 200), ("last-week", 8), ("before", 60)):
        moment = (now - timedelta(days=days)).isoformat()
        runtime.save("call-1", turn_id, "The parcel was delivered.", occurredAt=moment)
    runtime.wait_until_loaded()
    assert runtime.search("call-2", "What came last week?")["permanent"][0]["source"]["turnId"] == "last-week"
    found = runtime.search("call-2", "What was delivered?", explain=True)
    assert all("date" not in terms for terms in found["trace"]["explain"]["permanent"].values())


def test_extreme_timestamps_cause_no_errors(runtime: RunningRuntime) -> None:
    moments = ["9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "1969-07-20T20:17:40Z"]
    for number, moment in enumerate(moments):
        runtime.save("call-1", f"t{number}", f"The parcel {number} was delivered.", "Yes.", occurredAt=moment)
    runtime.wait_until_loaded()
    for session, lane in (("call-1", "working"), ("call-2", "permanent")):
        found = runtime.search(session, "parcel delivered on 8 May last week", topK={"working": 9})
        assert found["trace"]["degraded"] is False
        assert {hit["source"]["turnId"] for hit in found[lane]} == {"t0", "t1", "t2"}
    assert runtime.post("session/end", sessionId="call-1")[1]["flushed"] == {"turns": 3}


# Corrections


def test_a_correction_is_found_and_follows_what_it_corrects(
    runtime: RunningRuntime,
) -> None:
    runtime.start("call-1")
    runtime.save("call-1", "t1", "Book the dentist for Tuesday.", "Tuesday it is.")
    runtime.save("call-1", "t2", "No, I said Thursday.", "Sorry, Thursday.")
    runtime.save("call-1", "t3", "And what is the weather like?", "Sunny.")
    runtime.wait_until_loaded()
    for session, lane in (("call-1", "working"), ("call-2", "permanent")):
        found = runtime.search(session, "When is the dentist?")
        assert {"t1", "t2"} <= {hit["source"]["turnId"] for hit in found[lane]}
        context = found["contextText"]
        assert -1 < context.index("for Tuesday") < context.index("No, I said Thursday")


# Long replies


def test_a_long_reply_is_whole_in_the_hit_and_a_snippet_in_the_context(
    runtime: RunningRuntime,
) -> None:
    filler = [f"Of the warehouse number {number} nothing is to be told." for number in range(40)]
    reply = " ".join([*filler[:20], "The dentist is in Elm Street.", *filler[20:]])
    runtime.start("call-1")
    runtime.save("call-1", "t1", "Tell me everything.", reply)
    runtime.wait_until_loaded()
    for session, lane in (("call-1", "working"), ("call-2", "permanent")):
        found = runtime.search(session, "Where is the dentist?")
        assert found[lane][0]["text"] == f"Caller: Tell me everything.\nAgent: {reply}"
        (line,) = [line for line in passage_lines(found["contextText"]) if "Elm Street" in line]
        assert "The dentist is in Elm Street." in line
        assert len(line) < len(reply) / 2
        assert "\N{HORIZONTAL ELLIPSIS}" in line


def test_a_long_reply_without_sentences_is_found_and_truncated(runtime: RunningRuntime) -> None:
    runtime.start("call-1")
    runtime.save("call-1", "t1", "Spell it.", "zanzibarplum " + "plum" * 20_000)
    runtime.save("call-1", "t2", "A persimmon?", "A persimmon.")
    runtime.wait_until_loaded()
    for session, lane in (("call-1", "working"), ("call-2", "permanent")):
        found = runtime.search_in_time(session, "zanzibarplum", timeout_ms=2_000)
        assert found["trace"]["degraded"] is False
        assert "t1" in {hit["source"]["turnId"] for hit in found[lane]}
        assert 0 < len(found["contextText"]) <= 8_000
    assert "zanzibarplum" in found["contextText"]


def test_long_runs_of_one_character_do_not_slow_down_searches(runtime: RunningRuntime) -> None:
    signs = [".", "!", " ", "\t", "\n", ". ", '."', "\N{HORIZONTAL ELLIPSIS}", "?!", ",", "hi "]
    for number, sign in enumerate(signs):
        row = sign * (60_000 // len(sign))
        runtime.save(f"call-{number}", "t1", f"zanzibarplum{row}x", f"{row}x")
    runtime.wait_until_loaded()
    for number in range(len(signs)):
        found = runtime.search_in_time(f"call-{number}", "zanzibarplum", timeout_ms=2_000)
        assert found["trace"]["degraded"] is False
        assert "zanzibarplum" in found["working"][0]["text"]
        assert "zanzibarplum" in found["contextText"]
        assert len(found["permanent"]) == 6


def test_a_reply_with_many_matching_passages_leaves_space_for_other_turns(runtime: RunningRuntime) -> None:
    runtime.start("call-1")
    runtime.save("call-1", "t1", "Tell me.", "The dentist, and again the dentist, and the dentist. " * 1_000)
    for number in range(5):
        runtime.save("call-1", f"s{number}", f"The dentist has called about bill number {number}.", "Thank you.")
    runtime.wait_until_loaded()
    found = runtime.search_in_time("call-2", "What about the dentist?", timeout_ms=2_000)
    assert len({hit["source"]["turnId"] for hit in found["permanent"]}) == 6
    assert "bill number" in found["contextText"]


# Explained scores


def test_explained_scores_are_the_sum_of_their_terms(restaurants: RunningRuntime) -> None:
    restaurants.start("call-1", name="Dana")
    restaurants.save("call-1", "t1", "I go to the Copper Lantern for happy hour on 8 May.", "No, I said no longer.")
    restaurants.start("call-2", name="Dana")
    restaurants.save("call-2", "t1", "Happy hour?", "At the Copper Lantern.")
    restaurants.wait_until_loaded()
    question = "When does Dana go to happy hour in May, and how many hours?"
    found = restaurants.search("call-2", question, explain=True)
    explained = found["trace"]["explain"]
    assert set(explained) == {"working", "permanent", "org"}
    for lane, hits in explained.items():
        assert list(hits) == hit_ids(found[lane])
        for hit in found[lane]:
            terms = hits[hit["id"]]
            assert all(isinstance(value, float) and value for value in terms.values())
            assert sum(terms.values()) == pytest.approx(hit["score"], abs=0.01)
    for lane in ("permanent", "org"):
        scores = [hit["score"] for hit in found[lane]]
        assert scores == sorted(scores, reverse=True)


def test_scores_are_explained_only_on_request(runtime: RunningRuntime) -> None:
    runtime.save("call-1", "t1", "A persimmon.")
    unexplained: list[dict[str, Any]] = [{}, {"explain": False}, {"explain": None}]
    for options in unexplained:
        assert "explain" not in runtime.search("call-1", "persimmon", **options)["trace"]
    assert "explain" in runtime.search("call-1", "persimmon", explain=True)["trace"]


# Filters


def test_filtered_turns_are_in_neither_hits_nor_context(runtime: RunningRuntime) -> None:
    runtime.start("call-1")
    for number in range(8):
        text = f"The walnut cake number {number} is {'secret' if number % 2 else 'public'}."
        runtime.save("call-1", f"t{number}", text, f"Cake {number}, yes.", topic="odd" if number % 2 else "even")
    runtime.wait_until_loaded()
    found = runtime.search("call-2", "walnut cake", topK={"permanent": 50}, filter={"topic": "even"})
    assert {hit["metadata"]["topic"] for hit in found["permanent"]} == {"even"}
    assert len(found["permanent"]) == 4
    assert "public" in found["contextText"]
    assert "secret" not in found["contextText"]
    unmatched = runtime.search("call-2", "walnut cake", filter={"topic": "fruit"})
    assert (unmatched["permanent"], unmatched["contextText"]) == ([], "")


def test_a_filter_finds_the_one_turn_behind_hundreds_of_better_matches(
    runtime: RunningRuntime, remember_calls: Callable[..., None]
) -> None:
    runtime.save("call-1", "needle", "In a long sentence somebody mentions walnut cake among much else.", year=10**40)
    remember_calls(("call-2", [("Walnut cake!", "Walnut cake!")] * 300))
    (hit,) = runtime.search("now", "walnut cake", filter={"year": {"$gt": 10**39}})["permanent"]
    assert hit["source"]["turnId"] == "needle"
    assert hit["metadata"]["year"] == 10**40


# Unusual queries


def test_the_current_session_is_never_in_the_permanent_lane(runtime: RunningRuntime) -> None:
    for session in ("call-1", "call-2"):
        runtime.save(session, "t1", f"A persimmon in {session}.", "Good.")
    runtime.wait_until_loaded()
    for session in ("call-1", "call-2"):
        found = runtime.search(session, "persimmon good", topK={"permanent": 50})
        assert {hit["source"]["sessionId"] for hit in found["working"]} == {session}
        assert {hit["source"]["sessionId"] for hit in found["permanent"]} == {"call-1", "call-2"} - {session}


QUESTIONS = [
    "",
    " ",
    "the of and a",
    "?!...",
    "\N{GRINNING FACE}",
    "\N{RIGHT-TO-LEFT OVERRIDE}persimmon\N{POP DIRECTIONAL FORMATTING}",
    "שלום פרסימון",
    "مرحبا",
    "返品したいのですが",
    "persimmon " * 1_638,
    "x" * 16_384,
    "".join(chr(0x4E00 + number) for number in range(16_384)),
    " ".join(f"word{number}" for number in range(1_600)),
    "may " * 4_096,
    "1 may " * 2_730,
    "I " * 8_192,
    "hi dana " * 2_000,
    "\x00\x07\x1b",
    "e\N{COMBINING ACUTE ACCENT}" * 8_000,
]


def test_any_query_is_answered_in_time(runtime: RunningRuntime, remember_calls: Callable[..., None]) -> None:
    runtime.save("call-1", "t1", "A persimmon \N{GRINNING FACE} שלום פרסימון 返品したいのですが", "Good.")
    remember_calls(("call-2", [(f"Something said, number {number}.", "Something answered.") for number in range(300)]))
    slow = []
    for question in QUESTIONS:
        assert len(question) <= 16_384
        found = runtime.search_in_time("now", question, timeout_ms=1_000)
        if found["trace"]["degraded"]:
            slow.append((question[:12], found["trace"]["lanes"]))
    assert slow == []
    assert runtime.search("now", "\N{RIGHT-TO-LEFT OVERRIDE}persimmon")["permanent"][0]["source"]["turnId"] == "t1"
    assert runtime.search("now", "שלום")["permanent"][0]["source"]["turnId"] == "t1"


def test_a_query_without_words_finds_only_the_last_turns(runtime: RunningRuntime) -> None:
    runtime.save("call-1", "t1", "A persimmon.", "Good.")
    runtime.save("call-2", "t1", "A quince.", "Good.")
    runtime.wait_until_loaded()
    for question in ("", " ", "the of and a", "?!..."):
        found = runtime.search("call-2", question)
        assert [hit["source"]["turnId"] for hit in found["working"]] == ["t1"]
        assert found["permanent"] == []
        assert found["trace"]["degraded"] is False


def test_a_text_said_hundreds_of_times_appears_once_in_the_context(
    runtime: RunningRuntime, remember_calls: Callable[..., None]
) -> None:
    remember_calls(("call-1", [("Walnut cake!", "With cream.")] * 300))
    found = runtime.search("now", "walnut cake", topK={"permanent": 1_000})
    assert found["trace"]["degraded"] is False
    assert len(found["permanent"]) == 300
    assert len({hit["id"] for hit in found["permanent"]}) == 300
    assert passage_lines(found["contextText"]).count("- Caller: Walnut cake!") == 1


def test_metadata_is_returned_unchanged(runtime: RunningRuntime) -> None:
    metadata = {"big": 2**64 + 1, "bigger": -(10**300), "small": 1e-300, "deep": {"a": [1, [None, True, "x"]]}}
    runtime.save("call-1", "t1", "A persimmon.", **metadata)
    runtime.wait_until_loaded()
    for session, lane in (("call-1", "working"), ("call-2", "permanent")):
        assert runtime.search(session, "persimmon")[lane][0]["metadata"] == metadata
