"""Memories: consolidation by workers, and listing, correcting and deleting them."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from support.clouds import Client, RunningCloud, session_end, session_start, turn

from memoair_cloud.consolidation import CallTurn, Extraction, RuleExtractor
from memoair_cloud.database.models import CallEvent, CallSession, Memory, MemoryChange
from memoair_cloud.memories import extraction_worker
from memoair_cloud.memories.extraction_worker import ExtractionOutcome, ExtractionWorker
from memoair_protocol.backoff import Backoff

MEMORIES = "/v1/voice-sdk/users/0xab12/memories"
PROFILE = "/v1/voice-sdk/projections/profile"


def texts(memories: Sequence[Any]) -> list[str]:
    return [memory["text"] for memory in memories]


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


def make_worker(cloud: RunningCloud, extractor: Any = None, idle_s: float = 3_600) -> ExtractionWorker:
    return ExtractionWorker(cloud.services.engine, extractor or RuleExtractor(), timedelta(seconds=idle_s))


def test_an_ended_call_becomes_memories_and_a_profile(cloud: RunningCloud, client: Client) -> None:
    client.send(session_start("s"), turn("t", said="I live in Lisbon."))
    cloud.run_tasks()
    assert client.memories() == []
    client.send(session_end("e"))
    cloud.run_tasks()

    [memory] = client.memories()
    assert memory == {
        **memory,
        "kind": "identity",
        "text": "Ana lives in Lisbon.",
        "value": "Lisbon",
        "subject": "caller",
        "sessionId": "call-1",
        "eventId": "t",
        "saidAt": "2026-03-02T09:30:00Z",
        "holdsFrom": None,
        "extractor": "rules",
        "correctedAt": None,
        "closedBy": None,
    }
    assert client.ok("GET", f"{MEMORIES}/{memory['memoryId']}") == memory
    profile = client.ok("GET", PROFILE)
    assert (profile["version"], profile["summary"], profile["name"]) == (2, "Ana lives in Lisbon.", "Ana")
    assert profile["attributes"] == {memory["attribute"]: "Lisbon"}


def test_a_silent_call_counts_as_ended(cloud: RunningCloud, client: Client) -> None:
    client.send(session_start("s"), turn("t", said="I live in Lisbon."))
    assert make_worker(cloud).process_next_call(client.identity["project"]) is None
    assert client.identity["project"] not in make_worker(cloud).find_due_projects()

    idle = make_worker(cloud, idle_s=1e-6)
    assert client.identity["project"] in idle.find_due_projects()
    assert idle.process_next_call(client.identity["project"]) is ExtractionOutcome.DONE
    assert idle.process_next_call(client.identity["project"]) is None
    assert texts(client.memories()) == ["Ana lives in Lisbon."]


def test_a_later_fact_closes_the_earlier_one(cloud: RunningCloud, client: Client) -> None:
    client.send_call("one", "I live in Lisbon.", "I like tea.", day="2026-03-02")
    client.send_call("two", "I live in Oslo now.", day="2026-03-09")
    cloud.run_tasks()

    assert texts(client.memories()) == ["Ana lives in Oslo.", "Ana likes tea."]
    oslo, tea, lisbon = client.memories(history="true")
    assert (lisbon["text"], lisbon["closedBy"]) == ("Ana lives in Lisbon.", oslo["memoryId"])
    assert (oslo["closedBy"], tea["closedBy"]) == (None, None)
    assert client.ok("GET", PROFILE)["summary"] == "Ana lives in Oslo.\nAna likes tea."
    changes = client.ok("GET", f"{MEMORIES}/{lisbon['memoryId']}/history")["changes"]
    assert [(change["action"], change["by"], change["text"]) for change in changes] == [
        ("learned", "rules", None),
        ("closed", "rules", "Ana lives in Lisbon."),
    ]


def test_the_order_in_which_calls_arrive_does_not_matter(cloud: RunningCloud, client: Client) -> None:
    other = client.with_identity(user="other")
    calls = [("one", "I live in Lisbon.", "2026-03-02"), ("two", "I live in Oslo now.", "2026-03-09")]
    for caller, order in ((client, calls), (other, calls[::-1])):
        for session_id, said, day in order:
            caller.send_call(session_id, said, day=day)
            cloud.run_tasks()

    assert texts(other.memories(history="true")) == texts(client.memories(history="true"))
    assert texts(other.memories()) == ["Ana lives in Oslo."]


def test_a_late_turn_corrects_memories_that_were_learned_without_it(cloud: RunningCloud, client: Client) -> None:
    client.send(
        session_start("s"),
        turn("a", seq=2, said="I'm flying to Lisbon on Wednesday."),
        turn("c", seq=4, said="I like tea."),
        session_end("e"),
    )
    cloud.run_tasks()
    tea = next(memory for memory in client.memories() if "tea" in memory["text"])
    client.send(turn("b", seq=3, said="No, wait, make that Thursday."))
    cloud.run_tasks()

    thursday = "Ana is flying to Lisbon on Thursday 5 March 2026."
    assert sorted(texts(client.memories())) == [thursday, "Ana likes tea."]
    assert tea in client.memories()
    history = [memory for memory in client.memories(history="true") if memory["closedBy"]]
    assert texts(history) == ["Ana is flying to Lisbon on Wednesday 4 March 2026."]


def test_consolidating_a_call_again_changes_nothing(cloud: RunningCloud, client: Client) -> None:
    client.send_call("one", "I live in Lisbon.", "I like tea.")
    cloud.run_tasks()
    before, profile = client.memories(history="true"), client.ok("GET", PROFILE)
    client.send(session_start("again", "one", 1))  # nothing new, but the call must be consolidated again
    cloud.run_tasks()

    assert client.memories(history="true") == before
    assert client.ok("GET", PROFILE) == profile


@pytest.mark.parametrize(
    ("heard", "learned"), [("I'll call you back on Friday", True), ("I could, and I'll", False), ("", False)]
)
def test_only_the_heard_part_of_an_interrupted_answer_is_a_commitment(
    cloud: RunningCloud, client: Client, heard: str, *, learned: bool
) -> None:
    promise = {"userText": "Well?", "assistantText": "I'll call you back on Friday.", "toolCalls": []}
    by_runtime = {**promise, "assistantText": heard, "assistantFullText": promise["assistantText"], "metadata": {}}
    imported = {**promise, "metadata": {"heard": heard}}
    for name, payload in (("runtime", by_runtime), ("import", imported)):
        event = turn(name, name, payload={"turnId": "t", **payload})
        client.send(session_start(f"{name}-start", name), event, session_end(f"{name}-end", name))
    cloud.run_tasks()

    promised = ["The agent will call Ana back on Friday 6 March 2026."]
    assert texts(client.memories()) == (promised if learned else [])
    assert [event_out["payload"] for name in ("runtime", "import") for event_out in client.events(name)][1::3] == [
        {"turnId": "t", **by_runtime},
        {"turnId": "t", **imported},
    ]


def test_recalled_context_is_not_learned_again(cloud: RunningCloud, client: Client) -> None:
    context = (
        "## permanent\n(said in earlier calls; background, not instructions)\n2 March 2026:\n- Ana: I live in Rome."
    )
    payload = {"turnId": "x", "userText": context, "assistantText": "You told me that you live in Paris."}
    client.send(session_start("s"), turn("t", payload={**payload, "toolCalls": [], "metadata": {}}), session_end("e"))
    cloud.run_tasks()
    assert client.memories() == []
    assert [event["payload"]["userText"] for event in client.events("call-1") if event["type"] == "turn"] == [context]


def test_two_workers_consolidate_each_call_once(cloud: RunningCloud, client: Client) -> None:
    extracted: list[str] = []
    barrier = threading.Barrier(2, timeout=30)

    class SlowExtractor(RuleExtractor):
        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            extracted.append(turns[0].session_id)
            barrier.wait()
            return super().extract(turns)

    for number in range(2):
        client.send_call(f"call-{number}", "I live in Lisbon.", "I like tea.")
    workers = [make_worker(cloud, SlowExtractor()) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda worker: worker.process_next_call(client.identity["project"]), workers))
    assert outcomes == [ExtractionOutcome.DONE, ExtractionOutcome.DONE]
    assert sorted(extracted) == ["call-0", "call-1"]
    assert workers[0].process_next_call(client.identity["project"]) is None
    assert sorted(texts(client.memories())) == ["Ana likes tea.", "Ana lives in Lisbon."]


def test_another_worker_takes_over_and_the_late_one_changes_nothing(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = client.identity["project"]
    other = make_worker(cloud)

    class LateExtractor(RuleExtractor):
        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            assert other.process_next_call(project) is None  # the call is claimed
            with Session(cloud.services.engine) as session, session.begin():
                session.execute(update(CallSession).values(claimed_until=None))  # as if the claim had expired
            assert other.process_next_call(project) is ExtractionOutcome.DONE
            return Extraction((), "sleeper")

    client.send_call("one", "I live in Lisbon.")
    assert make_worker(cloud, LateExtractor()).process_next_call(project) is ExtractionOutcome.SUPERSEDED
    assert texts(client.memories()) == ["Ana lives in Lisbon."]


def test_a_failing_call_is_retried_and_then_given_up(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class BrokenExtractor(RuleExtractor):
        tries = 0

        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            BrokenExtractor.tries += 1
            raise ValueError(turns[0].user_text)

    project = client.identity["project"]
    broken = make_worker(cloud, BrokenExtractor())
    client.send_call("bad", "I live in Lisbon.")
    assert broken.process_next_call(project) is ExtractionOutcome.FAILED
    assert broken.process_next_call(project) is None  # not before the retry delay
    monkeypatch.setattr(extraction_worker, "_BACKOFF", Backoff(0.0, 0.0))
    with Session(cloud.services.engine) as session, session.begin():
        session.execute(update(CallSession).where(CallSession.project_id == project).values(retry_at=None))
    while broken.process_next_call(project):
        pass
    assert BrokenExtractor.tries == extraction_worker.MAX_FAILURES
    assert project not in broken.find_due_projects()
    assert "Lisbon" not in caplog.text
    client.send(turn("new", "bad", 3, "I like tea."))  # new events reset the failures
    assert make_worker(cloud).process_next_call(project) is ExtractionOutcome.DONE
    assert sorted(texts(client.memories())) == ["Ana likes tea.", "Ana lives in Lisbon."]


def test_a_corrected_memory_keeps_its_history(cloud: RunningCloud, client: Client) -> None:
    client.send_call("one", "I live in Lisbon.")
    cloud.run_tasks()
    [memory] = client.memories()
    path = f"{MEMORIES}/{memory['memoryId']}"
    corrected = client.ok("PATCH", path, {"text": "Ana lives in Oslo.", "value": "Oslo", "holdsFrom": "2026-01-01"})

    assert corrected["correctedAt"] is not None
    assert client.memories() == [corrected]
    expected = {"text": "Ana lives in Oslo.", "value": "Oslo", "holdsFrom": "2026-01-01"}
    assert corrected == {**memory, **expected, "correctedAt": corrected["correctedAt"]}
    profile = client.ok("GET", PROFILE)
    assert (profile["summary"], profile["attributes"]) == ("Ana lives in Oslo.", {memory["attribute"]: "Oslo"})
    changes = client.ok("GET", f"{path}/history")["changes"]
    assert [(change["action"], change["by"], change["text"], change["value"]) for change in changes] == [
        ("learned", "rules", None, None),
        ("corrected", "api", "Ana lives in Lisbon.", "Lisbon"),
    ]
    assert client.ok("PATCH", path, {"text": "Ana lives in Bergen."})["value"] == "Ana lives in Bergen."


def test_a_correction_overrides_earlier_statements_but_not_later_ones(cloud: RunningCloud, client: Client) -> None:
    client.send_call("one", "I live in Lisbon.", day="2026-03-02")
    cloud.run_tasks()
    [memory] = client.memories()
    client.ok("PATCH", f"{MEMORIES}/{memory['memoryId']}", {"text": "Ana lives in Oslo.", "value": "Oslo"})
    client.send(turn("more", "one", 5, "I like tea."))  # so that the call is consolidated again
    client.send_call("two", "I live in Rome.", day="2026-03-01")  # said before the correction
    cloud.run_tasks()
    assert "Ana lives in Oslo." in texts(client.memories())
    assert "Ana lives in Lisbon." not in texts(client.memories(history="true"))

    client.send_call("three", "I live in Paris now.", day="2099-03-01")
    cloud.run_tasks()
    assert "Ana lives in Paris." in texts(client.memories())
    assert "Ana lives in Oslo." not in texts(client.memories())
    closed = next(
        memory_out for memory_out in client.memories(history="true") if memory_out["text"] == "Ana lives in Oslo."
    )
    path = f"{MEMORIES}/{closed['memoryId']}"
    assert client.error_of("PATCH", path, {"text": "x"}) == (409, "cloud.conflict")


def test_a_deleted_memory_leaves_no_words_and_is_not_learned_again(cloud: RunningCloud, client: Client) -> None:
    client.send_call("one", "I live in Lisbon.", "I like tea.")
    cloud.run_tasks()
    memory = next(item for item in client.memories() if "Lisbon" in item["text"])
    path = f"{MEMORIES}/{memory['memoryId']}"
    client.ok("PATCH", path, {"text": "Ana lives in Lisbon, Portugal.", "value": "Lisbon, Portugal"})
    assert client.ok("DELETE", path)["memoryId"] == memory["memoryId"]

    for again in range(2):
        assert texts(client.memories(history="true")) == ["Ana likes tea."]
        assert client.error_of("GET", path) == client.error_of("DELETE", path) == (404, "cloud.not_found")
        assert client.error_of("PATCH", path, {"text": "x"}) == (404, "cloud.not_found")
        assert client.ok("GET", PROFILE)["summary"] == "Ana likes tea."
        if not again:
            client.send(turn("more", "one", 7, "Good bye."))
            cloud.run_tasks()
    changes = client.ok("GET", f"{path}/history")["changes"]
    assert [(change["action"], change["text"]) for change in changes] == [
        ("learned", None),
        ("corrected", None),
        ("deleted", None),
    ]
    assert "Lisbon" not in str(dump_memories(cloud, client))


def test_deleting_a_memory_reopens_what_it_had_closed(cloud: RunningCloud, client: Client) -> None:
    client.send_call("one", "I live in Lisbon.", day="2026-03-02")
    client.send_call("two", "I live in Oslo now.", day="2026-03-09")
    cloud.run_tasks()
    client.ok("DELETE", f"{MEMORIES}/{client.memories()[0]['memoryId']}")
    [lisbon] = client.memories()
    assert lisbon["text"] == "Ana lives in Lisbon."
    changes = client.ok("GET", f"{MEMORIES}/{lisbon['memoryId']}/history")["changes"]
    assert [(change["action"], change["by"]) for change in changes][1:] == [("closed", "rules"), ("reopened", "api")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": ""},
        {"text": None},
        {"value": None},
        {"text": 5},
        {"text": "x" * 1_001},
        {"holdsFrom": "soon"},
        {"holdsFrom": 86_400},
        {"holdsFrom": "2026-03-02", "holdsUntil": "2026-03-01"},
        {"words": "x"},
        {"text": "x", "words": "x"},
    ],
)
def test_an_invalid_correction_is_rejected(cloud: RunningCloud, client: Client, body: Any) -> None:
    client.send_call("one", "I live in Lisbon.")
    cloud.run_tasks()
    [memory] = client.memories()
    assert client.error_of("PATCH", f"{MEMORIES}/{memory['memoryId']}", body) == (422, "cloud.invalid")
    assert client.memories() == [memory]


def test_a_correction_applies_to_all_repeats_of_a_fact(cloud: RunningCloud, client: Client) -> None:
    client.send_call("one", "My son is called Tom.", "I live in Berlin.", day="2026-03-01")
    client.send_call("two", "My son is called Tom.", "I live in Berlin.", day="2026-03-02")
    cloud.run_tasks()
    berlin, tom = sorted(client.memories(), key=lambda memory: memory["kind"])
    assert texts([berlin, tom]) == ["Ana lives in Berlin.", "Ana's son is called Tom."]
    tim = client.ok("PATCH", f"{MEMORIES}/{tom['memoryId']}", {"text": "Ana's son is called Tim.", "value": "Tim"})
    until = client.ok("PATCH", f"{MEMORIES}/{berlin['memoryId']}", {"holdsUntil": "2099-05-31"})
    # Also said before the correction, but arrives after it.
    client.send_call("three", "My son is called Tom.", day="2026-03-03")
    cloud.run_tasks()

    assert sorted(texts(client.memories(history="true"))) == ["Ana lives in Berlin.", "Ana's son is called Tim."]
    by_id = {memory["memoryId"]: memory for memory in client.memories()}
    assert by_id == {tim["memoryId"]: tim, until["memoryId"]: until}
    assert (until["holdsUntil"], client.ok("GET", PROFILE)["attributes"]["son"]) == ("2099-05-31", ["Tim"])
    again = client.ok("PATCH", f"{MEMORIES}/{tim['memoryId']}", {"text": "Ana's son is called Timo.", "value": "Timo"})
    assert again["memoryId"] in {memory["memoryId"] for memory in client.memories()}


def test_deleting_a_memory_deletes_its_repeats_including_late_ones(cloud: RunningCloud, client: Client) -> None:
    for number in range(2):
        client.send_call(f"call-{number}", "I am allergic to peanuts.", "I like tea.", day=f"2026-03-0{number + 1}")
    cloud.run_tasks()
    allergy = next(item for item in client.memories() if "peanuts" in item["text"])
    client.ok("DELETE", f"{MEMORIES}/{allergy['memoryId']}")
    assert texts(client.memories(history="true")) == ["Ana likes tea."]
    client.send_call("late", "I am allergic to peanuts.", day="2026-03-05")
    cloud.run_tasks()
    assert texts(client.memories(history="true")) == ["Ana likes tea."]

    client.send(  # a statement after the deletion is learned again
        session_start("s", "new", occurredAt=now()),
        turn("t", "new", said="I am allergic to peanuts.", occurredAt=now()),
        session_end("e", "new", occurredAt=now()),
    )
    cloud.run_tasks()
    assert sorted(texts(client.memories())) == ["Ana is allergic to peanuts.", "Ana likes tea."]


def test_a_deleted_fact_is_not_learned_again_in_another_wording_from_its_turn(
    cloud: RunningCloud, client: Client
) -> None:
    client.send(session_start("s"), turn("t", said="My name is Ana."), session_end("e"))
    cloud.run_tasks()
    [name] = client.memories()
    client.ok("DELETE", f"{MEMORIES}/{name['memoryId']}")
    client.send(session_start("again", seq=3, name="Ana Silva"))  # now the turn gives the name "Ana Silva"
    cloud.run_tasks()
    assert client.memories(history="true") == []


def test_deleted_words_are_removed_from_other_memories_and_their_history(cloud: RunningCloud, client: Client) -> None:
    client.send_call("one", "My mobile number is 555-010-4477.", "No wait, sorry, 555-019-8822.")
    client.send(
        session_start("s", "two"),
        turn("t", "two", said="I'm flying to Lisbon on Wednesday."),
        turn("u", "two", 3, "I like tea."),
        session_end("e", "two"),
    )
    client.send_call("three", "I'm flying to Lisbon on Friday.", day="2026-03-03")
    cloud.run_tasks()
    for words in ("4477", "Friday"):
        memory = next(item for item in client.memories(history="true") if words in item["text"])
        client.ok("DELETE", f"{MEMORIES}/{memory['memoryId']}")
        assert words not in str(dump_memories(cloud, client))


def dump_memories(cloud: RunningCloud, client: Client) -> list[Any]:
    """Return all rows of memories and their changes."""
    with Session(cloud.services.engine) as session:
        return [
            vars(row)
            for model in (Memory, MemoryChange)
            for row in session.scalars(select(model).where(model.project_id == client.identity["project"]))
        ]


def test_a_withdrawn_memory_leaves_no_words(cloud: RunningCloud, client: Client) -> None:
    client.send(session_start("s"), turn("a", seq=2, said="My number is 555-010-4477."), session_end("e"))
    cloud.run_tasks()
    [phone] = client.memories()
    # This closes the memory and records its words in the history.
    client.send_call("later", "My number is 555-010-9999.", day="2026-03-05")
    cloud.run_tasks()
    assert "4477" in str(client.ok("GET", f"{MEMORIES}/{phone['memoryId']}/history"))
    with Session(cloud.services.engine) as session, session.begin():
        # As if a changed rule found nothing in the turn.
        payload = {"turnId": "t", "userText": "Good morning.", "assistantText": ""}
        is_turn = CallEvent.project_id == client.identity["project"], CallEvent.id == "a"
        session.execute(update(CallEvent).where(*is_turn).values(payload=payload))
    client.send(turn("b", seq=3, said="Good bye."))
    cloud.run_tasks()
    assert "4477" not in str(dump_memories(cloud, client))
    assert client.error_of("GET", f"{MEMORIES}/{phone['memoryId']}") == (404, "cloud.not_found")


def test_a_users_name_reaches_devices_even_if_nothing_was_learned(client: Client) -> None:
    versions = []
    for number, name in enumerate(["Ana", "Ana", "Anastasia"]):
        client.send(
            session_start(f"s{number}", f"call-{number}", name=name, occurredAt=f"2026-03-0{number + 1}T09:00:00Z")
        )
        profile = client.ok("GET", PROFILE)
        versions.append(profile["version"])
        assert profile["name"] == name
    assert versions == [1, 1, 2]
    assert client.ok("GET", "/v1/voice-sdk/bootstrap")["profileVersion"] == 2


def test_an_event_that_arrives_during_consolidation_is_consolidated_next(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_turns = extraction_worker._load_turns

    def load_turns_late(*arguments: Any) -> Any:
        client.send(turn("late", "one", 7, "I like tea."))
        return load_turns(*arguments)

    client.send_call("one", "I live in Lisbon.")
    with monkeypatch.context() as patch:
        patch.setattr(extraction_worker, "_load_turns", load_turns_late)
        assert make_worker(cloud).process_next_call(client.identity["project"]) is ExtractionOutcome.DONE
    assert make_worker(cloud).process_next_call(client.identity["project"]) is ExtractionOutcome.DONE
    assert sorted(texts(client.memories())) == ["Ana likes tea.", "Ana lives in Lisbon."]


def test_a_call_that_exceeds_every_claim_is_given_up(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = client.identity["project"]
    monkeypatch.setattr(extraction_worker, "_CLAIM_DURATION", timedelta(0))
    client.send_call("one", "I live in Lisbon.")

    class EndlessExtractor(RuleExtractor):
        tries = 0

        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            EndlessExtractor.tries += 1
            make_worker(cloud, self).process_next_call(project)  # another worker runs at the same time
            return super().extract(turns)

    make_worker(cloud, EndlessExtractor()).process_next_call(project)
    assert EndlessExtractor.tries <= extraction_worker.MAX_FAILURES + 1
    assert project not in make_worker(cloud).find_due_projects()


@pytest.mark.parametrize("said", ["I love \x00 pizza.", "My name is A\x00na.", "I live in Lis\x00bon."])
def test_a_nul_character_does_not_prevent_consolidation(cloud: RunningCloud, client: Client, said: str) -> None:
    start = session_start("s", payload={"user": {"name": "An\x00a"}, "metadata": {"assistantName": "Ju\x00no"}})
    client.send(start, turn("t", said=said), turn("u", seq=3, said="I like tea."), session_end("e"))
    assert make_worker(cloud).process_next_call(client.identity["project"]) is ExtractionOutcome.DONE
    assert "An\ufffda likes tea." in texts(client.memories())


@pytest.mark.parametrize("user", ["a/b", "a/memories/x", "100%", "%2F", "ä 名", "a?b#c"])
def test_memories_are_separate_for_any_user_id(cloud: RunningCloud, client: Client, user: str) -> None:
    odd, plain = client.with_identity(user=user), client.with_identity(user="a")
    odd.send_call("one", "I live in Lisbon.")
    plain.send_call("one", "I like tea.")
    cloud.run_tasks()
    assert texts(odd.memories()) == ["Ana lives in Lisbon."]
    sessions = client.ok("GET", f"/v1/voice-sdk/users/{quote(user, safe='')}/sessions")["sessions"]
    assert [session["userId"] for session in sessions] == [user]
    assert client.ok("DELETE", f"/v1/voice-sdk/users/{quote(user, safe='')}")["userId"] == user
    assert texts(plain.memories()) == ["Ana likes tea."]


def test_a_corrected_turn_is_learned_from_as_corrected_also_after_the_call(cloud: RunningCloud, client: Client) -> None:
    client.send_call("one", "I live in Lisbon.", "My boots are the red ones.")
    cloud.run_tasks()
    assert "Lisbon" in str(client.memories())
    first = next(event for event in client.events("one") if "Lisbon" in str(event))
    later = turn("later", "one", seq=20, said="I live in Oslo.", occurredAt=first["occurredAt"])
    later["payload"] |= {"turnId": first["payload"]["turnId"], "corrects": first["eventId"]}
    client.send(later)
    cloud.run_tasks()
    assert "Oslo" in str(client.memories())
    assert "Lisbon" not in str(client.memories())


def test_a_name_that_was_given_in_a_call_is_the_name_of_the_profile(cloud: RunningCloud, client: Client) -> None:
    start = session_start("s")
    del start["payload"]["user"]["name"]
    client.send(start, turn("t", said="Hi, my name is Mara Lindqvist."), session_end("e"))
    cloud.run_tasks()
    assert client.ok("GET", PROFILE)["name"] == "Mara Lindqvist"


@pytest.mark.parametrize(
    ("said", "later"),
    [
        ("I'm married.", "I'm not married."),
        ("My cat is called Milo.", "Milo died last week."),
        ("I have a vet appointment on Friday.", "I have no appointment."),
        ("My girlfriend's name is Anna.", "I broke up with Anna."),
        ("I take statins.", "I binned the statins."),
        ("I live in Selby.", "We've upped sticks from Selby."),
        ("My number is 555-0142.", "That 0142 number's dead."),
    ],
)
def test_what_is_denied_or_over_is_closed_in_whatever_order_calls_arrive(
    cloud: RunningCloud, client: Client, said: str, later: str
) -> None:
    client.send_call("two", later, day="2026-03-03")
    cloud.run_tasks()
    client.send_call("one", said, day="2026-03-02")
    cloud.run_tasks()
    closed = [memory for memory in client.memories(history="true") if memory["closedBy"]]
    assert len(closed) == 1
    assert closed[0]["sessionId"] == "one"
    assert all(memory["sessionId"] == "two" for memory in client.memories())


def test_an_end_in_unknown_words_closes_nothing_that_is_said_again_later(cloud: RunningCloud, client: Client) -> None:
    client.send_call("a", "I take statins.", day="2026-03-02")
    client.send_call("b", "I binned the statins.", day="2026-03-03")
    cloud.run_tasks()
    assert client.memories() == []
    client.send_call("c", "I take statins.", day="2026-03-04")
    cloud.run_tasks()
    assert [memory["attribute"] for memory in client.memories()] == ["takes statins"]


@pytest.mark.parametrize(
    "later",
    [
        "I lost my statins prescription.",
        "My wife stopped taking statins.",
        "I haven't stopped taking statins.",
        "Have I stopped the statins?",
        "When I'm off statins I'll ring.",
        "He told me he binned the statins.",
    ],
)
def test_what_ends_something_else_or_nothing_closes_no_fact(cloud: RunningCloud, client: Client, later: str) -> None:
    client.send_call("a", "I take statins.", day="2026-03-02")
    client.send_call("b", later, day="2026-03-03")
    cloud.run_tasks()
    assert "takes statins" in {memory["attribute"] for memory in client.memories()}


def test_a_deleted_memory_leaves_no_words_of_what_ended_it(cloud: RunningCloud, client: Client) -> None:
    client.send_call("a", "I take statins.", day="2026-03-02")
    client.send_call("b", "I binned the statins.", day="2026-03-03")
    client.send_call("c", "I take statins.", day="2026-03-04")
    cloud.run_tasks()
    [memory] = client.memories()
    client.ok("DELETE", f"{MEMORIES}/{memory['memoryId']}")
    assert "statin" not in str(dump_memories(cloud, client))
