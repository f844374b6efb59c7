"""Index files: merged documents are read back, damage is reported, and files are immutable and written atomically."""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from support.waiting import eventually

from memoair_index import ContainerError, Document, Hit, Index, Query
from memoair_index.container import write_container
from memoair_index.static_model import NoEmbedding

TIMESTAMP = 1_684_000_000.0
EVERYTHING = Query("red boots", recent_turns=("the Grant Hotel",), speaker="Dana")


class OtherEmbedding:
    """An embedding in which all texts have the same meaning."""

    dimensions = 1
    fingerprint = "other"

    def encode(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        return np.ones((len(texts), 1), np.float32)

    def neighbors(self, term: int) -> Sequence[tuple[int, float]]:
        return ()


def make_documents(first: int = 0, end: int = 12) -> list[Document]:
    return [
        Document(
            id=f"turn-{number}",
            text=f"red boots and {number} more words in may, no wait",
            group=f"call-{number % 3}",
            speaker=["", "Dana", "agent"][number % 3],
            occurred_at=TIMESTAMP + number * 86_400 if number % 4 else None,
            labels=("Grant Hotel", "Riverside Dental") if number % 2 else (),
            metadata={"n": number, "nested": {"a": [1, "ü", None]}},
        )
        for number in range(first, end)
    ]


def ranking(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    return [(hit.document.id, hit.score) for hit in hits]


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.document.id for hit in hits]


def find_all_ids(index: Index) -> set[str]:
    """Return the ids of all documents of `make_documents` that an index finds."""
    return set(ids(index.search(Query("boots"), 10**6)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of an index of twelve documents."""
    index = Index()
    index.add(make_documents())
    index.merge(tmp_path / "index", lambda: {"stamp": 7})
    return tmp_path / "index"


def array_spans(content: bytes) -> dict[str, tuple[int, int]]:
    """Return the start and end of each array in a file."""
    _, length, _ = struct.unpack("<8sII", content[:16])
    table = json.loads(content[16 : 16 + length])["sections"]
    return {
        name: (array["offset"], array["offset"] + np.dtype(array["dtype"]).itemsize * int(np.prod(array["shape"])))
        for name, array in table.items()
    }


def test_a_merged_index_is_read_back(path: Path) -> None:
    index = Index.open(path)
    index.verify()
    assert len(index) == 12
    assert index.unmerged_count == 0
    assert index.file_metadata == {"stamp": 7}
    for number in range(3):
        assert index.group_documents(f"call-{number}") == make_documents()[number::3]
    assert find_all_ids(index) == {document.id for document in make_documents()}


def test_an_empty_index_can_be_merged_and_opened(tmp_path: Path) -> None:
    index = Index()
    assert index.file_metadata == {}
    index.verify()
    index.merge(tmp_path / "index")
    index.merge(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    opened.verify()
    assert len(opened) == 0
    assert opened.search(EVERYTHING, 5) == []
    opened.add(make_documents())
    assert len(find_all_ids(opened)) == 12


def test_a_merge_after_removing_everything_writes_an_empty_file(path: Path) -> None:
    index = Index.open(path)
    assert index.remove(document.id for document in make_documents()) == 12
    assert index.search(EVERYTHING, 5) == []
    index.merge(path)
    assert len(Index.open(path)) == 0
    assert Index.open(path).group_documents("call-1") == []


def test_many_merges_give_the_same_file_as_one(tmp_path: Path) -> None:
    one, many = Index(), Index()
    one.add(make_documents(0, 60))
    for first in range(0, 60, 10):
        many.add(Document(f"gone-{number}", "red boots", "call-1", "Dana") for number in range(3))
        many.add(make_documents(first, first + 10))
        many.merge(tmp_path / "many")
        many.remove([f"gone-{number}" for number in range(3)])
    many.merge(tmp_path / "many")
    one.merge(tmp_path / "one")
    assert ranking(many.search(EVERYTHING, 99)) == ranking(one.search(EVERYTHING, 99))
    assert (tmp_path / "many").stat().st_size == (tmp_path / "one").stat().st_size


def test_an_open_file_is_never_changed(path: Path) -> None:
    before, inode = path.read_bytes(), path.stat().st_ino
    index = Index.open(path)
    index.add(make_documents(6, 20))
    index.remove(["turn-1", "turn-19"])
    index.search(EVERYTHING, 5)
    index.verify()
    index.merge(path.with_name("another"))
    index.add(make_documents(0, 3))
    assert (path.read_bytes(), path.stat().st_ino) == (before, inode)
    Index.open(path).verify()


def test_two_indexes_over_one_file_are_independent(path: Path) -> None:
    one, other = Index.open(path), Index.open(path)
    before = ranking(other.search(EVERYTHING, 99))
    one.remove(["turn-1", "turn-4"])
    one.add([Document("new", "red boots", "call-1")])
    assert ranking(other.search(EVERYTHING, 99)) == before
    assert other.group_documents("call-1") == make_documents()[1::3]

    one.merge(path)
    other.verify()
    assert ranking(other.search(EVERYTHING, 99)) == before
    assert "new" not in other
    assert "new" in Index.open(path)


def test_a_merge_replaces_the_file_atomically(path: Path) -> None:
    opened = path.open("rb")
    before = path.read_bytes()
    index = Index.open(path)
    index.add(make_documents(12, 20))
    index.merge(path)
    with opened:
        assert opened.read() == before, "a process that has the old file open continues with it"
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert len(Index.open(path)) == 20


def test_invalid_or_failing_metadata_leaves_everything_unchanged(path: Path) -> None:
    index = Index.open(path)
    index.add(make_documents(12, 14))
    before = path.read_bytes()
    with pytest.raises(TypeError):
        index.merge(path, lambda: {"what": object()})
    with pytest.raises(ZeroDivisionError):
        index.merge(path, lambda: {"what": 1 / 0})
    assert (path.read_bytes(), [each.name for each in path.parent.iterdir()]) == (before, [path.name])
    assert (len(index), index.unmerged_count, index.file_metadata) == (14, 2, {"stamp": 7})
    index.merge(path, lambda: {"stamp": 8})
    assert (len(Index.open(path)), index.unmerged_count, index.file_metadata) == (14, 0, {"stamp": 8})


def test_a_failed_merge_can_be_repeated_elsewhere(path: Path) -> None:
    index = Index.open(path)
    index.add(make_documents(12, 14))
    with pytest.raises(OSError, match="missing"):
        index.merge(path.parent / "missing" / "index")
    index.remove(["turn-0"])
    assert find_all_ids(index) == {f"turn-{number}" for number in range(1, 14)}
    index.merge(path)
    assert find_all_ids(Index.open(path)) == {f"turn-{number}" for number in range(1, 14)}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_full_disk_fails_a_merge_and_loses_nothing(path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from memoair_index import Document, Index, Query
path = Path(sys.argv[1])
index = Index.open(path)
before = path.read_bytes()
index.add(Document(f"late-{number}", "red boots", metadata={"ballast": "x" * 10_000}) for number in range(10))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for room in (0, 4_096, 90_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        index.merge(path)
    except OSError as error:
        print(error.strerror)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    index.remove([f"turn-{room % 11}"])
    assert len(index.search(Query("boots"), 99)) == len(index)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
index.merge(path)
print(len(index), index.unmerged_count, len(Index.open(path)))
"""
    completed = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert completed.stderr == ""
    assert completed.stdout.splitlines() == ["File too large"] * 3 + ["19 0 19"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_a_process_killed_during_a_merge_leaves_a_complete_file(path: Path) -> None:
    code = """
import sys
from pathlib import Path
from memoair_index import Document, Index
index = Index.open(Path(sys.argv[1]))
for number, _ in enumerate(sys.stdin):
    index.add([Document(f"late-{number}", "red boots", metadata={"ballast": "x" * 100_000})])
    index.merge(Path(sys.argv[1]))
    print(number, flush=True)
"""
    sizes = set()
    command = [sys.executable, "-c", code, path]
    for merges in (1, 4, 7):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n" * 2)  # always one merge in progress, at most two ahead
            for _ in range(merges):
                process.stdin.write("go\n")
                process.stdin.flush()
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        index = Index.open(path)
        index.verify()
        assert {f"turn-{number}" for number in range(12)} | {"late-0"} <= find_all_ids(index)
        sizes.add(len(index))
    assert len(sizes) > 1, "the processes were killed at different points"


def test_opening_a_file_does_not_read_its_documents(tmp_path: Path) -> None:
    documents, ballast = 200, 200_000
    index = Index()
    index.add(Document(f"{number}", "red boots", metadata={"ballast": "x" * ballast}) for number in range(documents))
    index.merge(tmp_path / "index")
    code = """
import sys
from pathlib import Path
import psutil
from memoair_index import Index, Query
Index().search(Query("boots"), 3)  # loads what all indexes share
process = psutil.Process()
before = process.memory_full_info().uss
index = Index.open(Path(sys.argv[1]))
print(process.memory_full_info().uss - before)
found = [hit.document for hit in index.search(Query("boots"), 1_000)]
print(process.memory_full_info().uss - before)
"""
    completed = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "index"], capture_output=True, text=True, timeout=60
    )
    opened, read = map(int, completed.stdout.split())
    assert opened < documents * ballast / 20
    assert read > documents * ballast, "the measurement includes what is read"


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda _: b"", lambda _: b"x" * 99])
def test_an_incomplete_index_file_is_refused(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ContainerError, match=path.name):
        Index.open(path)


def test_a_container_of_another_kind_or_version_or_without_arrays_is_refused(tmp_path: Path) -> None:
    for kind, version in (("memoair static embedding", 1), ("memoair index", 0), ("memoair index", 1)):
        write_container(tmp_path / "other", kind, version, {}, {"items": np.zeros(40, np.uint8)})
        with pytest.raises(ContainerError, match="other"):
            Index.open(tmp_path / "other")


def test_a_file_of_another_embedding_is_refused_and_can_be_rebuilt(path: Path) -> None:
    with pytest.raises(ContainerError, match="another embedding"):
        Index.open(path, OtherEmbedding())
    other = Index(OtherEmbedding())
    other.add(make_documents())
    other.merge(path)
    with pytest.raises(ContainerError, match="another embedding"):
        Index.open(path)
    assert len(find_all_ids(Index.open(path, OtherEmbedding()))) == 12


def test_without_an_embedding_any_file_is_searched_by_words(path: Path) -> None:
    index = Index.open(path, NoEmbedding())
    index.add(make_documents(12, 14))
    assert len(find_all_ids(index)) == 14
    assert all("meaning" not in hit.contributions for hit in index.search(EVERYTHING, 99))
    index.merge(path)
    assert len(find_all_ids(index)) == 14


def test_a_flipped_bit_in_any_array_is_found_by_verify(path: Path) -> None:
    content = path.read_bytes()
    for name, (start, end) in array_spans(content).items():
        for position in {start, (start + end) // 2, end - 1} if end > start else ():
            path.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
            with pytest.raises(ContainerError, match=f"{name!r}"):
                Index.open(path).verify()


def test_a_damaged_file_is_never_merged(path: Path) -> None:
    """Otherwise the damaged data would get valid checksums, and the damage could not be found any more."""
    content = path.read_bytes()
    for name, (start, end) in array_spans(content).items():
        if end > start:
            position = (start + end) // 2
            path.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
            index = Index.open(path)
            with pytest.raises(ContainerError):  # noqa: PT012 - the first finds some damage, the second all
                index.add(make_documents(12, 13))
                index.merge(path.with_name("merged"))
            assert not path.with_name("merged").exists(), name


# A search of a damaged file may give fewer or other hits, or raise `ContainerError`. It must not crash the process, run
# forever or exhaust the memory, so it runs in a separate process.
_SEARCH_DAMAGED_FILE = """
import faulthandler, json, random, resource, sys, traceback
from pathlib import Path
from memoair_index import ContainerError, Document, Index, Query

path, positions = Path(sys.argv[1]), json.loads(sys.argv[2])
content = path.read_bytes()
resource.setrlimit(resource.RLIMIT_AS, (4 << 30,) * 2)
rng = random.Random(0)


def attempt(what):
    try:
        what()
    except ContainerError:
        pass


def use(index):
    for query in (
        Query("boots and when in may", recent_turns=("the Grant Hotel",), speaker="Dana"),
        Query("shoes", group="call-1"),
        Query("dental", exclude_group="call-2"),
    ):
        attempt(lambda: [hit.document for hit in index.search(query, 5)])
        attempt(lambda: index.search(query, 5, lambda document: False))
    for group in range(3):
        attempt(lambda: index.group_documents(f"call-{group}"))
        attempt(lambda: index.group_documents(f"call-{group}", 2))
    for number in range(12):
        f"turn-{number}" in index
        attempt(lambda: index.contiguous_run(f"turn-{number}", lambda document: True))
    attempt(lambda: index.document_frequency("boots"))
    attempt(lambda: len(index))


def change(index):
    attempt(lambda: index.add([Document("turn-4", "red boots", "call-1", labels=("Grant Hotel",))]))
    attempt(lambda: index.add([Document("new", "boots", "call-2", "Dana")]))
    for number in range(12):
        attempt(lambda: index.remove([f"turn-{number}"]))
    use(index)
    attempt(lambda: index.merge(path.with_name("merged")))


faulthandler.enable()
failed = set()
for position in positions:
    faulthandler.dump_traceback_later(20, exit=True)
    for byte in {0, 0xFF, 0x80, content[position] ^ 1, rng.randrange(256)} - {content[position]}:
        path.write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
        try:
            index = Index.open(path)
            use(index)
            change(index)
        except ContainerError:
            pass
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)[-3:]
            lines = " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
            failed.add(f"{type(error).__name__}: {error} in {lines}, byte {position} was {byte}")
print(*sorted(failed), sep="\\n")
"""


@pytest.mark.parametrize(
    "array", ["items", "group_ends", "record_starts", "records", "label", "terms", "ids", "groups", "vectors"]
)
def test_a_damaged_array_affects_only_search_results(path: Path, array: str) -> None:
    positions = [
        position
        for name, (start, end) in array_spans(path.read_bytes()).items()
        if name.startswith(array)
        for position in range(start, end, max(1, (end - start) // 9))
    ]
    command = [sys.executable, "-c", _SEARCH_DAMAGED_FILE, str(path), json.dumps(positions)]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert completed.stdout.split("\n") == ["", ""]


def test_cyclic_neighbors_terminate(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start, _ = array_spans(bytes(content))["items"]
    for number in range(12):
        # `previous` and `following` of an item come after its date and its group
        content[start + number * 40 + 12 : start + number * 40 + 20] = struct.pack("<ii", number, number)
    path.write_bytes(content)
    code = """
import faulthandler, sys
from pathlib import Path
from memoair_index import ContainerError, Index, Query
faulthandler.dump_traceback_later(20, exit=True)
index = Index.open(Path(sys.argv[1]))
index.search(Query("boots"), 5)
for what in (lambda: index.group_documents("call-1"), lambda: index.contiguous_run("turn-3", lambda document: True)):
    try:
        print(len(what()) <= 12)
    except ContainerError:
        print(True)
"""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30,) * 2)\n" if os.name != "nt" else ""
    completed = subprocess.run([sys.executable, "-c", limit + code, path], capture_output=True, text=True, timeout=100)
    assert (completed.stdout, completed.stderr, completed.returncode) == ("True\nTrue\n", "", 0)


def test_additions_removals_and_searches_during_merges_lose_nothing(tmp_path: Path) -> None:
    index = Index()
    writers = 2
    confirmed = [0] * writers
    searches = merges = 0
    done = threading.Event()
    begin = threading.Barrier(writers + 2)

    def write(writer: int) -> None:
        begin.wait()
        for number in range(60):
            index.add([Document(f"{writer}-{number}", "red boots", f"call-{writer}", labels=("Grant Hotel",))])
            index.add([Document(f"gone-{writer}-{number}", "red boots", f"call-{writer}", labels=("Grant Hotel",))])
            index.add([Document(f"again-{writer}", f"red boots {number}", f"call-{writer}")])
            assert index.remove([f"gone-{writer}-{number}"]) == 1
            confirmed[writer] = number + 1
            if number % 20 == 19:  # make sure that searches and merges run at the same time
                before = searches, merges
                eventually(lambda before=before: searches > before[0] and merges > before[1], 60)  # type: ignore[misc]

    def search() -> None:
        nonlocal searches
        begin.wait()
        while not done.is_set():
            expected = {f"{writer}-{number}" for writer in range(writers) for number in range(confirmed[writer])}
            found = ids(index.search(Query("boots", recent_turns=("Grant Hotel",)), 10**6))
            assert expected <= set(found)
            assert len(found) == len(set(found))
            searches += 1

    def merge() -> None:
        nonlocal merges
        begin.wait()
        while not done.is_set():
            index.merge(tmp_path / f"index-{merges % 2}")
            index.verify()
            merges += 1

    with ThreadPoolExecutor(writers + 2) as threads:
        writing = [threads.submit(write, writer) for writer in range(writers)]
        others = [threads.submit(search), threads.submit(merge)]
        wait(writing)
        done.set()
        for future in (*others, *writing):  # the others first: a writer fails if it waits for a search that failed
            future.result()
    assert min(searches, merges) > 1

    wanted = {f"{writer}-{number}" for writer in range(writers) for number in range(60)} | {"again-0", "again-1"}
    index.merge(tmp_path / "index-0")
    for each in (index, Index.open(tmp_path / "index-0")):
        assert set(ids(each.search(Query("boots"), 10**6))) == wanted
        assert len(each) == len(wanted)
    for writer in range(writers):
        in_order = [document.id for document in index.group_documents(f"call-{writer}")]
        assert in_order == [*(f"{writer}-{number}" for number in range(60)), f"again-{writer}"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["index-0", "index-1"]


def test_merges_leak_no_file_descriptors(path: Path) -> None:
    index = Index.open(path)
    index.merge(path)
    before = psutil.Process().num_fds()
    for number in range(12, 18):
        index.add(make_documents(number, number + 1))
        index.merge(path)
    assert psutil.Process().num_fds() <= before


def test_lone_surrogates_are_stored_as_question_marks(tmp_path: Path) -> None:
    broken: dict[str, Any] = {"\ud800": "\udfff", "list": ["\ud800", {"\ud800": 1}]}
    index = Index()
    index.add(
        [Document("a\ud800", "red \ud800 boots", "call\ud800", "Dana\ud800", None, ("Grant\ud800 Hotel",), broken)]
    )
    index.add([Document("b", "red boots", "call\ud800", "Dana\ud800")])
    for _ in range(2):
        asked = Query("boots", recent_turns=("Grant Hotel",), speaker="Dana\ud800", group="call\ud800")
        assert ids(index.search(asked, 5)) in (["a\ud800", "b"], ["a?", "b"])
        assert all(hit.contributions["speaker"] for hit in index.search(asked, 5))
        assert [document.id[0] for document in index.group_documents("call\ud800")] == ["a", "b"]
        assert "a\ud800" in index
        index.merge(tmp_path / "index")
        index = Index.open(tmp_path / "index")
        index.verify()
    assert index.remove(["a\ud800"]) == 1
    assert (len(index), index.remove(["a\ud800"])) == (1, 0)


@pytest.mark.parametrize("merges", [1, 0])
def test_ids_that_are_equal_in_a_file_are_one_document_from_the_start(tmp_path: Path, merges: int) -> None:
    index = Index()
    index.add([Document("?", "red boots", "call"), Document("other", "boots", "another")])
    index.merge(tmp_path / "index")
    index.add([Document("\ud800", "blue boots", "call")])
    for _ in range(merges):
        index.merge(tmp_path / "index")
    assert (len(index), len(Index.open(tmp_path / "index"))) == (2, 2)
    assert index.remove(["?"]) == 1
    assert index.remove(["?"]) == 0
    assert [document.id for document in index.group_documents("another")] == ["other"]
