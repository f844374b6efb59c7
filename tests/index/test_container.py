"""Container files: arrays are read back, damaged files are refused, and writes are atomic."""

import gc
import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from memoair_index import ContainerError
from memoair_index.container import Container, write_container

KIND, VERSION = "a kind", 3
HEAD = struct.Struct("<8sII")  # magic, length of the table, CRC-32 of the table

dtypes = st.sampled_from(["<i4", "<u8", "<f4", "<f8", "|i1", "|u1", "<u2"])
any_arrays = arrays_of.arrays(dtypes, arrays_of.array_shapes(max_dims=3, min_side=0, max_side=5))
names = st.text(st.characters(codec="utf-8"), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def path(folder: Path) -> Path:
    """A file with three arrays, one of them empty."""
    created = folder / "arrays"
    write(created)
    return created


def write(path: Path, **arrays: Any) -> None:
    all_arrays = {"numbers": np.arange(40, dtype=np.int32), "none": np.zeros(0), "text": b"one and another", **arrays}
    write_container(path, KIND, VERSION, {"who": "me"}, all_arrays)


def read_table(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    _, length, _ = HEAD.unpack(content[: HEAD.size])
    table: dict[str, Any] = json.loads(content[HEAD.size : HEAD.size + length])
    return table


def rewrite_table(path: Path, table: dict[str, Any]) -> None:
    """Replace a file's table by another one with a valid checksum."""
    content = path.read_bytes()
    _, length, _ = HEAD.unpack(content[: HEAD.size])
    encoded = json.dumps(table, separators=(",", ":")).encode()
    assert len(encoded) <= length, "the new table must not be longer"
    encoded = encoded.ljust(length)
    path.write_bytes(HEAD.pack(content[:8], length, zlib.crc32(encoded)) + encoded + content[HEAD.size + length :])


def flip(path: Path, position: int, mask: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


@given(st.dictionaries(names, any_arrays | st.binary(max_size=80), max_size=6), st.dictionaries(names, json_values))
@settings(deadline=None, max_examples=60)
def test_written_arrays_are_read_back(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays"
        write_container(path, KIND, VERSION, meta, arrays)
        assert [entry.name for entry in path.parent.iterdir()] == ["arrays"]
        file = Container(path, KIND, VERSION)
        file.verify()
        assert file.meta == meta
        for name, array in arrays.items():
            expected = np.frombuffer(array, np.uint8) if isinstance(array, bytes) else array
            found = file.get_array(name)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert found.tobytes() == expected.tobytes() == file.get_bytes(name)


@pytest.mark.parametrize(
    "array",
    [np.arange(12, dtype=">i4"), np.arange(24).reshape(4, 6)[::2, ::3], np.asfortranarray(np.eye(3))],
    ids=["big-endian", "strided", "column-major"],
)
def test_arrays_of_any_memory_layout_are_read_back(folder: Path, array: Any) -> None:
    write(folder / "arrays", array=array)
    assert Container(folder / "arrays", KIND, VERSION).get_array("array").tolist() == array.tolist()


def test_arrays_are_aligned_to_64_bytes(path: Path) -> None:
    assert all(section["offset"] % 64 == 0 for section in read_table(path)["sections"].values())


def test_changes_to_an_array_stay_in_memory(path: Path) -> None:
    before = path.read_bytes()
    file = Container(path, KIND, VERSION)
    file.get_array("numbers")[:] = -1
    assert set(file.get_array("numbers").tolist()) == {-1}
    assert Container(path, KIND, VERSION).get_array("numbers").tolist() == [*range(40)]
    file.verify()
    assert path.read_bytes() == before


def test_an_array_outlives_its_file(path: Path) -> None:
    numbers = Container(path, KIND, VERSION).get_array("numbers")
    path.unlink()
    gc.collect()
    assert numbers.tolist() == [*range(40)]


def test_an_unknown_array_is_refused(path: Path) -> None:
    file = Container(path, KIND, VERSION)
    with pytest.raises(ContainerError, match="'letters'"):
        file.get_array("letters")
    with pytest.raises(ContainerError, match="'letters'"):
        file.get_bytes("letters")


@pytest.mark.parametrize(
    ("kind", "version"), [("another kind", VERSION), (KIND, VERSION + 1), (KIND, 0), ("", VERSION)]
)
def test_another_kind_or_version_is_refused(path: Path, kind: str, version: int) -> None:
    with pytest.raises(ContainerError, match=f"a kind version {VERSION}, expected {kind} version {version}"):
        Container(path, kind, version)


@pytest.mark.parametrize("content", [b"", b"\0", b"MEMOAIR\x01", b"SQLite format 3\0" * 9, b"\0" * 4096, b"\xff" * 99])
def test_a_file_of_another_program_is_refused(folder: Path, content: bytes) -> None:
    (folder / "other").write_bytes(content)
    with pytest.raises(ContainerError, match="other"):
        Container(folder / "other", KIND, VERSION)


def test_a_folder_or_missing_path_raises_os_error(folder: Path) -> None:
    for path in (folder, folder / "missing"):
        with pytest.raises(OSError, match=folder.name):
            Container(path, KIND, VERSION)


def test_a_truncated_or_extended_file_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for changed in (*(content[:length] for length in range(len(content))), content + b"\0", content + content):
        path.write_bytes(changed)
        with pytest.raises(ContainerError):
            Container(path, KIND, VERSION)


def test_a_flipped_bit_in_header_or_table_is_refused(path: Path) -> None:
    content = path.read_bytes()
    _, length, _ = HEAD.unpack(content[: HEAD.size])
    for position in range(HEAD.size + length):
        flip(path, position, 1 << position % 8)
        with pytest.raises(ContainerError):
            Container(path, KIND, VERSION)
        path.write_bytes(content)


def test_a_flipped_bit_in_an_array_is_found_by_verify(path: Path) -> None:
    content = path.read_bytes()
    for name, section in read_table(path)["sections"].items():
        size = np.dtype(section["dtype"]).itemsize * int(np.prod(section["shape"]))
        for position in range(section["offset"], section["offset"] + size):
            flip(path, position, 1 << position % 8)
            with pytest.raises(ContainerError, match=f"the array '{name}' does not match its checksum"):
                Container(path, KIND, VERSION).verify()
            path.write_bytes(content)
    Container(path, KIND, VERSION).verify()


@pytest.mark.parametrize(
    "change",
    [
        {"offset": -64},
        {"offset": 65},
        {"offset": 1 << 62},
        {"shape": [-1]},
        {"shape": [41 << 40]},
        {"shape": [1 << 61, 4]},
        {"shape": [1 << 32, 1 << 32]},
        {"dtype": "|O"},
        {"dtype": "??"},
        {"dtype": ""},
        {"dtype": 4},
    ],
    ids=str,
)
def test_a_table_with_an_array_outside_of_the_file_is_refused(path: Path, change: dict[str, Any]) -> None:
    table = read_table(path)
    table["sections"] = {"numbers": table["sections"]["numbers"] | change}
    rewrite_table(path, table)
    with pytest.raises(ContainerError):
        Container(path, KIND, VERSION).get_array("numbers")


def test_a_replaced_file_is_still_read_and_verified_as_opened(path: Path) -> None:
    file = Container(path, KIND, VERSION)
    write(path, numbers=np.arange(99))
    file.verify()
    assert file.get_array("numbers").tolist() == [*range(40)]
    assert Container(path, KIND, VERSION).get_array("numbers").tolist() == [*range(99)]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_file_is_readable_by_its_owner_only(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_checksums_differ_exactly_if_the_arrays_differ(path: Path, folder: Path) -> None:
    write(folder / "same")
    write(folder / "other", numbers=np.arange(1, 41, dtype=np.int32))
    one, same, other = (Container(each, KIND, VERSION).checksum for each in (path, folder / "same", folder / "other"))
    assert one == same != other


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(OSError, match="missing"):
        write(path.parent / "missing" / "arrays")
    with pytest.raises((TypeError, ValueError)):
        write_container(path, KIND, VERSION, {"who": object()}, {})
    (path.parent / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write(path.parent / "taken")
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["arrays", "taken"]
    assert path.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
@pytest.mark.parametrize("size_limit", [0, 1, 64, 1_000, 70_000, 399_999])
def test_a_full_disk_keeps_the_old_file_and_leaves_nothing_behind(path: Path, size_limit: int) -> None:
    before = path.read_bytes()
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from memoair_index.container import write_container
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    write_container(Path(sys.argv[1]), "a kind", 3, {}, {"a": np.zeros(25_000, np.int64), "b": np.ones(25_000)})
except OSError as error:
    print(error.strerror)
"""
    completed = subprocess.run(
        [sys.executable, "-c", code, path, str(size_limit)], capture_output=True, text=True, timeout=60
    )
    assert (completed.stdout, completed.stderr) == ("File too large\n", "")
    assert [entry.name for entry in path.parent.iterdir()] == ["arrays"]
    assert path.read_bytes() == before
