"""Several people on one number: whose the facts are, and a greeting without a name."""

from pathlib import Path
from typing import Any

import pytest
from support.clouds import Client, RunningCloud, session_end, session_start, turn
from support.consolidation import SAID_AT, make_turns
from support.corpus import learn_from, read_talk
from support.waiting import eventually

from memoair_cloud.consolidation import Fact, RuleExtractor, merge_facts, summarize_facts
from memoair_cloud.consolidation.people import is_same_person
from memoair_voice_sync import MemoAirVoiceClientSync

PROFILE = "/v1/voice-sdk/projections/profile"
DANA, ANNA = "My name is Dana Whitlock.", "This is Anna Cole."


class Calls:
    """Calls from one number, each consolidated when it is over."""

    def __init__(self, cloud: RunningCloud, client: Client) -> None:
        self.client = client
        self._cloud, self._count = cloud, 0

    def make(self, *said: str, name: str = "", speakers: tuple[str, ...] = (), key: str = "speaker") -> None:
        """Make a call, a day after the one before."""
        self._count += 1
        session, at = f"call-{self._count}", f"2026-03-{self._count:02}T09:30:00Z"
        events = [session_start(f"{session}-start", session, name=name, occurredAt=at)]
        for number, text in enumerate(said):
            event = turn(f"{session}-{number}", session, number + 2, said=text, occurredAt=at)
            if speakers:
                event["payload"]["metadata"] = {key: speakers[number]}
            events.append(event)
        self.client.send(*events, session_end(f"{session}-end", session, 99, occurredAt=at))
        self._cloud.run_tasks()

    def texts(self) -> set[str]:
        """Return what is current."""
        return {memory["text"] for memory in self.client.memories()}

    def profile(self) -> Any:
        """Return the profile as machines pull it."""
        return self.client.ok("GET", PROFILE)


@pytest.fixture
def calls(cloud: RunningCloud, client: Client) -> Calls:
    return Calls(cloud, client)


def memory_path(client: Client, text: str) -> str:
    """Return the path of the memory with a text."""
    [memory] = [memory for memory in client.memories() if memory["text"] == text]
    return f"/v1/voice-sdk/users/{client.identity['user']}/memories/{memory['memoryId']}"


def test_a_second_name_leaves_the_first_and_the_profile_names_both(calls: Calls) -> None:
    calls.make(DANA, "I live in Leeds.")
    assert calls.profile()["name"] == "Dana Whitlock"
    calls.make(ANNA, "I'm allergic to nuts.", "I live in York.")

    profile = calls.profile()
    assert profile["name"] is None
    assert "name" not in profile["attributes"]
    assert profile["attributes"]["callers"] == ["Dana Whitlock", "Anna Cole"]
    assert profile["attributes"]["home"] == "Leeds"
    assert profile["attributes"]["Anna Cole home"] == "York"
    assert "Several people use this number, among them Dana Whitlock and Anna Cole." in profile["summary"]
    assert {
        "Dana Whitlock lives in Leeds.",
        "Anna Cole lives in York.",
        "Anna Cole is allergic to nuts.",
    } < calls.texts()


def test_the_order_in_which_the_calls_arrive_does_not_matter(cloud: RunningCloud) -> None:
    first, second = (cloud.tenant() for _ in range(2))
    said = {"a": (1, DANA, "I live in Leeds."), "b": (2, ANNA, "I live in York."), "c": (3, "I live in Hull.", "Bye.")}
    for client, order in ((first, "abc"), (second, "cba")):
        for session in order:
            day, *texts = said[session]
            at = f"2026-03-{day:02}T09:30:00Z"
            turns = [turn(f"{session}{n}", session, n + 2, said=text, occurredAt=at) for n, text in enumerate(texts)]
            start = session_start(f"{session}-s", session, name="", occurredAt=at)
            client.send(start, *turns, session_end(f"{session}-e", session, 99, occurredAt=at))
            cloud.run_tasks()
    shown = ("text", "subject", "attribute", "value", "closedBy")
    one, other = (sorted(tuple(memory[name] for name in shown) for memory in c.memories()) for c in (first, second))
    assert one == other
    assert first.ok("GET", PROFILE)["attributes"] == second.ok("GET", PROFILE)["attributes"]


def test_the_greeting_of_the_documentation_has_no_name_where_two_people_call(
    cloud: RunningCloud, calls: Calls, tmp_path: Path
) -> None:
    client = calls.client
    calls.make(DANA, name="Dana Whitlock")
    with MemoAirVoiceClientSync(
        api_key=str(client.key),
        project_id=client.identity["project"],
        agent_id=client.identity["agent"],
        cloud_base_url=cloud.url,
        storage_root=str(tmp_path),
    ) as sdk_client:
        user = {"id": client.identity["user"]}

        def greet() -> str:
            sdk_client.load_index(user=user)
            profile = sdk_client.search_memory("", user=user, lanes=["profile"]).profile
            name = profile["name"] if profile else ""
            return f"Hello {name}, this is Juno." if name else "Hello, this is Juno."

        eventually(lambda: greet() == "Hello Dana Whitlock, this is Juno.")

    calls.make(ANNA)
    with MemoAirVoiceClientSync(
        api_key=str(client.key),
        project_id=client.identity["project"],
        agent_id=client.identity["agent"],
        cloud_base_url=cloud.url,
        storage_root=str(tmp_path),
    ) as sdk_client:
        eventually(lambda: greet() == "Hello, this is Juno.")
        context = sdk_client.search_memory("who is calling", user=user).contextText
        assert "Several people use this number" in context
        assert "Name: Dana" not in context


def test_facts_of_an_unknown_speaker_are_of_no_named_person_once_several_people_call(calls: Calls) -> None:
    calls.make("I take insulin.")
    calls.make(DANA, "I'm vegan.")
    calls.make(ANNA, "I'm vegan.")
    calls.make("I'm allergic to eggs.", "I'm not vegan any more.")
    attributes = calls.profile()["attributes"]
    assert attributes["takes insulin"] == "yes", "said when only one person was known"
    assert attributes["unnamed caller allergy to eggs"] == "yes"
    assert "allergy to eggs" not in attributes
    assert "is vegan" not in attributes, "whoever said it: a wrong fact is worse than none"
    assert "Anna Cole is vegan" not in attributes


def test_a_wrong_split_is_undone_by_deleting_or_correcting_the_name(calls: Calls) -> None:
    calls.make(DANA, "I live in Leeds.")
    calls.make("This is Donna Witlock.", "I take insulin.")
    assert calls.profile()["name"] is None
    path = memory_path(calls.client, "The caller's name is Donna Witlock.")
    calls.client.ok("PATCH", path, {"text": "The caller's name is Dana Whitlock.", "value": "Dana Whitlock"})
    profile = calls.profile()
    assert profile["name"] == "Dana Whitlock"
    assert profile["attributes"]["takes insulin"] == "yes"

    calls.make("This is Petra Braun.", "I'm vegan.")
    assert calls.profile()["name"] is None
    calls.client.ok("DELETE", memory_path(calls.client, "The caller's name is Petra Braun."))
    profile = calls.profile()
    assert (profile["name"], profile["attributes"]["is vegan"]) == ("Dana Whitlock", "yes")
    assert "Petra" not in str(calls.client.memories())


def test_the_name_in_the_transcript_says_who_spoke(calls: Calls) -> None:
    calls.make("I live in Leeds.", "I'm vegan.", speakers=("Dana Whitlock", "Anna Cole"))
    attributes = calls.profile()["attributes"]
    assert (attributes["home"], attributes["Anna Cole is vegan"]) == ("Leeds", "yes")
    assert attributes["callers"] == ["Dana Whitlock", "Anna Cole"]


def test_a_label_without_a_name_tells_speakers_apart(calls: Calls) -> None:
    calls.make(
        DANA, "I live in Leeds.", "I'm vegan.", "I take insulin.", speakers=("S1", "S1", "S2", "S1"), key="speakerId"
    )
    assert calls.profile()["name"] == "Dana Whitlock"
    assert "vegan" not in str(calls.client.memories())
    assert calls.profile()["attributes"]["takes insulin"] == "yes"


def test_a_project_that_learns_no_names_keeps_no_speakers(cloud: RunningCloud, calls: Calls) -> None:
    calls.client.ok("PATCH", f"/v1/projects/{calls.client.identity['project']}", {"excludedKinds": ["identity"]})
    calls.make(DANA, "I'm vegan.")
    calls.make(ANNA, "I take insulin.")
    assert calls.texts() == {"The caller is vegan.", "The caller takes insulin."}
    assert "callers" not in calls.profile()["attributes"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Dana", "Dana Whitlock"),
        ("Dana White", "Dana Whitlock"),
        ("Dan Cole", "Daniel Cole"),
        ("Sara Khan", "Sarah Khan"),
        ("Katherine Bell", "Catherine Bell"),
        ("Seán", "sean"),
        ("Whitlock", "Dana Whitlock"),
    ],
)
def test_names_of_one_person(one: str, other: str) -> None:
    assert is_same_person(one, other)
    assert is_same_person(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Dana", "Anna"), ("Dana Whitlock", "Anna Whitlock"), ("Dan Cole", "Dana Cole"), ("Carl", "Carla"), ("", "Dana")],
)
def test_names_of_two_people(one: str, other: str) -> None:
    assert not is_same_person(one, other)
    assert not is_same_person(other, one)


@pytest.mark.parametrize(
    "line",
    [
        "My name is Dana White. || Sorry, it's Dana Whitlock, not White. => name = Dana Whitlock",
        "My name is Dana White. ## I'm called Tess now. => name = Tess",
        "My name is Dana White. ## I've changed my name. I'm called Rowan White. => name = Rowan White",
        "This is Dan. ## This is Dan Cole. ## This is Daniel. => name = Dan Cole",
        "My name is Dana White. ## I'm Anna Cole. => name = Dana White; name = Anna Cole",
        "My name is Dana White. || My name is Anna Cole. => name = Dana White; other caller = Anna Cole",
        "This is Dana. || I'll put my wife on. || I take insulin. || It's me again. I'm vegan. =>"
        " name = Dana; is vegan = yes",
        "This is Dana. || I'll put my wife on. || I take insulin. || A: And your name? || Anna Cole. =>"
        " name = Dana; other caller = Anna Cole; Anna Cole/takes insulin = yes",
    ],
)
def test_corrections_forms_and_other_people(line: str) -> None:
    talk = read_talk("people", line)
    learned = [(fact.subject, fact.attribute, fact.value) for fact in learn_from(talk)]
    labels = [(label.rpartition("/"), value) for label, value in talk.expected]
    expected = [(subject or "caller", attribute, value) for (subject, _, attribute), value in labels]
    assert sorted(learned) == sorted(expected)


def test_the_name_of_an_application_counts_as_that_of_a_person() -> None:
    facts = list[Fact](RuleExtractor().extract(make_turns(ANNA, "I'm allergic to eggs.", caller="Dana Whitlock")).facts)
    merged = merge_facts(facts, "Dana Whitlock")
    assert [fact.text for fact in merged if fact.kind.value == "preference"] == ["Anna Cole is allergic to eggs."]
    attributes = summarize_facts(merged, SAID_AT.date(), "Dana Whitlock").attributes
    assert attributes == {"callers": ["Dana Whitlock", "Anna Cole"], "Anna Cole allergy to eggs": "yes"}
    assert merge_facts(merged, "Dana Whitlock") == merged, "merging again changes nothing"
