"""A cloud that was restored from a backup: its devices send and request again what the restore lost."""

import json
from pathlib import Path

import pytest
from support.calls import user_folder
from support.devices import device
from support.runtimes import PROJECT
from support.scripted_cloud import ScriptedCloud, error_body, remote_turn, responds_with
from support.waiting import eventually

from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import UserFolder

SECRET = "zanzibarplum"

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def pushed_texts(cloud: ScriptedCloud, begin: int = 0) -> list[str]:
    """Return what was said in all pushed turns, including those that the cloud had already."""
    requests = cloud.requests_to("events")[begin:]
    events = [event for request in requests for event in request.body["events"]]
    return [event["payload"]["userText"] for event in events if event["type"] == "turn"]


@pytest.mark.parametrize("is_running", [True, False])
def test_what_the_restore_lost_is_sent_again(cloud: ScriptedCloud, root: Path, is_running: bool) -> None:
    cloud.epoch = "first"
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.flush()
        backup = cloud.back_up()
        runtime.save("t2", "Two.")
        runtime.flush()
        assert cloud.turn_texts() == ["One.", "Two."]
        if is_running:
            cloud.restore(backup, "second")
            runtime.pull()
            cloud.wait_for_turns("One.", "Two.")
    if not is_running:
        cloud.restore(backup, "second")
        with device(cloud, root):
            cloud.wait_for_turns("One.", "Two.")
    begin = len(cloud.requests_to("events"))
    with device(cloud, root) as runtime:
        assert runtime.sync["unsynced"] == 0
        runtime.save("t3", "Three.")
        runtime.flush()
    assert pushed_texts(cloud, begin) == ["Three."], "the epoch is remembered"


def test_versions_of_another_epoch_do_not_count(cloud: ScriptedCloud, root: Path) -> None:
    cloud.epoch = "first"
    cloud.put_documents(("hours", "We open at nine."))
    backup = cloud.back_up()
    cloud.put_documents(("lost", f"The {SECRET} is lost."))
    cloud.add_event(remote_turn("e-1", f"A {SECRET}, please."))
    cloud.add_fact("f-1", f"Likes the {SECRET}.")
    cloud.update_profile(summary=f"Likes {SECRET}.")
    with device(cloud, root) as runtime:
        assert len(runtime.find_texts(SECRET)) == 2
        assert runtime.find_texts(SECRET, "org")
        cloud.restore(backup, "second")
        cloud.put_documents(("new", "We close at noon."))  # with the version that the lost document had
        cloud.add_event(remote_turn("e-2", "A quince, please."))
        cloud.add_fact("f-2", "Likes quinces.")
        assert runtime.pull()["status"] == "ok"
        assert SECRET not in str(runtime.search(SECRET)["contextText"])
        assert len(runtime.find_texts("quince")) == 2
        assert runtime.find_texts("noon", "org") == ["We close at noon."]
        queries = len(cloud.requests_to("projections/permanent"))
        runtime.pull()
        assert len(cloud.requests_to("projections/permanent")) == queries, "once"
    with device(cloud, root) as runtime:
        assert SECRET not in str(runtime.search(SECRET)["contextText"])


def test_a_cloud_without_epochs_works_as_before(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.flush()
        cloud.epoch = "first"  # it was upgraded, and a restore was announced
        runtime.pull()
        eventually(lambda: pushed_texts(cloud) == ["One.", "One."])
        cloud.epoch = None  # and downgraded
        cloud.add_event(remote_turn("e-1", "From elsewhere."))
        runtime.pull()
        assert runtime.find_texts("elsewhere")
        runtime.save("t2", "Two.")
        runtime.flush()
    with device(cloud, root) as runtime:
        assert runtime.sync["unsynced"] == 0
    assert pushed_texts(cloud) == ["One.", "One.", "Two."]


def test_users_erased_since_the_backup_stay_erased(cloud: ScriptedCloud, root: Path) -> None:
    cloud.epoch = "first"
    with device(cloud, root, user_id="bob") as runtime:
        runtime.save("t1", f"The word is {SECRET}.")
        runtime.flush()
    backup = cloud.back_up()
    cloud.erase_user("bob")
    with device(cloud, root) as runtime:
        assert not UserFolder(root, PROJECT, "bob").path.exists()
        cloud.restore(backup, "second")
        assert cloud.turn_texts("bob") == [f"The word is {SECRET}."]
        runtime.pull()
        assert cloud.turn_texts("bob") == [], "the device has told the cloud"
        assert len(cloud.erasures) == 1
        runtime.pull()
    assert len(cloud.requests_to("erasures")) == 1
    with device(cloud, root, user_id="bob") as runtime:
        assert runtime.find_texts(SECRET) == []
        runtime.save("t1", "I am back.", session_id="new")
        assert runtime.flush()["pending"] == 0
    assert cloud.turn_texts("bob") == ["I am back."]


def test_a_machine_that_has_just_learned_of_the_restore_keeps_a_user_who_called_again(
    cloud: ScriptedCloud, root: Path
) -> None:
    cloud.epoch = "first"
    backup = cloud.back_up()
    cloud.erase_user()
    with device(cloud, root) as runtime:
        runtime.save("t1", "I am back.", session_id="new")
        runtime.flush()
        cloud.restore(backup, "second")
        runtime.pull()
        cloud.wait_for_turns("I am back.")
        assert runtime.find_texts("back")
    with device(cloud, root) as runtime:
        assert runtime.find_texts("back")


def test_a_cloud_without_the_endpoint_for_erasures_is_used_all_the_same(cloud: ScriptedCloud, root: Path) -> None:
    cloud.epoch = "first"
    cloud.erase_user("bob")
    backup = cloud.back_up()
    backup["erasures"] = []
    with device(cloud, root):
        pass
    cloud.restore(backup, "second")
    cloud.behave("erasures", always=responds_with(404, error_body("cloud.not_found")))
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        cloud.wait_for_turns("One.")
    state = json.loads(ProjectFolder(root, PROJECT).erasures.read_bytes())
    assert len(state["users"]) == 1, "the machine still knows"


def test_the_erasures_of_an_earlier_version_are_remembered_after_an_upgrade(cloud: ScriptedCloud, root: Path) -> None:
    cloud.epoch = "first"
    cloud.erase_user("bob")
    with device(cloud, root):
        pass
    path = ProjectFolder(root, PROJECT).erasures
    state = json.loads(path.read_bytes())
    digests = set(state.pop("users"))
    path.write_text(json.dumps(state))  # as an earlier version has written it
    with device(cloud, root):
        eventually(lambda: set(json.loads(path.read_bytes())["users"] or ()) == digests)
    assert not user_folder(root).erasure_record.exists()


def test_an_erasure_is_known_before_the_list_of_erasures_is_pulled(cloud: ScriptedCloud, root: Path) -> None:
    cloud.epoch = "first"
    with device(cloud, root, user_id="bob") as runtime:
        runtime.save("t1", f"The word is {SECRET}.")
        runtime.flush()
        backup = cloud.back_up()
        cloud.behave("bootstrap", always=responds_with(503))
        runtime.forget(cloud.erase_user("bob"))
    cloud.restore(backup, "second")
    cloud.behave_well()
    with device(cloud, root):
        pass
    assert cloud.turn_texts("bob") == []
    with ScriptedCloud() as other:  # with the same project, of which it knows nothing
        other.epoch = "other"
        with device(other, root):
            pass
        assert other.requests_to("erasures") == []
