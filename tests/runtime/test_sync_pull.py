"""Pull: what was said and learned elsewhere is recalled here, who was forgotten is gone, and nothing waits for it."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.calls import user_folder, write_call
from support.devices import device
from support.runtimes import PROJECT, RunningRuntime
from support.scripted_cloud import (
    Behaviour,
    ScriptedCloud,
    answers,
    answers_half,
    changes_answer,
    cuts_off,
    elsewhere,
    hangs,
    scripted_cloud,
)
from support.waiting import eventually

from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.user_folder import UserFolder

SECRET = "zanzibarplum"
pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def on_disk(folder: Path, words: str) -> list[str]:
    """The files below a folder that hold some words."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # it was deleted this moment
                if words.encode() in Path(place, name).read_bytes():
                    found.append(name)
    return found


def asked(cloud: ScriptedCloud, scope: str) -> list[str]:
    """Since which versions a scope was asked for."""
    return [each.path.partition("?")[2] for each in cloud.asked(f"projections/{scope}")]


# What was said elsewhere


def test_what_was_said_on_another_machine_is_recalled_and_again_after_a_restart_without_a_cloud(
    cloud: ScriptedCloud, root: Path
) -> None:
    cloud.tell(elsewhere("e-1", "My dog is called Biscuit.", answer="A fine name."))
    with device(cloud, root) as runtime:
        [hit] = runtime.search("what is my dog called?")["permanent"]
        assert hit["text"] == "Caller: My dog is called Biscuit.\nAgent: A fine name."
        assert hit["source"]["sessionId"] == "elsewhere"
    with device(None, root) as runtime:
        runtime.start()
        assert "Biscuit" in runtime.found("what is my dog called?")[0]


def test_our_own_words_come_back_and_count_once(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as runtime:
        runtime.start("call-1", name="Dana")
        runtime.save("t1", f"The word is {SECRET}.", session_id="call-1")
        assert runtime.flush()["pending"] == 0
        assert runtime.pull()["versions"]["permanent"] == 2
        assert len(runtime.found(SECRET)) == 1
        assert len(on_disk(root, SECRET)) == 2, "the log, and the brief of the call"
    with device(cloud, root) as runtime:
        assert len(runtime.found(SECRET)) == 1


def test_only_what_has_changed_is_asked_for(cloud: ScriptedCloud, root: Path) -> None:
    cloud.tell(elsewhere("e-1", "One."))
    cloud.describe(summary="Likes boots.")
    cloud.put(("hours", "We open at nine."))
    with device(cloud, root) as runtime:
        runtime.pull()
        cloud.tell(elsewhere("e-2", "Two."))
        runtime.pull()
    with device(cloud, root) as runtime:
        cloud.tell(elsewhere("e-3", "Three."))
        runtime.pull()
        assert {"Caller: One.", "Caller: Three."} <= set(runtime.found("one three"))
    assert asked(cloud, "permanent") == ["", "since=1", "since=2"]
    assert asked(cloud, "profile") == [""]
    assert asked(cloud, "org") == [""]
    tags = [each.headers.get("if-none-match") for each in cloud.asked("bootstrap")]
    assert [bool(tag) for tag in tags] == [False, True, True, True, True]


def test_a_device_that_was_away_catches_up_page_by_page(cloud: ScriptedCloud, root: Path) -> None:
    cloud.page = 7
    for number in range(30):
        cloud.tell(elsewhere(f"e-{number}", f"Parcel {number}."))
        cloud.learn(f"f-{number}", f"Has sent parcel {number}.")
    with device(cloud, root) as runtime:
        assert len(runtime.search("parcel", topK={"permanent": 100})["permanent"]) == 60
    assert len(asked(cloud, "permanent")) == 9


def test_what_a_pull_has_brought_need_not_be_read_again_by_the_next_start(cloud: ScriptedCloud, root: Path) -> None:
    for number in range(500):
        cloud.tell(elsewhere(f"e-{number}", f"Parcel {number}."))
    with device(cloud, root, is_calm=False) as runtime:
        runtime.start("now")  # somebody is calling
        runtime.waits_for_first_pull()
    assert user_folder(root).indexes()


# Facts and profile


def test_a_fact_is_a_hit_and_a_line_without_a_speaker_under_its_day(cloud: ScriptedCloud, root: Path) -> None:
    cloud.learn(
        "fact_1", "Is allergic to strapping tape.", kind="identity", attribute="allergy", value="strapping tape"
    )
    with device(cloud, root) as runtime:
        runtime.start(name="Dana")
        found = runtime.search("Which tape am I allergic to?")
        [hit] = found["permanent"]
        assert (hit["id"], hit["text"], hit["lane"]) == ("fact_1", "Is allergic to strapping tape.", "permanent")
        assert hit["metadata"]["kind"] == "identity"
        assert hit["metadata"]["attribute"] == "allergy"
        assert hit["source"] == {
            "lane": "permanent",
            "id": "fact_1",
            "kind": "fact",
            "sessionId": "elsewhere",
            "createdAt": "2026-03-02T09:30:00Z",
        }
        assert "2 March 2026:\n- Is allergic to strapping tape." in found["contextText"]
        assert found["profile"]["facts"] == ["Is allergic to strapping tape."]
        assert runtime.search("tape", filter={"kind": "plan"})["permanent"] == []


def test_a_fact_that_was_taken_back_or_replaced_is_gone_and_stays_so(cloud: ScriptedCloud, root: Path) -> None:
    cloud.learn("fact_1", "Lives in Kyoto.")
    cloud.learn("fact_2", "Likes persimmons.")
    with device(cloud, root) as runtime:
        assert runtime.found("Kyoto")
        cloud.unlearn("fact_1")
        cloud.learn("fact_2", "Likes quinces.")
        runtime.pull()
        assert "Lives in Kyoto." not in runtime.found("Kyoto")
        assert runtime.found("persimmons quinces") == ["Likes quinces."]
    with device(None, root) as runtime:
        assert runtime.found("Kyoto persimmons quinces") == ["Likes quinces."]
    assert on_disk(root, "Kyoto") == on_disk(root, "persimmons") == []


def test_the_profile_is_what_was_told_here_and_what_the_cloud_found(cloud: ScriptedCloud, root: Path) -> None:
    cloud.describe(
        summary="Likes red boots.\n\nHas a dog.", attributes={"pet": "dog"}, name="D.", metadata={"plan": "x"}
    )
    with device(cloud, root) as runtime:
        before = runtime.search("who?")["profile"]
        assert (before["name"], before["metadata"]) == ("D.", {"plan": "x"})
        runtime.start(name="Dana")
        found = runtime.search("who?")
        assert found["profile"] == {
            "version": before["version"] + 1,
            "summary": "Name: Dana; plan: x; Likes red boots.; Has a dog.",
            "name": "Dana",
            "metadata": {"plan": "x"},
            "attributes": {"pet": "dog"},
            "facts": [],
        }
        assert "- Likes red boots.\n- Has a dog." in found["contextText"]
        assert runtime.start()["bootstrap"]["profileVersion"] == before["version"] + 1
    with device(None, root) as runtime:
        assert runtime.search("who?")["profile"]["attributes"] == {"pet": "dog"}


def test_a_session_start_tells_every_version(cloud: ScriptedCloud, root: Path) -> None:
    cloud.tell(elsewhere("e-1", "One."))
    cloud.tell(elsewhere("e-2", "Two."))
    cloud.describe(summary="Likes boots.")
    cloud.put(("hours", "We open at nine."))
    with device(cloud, root) as runtime:
        told = runtime.start()["bootstrap"]
        assert (told["profileVersion"], told["permanentManifestVersion"], told["orgManifestVersion"]) == (1, 2, 1)
        assert told["syncToken"]
        assert runtime.pull("profile")["versions"] == {"profile": 1, "permanent": 2, "org": 1}


# The index file


def test_an_index_file_holds_what_the_cloud_told_and_leaves_no_trace_of_what_was_taken_back(
    cloud: ScriptedCloud, root: Path
) -> None:
    write_call(root, "old", [(f"Parcel {number}, please.", "It is noted.") for number in range(230)])
    cloud.tell(elsewhere("e-1", "A persimmon, please."))
    cloud.learn("fact_1", f"Knows the {SECRET}.")
    cloud.learn("fact_2", "Likes quinces.")
    with device(cloud, root) as runtime:
        runtime.start()  # after the pull, which came after the first reading
        eventually(lambda: len(user_folder(root).indexes()) == 1 and runtime.flush()["pending"] == 0)
        runtime.end()
    [first] = user_folder(root).indexes()
    with device(cloud, root) as runtime:
        for _ in range(2):
            assert runtime.found("persimmon")
            assert runtime.found(SECRET)
            runtime.pull()
        assert user_folder(root).indexes() == [first], "it is gone on with"
        cloud.unlearn("fact_1")
        runtime.pull()
        assert SECRET not in str(runtime.found(SECRET))
        eventually(lambda: on_disk(root, SECRET) == [])
    with device(None, root) as runtime:
        assert runtime.found("persimmon")
        assert runtime.found("quinces") == ["Likes quinces."]
        assert SECRET not in str(runtime.found(SECRET))


def test_an_index_file_is_made_anew_where_the_clouds_copy_is_another(cloud: ScriptedCloud, root: Path) -> None:
    write_call(root, "old", [(f"Parcel {number}, please.", "It is noted.") for number in range(230)])
    cloud.tell(elsewhere("e-1", f"The word is {SECRET}."))
    for _ in range(2):
        with device(cloud, root) as runtime:
            runtime.start()
            eventually(lambda: len(user_folder(root).indexes()) == 1)
    user_folder(root).cloud_copy.unlink()
    with device(None, root) as runtime:
        assert SECRET not in str(runtime.found(SECRET))
        assert runtime.found("Parcel 7")


# What the cloud does


@pytest.mark.parametrize(
    "behaviour",
    [
        cuts_off,
        answers_half,
        answers(500),
        answers(200, b"["),
        answers(200, {"version": 1}),
        changes_answer(lambda body: body.update(contentHash="0" * 64)),
        changes_answer(lambda body: body.update(mode="delta") or body.update(version="1")),
        changes_answer(lambda body: body.get("events", [{}])[0].update(payload={"userText": SECRET})),
    ],
)
@pytest.mark.parametrize("scope", ["profile", "permanent", "org"])
def test_what_is_wrong_is_not_taken_and_asked_for_again(
    cloud: ScriptedCloud, root: Path, scope: str, behaviour: Behaviour
) -> None:
    cloud.tell(elsewhere("e-1", "My dog is called Biscuit."))
    cloud.describe(summary="Likes boots.")
    cloud.put(("hours", "We open at nine."))
    cloud.behave(f"projections/{scope}", behaviour, behaviour)
    with device(cloud, root) as runtime:
        found = runtime.search("dog boots nine")
        assert "Biscuit" in found["permanent"][0]["text"]
        assert found["profile"]["summary"] == "Likes boots."
        assert found["org"][0]["id"] == "hours"
        assert SECRET not in str(found)


def test_events_of_a_kind_that_is_not_known_are_passed_over(cloud: ScriptedCloud, root: Path) -> None:
    cloud.tell({**elsewhere("e-1", "Apples."), "type": "later"})
    cloud.tell({**elsewhere("e-2", "Pears."), "payload": {"userText": "Pears.", "metadata": ["nonsense"]}})
    cloud.tell(elsewhere("e-3", "Quinces."))
    with device(cloud, root) as runtime:
        assert runtime.found("apples pears quinces") == ["Caller: Quinces."]
        assert runtime.pull()["versions"]["permanent"] == 3


def test_recall_answers_from_what_it_has_while_the_cloud_hangs(cloud: ScriptedCloud, root: Path) -> None:
    cloud.tell(elsewhere("e-1", "My dog is called Biscuit."))
    with device(cloud, root):
        pass
    cloud.behave("*", always=hangs)
    with device(cloud, root, is_calm=False) as runtime:
        eventually(lambda: len(cloud.asked("bootstrap")) == 2)
        assert "Biscuit" in runtime.search("dog")["permanent"][0]["text"]
        assert runtime.pull(deadline_ms=50)["status"] == "partial"
        cloud.closed.set()


def test_a_cloud_that_was_put_back_is_told_everything_again(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.save("t2", "Two.")
        runtime.flush()
        cloud.tell(elsewhere("e-1", f"The word is {SECRET}."))
        cloud.put(("hours", "We open at nine."))
        runtime.pull()
        assert runtime.found(SECRET)
        cloud.restore()
        assert runtime.pull()["status"] == "ok"
        assert SECRET not in str(runtime.search(SECRET)), "the cloud does not know it any more"
        assert runtime.search("nine")["org"] == []
        cloud.waits_for_turns("One.", "Two.")
    with device(None, root) as runtime:
        assert SECRET not in str(runtime.search(SECRET))


def test_what_another_cloud_told_does_not_count(cloud: ScriptedCloud, root: Path) -> None:
    cloud.tell(elsewhere("e-1", f"The word is {SECRET}."))
    cloud.put(("hours", "We open at nine."))
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.flush()
        assert runtime.found(SECRET)
        assert runtime.pull()["versions"]["org"] == 1
    with scripted_cloud() as other, device(other, root) as runtime:
        assert SECRET not in str(runtime.search(SECRET))
        assert runtime.search("nine")["org"] == []
        other.waits_for_turns("One.")


# Forgetting


def test_who_is_forgotten_in_the_cloud_is_gone_from_the_disk_and_his_call_goes_on(
    cloud: ScriptedCloud, root: Path
) -> None:
    write_call(root, "old", [(f"The word is {SECRET}.", "Noted.")], user={"name": SECRET})
    cloud.tell(elsewhere("e-1", f"{SECRET} elsewhere."))
    cloud.learn("fact_1", f"Knows the {SECRET}.")
    cloud.describe(summary=f"Knows {SECRET}.")
    with device(cloud, root) as runtime:
        runtime.start("now", name=SECRET)
        runtime.save("t1", f"It is {SECRET}.")
        runtime.flush()
        assert len(on_disk(root, SECRET)) >= 5
        cloud.forget()
        assert runtime.pull()["status"] == "ok"
        assert on_disk(root, SECRET) == []
        assert SECRET not in str({**runtime.search(SECRET, "now"), "trace": 0})
        sent = len(cloud.asked("events"))
        runtime.save("t1", "And the boots?")
        runtime.flush()
        assert cloud.turns() == ["And the boots?"]
        assert len(cloud.asked("events")) == sent + 1
        assert [hit["text"] for hit in runtime.search("boots", "now")["working"]]
        runtime.pull()
        assert [hit["text"] for hit in runtime.search("boots", "now")["working"]], "he is not forgotten twice"
    with device(cloud, root) as runtime:
        assert len(runtime.found("boots")) == 1


def test_who_was_forgotten_while_his_machine_was_off_is_gone_before_anything_is_sent(
    cloud: ScriptedCloud, root: Path
) -> None:
    write_call(root, "old", [(f"The word is {SECRET}.", "Noted.")])
    cloud.forget()
    with device(cloud, root) as runtime:
        runtime.flush()
        assert SECRET not in str({**runtime.search(SECRET), "trace": 0})
    assert cloud.asked("events") == []
    assert on_disk(root, SECRET) == []


def test_who_calls_again_after_he_was_forgotten_keeps_what_he_said_since(cloud: ScriptedCloud, root: Path) -> None:
    cloud.forget()
    time.sleep(0.01)
    with device(None, root) as runtime:  # a machine that has not heard of it
        runtime.start("new", name="Dana")
        runtime.save("t1", "I am back.", session_id="new")
    write_call(root, "old", [(SECRET, "")])
    with device(cloud, root) as runtime:
        assert runtime.found("back") == ["Dana: I am back."]
        cloud.waits_for_turns("I am back.")
    assert on_disk(root, SECRET) == []


def test_a_push_that_meets_the_forgotten_asks_at_once(
    cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_runtime.sync.scheduler.LINGER_S", 60.0)  # nothing is sent before the end of the call
    with device(cloud, root) as runtime:
        runtime.save("t1", SECRET)
        cloud.forget()
        runtime.end()
        eventually(lambda: on_disk(root, SECRET) == [])
        eventually(lambda: runtime.sync["unsynced"] == 0)
    assert cloud.turns() == []


def test_every_caller_of_the_project_who_was_forgotten_is_gone_but_not_those_who_called_since(
    cloud: ScriptedCloud, root: Path
) -> None:
    folders = {name: UserFolder(root, PROJECT, name) for name in ("ada", "bob", "cyd", "dan")}
    for name in folders:
        with device(None, root, user_id=name) as runtime:
            runtime.save("t1", f"{SECRET} of {name}.")
    for name in ("ada", "bob", "cyd"):
        cloud.forget(name)
    cloud.page = 2
    time.sleep(0.01)
    with device(None, root, user_id="bob") as runtime:
        runtime.save("t2", "I am back.", session_id="later")
    serving = ProcessLock(folders["cyd"].role("runtime"))
    assert serving.take()
    with device(cloud, root) as runtime:
        eventually(lambda: not folders["ada"].path.exists())
        eventually(lambda: on_disk(folders["bob"].path, SECRET) == [])
        assert on_disk(folders["bob"].path, "I am back.")
        assert on_disk(folders["dan"].path, SECRET)
        assert on_disk(folders["cyd"].path, SECRET), "his own runtime does that"
        serving.leave()  # it died before it could
        runtime.pull()
        assert not folders["cyd"].path.exists()
    assert len(asked(cloud, "forgotten")) == 2, "a page each, and never again"


def test_a_caller_is_forgotten_on_request_and_nothing_of_him_comes_back(cloud: ScriptedCloud, root: Path) -> None:
    write_call(root, "old", [(f"The word is {SECRET}.", ""), ("More.", "")])
    cloud.tell(elsewhere("e-1", f"{SECRET} elsewhere."))
    with device(cloud, root) as runtime:
        runtime.start("now", name="Dana")
        runtime.save("t1", SECRET)
        at = cloud.forget()
        assert runtime.forget(at) == {"status": "ok", "removed": {"sessions": 3, "turns": 4}}
        assert on_disk(root, SECRET) == []
        assert SECRET not in str({**runtime.search(SECRET), "trace": 0})
        assert runtime.search("who?")["profile"] is None
        runtime.save("t2", "Where are the boots?")
        runtime.pull()
        assert len(runtime.found("boots")) == 1
        assert runtime.forget(cloud.forget())["removed"] == {"sessions": 1, "turns": 1}
        assert runtime.forget(cloud.forget())["removed"] == {"sessions": 0, "turns": 0}
    assert not user_folder(root).path.exists(), "not even his name is left"


def test_a_caller_can_be_forgotten_without_a_cloud(root: Path, opened_model: None, nothing_left_behind: None) -> None:
    write_call(root, "old", [(f"The word is {SECRET}.", "")])
    with device(None, root) as runtime:
        assert runtime.found(SECRET)
        assert runtime.forget()["removed"] == {"sessions": 1, "turns": 1}
        assert on_disk(root, SECRET) == []
        assert runtime.found(SECRET) == []


# Processes


def test_who_is_killed_while_he_pulls_begins_where_he_was(
    cloud: ScriptedCloud, start_runtime: Callable[..., RunningRuntime], root: Path
) -> None:
    cloud.page = 5
    for number in range(40):
        cloud.tell(elsewhere(f"e-{number}", f"Parcel {number}."))
    for pages in (1, 3):
        cloud.behave("projections/permanent", *[lambda _: False] * pages, always=hangs)
        wanted = len(cloud.asked("projections/permanent")) + pages + 1
        runtime = start_runtime(root, **cloud.variables)
        eventually(lambda wanted=wanted: len(cloud.asked("projections/permanent")) == wanted)  # type: ignore[misc]
        os.kill(runtime.process.pid, signal.SIGKILL)
        runtime.process.wait()
    cloud.behave_well()
    last = start_runtime(root, **cloud.variables)
    eventually(lambda: last.health()["sync"]["hasPulled"])
    assert len(last.search("now", "parcel", topK={"permanent": 100})["permanent"]) == 40
    assert asked(cloud, "permanent") == [
        *("", "since=5"),  # and then nothing came any more
        *("since=5", "since=10", "since=15", "since=20"),
        *("since=20", "since=25", "since=30", "since=35"),
    ]


def test_two_runtimes_of_a_caller_share_what_one_of_them_pulled(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as first, device(cloud, root) as second:
        cloud.tell(elsewhere("e-1", "My dog is called Biscuit."))
        cloud.learn("fact_1", "Has a dog called Biscuit.")
        first.pull()
        second.pull()
        for runtime in (first, second):
            assert len(runtime.found("dog")) == 2
        cloud.unlearn("fact_1")
        first.pull()
        second.pull()
        for runtime in (first, second):
            assert len(runtime.found("dog")) == 1
    assert len(asked(cloud, "permanent")) == 2
