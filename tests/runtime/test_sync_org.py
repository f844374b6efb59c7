"""The organisation's documents, pulled by one runtime for all of its project: a file, what came since, and no more."""

import hashlib
import json
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.devices import Device, device
from support.runtimes import PROJECT
from support.scripted_cloud import ScriptedCloud, answers, cuts_off
from support.waiting import eventually

from memoair_index import Index, split_document
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.sync import pull_org

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def built(cloud: ScriptedCloud, tmp_path: Path) -> None:
    """The cloud has documents and has built a file of them."""
    cloud.put(("returns", "Boots can be returned within thirty days."), ("hours", "We open at nine on weekdays."))
    build(cloud, tmp_path)


def build(cloud: ScriptedCloud, tmp_path: Path) -> str:
    """Build a file of all documents, as the cloud's worker does, and return its name."""
    live = [document for _, document in cloud.documents.values() if document is not None]
    index = Index()
    index.add(
        chunk
        for each in live
        for chunk in split_document(each["id"], each["text"], each["metadata"], each["indexName"])
    )
    path = tmp_path / "built.index"
    index.merge(path)
    cloud.file = cloud.org_version, path.read_bytes()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hits(runtime: Device, query: str) -> list[str]:
    return [hit["id"] for hit in runtime.search(query, lanes=["org"])["org"]]


def manifest(root: Path) -> dict:  # type: ignore[type-arg]
    return dict(json.loads(ProjectFolder(root, PROJECT).org_manifest.read_bytes()))


def bases(root: Path) -> list[str]:
    return sorted(path.name for path in (root / PROJECT).iterdir() if "org-cloud" in path.name)


def asked(cloud: ScriptedCloud) -> list[str]:
    return [each.path.partition("?")[2] for each in cloud.asked("projections/org")]


def downloads(cloud: ScriptedCloud) -> int:
    return len([each for each in cloud.requests if "/org/file/" in each.path])


def test_a_new_machine_takes_the_file_and_what_came_since(
    cloud: ScriptedCloud, built: None, root: Path, tmp_path: Path
) -> None:
    cloud.put(("parking", "Parking is behind the house."), topic="parking")
    cloud.put(("hours", "We open at ten."), index="other")
    cloud.drop("hours")
    with device(cloud, root) as runtime:
        found = runtime.search("Where is the parking?", lanes=["org"])["org"][0]
        assert (found["id"], found["metadata"]) == ("parking", {"topic": "parking"})
        assert found["source"] == {
            "lane": "org",
            "id": "parking",
            "kind": "document",
            "documentId": "parking",
            "indexName": "faq",
        }
        assert hits(runtime, "boots returned")[0] == "returns"
        sources = [hit["source"] for hit in runtime.search("When do you open on weekdays?")["org"]]
        assert [each["indexName"] for each in sources if each["id"] == "hours"] == ["other"]
    assert asked(cloud) == ["since=2"]
    assert manifest(root)["version"] == 5
    assert bases(root) == [f"org-cloud-{manifest(root)['base']['sha256'][:16]}.index"]
    mode = ProjectFolder(root, PROJECT).org_base(manifest(root)["base"]["sha256"]).stat().st_mode
    assert mode & 0o777 == 0o600


def test_without_a_file_the_documents_are_indexed_here_and_kept(cloud: ScriptedCloud, root: Path) -> None:
    cloud.page = 3
    cloud.put(*((f"d-{number}", f"Parcel {number}.") for number in range(10)))
    with device(cloud, root) as runtime:
        assert hits(runtime, "parcel 7")[0] == "d-7"
    assert asked(cloud) == ["", "since=3", "since=6", "since=9"]
    assert (manifest(root)["documents"], manifest(root)["base"]["version"]) == ([], 10)
    with device(None, root) as runtime:
        assert hits(runtime, "parcel 7")[0] == "d-7"


def test_what_has_changed_replaces_and_drops_documents_and_long_ones_with_all_their_chunks(
    cloud: ScriptedCloud, built: None, root: Path, tmp_path: Path
) -> None:
    cloud.put(("terms", " ".join(f"The {number}th persimmon is free." for number in range(200))))
    build(cloud, tmp_path)
    with device(cloud, root) as runtime:
        assert hits(runtime, "persimmon") == ["terms"]
        cloud.put(("terms", "No quince is free."))
        cloud.drop("returns")
        runtime.pull("org")
        assert hits(runtime, "persimmon") == []
        assert hits(runtime, "quince") == ["terms"]
        assert hits(runtime, "boots returned") == []
        cloud.put(("returns", "Boots can't be returned."))
        runtime.pull("org")
        assert hits(runtime, "boots returned")[0] == "returns"
        assert runtime.service.health()["lanes"]["org"] == "ready"
    assert downloads(cloud) == 1


def test_changes_that_have_grown_are_worth_the_next_file_or_one_made_here(
    cloud: ScriptedCloud, built: None, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_org, "MOST_CHANGES", 3)
    with device(cloud, root) as runtime:
        cloud.put(*((f"d-{number}", f"Parcel {number}.") for number in range(5)))
        runtime.pull("org")  # the cloud has built nothing since
        assert (downloads(cloud), manifest(root)["documents"], manifest(root)["base"]["version"]) == (1, [], 7)
        cloud.put(*((f"e-{number}", f"Letter {number}.") for number in range(5)))
        second = build(cloud, tmp_path)
        cloud.drop("d-4")
        runtime.pull("org")
        assert (downloads(cloud), manifest(root)["base"]) == (2, {"sha256": second, "version": 12})
        assert manifest(root)["removed"] == [{"indexName": "faq", "id": "d-4"}]
        assert (hits(runtime, "parcel 3")[0], hits(runtime, "letter 3")[0]) == ("d-3", "e-3")
        assert "d-4" not in hits(runtime, "parcel 4")
    assert bases(root) == [f"org-cloud-{second[:16]}.index"]


@pytest.mark.parametrize("content", [b"", b"no index", b"short"])
@pytest.mark.parametrize("told", ["as it is", "another"])
def test_a_file_that_is_not_what_was_told_or_no_index_is_not_taken(
    cloud: ScriptedCloud, built: None, root: Path, content: bytes, told: str
) -> None:
    assert cloud.file is not None
    if told == "as it is":
        cloud.file = cloud.file[0], content
    else:
        sha256 = hashlib.sha256(cloud.file[1]).hexdigest()
        cloud.behave(f"projections/org/file/{sha256}", always=answers(200, content))
    with device(cloud, root) as runtime:
        assert hits(runtime, "boots returned")[0] == "returns"
    assert asked(cloud) == [""]
    assert len(bases(root)) == 1


def test_a_download_that_is_cut_off_leaves_nothing_and_the_documents_come_all_the_same(
    cloud: ScriptedCloud, built: None, root: Path
) -> None:
    assert cloud.file is not None
    cloud.behave(f"projections/org/file/{hashlib.sha256(cloud.file[1]).hexdigest()}", cuts_off)
    with device(cloud, root) as runtime:
        assert hits(runtime, "boots returned")[0] == "returns"
    assert len(bases(root)) == 1


@pytest.mark.parametrize("damage", ["base gone", "base cut", "base flipped", "manifest gone", "manifest torn"])
def test_what_is_damaged_on_the_disk_is_pulled_anew(cloud: ScriptedCloud, built: None, root: Path, damage: str) -> None:
    with device(cloud, root):
        pass
    folder = ProjectFolder(root, PROJECT)
    base = folder.org_base(manifest(root)["base"]["sha256"])
    content = base.read_bytes()
    if damage == "base gone":
        base.unlink()
    elif damage == "base cut":
        base.write_bytes(content[: len(content) // 2])
    elif damage == "base flipped":
        at = content.index(b"thirty days")
        base.write_bytes(content[:at] + b"T" + content[at + 1 :])
    elif damage == "manifest gone":
        folder.org_manifest.unlink()
    else:
        folder.org_manifest.write_bytes(folder.org_manifest.read_bytes()[:-9])
    with device(cloud, root) as runtime:
        runtime.pull("org")
        eventually(lambda: hits(runtime, "boots returned")[:1] == ["returns"])
        assert "thirty days" in runtime.search("boots returned")["org"][0]["text"]


def test_one_runtime_pulls_for_all_and_the_others_notice(cloud: ScriptedCloud, built: None, root: Path) -> None:
    with ExitStack() as stack:
        runtimes = [stack.enter_context(device(cloud, root, user_id=f"caller-{number}")) for number in range(4)]
        assert downloads(cloud) == 1
        cloud.put(("parking", "Parking is behind the house."))
        runtimes[0].pull("org")
        for runtime in runtimes:
            eventually(lambda runtime=runtime: hits(runtime, "parking") == ["parking"])  # type: ignore[misc]
        assert asked(cloud).count("since=2") == 2, "with the file, and now"

        cloud.put(("cafe", "The cafe is upstairs."))
        threads = [threading.Thread(target=runtime.pull, args=("org",)) for runtime in runtimes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [hits(runtime, "cafe") for runtime in runtimes] == [["cafe"]] * 4, "at once, wherever it was asked for"
        assert asked(cloud).count("since=3") == 1


def test_who_waits_for_another_process_has_not_pulled(cloud: ScriptedCloud, root: Path) -> None:
    folder = ProjectFolder(root, PROJECT)
    folder.create()
    other = ProcessLock(folder.role("org-sync"))
    assert other.take()
    cloud.put(("hours", "We open at nine."))
    with device(cloud, root, is_calm=False) as runtime:
        eventually(lambda: len(cloud.asked("bootstrap")) > 2)
        assert (runtime.sync["state"], runtime.sync["hasPulled"]) == ("ok", False)
        other.leave()
        runtime.waits_for_first_pull()
        assert runtime.found("When do you open?", "org") == ["We open at nine."]


def test_with_a_file_of_documents_nothing_is_pulled(
    cloud: ScriptedCloud, built: None, root: Path, tmp_path: Path
) -> None:
    org_file = tmp_path / "org.jsonl"
    org_file.write_text(json.dumps({"id": "own", "text": "Ours alone, about boots."}) + "\n")
    with device(cloud, root, org_file=org_file) as runtime:
        assert runtime.pull()["versions"]["org"] is None
        eventually(lambda: hits(runtime, "boots returned") == ["own"])
    assert asked(cloud) == []


def test_a_runtime_for_documents_alone_pulls_them(cloud: ScriptedCloud, built: None, root: Path) -> None:
    with device(cloud, root, user_id="__org__", org_only=True) as runtime:
        assert hits(runtime, "boots returned")[0] == "returns"
        assert runtime.pull()["versions"] == {"profile": None, "permanent": None, "org": 2}
