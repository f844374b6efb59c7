"""Index files, the cloud's blob store and pulled runtimes after power failures: whole, or not there."""

import hashlib
from pathlib import Path
from typing import Any, cast

import pytest
from crash.power import CRASHES, PROJECT, survivors
from support.artifacts import runtime_archive
from support.crash_disk import CrashDisk

from memoair_cloud.indexes.blobs import BlobStore
from memoair_index import Document, Index, split_document
from memoair_runtime.org.manifest import CloudOrg
from memoair_runtime.org.pull import OrgPuller
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.sync.responses import Bootstrap, ManifestDocument, OrgFileInfo, OrgResponse
from memoair_runtime_store.archive import Unpacker
from memoair_runtime_store.cache import current_platform
from memoair_runtime_store.cache_writer import CacheWriter
from memoair_runtime_store.cancel_token import CancelToken
from memoair_runtime_store.reference import parse_reference

PLATFORM = current_platform()


@pytest.fixture
def disk_root(tmp_path: Path) -> Path:
    root = tmp_path / "disk"
    root.mkdir()
    return root


def test_what_the_cloud_has_stored_is_there_as_a_whole(tmp_path: Path, disk_root: Path) -> None:
    contents = [b"the text of a document " * 2000, b"another one"]
    with CrashDisk(disk_root) as disk:
        store = BlobStore(f"file://{disk_root}/storage")
        for content in contents:
            source = tmp_path / "source"
            source.write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            store.put(source, sha256)
            disk.promise(sha256)
        store.write("ab" * 16, [b"an upload ", b"in blocks"])
        disk.promise("ab" * 16)
    whole = {hashlib.sha256(content).hexdigest(): content for content in contents}
    for crash, root in survivors(disk, tmp_path):
        store = BlobStore(f"file://{root}/storage")
        for sha256, content in whole.items():
            assert store.exists(sha256) or sha256 not in crash.promises
            assert not store.exists(sha256) or b"".join(store.stream(sha256)[1]) == content
        if "ab" * 16 in crash.promises:
            assert b"".join(store.stream("ab" * 16)[1]) == b"an upload in blocks"


def test_an_index_file_is_the_old_one_or_the_new_one(tmp_path: Path, disk_root: Path) -> None:
    texts = ["boots can be returned", "boots can be returned, and we open at nine"]
    with CrashDisk(disk_root) as disk:
        for text in texts:
            index = Index()
            index.add([Document("a", text)])
            index.merge(disk_root / "permanent-1.index")
            disk.promise(text)
    for crash, root in survivors(disk, tmp_path):
        path = root / "permanent-1.index"
        assert path.exists() or not crash.promises
        if path.exists():
            index = Index.open(path)
            index.verify()
            assert [document.text for document in index.documents()] in [
                [text] for text in texts[max(0, len(crash.promises) - 1) :]
            ]


class FakeTransport:
    """A cloud with an index file of old documents, and a newer document."""

    def __init__(self, index_file: bytes) -> None:
        self.index_file = index_file
        self.info = OrgFileInfo(1, hashlib.sha256(index_file).hexdigest(), len(index_file))
        self.version = 1

    def bootstrap(self) -> Bootstrap:
        return Bootstrap(org_manifest_version=self.version, forgotten_version=0, org_file=self.info, sync_token="token")

    def download_org_file(self, _: OrgFileInfo, path: Path, __: float) -> None:
        with path.open("wb") as file:
            file.write(self.index_file)

    def fetch_org(self, since: int | None, _: float) -> OrgResponse | None:
        new = [ManifestDocument("faq", "b", "we open at nine")] if self.version == 2 and since == 1 else []
        return OrgResponse("delta", self.version, "", new, [])


def test_documents_of_the_cloud_are_the_old_ones_or_the_new_ones_or_pulled_again(
    tmp_path: Path, disk_root: Path
) -> None:
    index = Index()
    index.add(split_document("a", "boots can be returned", {}, "faq"))
    index.merge(tmp_path / "built.index")
    transport = FakeTransport((tmp_path / "built.index").read_bytes())
    with CrashDisk(disk_root) as disk:
        pull_documents(disk_root, transport)
        transport.version = 2
        pull_documents(disk_root, transport)
    for _, root in survivors(disk, tmp_path):
        source = CloudOrg(ProjectFolder(root / "storage", PROJECT), "cloud-1")
        try:  # as the lane does
            loaded = source.load_index()
            loaded.index.verify()
        except (OSError, ValueError):
            loaded = source.rebuild()
        assert texts_of(loaded.index) in ([], ["boots can be returned"], ["boots can be returned", "we open at nine"])
        pull_documents(root, transport)
        assert texts_of(source.load_index().index) == ["boots can be returned", "we open at nine"]


def pull_documents(root: Path, transport: FakeTransport) -> None:
    puller = OrgPuller(ProjectFolder(root / "storage", PROJECT), "cloud-1", cast("Any", transport), lambda: None)
    assert puller.pull(transport.bootstrap(), 0)


def texts_of(index: Index) -> list[str]:
    return sorted(document.text for document in index.documents())


def test_a_pulled_runtime_is_whole_or_is_pulled_again(tmp_path: Path, disk_root: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(runtime_archive(b"#!/bin/sh\necho the program\n"))
    reference = parse_reference("ghcr.io/acme/voice-runtime", "1.0", None)
    with CrashDisk(disk_root) as disk:
        pull_runtime(disk_root, archive)
        disk.promise("pulled")
    expected = {path.name: path.read_bytes() for path in disk_root.rglob("memoair-runtime/**/*") if path.is_file()}
    assert "voice-runtime" in expected
    for _, root in survivors(disk, tmp_path, count=2 * CRASHES):
        cached = CacheWriter(root).find(reference, PLATFORM)
        if cached is not None:
            top = cached.program.parent.parent
            assert {path.name: path.read_bytes() for path in top.rglob("*") if path.is_file()} == expected
        pull_runtime(root, archive)
        assert CacheWriter(root).find(reference, PLATFORM) is not None


def pull_runtime(root: Path, archive: Path) -> None:
    """Do with a downloaded archive what a pull does."""
    reference = parse_reference("ghcr.io/acme/voice-runtime", "1.0", None)
    cache, token = CacheWriter(root), CancelToken(60)
    with cache.hold_lock(reference, PLATFORM, token):
        if not cache.has_content("sha256-1"):
            with cache.make_unpack_folder(reference, PLATFORM) as folder, archive.open("rb") as file:
                unpacker = Unpacker(folder, token)
                unpacker.add(file, archive.stat().st_size, None)
                unpacker.sync_folders()
                cache.commit_folder(folder, unpacker.prepare_program(), "sha256-1")
        cache.save_entry(
            reference, PLATFORM, digest="sha256:1", digest_from="registry", content_id="sha256-1", version=None
        )
