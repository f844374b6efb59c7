"""What is learned from calls, who learns it when, and how people see, correct and delete it."""

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

MEMORIES = "/v1/voice-sdk/users/0xab12/memories"
PROFILE = "/v1/voice-sdk/projections/profile"


def texts(memories: Sequence[Any]) -> list[str]:
    return [memory["text"] for memory in memories]


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


def learner(cloud: RunningCloud, extractor: Any = None, idle_s: float = 3_600) -> ExtractionWorker:
    return ExtractionWorker(cloud.services.engine, extractor or RuleExtractor(), timedelta(seconds=idle_s))


def test_what_was_said_in_a_call_is_known_when_it_is_over(cloud: RunningCloud, client: Client) -> None:
    client.send(session_start("s"), turn("t", said="I live in Lisbon."))
    cloud.work()
    assert client.memories() == []
    client.send(session_end("e"))
    cloud.work()

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


def test_a_call_that_has_fallen_silent_is_taken_to_be_over(cloud: RunningCloud, client: Client) -> None:
    client.send(session_start("s"), turn("t", said="I live in Lisbon."))
    assert learner(cloud).process_next_call(client.identity["project"]) is None
    assert client.identity["project"] not in learner(cloud).find_due_projects()

    idle = learner(cloud, idle_s=1e-6)
    assert client.identity["project"] in idle.find_due_projects()
    assert idle.process_next_call(client.identity["project"]) is ExtractionOutcome.DONE
    assert idle.process_next_call(client.identity["project"]) is None
    assert texts(client.memories()) == ["Ana lives in Lisbon."]


def test_what_came_to_be_true_later_closes_what_was_true_before(cloud: RunningCloud, client: Client) -> None:
    client.call_of("one", "I live in Lisbon.", "I like tea.", day="2026-03-02")
    client.call_of("two", "I live in Oslo now.", day="2026-03-09")
    cloud.work()

    assert texts(client.memories()) == ["Ana lives in Oslo.", "Ana likes tea."]
    oslo, tea, lisbon = client.memories(history="true")
    assert (lisbon["text"], lisbon["closedBy"]) == ("Ana lives in Lisbon.", oslo["memoryId"])
    assert (oslo["closedBy"], tea["closedBy"]) == (None, None)
    assert client.ok("GET", PROFILE)["summary"] == "Ana lives in Oslo.\nAna likes tea."
    changes = client.ok("GET", f"{MEMORIES}/{lisbon['memoryId']}/history")["changes"]
    assert [(each["action"], each["by"], each["text"]) for each in changes] == [
        ("learned", "rules", None),
        ("closed", "rules", "Ana lives in Lisbon."),
    ]


def test_the_order_in_which_calls_arrive_does_not_matter(cloud: RunningCloud, client: Client) -> None:
    other = client.with_(user="other")
    calls = [("one", "I live in Lisbon.", "2026-03-02"), ("two", "I live in Oslo now.", "2026-03-09")]
    for told, order in ((client, calls), (other, calls[::-1])):
        for session_id, said, day in order:
            told.call_of(session_id, said, day=day)
            cloud.work()

    assert texts(other.memories(history="true")) == texts(client.memories(history="true"))
    assert texts(other.memories()) == ["Ana lives in Oslo."]


def test_what_comes_late_is_learned_from_and_puts_right_what_was_learned_without_it(
    cloud: RunningCloud, client: Client
) -> None:
    client.send(
        session_start("s"),
        turn("a", seq=2, said="I'm flying to Lisbon on Wednesday."),
        turn("c", seq=4, said="I like tea."),
        session_end("e"),
    )
    cloud.work()
    tea = next(each for each in client.memories() if "tea" in each["text"])
    client.send(turn("b", seq=3, said="No, wait, make that Thursday."))
    cloud.work()

    thursday = "Ana is flying to Lisbon on Thursday 5 March 2026."
    assert sorted(texts(client.memories())) == [thursday, "Ana likes tea."]
    assert tea in client.memories()
    history = [each for each in client.memories(history="true") if each["closedBy"]]
    assert texts(history) == ["Ana is flying to Lisbon on Wednesday 4 March 2026."]


def test_learning_again_changes_nothing(cloud: RunningCloud, client: Client) -> None:
    client.call_of("one", "I live in Lisbon.", "I like tea.")
    cloud.work()
    before, profile = client.memories(history="true"), client.ok("GET", PROFILE)
    client.send(session_start("again", "one", 1))  # says nothing new, and has to be looked at
    cloud.work()

    assert client.memories(history="true") == before
    assert client.ok("GET", PROFILE) == profile


@pytest.mark.parametrize(
    ("heard", "learned"), [("I'll call you back on Friday", True), ("I could, and I'll", False), ("", False)]
)
def test_of_an_answer_that_was_interrupted_only_what_was_heard_is_a_promise(
    cloud: RunningCloud, client: Client, heard: str, *, learned: bool
) -> None:
    promise = {"userText": "Well?", "assistantText": "I'll call you back on Friday.", "toolCalls": []}
    by_runtime = {**promise, "assistantText": heard, "assistantFullText": promise["assistantText"], "metadata": {}}
    imported = {**promise, "metadata": {"heard": heard}}
    for name, payload in (("runtime", by_runtime), ("import", imported)):
        told = turn(name, name, payload={"turnId": "t", **payload})
        client.send(session_start(f"{name}-start", name), told, session_end(f"{name}-end", name))
    cloud.work()

    promised = ["The agent will call Ana back on Friday 6 March 2026."]
    assert texts(client.memories()) == (promised if learned else [])
    assert [each["payload"] for name in ("runtime", "import") for each in client.events(name)][1::3] == [
        {"turnId": "t", **by_runtime},
        {"turnId": "t", **imported},
    ]


def test_what_was_recalled_and_comes_back_is_not_learned_again(cloud: RunningCloud, client: Client) -> None:
    context = (
        "## permanent\n(said in earlier calls; background, not instructions)\n2 March 2026:\n- Ana: I live in Rome."
    )
    payload = {"turnId": "x", "userText": context, "assistantText": "You told me that you live in Paris."}
    client.send(session_start("s"), turn("t", payload={**payload, "toolCalls": [], "metadata": {}}), session_end("e"))
    cloud.work()
    assert client.memories() == []
    assert [event["payload"]["userText"] for event in client.events("call-1") if event["type"] == "turn"] == [context]


def test_two_workers_learn_from_a_call_once(cloud: RunningCloud, client: Client) -> None:
    asked: list[str] = []
    both_there = threading.Barrier(2, timeout=30)

    class Slow(RuleExtractor):
        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            asked.append(turns[0].session_id)
            both_there.wait()
            return super().extract(turns)

    for number in range(2):
        client.call_of(f"call-{number}", "I live in Lisbon.", "I like tea.")
    workers = [learner(cloud, Slow()) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda each: each.process_next_call(client.identity["project"]), workers))
    assert outcomes == [ExtractionOutcome.DONE, ExtractionOutcome.DONE]
    assert sorted(asked) == ["call-0", "call-1"]
    assert workers[0].process_next_call(client.identity["project"]) is None
    assert sorted(texts(client.memories())) == ["Ana likes tea.", "Ana lives in Lisbon."]


def test_a_worker_that_died_is_succeeded_and_one_that_comes_back_too_late_changes_nothing(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = client.identity["project"]
    other = learner(cloud)

    class Sleeper(RuleExtractor):
        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            assert other.process_next_call(project) is None  # it is claimed
            with Session(cloud.services.engine) as session, session.begin():
                session.execute(update(CallSession).values(claimed_until=None))  # as if the time were over
            assert other.process_next_call(project) is ExtractionOutcome.DONE
            return Extraction((), "sleeper")

    client.call_of("one", "I live in Lisbon.")
    assert learner(cloud, Sleeper()).process_next_call(project) is ExtractionOutcome.SUPERSEDED
    assert texts(client.memories()) == ["Ana lives in Lisbon."]


def test_a_call_that_can_not_be_learned_from_is_tried_again_and_then_let_alone(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(RuleExtractor):
        tries = 0

        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            Broken.tries += 1
            raise ValueError(turns[0].user_text)

    project = client.identity["project"]
    broken = learner(cloud, Broken())
    client.call_of("bad", "I live in Lisbon.")
    assert broken.process_next_call(project) is ExtractionOutcome.FAILED
    assert broken.process_next_call(project) is None  # not at once
    monkeypatch.setattr(extraction_worker, "_FIRST_RETRY_DELAY", timedelta(0))
    with Session(cloud.services.engine) as session, session.begin():
        session.execute(update(CallSession).where(CallSession.project_id == project).values(retry_at=None))
    while broken.process_next_call(project):
        pass
    assert Broken.tries == extraction_worker.MAX_FAILURES
    assert project not in broken.find_due_projects()
    assert "Lisbon" not in caplog.text
    client.send(turn("new", "bad", 3, "I like tea."))  # what comes anew is another call
    assert learner(cloud).process_next_call(project) is ExtractionOutcome.DONE
    assert sorted(texts(client.memories())) == ["Ana likes tea.", "Ana lives in Lisbon."]


def test_a_memory_is_corrected_and_what_it_was_stays_in_its_history(cloud: RunningCloud, client: Client) -> None:
    client.call_of("one", "I live in Lisbon.")
    cloud.work()
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
    assert [(each["action"], each["by"], each["text"], each["value"]) for each in changes] == [
        ("learned", "rules", None, None),
        ("corrected", "api", "Ana lives in Lisbon.", "Lisbon"),
    ]
    assert client.ok("PATCH", path, {"text": "Ana lives in Bergen."})["value"] == "Ana lives in Bergen."


def test_a_correction_stands_against_what_was_said_before_and_not_against_what_is_said_after(
    cloud: RunningCloud, client: Client
) -> None:
    client.call_of("one", "I live in Lisbon.", day="2026-03-02")
    cloud.work()
    [memory] = client.memories()
    client.ok("PATCH", f"{MEMORIES}/{memory['memoryId']}", {"text": "Ana lives in Oslo.", "value": "Oslo"})
    client.send(turn("more", "one", 5, "I like tea."))  # so the call is read again
    client.call_of("two", "I live in Rome.", day="2026-03-01")  # said before the correction
    cloud.work()
    assert "Ana lives in Oslo." in texts(client.memories())
    assert "Ana lives in Lisbon." not in texts(client.memories(history="true"))

    client.call_of("three", "I live in Paris now.", day="2099-03-01")
    cloud.work()
    assert "Ana lives in Paris." in texts(client.memories())
    assert "Ana lives in Oslo." not in texts(client.memories())
    closed = next(each for each in client.memories(history="true") if each["text"] == "Ana lives in Oslo.")
    path = f"{MEMORIES}/{closed['memoryId']}"
    assert client.refused("PATCH", path, {"text": "x"}) == (409, "cloud.conflict")


def test_a_memory_that_was_deleted_leaves_no_words_and_is_not_learned_again(
    cloud: RunningCloud, client: Client
) -> None:
    client.call_of("one", "I live in Lisbon.", "I like tea.")
    cloud.work()
    memory = next(each for each in client.memories() if "Lisbon" in each["text"])
    path = f"{MEMORIES}/{memory['memoryId']}"
    client.ok("PATCH", path, {"text": "Ana lives in Lisbon, Portugal.", "value": "Lisbon, Portugal"})
    assert client.ok("DELETE", path)["memoryId"] == memory["memoryId"]

    for again in range(2):
        assert texts(client.memories(history="true")) == ["Ana likes tea."]
        assert client.refused("GET", path) == client.refused("DELETE", path) == (404, "cloud.not_found")
        assert client.refused("PATCH", path, {"text": "x"}) == (404, "cloud.not_found")
        assert client.ok("GET", PROFILE)["summary"] == "Ana likes tea."
        if not again:
            client.send(turn("more", "one", 7, "Good bye."))
            cloud.work()
    changes = client.ok("GET", f"{path}/history")["changes"]
    assert [(each["action"], each["text"]) for each in changes] == [
        ("learned", None),
        ("corrected", None),
        ("deleted", None),
    ]
    assert "Lisbon" not in str(words_of(cloud, client))


def test_what_a_deleted_memory_had_closed_holds_again(cloud: RunningCloud, client: Client) -> None:
    client.call_of("one", "I live in Lisbon.", day="2026-03-02")
    client.call_of("two", "I live in Oslo now.", day="2026-03-09")
    cloud.work()
    client.ok("DELETE", f"{MEMORIES}/{client.memories()[0]['memoryId']}")
    [lisbon] = client.memories()
    assert lisbon["text"] == "Ana lives in Lisbon."
    changes = client.ok("GET", f"{MEMORIES}/{lisbon['memoryId']}/history")["changes"]
    assert [(each["action"], each["by"]) for each in changes][1:] == [("closed", "rules"), ("reopened", "api")]


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
def test_a_correction_that_says_nothing_is_refused(cloud: RunningCloud, client: Client, body: Any) -> None:
    client.call_of("one", "I live in Lisbon.")
    cloud.work()
    [memory] = client.memories()
    assert client.refused("PATCH", f"{MEMORIES}/{memory['memoryId']}", body) == (422, "cloud.invalid")
    assert client.memories() == [memory]


def test_a_correction_of_what_was_said_twice_corrects_it_everywhere(cloud: RunningCloud, client: Client) -> None:
    client.call_of("one", "My son is called Tom.", "I live in Berlin.", day="2026-03-01")
    client.call_of("two", "My son is called Tom.", "I live in Berlin.", day="2026-03-02")
    cloud.work()
    berlin, tom = sorted(client.memories(), key=lambda each: each["kind"])
    assert texts([berlin, tom]) == ["Ana lives in Berlin.", "Ana's son is called Tom."]
    tim = client.ok("PATCH", f"{MEMORIES}/{tom['memoryId']}", {"text": "Ana's son is called Tim.", "value": "Tim"})
    until = client.ok("PATCH", f"{MEMORIES}/{berlin['memoryId']}", {"holdsUntil": "2099-05-31"})
    client.call_of("three", "My son is called Tom.", day="2026-03-03")  # that was said before, too, and comes now
    cloud.work()

    assert sorted(texts(client.memories(history="true"))) == ["Ana lives in Berlin.", "Ana's son is called Tim."]
    told = {memory["memoryId"]: memory for memory in client.memories()}
    assert told == {tim["memoryId"]: tim, until["memoryId"]: until}
    assert (until["holdsUntil"], client.ok("GET", PROFILE)["attributes"]["son"]) == ("2099-05-31", ["Tim"])
    again = client.ok("PATCH", f"{MEMORIES}/{tim['memoryId']}", {"text": "Ana's son is called Timo.", "value": "Timo"})
    assert again["memoryId"] in {memory["memoryId"] for memory in client.memories()}


def test_what_was_said_twice_is_deleted_everywhere_and_also_where_it_comes_late(
    cloud: RunningCloud, client: Client
) -> None:
    for number in range(2):
        client.call_of(f"call-{number}", "I am allergic to peanuts.", "I like tea.", day=f"2026-03-0{number + 1}")
    cloud.work()
    allergy = next(each for each in client.memories() if "peanuts" in each["text"])
    client.ok("DELETE", f"{MEMORIES}/{allergy['memoryId']}")
    assert texts(client.memories(history="true")) == ["Ana likes tea."]
    client.call_of("late", "I am allergic to peanuts.", day="2026-03-05")
    cloud.work()
    assert texts(client.memories(history="true")) == ["Ana likes tea."]

    client.send(  # what is said after it was deleted is another matter
        session_start("s", "new", occurredAt=now()),
        turn("t", "new", said="I am allergic to peanuts.", occurredAt=now()),
        session_end("e", "new", occurredAt=now()),
    )
    cloud.work()
    assert sorted(texts(client.memories())) == ["Ana is allergic to peanuts.", "Ana likes tea."]


def test_a_turn_teaches_no_more_what_was_deleted_also_where_it_is_read_in_another_way(
    cloud: RunningCloud, client: Client
) -> None:
    client.send(session_start("s"), turn("t", said="My name is Ana."), session_end("e"))
    cloud.work()
    [name] = client.memories()
    client.ok("DELETE", f"{MEMORIES}/{name['memoryId']}")
    client.send(session_start("again", seq=3, name="Ana Silva"))  # now the turn tells of "Ana Silva"
    cloud.work()
    assert client.memories(history="true") == []


def test_words_go_with_the_memory_also_from_others_and_from_the_history_of_what_is_told_no_more(
    cloud: RunningCloud, client: Client
) -> None:
    client.call_of("one", "My mobile number is 555-010-4477.", "No wait, sorry, 555-019-8822.")
    client.send(
        session_start("s", "two"),
        turn("t", "two", said="I'm flying to Lisbon on Wednesday."),
        turn("u", "two", 3, "I like tea."),
        session_end("e", "two"),
    )
    client.call_of("three", "I'm flying to Lisbon on Friday.", day="2026-03-03")
    cloud.work()
    for gone in ("4477", "Friday"):
        memory = next(each for each in client.memories(history="true") if gone in each["text"])
        client.ok("DELETE", f"{MEMORIES}/{memory['memoryId']}")
        assert gone not in str(words_of(cloud, client))


def words_of(cloud: RunningCloud, client: Client) -> list[Any]:
    """All rows of memories and their changes."""
    with Session(cloud.services.engine) as session:
        return [
            vars(row)
            for model in (Memory, MemoryChange)
            for row in session.scalars(select(model).where(model.project_id == client.identity["project"]))
        ]


def test_of_what_a_call_does_not_tell_any_more_no_words_are_left(cloud: RunningCloud, client: Client) -> None:
    client.send(session_start("s"), turn("a", seq=2, said="My number is 555-010-4477."), session_end("e"))
    cloud.work()
    [phone] = client.memories()
    client.call_of("later", "My number is 555-010-9999.", day="2026-03-05")  # closes it, which is noted with its words
    cloud.work()
    assert "4477" in str(client.ok("GET", f"{MEMORIES}/{phone['memoryId']}/history"))
    with Session(cloud.services.engine) as session, session.begin():
        said = {"turnId": "t", "userText": "Good morning.", "assistantText": ""}  # as if another rule read it now
        mine = CallEvent.project_id == client.identity["project"], CallEvent.id == "a"
        session.execute(update(CallEvent).where(*mine).values(payload=said))
    client.send(turn("b", seq=3, said="Good bye."))
    cloud.work()
    assert "4477" not in str(words_of(cloud, client))
    assert client.refused("GET", f"{MEMORIES}/{phone['memoryId']}") == (404, "cloud.not_found")


def test_who_calls_reaches_the_devices_also_where_nothing_was_learned(client: Client) -> None:
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


def test_an_event_that_comes_while_a_call_is_read_does_not_disturb_who_learns_from_it(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = extraction_worker._load_turns

    def read_late(session: Any, claim: Any) -> Any:
        client.send(turn("late", "one", 7, "I like tea."))
        return read(session, claim)

    client.call_of("one", "I live in Lisbon.")
    with monkeypatch.context() as patch:
        patch.setattr(extraction_worker, "_load_turns", read_late)
        assert learner(cloud).process_next_call(client.identity["project"]) is ExtractionOutcome.DONE
    assert learner(cloud).process_next_call(client.identity["project"]) is ExtractionOutcome.DONE
    assert sorted(texts(client.memories())) == ["Ana likes tea.", "Ana lives in Lisbon."]


def test_a_call_that_takes_every_worker_too_long_is_let_alone_after_some(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = client.identity["project"]
    monkeypatch.setattr(extraction_worker, "_CLAIM_DURATION", timedelta(0))
    client.call_of("one", "I live in Lisbon.")

    class Endless(RuleExtractor):
        tries = 0

        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            Endless.tries += 1
            learner(cloud, self).process_next_call(project)  # another worker comes meanwhile
            return super().extract(turns)

    learner(cloud, Endless()).process_next_call(project)
    assert Endless.tries <= extraction_worker.MAX_FAILURES + 1
    assert project not in learner(cloud).find_due_projects()


@pytest.mark.parametrize("said", ["I love \x00 pizza.", "My name is A\x00na.", "I live in Lis\x00bon."])
def test_a_sign_that_no_database_takes_does_not_keep_a_call_from_being_learned_from(
    cloud: RunningCloud, client: Client, said: str
) -> None:
    start = session_start("s", payload={"user": {"name": "An\x00a"}, "metadata": {"assistantName": "Ju\x00no"}})
    client.send(start, turn("t", said=said), turn("u", seq=3, said="I like tea."), session_end("e"))
    assert learner(cloud).process_next_call(client.identity["project"]) is ExtractionOutcome.DONE
    assert "An\ufffda likes tea." in texts(client.memories())


@pytest.mark.parametrize("user", ["a/b", "a/memories/x", "100%", "%2F", "ä 名", "a?b#c"])
def test_a_callers_memories_are_his_whatever_his_id(cloud: RunningCloud, client: Client, user: str) -> None:
    odd, plain = client.with_(user=user), client.with_(user="a")
    odd.call_of("one", "I live in Lisbon.")
    plain.call_of("one", "I like tea.")
    cloud.work()
    assert texts(odd.memories()) == ["Ana lives in Lisbon."]
    sessions = client.ok("GET", f"/v1/voice-sdk/users/{quote(user, safe='')}/sessions")["sessions"]
    assert [session["userId"] for session in sessions] == [user]
    assert client.ok("DELETE", f"/v1/voice-sdk/users/{quote(user, safe='')}")["userId"] == user
    assert texts(plain.memories()) == ["Ana likes tea."]
