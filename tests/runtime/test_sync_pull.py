"""Pull: data of other machines is recalled, erased users are erased, and nothing waits for the cloud."""

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
    Behavior,
    ScriptedCloud,
    changes_response,
    closes_connection,
    hangs,
    remote_turn,
    responds_with,
    sends_half,
)
from support.waiting import eventually

from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.user_folder import UserFolder

SECRET = "zanzibarplum"
pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def files_containing(folder: Path, text: str) -> list[str]:
    """Return the names of files below a folder that contain a text."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # it has just been deleted
                if text.encode() in Path(place, name).read_bytes():
                    found.append(name)
    return found


def scope_queries(cloud: ScriptedCloud, scope: str) -> list[str]:
    """Return the query strings of the requests for a scope."""
    return [request.path.partition("?")[2] for request in cloud.requests_to(f"projections/{scope}")]


# Data of other machines


def test_turns_of_another_machine_are_recalled_even_after_a_restart_without_a_cloud(
    cloud: ScriptedCloud, root: Path
) -> None:
    cloud.add_event(remote_turn("e-1", "My dog is called Biscuit.", assistant_text="A fine name."))
    with device(cloud, root) as runtime:
        [hit] = runtime.search("what is my dog called?")["permanent"]
        assert hit["text"] == "Caller: My dog is called Biscuit.\nAgent: A fine name."
        assert hit["source"]["sessionId"] == "elsewhere"
    with device(None, root) as runtime:
        runtime.start()
        assert "Biscuit" in runtime.find_texts("what is my dog called?")[0]


def test_a_turn_that_the_cloud_sends_back_counts_once(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as runtime:
        runtime.start("call-1", name="Dana")
        runtime.save("t1", f"The word is {SECRET}.", session_id="call-1")
        assert runtime.flush()["pending"] == 0
        assert runtime.pull()["versions"]["permanent"] == 2
        assert len(runtime.find_texts(SECRET)) == 1
        assert len(files_containing(root, SECRET)) == 2, "the log, and the brief of the session"
    with device(cloud, root) as runtime:
        assert len(runtime.find_texts(SECRET)) == 1


def test_only_changes_are_requested(cloud: ScriptedCloud, root: Path) -> None:
    cloud.add_event(remote_turn("e-1", "One."))
    cloud.update_profile(summary="Likes boots.")
    cloud.put_documents(("hours", "We open at nine."))
    with device(cloud, root) as runtime:
        runtime.pull()
        cloud.add_event(remote_turn("e-2", "Two."))
        runtime.pull()
    with device(cloud, root) as runtime:
        cloud.add_event(remote_turn("e-3", "Three."))
        runtime.pull()
        assert {"Caller: One.", "Caller: Three."} <= set(runtime.find_texts("one three"))
    assert scope_queries(cloud, "permanent") == ["", "since=1", "since=2"]
    assert scope_queries(cloud, "profile") == [""]
    assert scope_queries(cloud, "org") == [""]
    tags = [request.headers.get("if-none-match") for request in cloud.requests_to("bootstrap")]
    assert [bool(tag) for tag in tags] == [False, True, True, True, True]


def test_a_device_that_was_offline_catches_up_page_by_page(cloud: ScriptedCloud, root: Path) -> None:
    cloud.page_size = 7
    for number in range(30):
        cloud.add_event(remote_turn(f"e-{number}", f"Parcel {number}."))
        cloud.add_fact(f"f-{number}", f"Has sent parcel {number}.")
    with device(cloud, root) as runtime:
        assert len(runtime.search("parcel", topK={"permanent": 100})["permanent"]) == 60
    assert len(scope_queries(cloud, "permanent")) == 9


def test_a_large_pull_is_written_to_an_index_file(cloud: ScriptedCloud, root: Path) -> None:
    for number in range(500):
        cloud.add_event(remote_turn(f"e-{number}", f"Parcel {number}."))
    with device(cloud, root, waits_for_pull=False) as runtime:
        runtime.start("now")  # a session is active
        runtime.wait_for_first_pull()
    assert user_folder(root).list_indexes()


# Facts and profile


def test_a_fact_is_a_hit_and_a_line_without_speaker_under_its_date(cloud: ScriptedCloud, root: Path) -> None:
    cloud.add_fact(
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


def test_a_removed_or_replaced_fact_stays_removed(cloud: ScriptedCloud, root: Path) -> None:
    cloud.add_fact("fact_1", "Lives in Kyoto.")
    cloud.add_fact("fact_2", "Likes persimmons.")
    with device(cloud, root) as runtime:
        assert runtime.find_texts("Kyoto")
        cloud.remove_fact("fact_1")
        cloud.add_fact("fact_2", "Likes quinces.")
        runtime.pull()
        assert "Lives in Kyoto." not in runtime.find_texts("Kyoto")
        assert runtime.find_texts("persimmons quinces") == ["Likes quinces."]
    with device(None, root) as runtime:
        assert runtime.find_texts("Kyoto persimmons quinces") == ["Likes quinces."]
    assert files_containing(root, "Kyoto") == files_containing(root, "persimmons") == []


def test_the_profile_merges_stated_and_derived_properties(cloud: ScriptedCloud, root: Path) -> None:
    cloud.update_profile(
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


def test_a_session_start_returns_all_versions(cloud: ScriptedCloud, root: Path) -> None:
    cloud.add_event(remote_turn("e-1", "One."))
    cloud.add_event(remote_turn("e-2", "Two."))
    cloud.update_profile(summary="Likes boots.")
    cloud.put_documents(("hours", "We open at nine."))
    with device(cloud, root) as runtime:
        bootstrap = runtime.start()["bootstrap"]
        assert (
            bootstrap["profileVersion"],
            bootstrap["permanentManifestVersion"],
            bootstrap["orgManifestVersion"],
        ) == (1, 2, 1)
        assert bootstrap["syncToken"]
        versions = runtime.pull("profile")["versions"]
        assert versions.pop("permanent") in (2, 3), "the start of the session is sent before or after the last pull"
        assert versions == {"profile": 1, "org": 1}


# The index file


def test_an_index_file_holds_pulled_data_and_no_removed_facts(cloud: ScriptedCloud, root: Path) -> None:
    write_call(
        root, "old", [(f"Parcel {number}, please.", "It is noted.") for number in range(230)], cloud_url=cloud.url
    )
    cloud.add_event(remote_turn("e-1", "A persimmon, please."))
    cloud.add_fact("fact_1", f"Knows the {SECRET}.")
    cloud.add_fact("fact_2", "Likes quinces.")
    with device(cloud, root) as runtime:
        runtime.start()  # after the pull, which came after the first load
        eventually(lambda: len(user_folder(root).list_indexes()) == 1 and runtime.flush()["pending"] == 0)
        runtime.end()
    [first] = user_folder(root).list_indexes()
    with device(cloud, root) as runtime:
        for _ in range(2):
            assert runtime.find_texts("persimmon")
            assert runtime.find_texts(SECRET)
            runtime.pull()
        assert user_folder(root).list_indexes() == [first], "it is still used"
        cloud.remove_fact("fact_1")
        runtime.pull()
        assert SECRET not in str(runtime.find_texts(SECRET))
        eventually(lambda: files_containing(root, SECRET) == [])
    with device(None, root) as runtime:
        assert runtime.find_texts("persimmon")
        assert runtime.find_texts("quinces") == ["Likes quinces."]
        assert SECRET not in str(runtime.find_texts(SECRET))


def test_an_index_file_is_rebuilt_if_the_replica_is_lost(cloud: ScriptedCloud, root: Path) -> None:
    write_call(
        root, "old", [(f"Parcel {number}, please.", "It is noted.") for number in range(230)], cloud_url=cloud.url
    )
    cloud.add_event(remote_turn("e-1", f"The word is {SECRET}."))
    for _ in range(2):
        with device(cloud, root) as runtime:
            runtime.start()
            eventually(lambda: len(user_folder(root).list_indexes()) == 1)
    user_folder(root).cloud_replica.unlink()
    with device(None, root) as runtime:
        assert SECRET not in str(runtime.find_texts(SECRET))
        assert runtime.find_texts("Parcel 7")


# Behavior of the cloud


@pytest.mark.parametrize(
    "behavior",
    [
        closes_connection,
        sends_half,
        responds_with(500),
        responds_with(200, b"["),
        responds_with(200, {"version": 1}),
        changes_response(lambda body: body.update(contentHash="0" * 64)),
        changes_response(lambda body: body.update(mode="delta") or body.update(version="1")),
        changes_response(lambda body: body.get("events", [{}])[0].update(payload={"userText": SECRET})),
    ],
)
@pytest.mark.parametrize("scope", ["profile", "permanent", "org"])
def test_an_invalid_response_is_discarded_and_requested_again(
    cloud: ScriptedCloud, root: Path, scope: str, behavior: Behavior
) -> None:
    cloud.add_event(remote_turn("e-1", "My dog is called Biscuit."))
    cloud.update_profile(summary="Likes boots.")
    cloud.put_documents(("hours", "We open at nine."))
    cloud.behave(f"projections/{scope}", behavior, behavior)
    with device(cloud, root) as runtime:
        found = runtime.search("dog boots nine")
        assert "Biscuit" in found["permanent"][0]["text"]
        assert found["profile"]["summary"] == "Likes boots."
        assert found["org"][0]["id"] == "hours"
        assert SECRET not in str(found)


def test_unknown_event_types_are_skipped(cloud: ScriptedCloud, root: Path) -> None:
    cloud.add_event({**remote_turn("e-1", "Apples."), "type": "later"})
    cloud.add_event({**remote_turn("e-2", "Pears."), "payload": {"userText": "Pears.", "metadata": ["nonsense"]}})
    cloud.add_event(remote_turn("e-3", "Quinces."))
    with device(cloud, root) as runtime:
        assert runtime.find_texts("apples pears quinces") == ["Caller: Quinces."]
        assert runtime.pull()["versions"]["permanent"] == 3


def test_recall_uses_local_data_while_the_cloud_hangs(cloud: ScriptedCloud, root: Path) -> None:
    cloud.add_event(remote_turn("e-1", "My dog is called Biscuit."))
    with device(cloud, root):
        pass
    cloud.behave("*", always=hangs)
    with device(cloud, root, waits_for_pull=False) as runtime:
        eventually(lambda: len(cloud.requests_to("bootstrap")) == 2)
        assert "Biscuit" in runtime.search("dog")["permanent"][0]["text"]
        assert runtime.pull(deadline_ms=50)["status"] == "partial"
        cloud.closed.set()


def test_everything_is_sent_again_to_a_cloud_that_has_lost_data(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.save("t2", "Two.")
        runtime.flush()
        cloud.add_event(remote_turn("e-1", f"The word is {SECRET}."))
        cloud.put_documents(("hours", "We open at nine."))
        runtime.pull()
        assert runtime.find_texts(SECRET)
        cloud.lose_all_data()
        assert runtime.pull()["status"] == "ok"
        assert SECRET not in str(runtime.search(SECRET)), "the cloud no longer has it"
        assert runtime.search("nine")["org"] == []
        cloud.wait_for_turns("One.", "Two.")
    with device(None, root) as runtime:
        assert SECRET not in str(runtime.search(SECRET))


def test_two_clouds_over_one_storage_root_do_not_mix(cloud: ScriptedCloud, root: Path) -> None:
    cloud.add_event(remote_turn("e-1", f"The word is {SECRET}."))
    cloud.put_documents(("hours", "We open at nine."))
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.flush()
        assert runtime.find_texts(SECRET)
        assert runtime.pull()["versions"]["org"] == 1
    with ScriptedCloud() as other, device(other, root) as runtime:
        assert SECRET not in str(runtime.search(SECRET))
        assert runtime.search("nine")["org"] == []
        runtime.save("t2", "Two.", session_id="now")  # the same session
        runtime.flush()
        assert other.turn_texts() == ["Two."], "what was said with one cloud is not sent to another"
    sent = len(cloud.requests_to("events"))
    with device(cloud, root) as runtime:
        assert runtime.flush()["pending"] == 0
    assert "Two." not in cloud.turn_texts()
    assert len(cloud.requests_to("events")) == sent, "the cursors of both clouds are kept"


# Erasure


def test_a_user_erased_in_the_cloud_is_erased_here_and_the_call_continues(cloud: ScriptedCloud, root: Path) -> None:
    write_call(root, "old", [(f"The word is {SECRET}.", "Noted.")], user={"name": SECRET}, cloud_url=cloud.url)
    cloud.add_event(remote_turn("e-1", f"{SECRET} elsewhere."))
    cloud.add_fact("fact_1", f"Knows the {SECRET}.")
    cloud.update_profile(summary=f"Knows {SECRET}.")
    with device(cloud, root) as runtime:
        runtime.start("now", name=SECRET)
        runtime.save("t1", f"It is {SECRET}.")
        runtime.flush()
        assert len(files_containing(root, SECRET)) >= 5
        cloud.erase_user()
        assert runtime.pull()["status"] == "ok"
        assert files_containing(root, SECRET) == []
        assert SECRET not in str({**runtime.search(SECRET, "now"), "trace": 0})
        sent = len(cloud.requests_to("events"))
        runtime.save("t1", "And the boots?")
        runtime.flush()
        assert cloud.turn_texts() == ["And the boots?"]
        assert len(cloud.requests_to("events")) == sent + 1
        assert [hit["text"] for hit in runtime.search("boots", "now")["working"]]
        runtime.pull()
        assert [hit["text"] for hit in runtime.search("boots", "now")["working"]], "the user is not erased twice"
    with device(cloud, root) as runtime:
        assert len(runtime.find_texts("boots")) == 1


def test_a_user_erased_while_the_machine_was_off_is_erased_before_anything_is_sent(
    cloud: ScriptedCloud, root: Path
) -> None:
    write_call(root, "old", [(f"The word is {SECRET}.", "Noted.")], cloud_url=cloud.url)
    cloud.erase_user()
    with device(cloud, root) as runtime:
        runtime.flush()
        assert SECRET not in str({**runtime.search(SECRET), "trace": 0})
    assert cloud.requests_to("events") == []
    assert files_containing(root, SECRET) == []


def test_turns_after_an_erasure_are_kept(cloud: ScriptedCloud, root: Path) -> None:
    cloud.erase_user()
    time.sleep(0.01)
    cloud.behave("bootstrap", always=responds_with(503))
    with device(cloud, root, waits_for_pull=False) as runtime:  # a machine that does not know of the erasure
        runtime.start("new", name="Dana")
        runtime.save("t1", "I am back.", session_id="new")
    cloud.behave_well()
    write_call(root, "old", [(SECRET, "")], cloud_url=cloud.url)
    with device(cloud, root) as runtime:
        assert runtime.find_texts("back") == ["Dana: I am back."]
        cloud.wait_for_turns("I am back.")
    assert files_containing(root, SECRET) == []


def test_a_push_of_an_erased_user_pulls_at_once(
    cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_runtime.sync.scheduler.LINGER_S", 60.0)  # nothing is sent before the end of the call
    with device(cloud, root) as runtime:
        runtime.save("t1", SECRET)
        cloud.erase_user()
        runtime.end()
        eventually(lambda: files_containing(root, SECRET) == [])
        eventually(lambda: runtime.sync["unsynced"] == 0)
    assert cloud.turn_texts() == []


def test_all_erased_users_of_the_project_are_erased_except_later_turns(cloud: ScriptedCloud, root: Path) -> None:
    folders = {name: UserFolder(root, PROJECT, name) for name in ("ada", "bob", "cyd", "dan")}
    for name in folders:
        with device(None, root, user_id=name) as runtime:
            runtime.save("t1", f"{SECRET} of {name}.")
    for name in ("ada", "bob", "cyd"):
        cloud.erase_user(name)
    cloud.page_size = 2
    time.sleep(0.01)
    with device(None, root, user_id="bob") as runtime:
        runtime.save("t2", "I am back.", session_id="later")
    runtime_lock = ProcessLock(folders["cyd"].lock("runtime"))
    assert runtime_lock.try_acquire()
    with device(cloud, root) as runtime:
        eventually(lambda: not folders["ada"].path.exists())
        eventually(lambda: files_containing(folders["bob"].path, SECRET) == [])
        assert files_containing(folders["bob"].path, "I am back.")
        assert files_containing(folders["dan"].path, SECRET)
        assert files_containing(folders["cyd"].path, SECRET), "the runtime of that user does it"
        runtime_lock.release()  # that runtime ends before it does
        runtime.pull()
        assert not folders["cyd"].path.exists()
    assert len(scope_queries(cloud, "forgotten")) == 2, "two pages, requested once"


def test_a_user_is_erased_on_request_and_no_data_comes_back(cloud: ScriptedCloud, root: Path) -> None:
    write_call(root, "old", [(f"The word is {SECRET}.", ""), ("More.", "")], cloud_url=cloud.url)
    cloud.add_event(remote_turn("e-1", f"{SECRET} elsewhere."))
    with device(cloud, root) as runtime:
        runtime.start("now", name="Dana")
        runtime.save("t1", SECRET)
        at = cloud.erase_user()
        assert runtime.forget(at) == {"status": "ok", "removed": {"sessions": 3, "turns": 4}}
        assert files_containing(root, SECRET) == []
        assert SECRET not in str({**runtime.search(SECRET), "trace": 0})
        assert runtime.search("who?")["profile"] is None
        runtime.save("t2", "Where are the boots?")
        runtime.pull()
        assert len(runtime.find_texts("boots")) == 1
        assert runtime.forget(cloud.erase_user())["removed"] == {"sessions": 1, "turns": 1}
        assert runtime.forget(cloud.erase_user())["removed"] == {"sessions": 0, "turns": 0}
    assert not user_folder(root).path.exists(), "the folder is deleted, too"


def test_a_user_can_be_erased_without_a_cloud(root: Path, opened_model: None, nothing_left_behind: None) -> None:
    write_call(root, "old", [(f"The word is {SECRET}.", "")])
    with device(None, root) as runtime:
        assert runtime.find_texts(SECRET)
        assert runtime.forget()["removed"] == {"sessions": 1, "turns": 1}
        assert files_containing(root, SECRET) == []
        assert runtime.find_texts(SECRET) == []


# Several processes


def test_a_runtime_killed_during_a_pull_continues_where_it_was(
    cloud: ScriptedCloud, start_runtime: Callable[..., RunningRuntime], root: Path
) -> None:
    cloud.page_size = 5
    for number in range(40):
        cloud.add_event(remote_turn(f"e-{number}", f"Parcel {number}."))
    for pages in (1, 3):
        cloud.behave("projections/permanent", *[lambda _: False] * pages, always=hangs)
        wanted = len(cloud.requests_to("projections/permanent")) + pages + 1
        runtime = start_runtime(root, **cloud.variables)
        eventually(lambda wanted=wanted: len(cloud.requests_to("projections/permanent")) == wanted)  # type: ignore[misc]
        os.kill(runtime.process.pid, signal.SIGKILL)
        runtime.process.wait()
    cloud.behave_well()
    last = start_runtime(root, **cloud.variables)
    eventually(lambda: last.health()["sync"]["hasPulled"])
    assert len(last.search("now", "parcel", topK={"permanent": 100})["permanent"]) == 40
    assert scope_queries(cloud, "permanent") == [
        *("", "since=5"),  # then the cloud hung
        *("since=5", "since=10", "since=15", "since=20"),
        *("since=20", "since=25", "since=30", "since=35"),
    ]


def test_two_runtimes_of_a_user_share_what_one_of_them_pulled(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as first, device(cloud, root) as second:
        cloud.add_event(remote_turn("e-1", "My dog is called Biscuit."))
        cloud.add_fact("fact_1", "Has a dog called Biscuit.")
        first.pull()
        second.pull()
        for runtime in (first, second):
            assert len(runtime.find_texts("dog")) == 2
        cloud.remove_fact("fact_1")
        first.pull()
        second.pull()
        for runtime in (first, second):
            assert len(runtime.find_texts("dog")) == 1
    assert len(scope_queries(cloud, "permanent")) == 2
