"""Untrusted archives: they are unpacked into their folder or rejected, and never fill the disk."""

import gzip
import io
import os
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.artifacts import PROGRAM, digest_of, member, runtime_archive, tar_gz_of, tar_of, zip_of
from support.file_server import FileServer

from memoair_runtime_store.archive import Unpacker
from memoair_runtime_store.cancel_token import CancelToken
from memoair_runtime_store.errors import RuntimeStoreError
from memoair_runtime_store.pull import pull
from memoair_runtime_store.reference import parse_reference
from memoair_voice_sync import MemoAirVoiceMemoryError

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

RUNTIME = member("voice-runtime", PROGRAM)
LINK, HARD, FOLDER = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
CHARACTERS, BLOCKS, PIPE, SPARSE = tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


def pull_archive(server: FileServer, tmp_path: Path, content: bytes) -> Path:
    """Pull a release with this content. Whether it succeeds or not, nothing may be left beside the cache."""
    server.files["/runtime"] = content
    before = {path: path.lstat() for path in tmp_path.rglob("*")}
    reference = parse_reference(f"{server.url}/runtime#{digest_of(content).replace(':', '=')}", None, None)
    cache = tmp_path / "deep" / "down" / "cache"
    try:
        return pull(reference, cache, CancelToken(30)).program
    finally:
        added = {path for path in tmp_path.rglob("*") if path not in before and cache not in path.parents}
        assert added <= {cache, *cache.parents}
        assert {each.name for each in cache.iterdir()} == {"named", "content"}


def rejection_message(server: FileServer, tmp_path: Path, content: bytes) -> str:
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        pull_archive(server, tmp_path, content)
    assert raised.value.code == "runtime.start_failed"
    assert not list((tmp_path / "deep" / "down" / "cache" / "content").iterdir())
    return raised.value.message


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "x/../../evil",
        "..",
        "/etc/evil",
        "//evil",
        "..\\evil",
        "C:\\evil",
        "x/\\..\\evil",
        "evil\nname",
        "evil\x1b[31m",
        "/".join("x" * 40),
        "x" * 300,
    ],
)
def test_an_archive_with_an_unsafe_path_is_rejected(server: FileServer, tmp_path: Path, name: str) -> None:
    for content in (tar_gz_of(RUNTIME, member(name, b"evil")), zip_of({"voice-runtime": PROGRAM, name: b"evil"})):
        assert "leads out of the folder" in rejection_message(server, tmp_path, content)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("evil", "/etc/passwd"),
        ("evil", ".."),
        ("evil", "../evil"),
        ("x/evil", "../../evil"),
        ("x/evil", "y/../../evil"),
        ("x/y/evil", "../../../.."),
        ("evil", "x/.."),
        ("evil", ""),
        ("evil", "..\\evil"),
        ("evil", "C:/evil"),
        ("evil", "x" * 2_000),
    ],
)
def test_an_archive_with_an_unsafe_link_is_rejected(server: FileServer, tmp_path: Path, path: str, target: str) -> None:
    content = tar_gz_of(RUNTIME, member(path, type=LINK, linkname=target))
    assert "link that could lead out" in rejection_message(server, tmp_path, content)


@pytest.mark.parametrize(
    "members",
    [
        (member("x", type=LINK, linkname="y"), member("y", type=FOLDER), member("x/evil", b"evil")),
        (member("y", type=FOLDER), member("x", type=LINK, linkname="y"), member("x", type=FOLDER)),
        (member("y/z", b"z"), member("x", type=LINK, linkname="y"), member("x/z", b"evil")),
    ],
)
def test_nothing_is_written_through_a_link(
    server: FileServer, tmp_path: Path, members: tuple[tuple[tarfile.TarInfo, bytes], ...]
) -> None:
    assert "cannot be unpacked: File exists" in rejection_message(server, tmp_path, tar_gz_of(RUNTIME, *members))


def test_a_file_replaces_a_link_and_is_not_written_through_it(server: FileServer, tmp_path: Path) -> None:
    program = pull_archive(
        server,
        tmp_path,
        tar_of(RUNTIME, member("y", b"old"), member("x", type=LINK, linkname="y"), member("x", b"new")),
    )
    assert (program.parent / "y").read_bytes() == b"old"
    assert (program.parent / "x").read_bytes() == b"new"
    assert not (program.parent / "x").is_symlink()


def test_links_within_the_folder_are_kept(server: FileServer, tmp_path: Path) -> None:
    program = pull_archive(
        server,
        tmp_path,
        tar_gz_of(
            member("app/bin/voice-runtime", PROGRAM),
            member("app/lib/libx.so.1", b"library"),
            member("app/lib/libx.so", type=LINK, linkname="libx.so.1"),
            member("app/bin/lib", type=LINK, linkname="../lib"),
            member("app/bin/copy", type=HARD, linkname="app/bin/voice-runtime"),
        ),
    )
    assert (program.parent / "lib" / "libx.so").read_bytes() == b"library"
    copy = program.parent / "copy"
    assert (copy.read_bytes(), copy.is_symlink(), os.access(copy, os.X_OK)) == (PROGRAM, False, True)


@pytest.mark.parametrize("target", ["/etc/passwd", "../evil", "later", "x"])
def test_an_archive_with_an_invalid_hard_link_is_rejected(server: FileServer, tmp_path: Path, target: str) -> None:
    content = tar_gz_of(RUNTIME, member("x", type=HARD, linkname=target), member("later", b""))
    message = rejection_message(server, tmp_path, content)
    assert "hard link to a file that does not precede it" in message or "leads out of the folder" in message


@pytest.mark.parametrize("kind", [CHARACTERS, BLOCKS, PIPE, SPARSE])
def test_an_archive_with_a_special_file_is_rejected(server: FileServer, tmp_path: Path, kind: bytes) -> None:
    content = tar_of(RUNTIME, member("evil", type=kind, devmajor=1, devminor=3))
    assert "is not a file, a folder or a link" in rejection_message(server, tmp_path, content)


def test_a_zip_with_links_or_encryption_is_rejected(server: FileServer, tmp_path: Path) -> None:
    content = zip_of({"voice-runtime": PROGRAM, "x": b"/etc/passwd"}, {"x": 0o120777})
    assert "is not a file or a folder" in rejection_message(server, tmp_path, content)
    encrypted = bytearray(zip_of({"voice-runtime": PROGRAM}))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.index(signature) + place] |= 1
    assert "encrypted" in rejection_message(server, tmp_path, bytes(encrypted))


def test_unsafe_file_modes_are_dropped(server: FileServer, tmp_path: Path) -> None:
    program = pull_archive(
        server, tmp_path, tar_gz_of(member("voice-runtime", PROGRAM, mode=0o7777), member("x", mode=0))
    )
    assert program.stat().st_mode & 0o7777 == 0o755
    assert (program.parent / "x").stat().st_mode & 0o7777 == 0o644


# Bombs


def gzip_bomb(megabytes: int) -> bytes:
    """Return a compressed tar archive with a file of zeros, made without holding the file in memory."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as packing:
        info, _ = member("zeros")
        info.size = megabytes << 20
        packing.write(info.tobuf())
        for _ in range(megabytes):
            packing.write(bytes(1 << 20))
        packing.write(bytes(1024))
    return out.getvalue()


def test_a_gzip_bomb_is_rejected_early(server: FileServer, tmp_path: Path) -> None:
    bomb = gzip_bomb(64)
    assert len(bomb) < 100_000
    assert "too much for its compressed size" in rejection_message(server, tmp_path, bomb)


def test_a_gzip_bomb_is_not_expanded_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    class WatchedFile(io.BytesIO):
        def write(self, content: Any) -> int:
            count = super().write(content)
            written.append(self.tell())
            return count

    monkeypatch.setattr("memoair_runtime_store.archive.tempfile.TemporaryFile", lambda **_: WatchedFile())
    monkeypatch.setattr("memoair_runtime_store.archive._MIN_ALLOWANCE_BYTES", 1 << 20)
    monkeypatch.setattr("memoair_runtime_store.archive._MAX_EXPANSION_RATIO", 1)
    (tmp_path / "folder").mkdir()
    bomb = gzip_bomb(64)
    with pytest.raises(RuntimeStoreError, match="expands to more than 1 MB"):
        Unpacker(tmp_path / "folder", CancelToken(30)).add(io.BytesIO(bomb), len(bomb), None)
    assert max(written) < 3 << 20


def test_a_zip_bomb_is_rejected(server: FileServer, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("voice-runtime", "w") as file:
        for _ in range(40):
            file.write(bytes(1 << 20))
    assert "too much for its compressed size" in rejection_message(server, tmp_path, out.getvalue())


def test_a_tar_header_that_claims_a_huge_size_is_not_read(server: FileServer, tmp_path: Path) -> None:
    info, _ = member("pax", type=tarfile.XHDTYPE)
    info.size = 20 << 20
    content = info.tobuf(tarfile.USTAR_FORMAT) + bytes(20 << 20) + bytes(1024)
    assert "a header longer than 1048576 bytes" in rejection_message(server, tmp_path, content)


def test_an_archive_with_too_many_files_is_rejected(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_runtime_store.archive._MAX_FILES", 50)
    assert "more than 50 files" in rejection_message(server, tmp_path, tar_gz_of(*(member(f"x{n}") for n in range(51))))
    assert "more than 50 files" in rejection_message(server, tmp_path, zip_of({f"x{n}": b"" for n in range(51)}))


# Invalid archives


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither an archive"),
        (b"hello", "neither an archive"),
        (b"<!DOCTYPE html><html>", "the file is a web page"),
        (b"\xfd7zXZ\0...", "packed with xz"),
        (b"\x28\xb5\x2f\xfd...", "packed with zstd"),
        (gzip.compress(PROGRAM, mtime=0), "does not contain a tar archive"),
        (b"\x1f\x8bnonsense", "corrupt|cannot be unpacked"),
        (runtime_archive()[:-20], "corrupt"),
        (runtime_archive()[:200], "corrupt|does not contain a tar archive"),
        (b"PK\x03\x04nonsense", "corrupt"),
        (tar_of(RUNTIME)[:600], "corrupt"),
        (tar_gz_of(member("a", b"1"), member("b", b"2")), "not exactly one of them is named voice-runtime"),
        (tar_gz_of(member("a/voice-runtime", b"1"), member("b/voice-runtime", b"2")), "not exactly one of them"),
        (tar_gz_of(member("a", type=FOLDER)), "not exactly one of them"),
        (tar_gz_of(RUNTIME, member("voice-runtime", type=FOLDER)), "both a file and a folder"),
        (tar_gz_of(member("x", type=FOLDER), member("x", b"1")), "both a file and a folder"),
        (tar_gz_of(RUNTIME, member("voice-runtime/x", b"1")), "both a file and a folder"),
    ],
)
def test_a_file_without_a_runtime_is_rejected_with_the_reason(
    server: FileServer, tmp_path: Path, content: bytes, message: str
) -> None:
    assert re.search(message, rejection_message(server, tmp_path, content))


def test_an_archive_cannot_replace_the_info_file_of_the_cache(server: FileServer, tmp_path: Path) -> None:
    content = tar_gz_of(RUNTIME, member("x", b"x"), member("memoair-runtime.json", type=LINK, linkname="x"))
    program = pull_archive(server, tmp_path, content)
    assert (program.parent / "x").read_bytes() == b"x"


NAMES = st.sampled_from(
    ["a", "b", "a/b", "a/b/c", "b/a", "voice-runtime", "..", "../a", "a/..", "/a", "./a", "a//b", ""]
)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, LINK, HARD, PIPE])


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example([("a", LINK, "a//b")])
@given(st.lists(st.tuples(NAMES, KINDS, NAMES), max_size=8))
def test_no_archive_writes_outside_of_the_folder(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes, str]]
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    folder = outside / "x" / "folder"
    folder.mkdir(parents=True)
    members = [
        member(name, b"evil" if kind == tarfile.REGTYPE else b"", type=kind, linkname=target)
        for name, kind, target in entries
    ]
    content = io.BytesIO(tar_of(*members))
    with suppress(RuntimeStoreError):
        Unpacker(folder, CancelToken(30)).add(content, len(content.getvalue()), None)
    for path in outside.rglob("*"):
        assert path in (folder, folder.parent) or folder in path.parents
        real = Path(os.path.realpath(path))  # links may be cyclic, but never lead out
        assert real in (folder.parent, folder) or folder in real.parents


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_corrupt_bytes_raise_nothing_but_runtime_store_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = data.draw(
        st.sampled_from([runtime_archive(), tar_of(RUNTIME), zip_of({"voice-runtime": PROGRAM, "x": b"x"})])
    )
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("unpacked") / "folder"
    folder.mkdir()
    with suppress(RuntimeStoreError):
        Unpacker(folder, CancelToken(30)).add(io.BytesIO(bytes(content)), len(content), "runtime")


def test_the_declared_size_of_a_member_is_checked(server: FileServer, tmp_path: Path) -> None:
    content = bytearray(zip_of({"voice-runtime": PROGRAM * 100}))
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = struct.pack("<I", 10)
    assert "corrupt" in rejection_message(server, tmp_path, bytes(content))
