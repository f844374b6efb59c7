"""Pull of documents by one runtime for its whole project: an index file, then only changes."""

import hashlib
import json
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.devices import Device, device
from support.runtimes import PROJECT
from support.scripted_cloud import ScriptedCloud, closes_connection, responds_with
from support.waiting import eventually

from memoair_index import Index, split_document
from memoair_runtime.org import pull
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def built_org_file(cloud: ScriptedCloud, tmp_path: Path) -> None:
    """The cloud has documents and has built an index file of them."""
    cloud.put_documents(
        ("returns", "Boots can be returned within thirty days."), ("hours", "We open at nine on weekdays.")
    )
    build_org_file(cloud, tmp_path)


def build_org_file(cloud: ScriptedCloud, tmp_path: Path) -> str:
    """Build an index file of all documents, as the cloud's worker does, and return its checksum."""
    live = [document for _, document in cloud.documents.values() if document is not None]
    index = Index()
    index.add(
        chunk
        for each in live
        for chunk in split_document(each["id"], each["text"], each["metadata"], each["indexName"])
    )
    path = tmp_path / "built.index"
    index.merge(path)
    cloud.org_file = cloud.org_version, path.read_bytes()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_ids(runtime: Device, query: str) -> list[str]:
    return [hit["id"] for hit in runtime.search(query, lanes=["org"])["org"]]


def read_manifest(root: Path) -> dict:  # type: ignore[type-arg]
    return dict(json.loads(ProjectFolder(root, PROJECT).org_manifest.read_bytes()))


def list_base_files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / PROJECT).iterdir() if "org-cloud" in path.name)


def org_queries(cloud: ScriptedCloud) -> list[str]:
    return [request.path.partition("?")[2] for request in cloud.requests_to("projections/org")]


def count_downloads(cloud: ScriptedCloud) -> int:
    return len([request for request in cloud.requests if "/org/file/" in request.path])


def test_a_new_machine_downloads_the_file_and_later_changes(
    cloud: ScriptedCloud, built_org_file: None, root: Path, tmp_path: Path
) -> None:
    cloud.put_documents(("parking", "Parking is behind the house."), topic="parking")
    cloud.put_documents(("hours", "We open at ten."), index="other")
    cloud.delete_document("hours")
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
        assert find_ids(runtime, "boots returned")[0] == "returns"
        sources = [hit["source"] for hit in runtime.search("When do you open on weekdays?")["org"]]
        assert [source["indexName"] for source in sources if source["id"] == "hours"] == ["other"]
    assert org_queries(cloud) == ["since=2"]
    assert read_manifest(root)["version"] == 5
    assert list_base_files(root) == [f"org-cloud-{read_manifest(root)['base']['sha256'][:16]}.index"]
    mode = ProjectFolder(root, PROJECT).org_base(read_manifest(root)["base"]["sha256"]).stat().st_mode
    assert mode & 0o777 == 0o600


def test_without_a_file_the_documents_are_indexed_on_this_machine(cloud: ScriptedCloud, root: Path) -> None:
    cloud.page_size = 3
    cloud.put_documents(*((f"d-{number}", f"Parcel {number}.") for number in range(10)))
    with device(cloud, root) as runtime:
        assert find_ids(runtime, "parcel 7")[0] == "d-7"
    assert org_queries(cloud) == ["", "since=3", "since=6", "since=9"]
    assert (read_manifest(root)["documents"], read_manifest(root)["base"]["version"]) == ([], 10)
    cloud.behave("*", always=closes_connection)
    with device(cloud, root, waits_for_pull=False) as runtime:
        assert find_ids(runtime, "parcel 7")[0] == "d-7"
    with device(None, root) as runtime:
        assert find_ids(runtime, "parcel 7") == [], "without a cloud, no documents of one"


def test_changes_replace_and_delete_documents_with_all_their_chunks(
    cloud: ScriptedCloud, built_org_file: None, root: Path, tmp_path: Path
) -> None:
    cloud.put_documents(("terms", " ".join(f"The {number}th persimmon is free." for number in range(200))))
    build_org_file(cloud, tmp_path)
    with device(cloud, root) as runtime:
        assert find_ids(runtime, "persimmon") == ["terms"]
        cloud.put_documents(("terms", "No quince is free."))
        cloud.delete_document("returns")
        runtime.pull("org")
        assert find_ids(runtime, "persimmon") == []
        assert find_ids(runtime, "quince") == ["terms"]
        assert find_ids(runtime, "boots returned") == []
        cloud.put_documents(("returns", "Boots can't be returned."))
        runtime.pull("org")
        assert find_ids(runtime, "boots returned")[0] == "returns"
        assert runtime.service.health()["lanes"]["org"] == "ready"
    assert count_downloads(cloud) == 1


def test_many_changes_are_replaced_by_the_next_file_or_merged_on_this_machine(
    cloud: ScriptedCloud, built_org_file: None, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "MAX_CHANGES", 3)
    with device(cloud, root) as runtime:
        cloud.put_documents(*((f"d-{number}", f"Parcel {number}.") for number in range(5)))
        runtime.pull("org")  # the cloud has not built another file
        assert (count_downloads(cloud), read_manifest(root)["documents"], read_manifest(root)["base"]["version"]) == (
            1,
            [],
            7,
        )
        cloud.put_documents(*((f"e-{number}", f"Letter {number}.") for number in range(5)))
        second = build_org_file(cloud, tmp_path)
        cloud.delete_document("d-4")
        runtime.pull("org")
        assert (count_downloads(cloud), read_manifest(root)["base"]) == (2, {"sha256": second, "version": 12})
        assert read_manifest(root)["removed"] == [{"indexName": "faq", "id": "d-4"}]
        assert (find_ids(runtime, "parcel 3")[0], find_ids(runtime, "letter 3")[0]) == ("d-3", "e-3")
        assert "d-4" not in find_ids(runtime, "parcel 4")
    assert list_base_files(root) == [f"org-cloud-{second[:16]}.index"]


@pytest.mark.parametrize("content", [b"", b"no index", b"short"])
@pytest.mark.parametrize("checksum", ["matching", "different"])
def test_a_file_with_a_wrong_checksum_or_format_is_not_used(
    cloud: ScriptedCloud, built_org_file: None, root: Path, content: bytes, checksum: str
) -> None:
    assert cloud.org_file is not None
    if checksum == "matching":
        cloud.org_file = cloud.org_file[0], content
    else:
        sha256 = hashlib.sha256(cloud.org_file[1]).hexdigest()
        cloud.behave(f"projections/org/file/{sha256}", always=responds_with(200, content))
    with device(cloud, root) as runtime:
        assert find_ids(runtime, "boots returned")[0] == "returns"
    assert org_queries(cloud) == [""]
    assert len(list_base_files(root)) == 1


def test_an_interrupted_download_leaves_no_file_and_the_documents_are_pulled(
    cloud: ScriptedCloud, built_org_file: None, root: Path
) -> None:
    assert cloud.org_file is not None
    cloud.behave(f"projections/org/file/{hashlib.sha256(cloud.org_file[1]).hexdigest()}", closes_connection)
    with device(cloud, root) as runtime:
        assert find_ids(runtime, "boots returned")[0] == "returns"
    assert len(list_base_files(root)) == 1


@pytest.mark.parametrize("damage", ["base gone", "base cut", "base flipped", "manifest gone", "manifest torn"])
def test_damaged_files_are_pulled_again(cloud: ScriptedCloud, built_org_file: None, root: Path, damage: str) -> None:
    with device(cloud, root):
        pass
    folder = ProjectFolder(root, PROJECT)
    base = folder.org_base(read_manifest(root)["base"]["sha256"])
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
        eventually(lambda: find_ids(runtime, "boots returned")[:1] == ["returns"])
        assert "thirty days" in runtime.search("boots returned")["org"][0]["text"]


def test_one_runtime_pulls_for_all_runtimes_of_the_project(
    cloud: ScriptedCloud, built_org_file: None, root: Path
) -> None:
    with ExitStack() as stack:
        runtimes = [stack.enter_context(device(cloud, root, user_id=f"caller-{number}")) for number in range(4)]
        assert count_downloads(cloud) == 1
        cloud.put_documents(("parking", "Parking is behind the house."))
        runtimes[0].pull("org")
        for runtime in runtimes:
            eventually(lambda runtime=runtime: find_ids(runtime, "parking") == ["parking"])  # type: ignore[misc]
        assert org_queries(cloud).count("since=2") == 2, "once after the download, and once now"

        cloud.put_documents(("cafe", "The cafe is upstairs."))
        threads = [threading.Thread(target=runtime.pull, args=("org",)) for runtime in runtimes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [find_ids(runtime, "cafe") for runtime in runtimes] == [["cafe"]] * 4, "at once, in whichever runtime"
        assert org_queries(cloud).count("since=3") == 1


def test_a_process_that_waits_for_the_lock_has_not_pulled(cloud: ScriptedCloud, root: Path) -> None:
    folder = ProjectFolder(root, PROJECT)
    folder.create()
    other = ProcessLock(folder.lock("org-sync"))
    assert other.try_acquire()
    cloud.put_documents(("hours", "We open at nine."))
    with device(cloud, root, waits_for_pull=False) as runtime:
        eventually(lambda: len(cloud.requests_to("bootstrap")) > 2)
        assert (runtime.sync["state"], runtime.sync["hasPulled"]) == ("ok", False)
        other.release()
        runtime.wait_for_first_pull()
        assert runtime.find_texts("When do you open?", "org") == ["We open at nine."]


def test_with_a_local_file_of_documents_none_are_pulled(
    cloud: ScriptedCloud, built_org_file: None, root: Path, tmp_path: Path
) -> None:
    org_file = tmp_path / "org.jsonl"
    org_file.write_text(json.dumps({"id": "own", "text": "Ours alone, about boots."}) + "\n")
    with device(cloud, root, org_file=org_file) as runtime:
        assert runtime.pull()["versions"]["org"] is None
        eventually(lambda: find_ids(runtime, "boots returned") == ["own"])
    assert org_queries(cloud) == []


def test_a_runtime_for_documents_only_pulls_them(cloud: ScriptedCloud, built_org_file: None, root: Path) -> None:
    with device(cloud, root, user_id="__org__", org_only=True) as runtime:
        assert find_ids(runtime, "boots returned")[0] == "returns"
        assert runtime.pull()["versions"] == {"profile": None, "permanent": None, "org": 2}
