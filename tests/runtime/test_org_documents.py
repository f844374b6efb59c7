"""The documents of a local file: indexed once for all processes, and again when the file has changed."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runtimes import PROJECT, RunningRuntime
from support.waiting import eventually

from memoair_index import Index, Query, extract_labels, split_chunks, split_document
from memoair_index.static_model import default_model
from memoair_runtime.org.documents import FileOrg, build_index
from memoair_runtime.storage.project_folder import ProjectFolder

RETURNS = {"id": "returns", "text": "Boots can be returned within thirty days.", "metadata": {"topic": "returns"}}
HOURS = {"id": "hours", "text": "We open at nine on weekdays.", "metadata": {"topic": "hours"}}


def write_lines(path: Path, *documents: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def documents_at(path: Path, root: Path) -> FileOrg:
    return FileOrg(ProjectFolder(root, PROJECT), path)


def find_ids(index: Index, question: str, **query: Any) -> list[str]:
    """Return the ids of the documents that a question finds, best first."""
    return list(dict.fromkeys(hit.document.group for hit in index.search(Query(question, **query), 20)))


@pytest.fixture(autouse=True, scope="module")
def model_is_open() -> None:
    """Open the model once for the process, so that no single test seems to leave it open."""
    default_model()


@pytest.fixture
def org_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "org.jsonl", RETURNS, HOURS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def list_files(root: Path) -> list[str]:
    """Return the files in the project's folder, except locks."""
    return sorted(path.name for path in (root / PROJECT).iterdir() if path.is_file() and path.suffix != ".lock")


# The index is stored


def test_documents_are_indexed_once_and_then_opened(org_file: Path, root: Path) -> None:
    documents = documents_at(org_file, root)
    assert find_ids(documents.load_index().index, "boots")[0] == "returns"
    before = documents.index_path.stat()
    assert before.st_mode & 0o777 == 0o600

    again = documents_at(org_file, root).load_index().index
    assert find_ids(again, "boots")[0] == "returns"
    assert again.file_metadata["stamp"] == list(documents.version_key())
    assert again.unmerged_count == 0
    after = documents.index_path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_second_process_opens_the_index_of_the_first(
    start_runtime: Callable[..., RunningRuntime], org_file: Path, root: Path
) -> None:
    first = start_runtime(root, ORG_FILE=str(org_file))
    first.wait_until_loaded()
    path = ProjectFolder(root, PROJECT).org_file_index(org_file)
    before = path.stat()
    first.terminate()

    second = start_runtime(root, ORG_FILE=str(org_file))
    second.wait_until_loaded()
    assert second.search("now", "boots")["org"][0]["id"] == "returns"
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list_files(root) == [path.name]


def test_ten_processes_at_once_find_the_documents_and_leave_one_valid_index(
    start_runtime: Callable[..., RunningRuntime], org_file: Path, root: Path
) -> None:
    runtimes = [start_runtime(root, ORG_FILE=str(org_file)) for _ in range(10)]
    for runtime in runtimes:
        runtime.wait_until_loaded()
        assert runtime.search("now", "boots")["org"][0]["id"] == "returns"
    path = ProjectFolder(root, PROJECT).org_file_index(org_file)
    assert list_files(root) == [path.name]
    index = Index.open(path)
    index.verify()
    assert len(index) == 2


def test_two_files_of_one_project_have_separate_indexes(tmp_path: Path, root: Path) -> None:
    one = documents_at(write_lines(tmp_path / "one.jsonl", RETURNS), root)
    two = documents_at(write_lines(tmp_path / "two.jsonl", HOURS), root)
    for _ in range(2):
        assert find_ids(one.load_index().index, "boots weekdays") == ["returns"]
        assert find_ids(two.load_index().index, "boots weekdays") == ["hours"]


# The file changes


def test_a_file_that_was_changed_is_read_again(org_file: Path, root: Path) -> None:
    assert find_ids(documents_at(org_file, root).load_index().index, "persimmon boots")[0] == "returns"
    write_lines(org_file, {"id": "fruit", "text": "A persimmon is a fruit."})
    for _ in range(2):
        assert find_ids(documents_at(org_file, root).load_index().index, "persimmon boots") == ["fruit"]
    assert len(list_files(root)) == 1


def test_a_process_reads_a_changed_file_at_the_next_session_start(
    start_runtime: Callable[..., RunningRuntime], org_file: Path, root: Path
) -> None:
    runtime = start_runtime(root, ORG_FILE=str(org_file))
    version = eventually(lambda: runtime.start("call-1")["bootstrap"]["orgManifestVersion"])
    write_lines(org_file, {"id": "fruit", "text": "A persimmon is a fruit."})
    os.utime(org_file, ns=(version * 1_000_000 + 10**9,) * 2)
    runtime.start("call-2")
    eventually(lambda: [hit["id"] for hit in runtime.search("call-2", "persimmon")["org"]] == ["fruit"])
    assert not any(hit["id"] == "returns" for hit in runtime.search("call-2", "boots")["org"])


def test_a_file_with_the_same_time_and_another_size_is_read_again(
    start_runtime: Callable[..., RunningRuntime], org_file: Path, root: Path
) -> None:
    runtime = start_runtime(root, ORG_FILE=str(org_file))
    runtime.wait_until_loaded()
    state = org_file.stat()
    write_lines(org_file, {"id": "fruit", "text": "A persimmon is a fruit."})
    os.utime(org_file, ns=(state.st_atime_ns, state.st_mtime_ns))  # as rsync --times and cp --preserve do
    runtime.start("call-2")
    eventually(lambda: [hit["id"] for hit in runtime.search("call-2", "persimmon")["org"]] == ["fruit"])


def test_of_two_documents_with_one_id_the_later_line_counts(tmp_path: Path, root: Path) -> None:
    newer = {"id": "returns", "text": "Sandals can be returned within a year.", "metadata": {"year": 2026}}
    documents = documents_at(write_lines(tmp_path / "org.jsonl", RETURNS, HOURS, newer), root)
    for _ in range(2):
        index = documents.load_index().index
        (found,) = {hit.document.text for hit in index.search(Query("returned"), 5) if hit.contributions.get("around")}
        assert found == newer["text"]
        assert len(index) == 2


def test_lines_that_are_not_documents_are_skipped(org_file: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with org_file.open("ab") as file:
        file.write(b'\xff\n{"id": ""}\n\n[]\n{"id": "last", "text": "Persimmons ripen late."}')
    for _ in range(2):
        assert find_ids(documents_at(org_file, root).load_index().index, "persimmons")[0] == "last"
    assert caplog.text.count("action=org_lines_skipped") == 1, "the file is read only once"
    assert "lines=3" in caplog.text


def test_an_empty_file_has_no_documents(tmp_path: Path, root: Path) -> None:
    (tmp_path / "org.jsonl").write_bytes(b"")
    for _ in range(2):
        index = documents_at(tmp_path / "org.jsonl", root).load_index().index
        assert len(index) == 0
        assert find_ids(index, "boots") == []


# Damage


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_another_format(path: Path) -> None:
    path.write_bytes(b"no index at all")


def flip_byte_in_text(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"thirty")] ^= 1
    path.write_bytes(content)


def flip_byte_in_table(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [cut_in_half, make_empty, replace_by_another_format, flip_byte_in_text, flip_byte_in_table]
)
def test_a_damaged_index_is_logged_and_rebuilt(
    start_runtime: Callable[..., RunningRuntime], org_file: Path, root: Path, damage: Callable[[Path], None]
) -> None:
    documents = documents_at(org_file, root)
    documents.load_index()
    damage(documents.index_path)
    runtime = start_runtime(root, ORG_FILE=str(org_file))
    eventually(lambda: "action=index_" in runtime.output())

    def texts() -> list[str]:
        return [hit["text"] for hit in runtime.search("now", "boots")["org"]]

    eventually(lambda: RETURNS["text"] in texts())

    def is_mended() -> bool:
        index = documents.load_index().index
        index.verify()
        return len(index) == 2

    eventually(is_mended)


def test_documents_are_found_if_a_folder_is_in_the_place_of_the_index(org_file: Path, root: Path) -> None:
    documents = documents_at(org_file, root)
    documents.index_path.mkdir(parents=True)
    for _ in range(2):
        assert find_ids(documents.load_index().index, "boots")[0] == "returns"


def test_documents_are_found_if_no_index_can_be_written(org_file: Path, tmp_path: Path) -> None:
    (tmp_path / "root").write_text("not a folder")
    for root in (tmp_path / "root", Path("/proc/1/memoair")):
        for _ in range(2):
            assert find_ids(documents_at(org_file, root).load_index().index, "boots")[0] == "returns"


def test_temporary_files_of_a_crash_are_deleted_with_the_next_index(org_file: Path, root: Path) -> None:
    documents = documents_at(org_file, root)
    ProjectFolder(root, PROJECT).create()
    documents.index_path.with_name(f".{documents.index_path.name}.4711.0badcafe.part").write_bytes(b"half an index")
    documents.load_index()
    assert list_files(root) == [documents.index_path.name]


# Labels


@pytest.mark.parametrize(
    ("text", "metadata", "labels"),
    [
        ("The Blue Anchor\nIt opens at nine.", {}, ("The Blue Anchor",)),
        ("It opens at nine.", {"name": "The Blue Anchor"}, ("The Blue Anchor",)),
        ("It opens.", {"wie-auch-immer": "Gasthof zur Post", "n": 3}, ("Gasthof zur Post",)),
        ("Blue Anchor\nIt opens.", {"title": "Blue Anchor"}, ("Blue Anchor",)),
        ("One line only, without a title", {}, ()),
        ("It opens at nine.\nAnd closes at ten.", {}, ()),
        ("Does it open?\nYes.", {}, ()),
        (
            "x",
            {"url": "https://anchor.example/menu", "file": "menu.pdf", "phone": "+49 731 12345", "day": "2026-03-02"},
            (),
        ),
        ("x", {"list": ["Blue Anchor"], "nested": {"name": "Blue Anchor"}, "no": None, "yes": True}, ()),
        ("x", {"long": "word " * 9, "longer": "x" * 81, "blank": "  ", "none": ""}, ()),
        ("x", {f"key{n}": f"name {n} of it" for n in range(20)}, tuple(f"name {n} of it" for n in range(8))),
        ("  Padded title  \nText", {"name": " Padded title "}, ("Padded title",)),
        ("", {}, ()),
    ],
)
def test_labels_are_names_and_titles(text: str, metadata: dict[str, Any], labels: tuple[str, ...]) -> None:
    assert extract_labels(text, metadata) == labels


@given(st.text(max_size=200), st.dictionaries(st.text(max_size=5), st.text(max_size=90) | st.integers(), max_size=12))
@settings(deadline=None)
def test_any_document_has_few_short_labels_and_chunks_that_are_its_text(text: str, metadata: dict[str, Any]) -> None:
    labels = extract_labels(text, metadata)
    assert len(labels) <= 8
    assert len(set(labels)) == len(labels)
    assert all(label == label.strip() and 0 < len(label) <= 80 for label in labels)
    documents = list(split_document("a#0", text * 9, metadata))
    assert [document.text for document in documents] == split_chunks(text * 9)
    assert {document.group for document in documents} == {"a#0"}


# Search


@pytest.fixture
def search_documents(
    start_runtime: Callable[..., RunningRuntime], org_file: Path
) -> Callable[..., list[dict[str, Any]]]:
    """A function that searches documents; it starts a runtime at the first call."""
    running: list[RunningRuntime] = []

    def search(question: str, **options: Any) -> list[dict[str, Any]]:
        if not running:
            running.append(start_runtime(ORG_FILE=str(org_file)))
            running[0].wait_until_loaded()
        found = running[0].search("now", question, lanes=["org"], **options)
        assert found["trace"]["degraded"] is False
        return list(found["org"])

    return search


def test_a_large_document_is_found_by_its_relevant_passage(
    org_file: Path, search_documents: Callable[..., list[dict[str, Any]]]
) -> None:
    filler = "The warehouse keeps its usual order and nothing else is to be told of it. "
    needle = "The zanzibarplum is kept behind the seventh door. "
    text = filler * 7_000 + needle + filler * 7_000
    assert len(text) > 1_000_000
    write_lines(org_file, RETURNS, {"id": "large", "text": text, "metadata": {"kind": "manual"}})

    best = search_documents("Where is the zanzibarplum?")[0]
    assert needle.strip() in best["text"]
    assert len(best["text"]) < 1_000
    assert best["metadata"] == {"kind": "manual"}
    assert best["source"] == {"lane": "org", "id": "large", "kind": "document", "documentId": "large"}


def test_a_document_with_many_relevant_passages_is_one_hit_among_others(
    org_file: Path, search_documents: Callable[..., list[dict[str, Any]]]
) -> None:
    chapters = "".join(f"Chapter {number}: boots, and how boots are made. {'Leather. ' * 70}" for number in range(40))
    write_lines(org_file, {"id": "book", "text": chapters}, RETURNS, HOURS)
    found = search_documents("boots")
    assert {hit["id"] for hit in found} >= {"book", "returns"}
    assert len({hit["id"] for hit in found}) == len(found)


def test_a_filter_selects_documents_by_metadata(search_documents: Callable[..., list[dict[str, Any]]]) -> None:
    question = "boots weekdays"
    assert {hit["id"] for hit in search_documents(question)} == {"returns", "hours"}
    assert [hit["id"] for hit in search_documents(question, filter={"topic": "hours"})] == ["hours"]
    assert [hit["id"] for hit in search_documents(question, filter={"topic": {"$ne": "hours"}})] == ["returns"]
    assert search_documents(question, filter={"topic": "fruit"}) == []


def test_a_filter_finds_the_one_matching_document_among_many(
    org_file: Path, search_documents: Callable[..., list[dict[str, Any]]]
) -> None:
    many = [{"id": f"n{n}", "text": "All about boots.", "metadata": {"n": n, "big": 10**40}} for n in range(600)]
    write_lines(org_file, *many)
    (hit,) = search_documents("boots", filter={"n": 599})
    assert hit["id"] == "n599"
    assert hit["metadata"]["big"] == 10**40
    assert len(search_documents("boots", topK={"org": 100}, filter={"n": {"$gt": 300}})) == 100


def test_an_index_in_memory_finds_the_same(org_file: Path, root: Path) -> None:
    documents = documents_at(org_file, root)
    documents.load_index()
    for question in ("boots", "weekdays", "thirty days"):
        assert find_ids(build_index(org_file), question) == find_ids(documents.load_index().index, question)
    shutil.rmtree(root)
    assert find_ids(documents.load_index().index, "boots")[0] == "returns"
