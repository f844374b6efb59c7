"""What a server keeps on the disk: for its own user only, and without the remains of writers that were killed."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.clouds import Client, files_body, running

from memoair_cloud.http.app import create_app
from memoair_cloud.indexes import blobs as blobs_module
from memoair_cloud.indexes.blobs import BlobStore
from memoair_protocol.temporary import remove_abandoned_folders, temporary_folder

KEY = "ab" * 32
DAY_S = 86_400


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Let files be readable to everybody unless something is done about it."""
    former = os.umask(0o022)
    yield
    os.umask(former)


def find_modes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in sorted(folder.rglob("*"))
        if path.name != "notes.txt"
    }


def wanted_modes(folder: Path) -> dict[str, str]:
    return {name: "0o700" if (folder / name).is_dir() else "0o600" for name in find_modes(folder)}


def fill(client: Client) -> None:
    """Let the server have an index file and the file of an upload."""
    documents = [{"id": "d", "text": "Boots can be returned."}]
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": documents})
    upload = client.ok("POST", "/v1/voice-sdk/index/more/uploads", {})["uploadId"]
    client.ok("POST", f"/v1/voice-sdk/index/more/uploads/{upload}/files", files_body({"a.txt": b"Boots."}))


def test_files_are_private_also_in_a_folder_that_is_not(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(0o755)
    (shared / "notes.txt").touch()
    with running(f"sqlite:///{shared / 'cloud.db'}", shared) as cloud:
        fill(cloud.tenant())
        cloud.run_tasks()
        modes = find_modes(shared)
    assert {"cloud.db", "cloud.db-wal", "cloud.db-shm", "blobs"} <= set(modes)
    assert len(modes) >= 4 + 4  # two files in a folder each
    assert modes == wanted_modes(shared) | {name: mode for name, mode in modes.items() if not (shared / name).exists()}
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755  # other users may need it


def test_what_an_earlier_version_has_left_readable_is_private_after_the_start(tmp_path: Path) -> None:
    own = tmp_path / "own"
    with running(f"sqlite:///{own / 'cloud.db'}", own) as cloud:
        fill(cloud.tenant())
        cloud.run_tasks()
    for path in (own, *own.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with running(f"sqlite:///{own / 'cloud.db'}", own):
        modes = find_modes(own)
    assert modes == wanted_modes(own) | {name: "0o600" for name in modes if name.startswith("cloud.db-")}
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


def make_part(folder: Path, name: str = f"{KEY}.0123.part", age_s: float = DAY_S) -> Path:
    path = folder / "blobs" / "ab" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"Boots can be retu")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_parts_that_killed_writers_left_are_removed_and_no_others(tmp_path: Path) -> None:
    old, young = make_part(tmp_path), make_part(tmp_path, f"{KEY}.1.part", age_s=60)
    held, whole = make_part(tmp_path, f"{KEY}.2.part"), make_part(tmp_path, KEY)
    probe, foreign = tmp_path / "blobs" / "probe.1", tmp_path / "blobs" / "ab" / f"{KEY}.3.part"
    probe.touch()
    os.utime(probe, (1, 1))
    foreign.symlink_to(whole)
    with held.open("rb+") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path) as cloud:
            cloud.services.queue.sweep()
    assert [path.exists() for path in (old, probe)] == [False, False]
    assert all(path.exists() for path in (young, held, whole, foreign))


def test_a_writer_that_is_killed_leaves_a_part_that_is_removed_later(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from memoair_cloud.indexes.blobs import BlobStore
def blocks():
    yield b"Boots "
    print("written", flush=True)
    input()
BlobStore({(tmp_path / "blobs").as_uri()!r}).write({KEY!r}, blocks())
"""
    store = BlobStore((tmp_path / "blobs").as_uri())
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        (part,) = (tmp_path / "blobs" / "ab").iterdir()
        os.utime(part, (1, 1))
        assert store.remove_abandoned() == 0
        writer.send_signal(signal.SIGKILL)
        writer.wait(30)
    assert part.exists()
    os.utime(part, (1, 1))
    assert store.remove_abandoned() == 1
    assert not part.exists()


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_failed_write_leaves_nothing(tmp_path: Path, kind: str) -> None:
    root = (tmp_path / "blobs").as_uri() if kind == "file" else f"memory://{tmp_path.name}/blobs"
    store = BlobStore(root)

    def blocks() -> Iterator[bytes]:
        yield b"Boots "
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        store.write(KEY, blocks())
    assert not store.exists(KEY)
    assert store._fs.find(store._root) in ([], {})
    store.write(KEY, [b"Boots ", b"and more"])
    assert b"".join(store.stream(KEY)[1]) == b"Boots and more"


def test_old_parts_of_an_object_store_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore(f"memory://{tmp_path.name}/blobs")
    part = f"{store._root}/ab/{KEY}.1.part"
    store._fs.pipe_file(part, b"Boots")
    store.write(KEY, [b"whole"])
    assert store.remove_abandoned() == 0
    monkeypatch.setattr(blobs_module, "_MIN_REMOTE_PART_AGE", -blobs_module._MIN_REMOTE_PART_AGE)
    assert store.remove_abandoned() == 1
    assert store.exists(KEY)
    assert not store._fs.exists(part)


def test_temporary_folders_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = """
import sys
from memoair_protocol.temporary import temporary_folder
with temporary_folder("memoair-build-") as folder:
    (folder / "org.index").write_text("Boots")
    print(folder, flush=True)
    input()
"""
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        os.utime(folder, (1, 1))
        assert remove_abandoned_folders("memoair-build-") == 0
        process.kill()
        process.wait(30)
    other = tmp_path / "memoair-other-1"
    other.mkdir()
    os.utime(other, (1, 1))
    with temporary_folder("memoair-build-") as own:
        os.utime(own, (1, 1))
        assert remove_abandoned_folders("memoair-build-") == 1
        assert own.exists()
    assert not folder.exists()
    assert other.exists()
    assert not own.exists()


FORWARDED = [("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1"), ("Forwarded", "for=127.0.0.1"), ("Via", "x")]


def test_metrics_are_for_this_machine_or_the_token(tmp_path: Path) -> None:
    settings = {"metrics_token": "s3cret-ä", "metrics_addresses": "127.0.0.0/8,::1,10.1.0.0/16"}
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path, **settings) as cloud:
        app = create_app(cloud.services)

        def read(peer: str, headers: dict[str, str]) -> int:
            encoded = {name.encode(): value.encode() for name, value in headers.items()}
            with closing(TestClient(app, client=(peer, 1_234))) as client:
                response = client.get("/metrics", headers=encoded)
            assert (response.status_code == 200) == ("memoair_cloud_requests" in response.text)
            return int(response.status_code)

        token = {"Authorization": "Bearer s3cret-ä"}
        for peer in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "10.1.2.3"):
            assert read(peer, {}) == 200
        for peer in ("203.0.113.9", "10.2.0.1", "2001:db8::1", "::ffff:203.0.113.9", "testclient", ""):
            assert read(peer, {}) == 401
            assert read(peer, token) == 200
            for name, value in FORWARDED:
                assert read(peer, {name: value}) == 401
        for name, value in FORWARDED:
            assert read("127.0.0.1", {name: value}) == 401, "everybody behind a proxy of this machine"
            assert read("127.0.0.1", {name: value, **token}) == 200
        for wrong in ("Bearer", "Bearer s3cret", "Basic s3cret-ä", "s3cret-ä"):
            assert read("203.0.113.9", {"Authorization": wrong}) == 401


def test_without_a_token_only_this_machine_reads_the_metrics(tmp_path: Path) -> None:
    with (
        running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path) as cloud,
        closing(TestClient(create_app(cloud.services), client=("203.0.113.9", 1))) as client,
    ):
        for value in ("", "Bearer ", "Bearer x"):
            response = client.get("/metrics", headers={"Authorization": value})
            assert (response.status_code, response.json()["error"]["code"]) == (401, "cloud.unauthorized")
