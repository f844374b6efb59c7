"""Hostile files: whatever a file holds, reading it gives an answer or the documented error, and never another one.

Checksums do not protect against someone who writes the file, so most of these files have valid ones.
"""

import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest

from memoair_index import ContainerError, Document, Index, Query, kernel, static_model, vector_store
from memoair_index.container import write_container
from memoair_index.kernel import numpy_kernel
from memoair_index.static_model import StaticModel
from memoair_index.transformer import Transformer
from memoair_index.vector_store import VectorStore

_HEADER = struct.Struct("<8sII")
_EXTREMES = (0, 1, -1, 2, 7, 12, 127, 255, 256, -(2**31), 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64)
_VALUES = (
    *_EXTREMES,
    10**400,
    None,
    True,
    "",
    "é",
    "\ud800",
    [],
    [[]],
    {},
    {"": 1},
    0.5,
    -0.0,
    1e308,
    "<i4",
    "|O",
    "<M8[s]",
    "V0",
)
_TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"x": 0, "red": 1, "boots": 29}, "unk_token": "x"},
    }
).encode()
_NOW = datetime(2026, 5, 1, tzinfo=timezone.utc).timestamp()
_QUERIES = (
    Query("red boots and 3 more words", recent_turns=("the Grant Hotel",), speaker="Dana", now=_NOW),
    Query(
        "What did I say about the boots on the 14th of May?",
        group="call-1",
        speaker_names=frozenset({"Dana"}),
        now=_NOW,
    ),
    Query("redd bootz", recent_turns=("Riverside Dental", "may"), exclude_group="call-2", now=_NOW),
)


def _make_documents(first: int, end: int) -> list[Document]:
    return [
        Document(
            id=f"turn-{number}",
            text=f"red boots and {number} more words in may, no wait",
            group=f"call-{number % 3}",
            speaker=["", "Dana", "agent"][number % 3],
            occurred_at=1_684_000_000.0 + number * 86_400 if number % 4 else None,
            labels=("Grant Hotel", "Riverside Dental") if number % 2 else (),
            metadata={"n": number},
        )
        for number in range(first, end)
    ]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the content of a file of an index of twelve documents."""
    path = tmp_path_factory.mktemp("index") / "index"
    index = Index()
    index.add(_make_documents(0, 12))
    index.merge(path, lambda: {"stamp": 7})
    return path.read_bytes()


@pytest.fixture(params=["c", "numpy"])
def selected_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with each kernel."""
    used: ModuleType = numpy_kernel
    if request.param == "c":
        used = pytest.importorskip("memoair_index.kernel.c_kernel")
    monkeypatch.setattr(kernel, "score", used.score)
    monkeypatch.setattr(kernel, "rank", used.rank)


def _read_table(content: bytes) -> dict[str, Any]:
    _, length, _ = _HEADER.unpack(content[: _HEADER.size])
    table: dict[str, Any] = json.loads(content[_HEADER.size : _HEADER.size + length])
    return table


def _encode(table: Any) -> bytes:
    return json.dumps(table, separators=(",", ":")).encode()


def _with_table(content: bytes, encoded: bytes) -> bytes:
    """Return a file with another table and a valid checksum of it; the arrays stay where they are."""
    first = min(section["offset"] for section in _read_table(content)["sections"].values())
    head = _HEADER.pack(content[:8], len(encoded), zlib.crc32(encoded)) + encoded
    if len(head) > first:
        return content  # there is no room for this table
    return head.ljust(first, b"\0") + content[first:]


def _with_valid_checksums(content: bytes | bytearray, source: random.Random) -> bytes:
    """Return a file as someone would write it who wants it to be opened, now and then as damage would leave it."""
    table = _read_table(bytes(content))
    if source.random() < 0.2:
        return bytes(content)
    for section in table["sections"].values():
        size = np.dtype(section["dtype"]).itemsize * int(np.prod(section["shape"]))
        section["crc"] = zlib.crc32(content[section["offset"] : section["offset"] + size])
    return _with_table(bytes(content), _encode(table))


def truncate(content: bytes, source: random.Random) -> bytes:
    return content[: source.choice([source.randrange(len(content)), source.randrange(64)])]


def flip_bits(content: bytes, source: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(source.choice([1, 2, 8, 64])):
        damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
    return bytes(damaged)


def flip_table_bits(content: bytes, source: random.Random) -> bytes:
    table = bytearray(_encode(_read_table(content)))
    for _ in range(source.choice([1, 2, 4])):
        table[source.randrange(len(table))] = source.randrange(256)
    return _with_table(content, bytes(table))


def change_table(content: bytes, source: random.Random) -> bytes:
    """Return a file with other values in its table: types, shapes, offsets, metadata; some are missing."""
    table = _read_table(content)
    for _ in range(source.choice([1, 1, 2, 3])):
        target: Any = table
        while True:
            key = source.choice(list(target)) if isinstance(target, dict) else source.randrange(len(target))
            deeper = target[key]
            if not isinstance(deeper, dict | list) or not deeper or source.random() < 0.1:
                break
            target = deeper
        if source.random() < 0.1:
            del target[key]
        else:
            target[key] = source.choice(_VALUES)
        if not table:
            break
    return _with_table(content, _encode(table))


def retype(content: bytes, source: random.Random) -> bytes:
    """Return a file in which an array has the same bytes in another type and shape."""
    table = _read_table(content)
    section = table["sections"][source.choice(list(table["sections"]))]
    size = np.dtype(section["dtype"]).itemsize * int(np.prod(section["shape"]))
    dtype = source.choice(
        ["|i1", "|u1", "|b1", "<i2", "<u4", ">i4", "<f2", "<f4", "<f8", "<i8", "<u8", "<c8", "|S3", "<U1", "V4"]
    )
    count = size // np.dtype(dtype).itemsize
    section["dtype"] = dtype
    section["shape"] = source.choice([[count], [count, 1], [1, count], [], [1] * 40, [0], [0, 5], [count // 2, 2]])
    return _with_table(content, _encode(table))


def share_bytes(content: bytes, source: random.Random) -> bytes:
    """Return a file in which an array is in the place of another one."""
    table = _read_table(content)
    names = list(table["sections"])
    table["sections"][source.choice(names)] = dict(table["sections"][source.choice(names)])
    return _with_table(content, _encode(table))


def change_numbers(content: bytes, source: random.Random) -> bytes:
    """Return a file with extreme numbers in its arrays."""
    damaged = bytearray(content)
    table = _read_table(content)
    for _ in range(source.choice([1, 2, 4])):
        section = table["sections"][source.choice(list(table["sections"]))]
        size = np.dtype(section["dtype"]).itemsize * int(np.prod(section["shape"]))
        width = source.choice([1, 2, 4, 8])
        if size < width:
            continue
        for _ in range(source.choice([1, 1, 3, size // width])):
            at = section["offset"] + source.randrange(size // width) * width
            damaged[at : at + width] = (source.choice(_EXTREMES) % (1 << 8 * width)).to_bytes(width, "little")
    return _with_valid_checksums(damaged, source)


def break_records(content: bytes, source: random.Random) -> bytes:
    """Return a file with other bytes in the stored documents and in the texts of labels."""
    damaged = bytearray(content)
    section = _read_table(content)["sections"][source.choice(["records", "labels"])]
    pieces = (b"\xff\xfe", b"null", b"[]", b"9" * 12, b'"\\ud800"', b"{}", b"1e999", b"[[[[[[", b"\0", b"-1", b"true")
    for _ in range(source.choice([1, 3])):
        piece = source.choice(pieces)
        at = section["offset"] + source.randrange(max(1, section["shape"][0] - len(piece)))
        damaged[at : at + len(piece)] = piece
    return _with_valid_checksums(damaged, source)


CHANGES = (
    truncate,
    flip_bits,
    flip_table_bits,
    change_table,
    retype,
    share_bytes,
    change_numbers,
    break_records,
)


def _use(path: Path) -> Iterator[Callable[[], object]]:
    """Yield each way in which a file is used."""
    index = Index.open(path)
    yield index.verify
    for query in _QUERIES:
        yield lambda query=query: [  # type: ignore[misc]
            (hit.document, hit.score, hit.contributions, hit.confidence_features, hit.confidence)
            for hit in index.search(query, 5)
        ]
        yield lambda query=query: index.search(query, 3, lambda document: document.speaker != "agent")  # type: ignore[misc]
    yield lambda: len(index) and index.unmerged_count
    yield lambda: "turn-3" in index
    yield lambda: index.prepare_talk(["Grant Hotel"])
    yield lambda: index.document_frequency("boots")
    yield index.documents
    yield lambda: list(index.iterate_documents())
    yield lambda: index.latest_documents(3, lambda _: True)
    for number in range(3):
        yield lambda number=number: index.group_documents(f"call-{number}")  # type: ignore[misc]
    yield lambda: index.contiguous_run("turn-4", lambda _: True)
    yield lambda: index.remove(["turn-5", "turn-1"])
    yield lambda: index.add(_make_documents(4, 14))
    yield lambda: index.search(_QUERIES[0], 5)
    yield lambda: index.remove([f"turn-{number}" for number in range(14)])
    yield lambda: index.merge(path.with_suffix(".merged"))


def _find_undocumented(path: Path) -> list[str]:
    """Return the errors that using a file raises besides the documented ones, with the place of each."""
    found = []
    try:
        uses = list(_use(path))
    except Exception as error:  # noqa: BLE001 - what is looked for
        return [] if isinstance(error, ContainerError) else [_describe(error)]
    for use in uses:
        try:
            use()
        except ContainerError:
            pass
        except Exception as error:  # noqa: BLE001 - what is looked for
            found.append(_describe(error))
    return found


def _describe(error: Exception) -> str:
    place = "the test"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        if "memoair_index" in trace.tb_frame.f_code.co_filename:
            place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    if trace is not None and "memoair_index" in trace.tb_frame.f_code.co_filename:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return f"{type(error).__name__} at {place}: {error}"


def fuzz(original: bytes, folder: Path, change: Callable[[bytes, random.Random], bytes], seeds: range) -> Counter[str]:
    """Return the undocumented errors that files raise which were changed in one way."""
    found: Counter[str] = Counter()
    for seed in seeds:
        path = folder / f"index-{seed}"
        path.write_bytes(change(original, random.Random(seed)))
        found.update(_find_undocumented(path))
        path.unlink()
    return found


# As many files of each kind as the time of the suite allows; more of them find no more.
_FILES = 16


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: str(change.__name__))
def test_a_hostile_index_file_raises_only_the_documented_error(
    change: Callable[[bytes, random.Random], bytes], original: bytes, tmp_path: Path, selected_kernel: None
) -> None:
    assert fuzz(original, tmp_path, change, range(_FILES)) == Counter()


_SMALL_CHANGES = [truncate, flip_bits, flip_table_bits, change_table, retype, share_bytes, change_numbers]


@pytest.mark.parametrize("change", _SMALL_CHANGES, ids=lambda change: str(change.__name__))
def test_a_hostile_model_file_raises_only_the_documented_error(
    change: Callable[[bytes, random.Random], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "model"
    source = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "vectors": source.integers(-9, 9, (30, 4), np.int8),
        "scales": np.ones(30, np.float16),
        "terms": np.arange(5, dtype=np.uint64),
        "neighbour_starts": np.arange(6, dtype=np.uint32) * 2,
        "neighbours": np.arange(10, dtype=np.uint16) % 5,
        "closeness": np.full(10, 200, np.uint8),
        "tokenizer": zlib.compress(_TOKENIZER),
    }
    write_container(path, static_model.KIND, static_model.VERSION, {"source": "test"}, arrays)
    original, found = path.read_bytes(), []
    assert StaticModel(path).encode([["red"]]).any()
    for seed in range(_FILES):
        path.write_bytes(change(original, random.Random(seed)))
        try:
            model = StaticModel(path)
            model.encode([["red", "boots", "x"], []])
            for term in range(6):
                model.neighbors(term)
        except ContainerError:
            pass
        except Exception as error:  # noqa: BLE001 - what is looked for
            found.append(_describe(error))
    assert found == []


class _Transformer:
    """What a vector store asks of a transformer before anything is encoded."""

    fingerprint, dimensions = "tiny", 4


@pytest.mark.parametrize("change", _SMALL_CHANGES, ids=lambda change: str(change.__name__))
def test_a_hostile_file_of_vectors_is_discarded(
    change: Callable[[bytes, random.Random], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "vectors.bin"
    arrays = {"keys": np.arange(9, dtype=np.uint64), "vectors": np.ones((9, 4), np.float16)}
    write_container(path, vector_store.KIND, vector_store.VERSION, {"model": "tiny"}, arrays)
    original = path.read_bytes()
    for seed in range(_FILES):
        path.write_bytes(change(original, random.Random(seed)))
        store = VectorStore(path, cast("Transformer", _Transformer()))
        assert len(store) in (0, 9)
        assert store.cosines(np.ones(4, np.float32), ["a", "b"]).shape == (2,)
