"""Pulling a runtime: from a real registry and from servers that lie, once however many want it, whole or not at all."""

import base64
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.artifacts import (
    INDEX,
    MANIFEST,
    PROGRAM,
    Pusher,
    digest_of,
    index_of,
    layer,
    manifest_of,
    member,
    packed,
    tar_gz_of,
    tar_of,
    zip_of,
)
from support.file_server import FileServer, Handler, dribbles, file_server, hangs, once, redirects, says, stalls
from support.registries import PASSWORD, OwnRegistry, debian_registry, find_debian_registry, own_registry
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceMemoryError
from memoair_voice_sync.runtime_store import downloader
from memoair_voice_sync.runtime_store.cache import CachedRuntime, cached
from memoair_voice_sync.runtime_store.cancel_token import CancelToken
from memoair_voice_sync.runtime_store.errors import PullCancelledError
from memoair_voice_sync.runtime_store.pull import pull
from memoair_voice_sync.runtime_store.reference import parse_reference, this_platform

pytestmark = pytest.mark.usefixtures("nothing_left_behind", "docker_folder")

THIS = this_platform()
REPO = "acme/runtime"


@pytest.fixture(scope="session")
def debian_program(tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    return find_debian_registry(tmp_path_factory.mktemp("debian"))


@pytest.fixture
def docker_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `docker login` keeps what it is told: nothing, unless a test says so."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


def debians(program: Path | str, folder: Path, **options: bool) -> Any:
    if isinstance(program, str):
        pytest.skip(f"{program}; the same was tried with our own registry")
    return debian_registry(program, folder, **options)


@pytest.fixture(params=["own", "debian"])
def registry(request: pytest.FixtureRequest, debian_program: Path | str, tmp_path: Path) -> Iterator[str]:
    """The host and port of a registry: ours, then the real one."""
    with ExitStack() as until_end:
        if request.param == "own":
            yield until_end.enter_context(own_registry()).host
        else:
            yield until_end.enter_context(debians(debian_program, tmp_path / "registry"))


@pytest.fixture
def own() -> Iterator[OwnRegistry]:
    with own_registry() as running:
        yield running


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def pulled(repo: str, cache: Path, version: str | None = None, *, again: bool = False) -> CachedRuntime:
    return pull(parse_reference(repo, version, "0.4.0"), cache, CancelToken(60), again=again)


def refusal(repo: str, cache: Path, version: str | None = None) -> MemoAirVoiceMemoryError:
    """What a pull fails with; nothing of it may be left."""
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        pulled(repo, cache, version)
    assert_nothing_half(cache)
    assert not list(cache.glob("content/*"))
    assert cached(parse_reference(repo, version, "0.4.0"), cache) is None
    return refused.value


def assert_nothing_half(cache: Path) -> None:
    kept = {each.name for each in cache.iterdir()} if cache.exists() else set()
    assert kept <= {"named", "content"}, kept
    assert not list(cache.glob("named/*.new"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of what is tried again do not wait as long."""
    monkeypatch.setattr("memoair_voice_sync.runtime_store.pull._PAUSES_S", (0.01, 0.01))


# Artifacts in a registry


@pytest.mark.parametrize(
    ("content", "title"),
    [(packed(), None), (packed(), "runtime.tar.gz"), (PROGRAM, "voice-runtime"), (PROGRAM, None)],
)
def test_an_artifact_is_pulled_and_can_be_run(registry: str, cache: Path, content: bytes, title: str | None) -> None:
    digest = Pusher(registry).push("1.2", (content, title), version="1.2.0")
    found = pulled(f"{registry}/{REPO}", cache, "1.2")

    assert (found.digest, found.digest_from, found.version) == (digest, "registry", "1.2.0")
    assert found.program.read_bytes() == PROGRAM
    assert os.access(found.program, os.X_OK)
    assert (found.program.stat().st_mode & 0o022, cache.stat().st_mode & 0o022) == (0, 0)
    assert_nothing_half(cache)


def test_an_index_gives_what_is_made_for_this_machine(registry: str, cache: Path) -> None:
    pusher = Pusher(registry)
    ours, theirs = pusher.untagged((packed(), None)), pusher.untagged((packed(b"#!/bin/false\n"), None))
    index = index_of([("unknown", "unknown", theirs), ("plan9", "mips", theirs), (THIS.os, THIS.architecture, ours)])
    digest = pusher.tag("all", index, INDEX)
    found = pulled(f"{registry}/{REPO}:all", cache)

    assert (found.digest, found.program.read_bytes()) == (digest, PROGRAM)
    assert pulled(f"{registry}/{REPO}@{digest}", cache).program == found.program

    pusher.tag("others", index_of([("unknown", "unknown", theirs), ("plan9", "mips", theirs)]), INDEX)
    with pytest.raises(MemoAirVoiceMemoryError, match=f"not there for {THIS}, but for plan9/mips") as refused:
        pulled(f"{registry}/{REPO}:others", cache)
    assert refused.value.code == "runtime.not_found"


def test_several_files_are_one_runtime(registry: str, cache: Path) -> None:
    library = tar_of(member("lib/data", b"data", mode=0o644))
    Pusher(registry).push("1", (library, "lib.tar"), (PROGRAM, "voice-runtime"))
    found = pulled(f"{registry}/{REPO}:1", cache)

    assert (found.program.parent / "lib" / "data").read_bytes() == b"data"
    assert found.program.read_bytes() == PROGRAM


def test_a_version_that_is_not_there_is_named(registry: str, cache: Path) -> None:
    Pusher(registry).push("1", (PROGRAM, None))
    error = refusal(f"{registry}/{REPO}", cache, "9.9.9")

    assert error.code == "runtime.not_found"
    assert f"{registry}/{REPO}:9.9.9" in error.message


def test_what_was_pulled_is_used_without_a_network_until_it_is_pulled_again(
    debian_program: Path | str, cache: Path
) -> None:
    with own_registry() as own:
        repo, pusher = f"{own.host}/{REPO}:stable", Pusher(own.host)
        old = pusher.push("stable", (packed(), None))
        assert pulled(repo, cache).digest == old
        new = pusher.push("stable", (packed(PROGRAM + b"# new\n"), None))
        own.asked.clear()
        assert pulled(repo, cache).digest == old
        assert not own.asked
        assert pulled(repo, cache, again=True).digest == new
        own.asked.clear()
        assert pulled(repo, cache, again=True).digest == new
        assert [each.path for each in own.asked] == [f"/v2/{REPO}/manifests/stable"], "a manifest tells it all"
    assert pulled(repo, cache).program.read_bytes() == PROGRAM + b"# new\n"
    assert cached(parse_reference(repo, None, None), cache) == pulled(repo, cache)


def test_a_cache_in_a_machines_image_needs_no_right_to_write(own: OwnRegistry, cache: Path) -> None:
    Pusher(own.host).push("1", (packed(), None))
    found = pulled(f"{own.host}/{REPO}:1", cache)
    for path in (cache, *cache.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    before = {path: path.lstat().st_mtime_ns for path in (cache, *cache.rglob("*"))}
    try:
        assert pulled(f"{own.host}/{REPO}:1", cache) == found
        assert {path: path.lstat().st_mtime_ns for path in (cache, *cache.rglob("*"))} == before
    finally:
        for path in (cache, *cache.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.parametrize("what", ["program", "content", "named", ""])
def test_what_others_may_write_is_not_run(own: OwnRegistry, cache: Path, what: str) -> None:
    Pusher(own.host).push("1", (packed(), None))
    found = pulled(f"{own.host}/{REPO}:1", cache)
    (found.program if what == "program" else cache / what).chmod(0o777)
    with pytest.raises(MemoAirVoiceMemoryError, match="chmod go-w") as refused:
        pulled(f"{own.host}/{REPO}:1", cache)
    assert refused.value.code == "runtime.start_failed"


@pytest.mark.parametrize("damage", ["empty the program", "remove the program", "cut the note", "cut the name"])
def test_a_cache_that_was_damaged_is_pulled_anew(own: OwnRegistry, cache: Path, damage: str) -> None:
    Pusher(own.host).push("1", (packed(), None))
    found = pulled(f"{own.host}/{REPO}:1", cache)
    [note], [name] = cache.glob("content/*/memoair-runtime.json"), cache.glob("named/*.json")
    if damage == "empty the program":
        found.program.write_bytes(b"")
    elif damage == "remove the program":
        found.program.unlink()
    else:
        os.truncate(note if "note" in damage else name, 5)
    assert pulled(f"{own.host}/{REPO}:1", cache).program.read_bytes() == PROGRAM
    assert_nothing_half(cache)


# Who may have it


def test_a_token_is_fetched_as_anybody_and_shown_to_the_registry_alone(
    own: OwnRegistry, server: FileServer, cache: Path
) -> None:
    content = packed()
    Pusher(own.host).push("1", (content, None))
    own.wants_token, own.blob_store = True, server.url
    server.files[f"/{digest_of(content)}"] = content
    assert pulled(f"{own.host}/{REPO}:1", cache).program.read_bytes() == PROGRAM

    asked = [(each.path.partition("?")[0], each.headers.get("authorization")) for each in own.asked[-4:]]
    bearer = f"Bearer {own.token}"
    manifest, blob = f"/v2/{REPO}/manifests/1", f"/v2/{REPO}/blobs/{digest_of(content)}"
    assert asked == [(manifest, None), ("/token", None), (manifest, bearer), (blob, bearer)]
    assert "scope=repository%3Aacme%2Fruntime%3Apull" in own.asked[-3].path
    [fetched] = server.asked
    assert "authorization" not in fetched.headers


def test_a_login_of_docker_is_shown_for_a_token(own: OwnRegistry, cache: Path, docker_folder: Path) -> None:
    Pusher(own.host).push("1", (packed(), None))
    own.wants_token = True
    login = base64.b64encode(b"ada:correct horse").decode()
    (docker_folder / "config.json").write_text(json.dumps({"auths": {own.host: {"auth": login}}}))
    pulled(f"{own.host}/{REPO}:1", cache)

    [asked] = [each for each in own.asked if each.path.startswith("/token")]
    assert asked.headers["authorization"] == f"Basic {login}"


def test_a_registry_that_wants_a_password_gets_that_of_docker_or_says_how_to_keep_one(
    debian_program: Path | str, tmp_path: Path, cache: Path, docker_folder: Path
) -> None:
    login = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
    with debians(debian_program, tmp_path / "registry", wants_password=True) as host:
        Pusher(host, authorization=f"Basic {login}").push("1", (packed(), None))
        error = refusal(f"{host}/{REPO}:1", cache)
        assert error.code == "runtime.not_found"
        assert f"docker login {host}" in error.message

        (docker_folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))
        assert pulled(f"{host}/{REPO}:1", cache).program.read_bytes() == PROGRAM


@pytest.mark.parametrize("content", [b"not json", b"[]", b"{}", b'{"auths": {"x": 1}}', b"\xff"])
def test_a_login_that_can_not_be_read_is_none(
    own: OwnRegistry, cache: Path, docker_folder: Path, content: bytes
) -> None:
    Pusher(own.host).push("1", (packed(), None))
    own.wants_token = True
    (docker_folder / "config.json").write_bytes(content)
    assert pulled(f"{own.host}/{REPO}:1", cache).program.exists()


def test_a_token_is_fetched_anew_when_a_download_has_taken_long(
    own: OwnRegistry, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (PROGRAM, "voice-runtime"), (tar_of(member("lib/data", b"data")), "lib.tar")
    Pusher(own.host).push("1", first, second)
    own.wants_token = True
    monkeypatch.setattr("memoair_voice_sync.runtime_store.registry._FRESH_S", 60.0)

    def slowly(handler: Handler) -> None:
        own.token = "another-token"  # and the first one is good for nothing
        monkeypatch.setattr("memoair_voice_sync.runtime_store.registry._FRESH_S", 0.0)
        handler.reply(PROGRAM)

    own.answers[f"/v2/{REPO}/blobs/{digest_of(PROGRAM)}"] = slowly
    assert pulled(f"{own.host}/{REPO}:1", cache).program.read_bytes() == PROGRAM


def test_a_token_that_does_not_help_is_asked_for_once(own: OwnRegistry, cache: Path) -> None:
    Pusher(own.host).push("1", (packed(), None))
    own.wants_token = True
    own.answers["/token"] = says(b'{"token": "another"}')
    own.asked.clear()
    error = refusal(f"{own.host}/{REPO}:1", cache)

    assert error.code == "runtime.not_found"
    assert "401" in error.message
    assert own.gets() == 3


@pytest.mark.parametrize("token", [b"", b"nonsense", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\r\\nb"}'])
def test_a_token_that_can_not_be_read_is_told(own: OwnRegistry, cache: Path, token: bytes) -> None:
    own.wants_token = True
    own.answers["/token"] = says(token)
    assert "the token can't be read" in refusal(f"{own.host}/{REPO}:1", cache).message


# Registries that lie


def test_a_blob_that_is_not_what_its_digest_says_is_thrown_away(own: OwnRegistry, cache: Path) -> None:
    good, bad = packed(), packed(b"#!/bin/sh\necho evil\n")
    bad = bad[: len(good)].ljust(len(good), b"\0")
    Pusher(own.host).push("1", (good, None))
    own.answers[f"/v2/{REPO}/blobs/{digest_of(good)}"] = says(bad)
    error = refusal(f"{own.host}/{REPO}:1", cache)

    assert error.code == "runtime.start_failed"
    assert f"digest {digest_of(bad)}, which should be {digest_of(good)}" in error.message


def test_a_manifest_that_is_not_what_was_pinned_is_refused(own: OwnRegistry, cache: Path) -> None:
    pusher = Pusher(own.host)
    pinned = pusher.push("1", (packed(), None))
    other = pusher.untagged((packed(b"#!/bin/sh\necho evil\n"), None))
    own.answers[f"/v2/{REPO}/manifests/{pinned}"] = says(other)
    own.answers[f"/v2/{REPO}/manifests/1"] = says(other, Docker_Content_Digest=pinned)

    assert f"which should be {pinned}" in refusal(f"{own.host}/{REPO}@{pinned}", cache).message
    assert f"which should be {pinned}" in refusal(f"{own.host}/{REPO}:1", cache).message


def test_a_pinned_artifact_says_so(own: OwnRegistry, cache: Path) -> None:
    pinned = Pusher(own.host).push("1", (packed(), None))
    found = pulled(f"{own.host}/{REPO}", cache, pinned)
    assert (found.digest, found.digest_from) == (pinned, "reference")


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"layers": 1}',
        b'{"layers": [1, "x"]}',
        b'{"layers": [{"digest": "sha256:abc", "size": 1}]}',
        b'{"layers": [{"digest": "md5:00", "size": 1}]}',
        json.dumps({"layers": [{"digest": "sha256:" + "0" * 64}]}).encode(),
        json.dumps({"layers": [{"digest": "sha256:" + "0" * 64, "size": -1}]}).encode(),
        json.dumps({"layers": [{"digest": "sha256:" + "0" * 64, "size": 1 << 40}]}).encode(),
        json.dumps({"layers": [{"digest": "sha256:" + "0" * 64, "size": 1}] * 1_000}).encode(),
        json.dumps({"manifests": [{"digest": "../../etc", "platform": {}}]}).encode(),
        b'{"a": "' + b"x" * (5 << 20) + b'"}',
    ],
)
def test_a_manifest_that_can_not_be_is_told(own: OwnRegistry, cache: Path, manifest: bytes) -> None:
    own.answers[f"/v2/{REPO}/manifests/1"] = says(manifest)
    assert refusal(f"{own.host}/{REPO}:1", cache).code in ("runtime.start_failed", "runtime.not_found")


@pytest.mark.parametrize(("promised", "sent"), [(10, 10), (1_000_000, 1_000_000)])
def test_a_blob_of_another_length_is_refused(own: OwnRegistry, cache: Path, promised: int, sent: int) -> None:
    good = packed()
    Pusher(own.host).push("1", (good, None))
    own.answers[f"/v2/{REPO}/blobs/{digest_of(good)}"] = says(b"x" * sent, promised=promised)
    message = refusal(f"{own.host}/{REPO}:1", cache).message
    assert f"holds {promised} bytes" in message


# Releases on a web server


def with_sum(server: FileServer, name: str, content: bytes, sums: str | None = None) -> str:
    """Put a release on a server with its sum beside it, and return its URL."""
    server.files[f"/{name}"] = content
    beside = f"{digest_of(content).partition(':')[2]}  {name}\n" if sums is None else sums
    server.files[f"/{name}.sha256"] = beside.encode()
    return f"{server.url}/{name}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("runtime.tar.gz", packed()),
        ("runtime.tar", tar_of(member("voice-runtime", PROGRAM))),
        ("runtime.zip", zip_of({"x/voice-runtime": PROGRAM, "x/README": b"read"})),
        ("voice-runtime-linux", PROGRAM),
        ("only.tgz", tar_gz_of(member("./", type=b"5"), member("./some-program", PROGRAM, mode=0o644))),
    ],
)
def test_a_release_is_pulled_and_can_be_run(server: FileServer, cache: Path, name: str, content: bytes) -> None:
    found = pulled(with_sum(server, name, content), cache)

    assert (found.digest, found.digest_from) == (digest_of(content), "server")
    assert found.program.read_bytes() == PROGRAM
    assert os.access(found.program, os.X_OK)
    server.close()
    assert pulled(found.reference, cache) == found


def test_a_release_with_its_digest_in_the_url_needs_nothing_beside_it(server: FileServer, cache: Path) -> None:
    content = packed()
    server.files["/runtime.tar.gz"] = content
    found = pulled(f"{server.url}/runtime.tar.gz#{digest_of(content).replace(':', '=')}", cache)

    assert (found.digest, found.digest_from) == (digest_of(content), "reference")
    assert [each.path for each in server.asked] == ["/runtime.tar.gz"]


def test_a_release_of_which_nothing_says_what_it_must_be_is_not_pulled(server: FileServer, cache: Path) -> None:
    server.files["/runtime.tar.gz"] = packed()
    error = refusal(f"{server.url}/runtime.tar.gz", cache)

    assert error.code == "runtime.not_found"
    assert "add #sha256=... to the URL" in error.message
    assert not server.gets("/runtime.tar.gz")


SUM = digest_of(packed()).partition(":")[2]


@pytest.mark.parametrize(
    "sums",
    [
        SUM,
        f"{SUM.upper()}\r\n",
        f"{SUM} *runtime.tar.gz",
        f"{SUM}  ./dist/runtime.tar.gz\n{'0' * 64}  other.zip\n",
        f"SHA256 (runtime.tar.gz) = {SUM}\n",
    ],
)
def test_a_sum_is_found_however_it_is_written(server: FileServer, cache: Path, sums: str) -> None:
    assert pulled(with_sum(server, "runtime.tar.gz", packed(), sums), cache).digest == f"sha256:{SUM}"


@pytest.mark.parametrize("sums", ["", "<html>", "0" * 63, f"{SUM}  other.zip", f"{SUM}\n{'0' * 64}\n", "\0" * 100])
def test_a_sum_that_is_not_there_is_told(server: FileServer, cache: Path, sums: str) -> None:
    url = with_sum(server, "runtime.tar.gz", packed(), sums)
    assert "holds no SHA-256 of runtime.tar.gz" in refusal(url, cache).message


def test_a_wrong_digest_costs_the_file_and_is_not_tried_again(server: FileServer, cache: Path) -> None:
    url = with_sum(server, "runtime.tar.gz", packed(), "0" * 64)
    error = refusal(url, cache)

    assert error.code == "runtime.start_failed"
    assert SUM in error.message
    assert "0" * 64 in error.message
    assert server.gets("/runtime.tar.gz") == 1


# Servers that fail


def test_a_connection_that_breaks_is_tried_again(server: FileServer, cache: Path, quick: None) -> None:
    content = packed(padding=300_000)
    url = with_sum(server, "runtime.tar.gz", content)
    cut = says(content[:200_000], promised=len(content))
    server.answers["/runtime.tar.gz"] = once(cut, then=once(says(b"busy", 503), then=says(content)))
    assert pulled(url, cache).program.read_bytes() == PROGRAM
    assert server.gets("/runtime.tar.gz") == 3


def test_a_connection_that_always_breaks_is_told(server: FileServer, cache: Path, quick: None) -> None:
    content = packed()
    url = with_sum(server, "runtime.tar.gz", content)
    server.answers["/runtime.tar.gz"] = says(content[:100], promised=len(content))
    error = refusal(url, cache)

    assert error.code == "runtime.start_failed"
    assert f"broke off after 100 bytes of {len(content)}" in error.message
    assert server.gets("/runtime.tar.gz") == 3


def test_a_length_that_is_too_short_costs_the_file(server: FileServer, cache: Path) -> None:
    content = packed()
    url = with_sum(server, "runtime.tar.gz", content)
    server.answers["/runtime.tar.gz"] = says(content, promised=len(content) - 10)
    assert "has the digest" in refusal(url, cache).message


def test_a_file_that_never_ends_is_not_read_to_its_end(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync.runtime_store.pull.MOST_BYTES", 1_000_000)
    url = with_sum(server, "runtime.tar.gz", packed())
    server.answers["/runtime.tar.gz"] = says(b"", promised=1 << 50)
    assert "no more than 1000000 are taken" in refusal(url, cache).message

    def goes_on(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:  # ends with the connection
            handler.wfile.write(b"x" * 65_536)

    server.answers["/runtime.tar.gz"] = goes_on
    assert "more than the 1000000 bytes" in refusal(url, cache).message


@pytest.mark.parametrize("answer", [hangs, stalls(b"x" * 1_000, 500)])
def test_a_server_that_hangs_is_not_waited_for_for_ever(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, quick: None, answer: Any
) -> None:
    monkeypatch.setattr(downloader, "READ_S", 0.2)
    url = with_sum(server, "runtime.tar.gz", packed())
    server.answers["/runtime.tar.gz"] = answer
    began_at = time.monotonic()
    assert refusal(url, cache).code == "runtime.start_failed"
    assert time.monotonic() - began_at < 25


def test_a_server_that_sends_a_byte_at_a_time_is_left_when_time_is_up(server: FileServer, cache: Path) -> None:
    url = with_sum(server, "runtime.tar.gz", packed())
    server.answers["/runtime.tar.gz"] = dribbles
    began_at = time.monotonic()
    with pytest.raises(MemoAirVoiceMemoryError, match="was not done within"):
        pull(parse_reference(url, None, None), cache, CancelToken(0.5))
    assert time.monotonic() - began_at < 15, "it sends a byte at a time for hours"
    assert_nothing_half(cache)


@pytest.mark.parametrize("answer", [hangs, dribbles, stalls(b"x" * 1_000_000, 500_000)])
def test_a_pull_is_called_off_wherever_it_waits(server: FileServer, cache: Path, answer: Any) -> None:
    url = with_sum(server, "runtime.tar.gz", packed())
    server.answers["/runtime.tar.gz"] = answer
    stop = CancelToken(60)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(pull, parse_reference(url, None, None), cache, stop)
        eventually(lambda: server.gets("/runtime.tar.gz"))
        began_at = time.monotonic()
        stop.set()
        with pytest.raises(PullCancelledError):
            running.result(20)
    assert time.monotonic() - began_at < 15, "it waits for the server, which hangs for half a minute"
    assert_nothing_half(cache)


def test_nobody_listens(cache: Path, quick: None, server: FileServer) -> None:
    server.close()
    error = refusal(f"{server.url}/runtime.tar.gz", cache)
    assert error.code == "runtime.start_failed"
    assert "can't be reached" in error.message


def test_a_cache_that_can_not_be_written_says_which(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    url = with_sum(server, "runtime.tar.gz", packed())
    with pytest.raises(MemoAirVoiceMemoryError, match=r"can't be written: .*; runtime_cache_dir names another"):
        pulled(url, tmp_path / "file" / "cache")


# Over TLS


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[FileServer]:
    """A server that proves who it is to whoever trusts the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with file_server(context) as running:
        yield running


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))


def test_a_release_is_pulled_over_tls(secure: FileServer, cache: Path, trusted: None) -> None:
    assert pulled(with_sum(secure, "runtime.tar.gz", packed()), cache).program.read_bytes() == PROGRAM


def test_who_does_not_prove_who_he_is_is_not_asked(secure: FileServer, cache: Path) -> None:
    error = refusal(with_sum(secure, "runtime.tar.gz", packed()), cache)
    assert error.code == "runtime.start_failed"
    assert "does not prove who it is; REQUESTS_CA_BUNDLE" in error.message
    assert not secure.asked


def test_a_pull_over_tls_is_called_off(secure: FileServer, cache: Path, trusted: None) -> None:
    content = packed(padding=200_000)
    url, stop = with_sum(secure, "runtime.tar.gz", content), CancelToken(60)
    secure.answers["/runtime.tar.gz"] = stalls(content, 100_000)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(pull, parse_reference(url, None, None), cache, stop)
        eventually(lambda: secure.gets("/runtime.tar.gz"))
        began_at = time.monotonic()
        stop.set()
        with pytest.raises(PullCancelledError):
            running.result(20)
    assert time.monotonic() - began_at < 15, "it waits for the server, which hangs for half a minute"


# Redirects


def test_a_redirect_is_followed_and_a_signature_in_it_is_shown_nowhere(server: FileServer, cache: Path) -> None:
    url = with_sum(server, "runtime.tar.gz", packed())
    server.answers["/runtime.tar.gz"] = redirects("/elsewhere?signature=secret", 307)
    server.answers["/elsewhere"] = says(b"", 403)
    assert "secret" not in refusal(url, cache).message
    server.answers["/elsewhere"] = says(packed())
    assert pulled(url, cache).program.read_bytes() == PROGRAM


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("http://192.0.2.1/runtime.tar.gz", "is not https"),
        ("ftp://127.0.0.1/x", "is not https"),
        ("file:///etc/passwd", "is not https"),
        ("/runtime.tar.gz", "redirects more than 5 times"),
        ("http://[", "is no URL|not https|could not be pulled"),
    ],
)
def test_a_redirect_to_where_nobody_should_go_is_not_followed(
    server: FileServer, cache: Path, to: str, message: str
) -> None:
    url = with_sum(server, "runtime.tar.gz", packed())
    server.answers["/runtime.tar.gz"] = redirects(to)
    error = refusal(url, cache)
    assert error.code == "runtime.start_failed"
    assert re.search(message, error.message)


def test_a_server_elsewhere_sends_nobody_to_this_machine() -> None:
    with pytest.raises(Exception, match="of which a server elsewhere knows nothing"):
        downloader._check_way("http://127.0.0.1:8080/admin", "https://example.com/runtime.zip", allow_http=True)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert pulled(with_sum(server, "runtime.tar.gz", packed()), cache).program.exists()


def test_a_netrc_is_shown_to_nobody(server: FileServer, cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    pulled(with_sum(server, "runtime.tar.gz", packed()), cache)
    assert not [each for each in server.asked if "authorization" in each.headers]


# Many at once, and death in the middle

_PULL = """
import sys
from pathlib import Path
from memoair_voice_sync.runtime_store.pull import pull
from memoair_voice_sync.runtime_store.reference import parse_reference
from memoair_voice_sync.runtime_store.cancel_token import CancelToken
sys.stdin.readline()
print(pull(parse_reference(sys.argv[1], None, None), Path(sys.argv[2]), CancelToken(60)).program)
"""


def start_pull(url: str, cache: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "error", "-c", _PULL, url, str(cache)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def start(cache: Path) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def begin(url: str) -> "subprocess.Popen[str]":
        started.append(start_pull(url, cache))
        return started[-1]

    yield begin
    for each in started:
        each.kill()
        each.communicate()


@pytest.mark.parametrize("kind", ["registry", "release"])
def test_ten_processes_at_once_download_once(
    own: OwnRegistry, start: Callable[[str], "subprocess.Popen[str]"], cache: Path, kind: str
) -> None:
    content = packed(padding=2_000_000)
    if kind == "registry":
        Pusher(own.host).push("1", (content, None))
        url, path = f"{own.host}/{REPO}:1", f"/v2/{REPO}/blobs/{digest_of(content)}"
    else:
        url, path = with_sum(own, "runtime.tar.gz", content), "/runtime.tar.gz"
    processes = [start(url) for _ in range(10)]
    for each in processes:
        go(each)
    told = {each.communicate(timeout=60)[0] for each in processes}

    assert [each.returncode for each in processes] == [0] * 10
    assert len(told) == 1
    assert Path(told.pop().strip()).read_bytes() == PROGRAM
    assert own.gets(path) == 1
    assert_nothing_half(cache)


def test_who_is_killed_in_the_middle_leaves_nothing_half_and_the_next_one_succeeds(
    server: FileServer, start: Callable[[str], "subprocess.Popen[str]"], cache: Path
) -> None:
    content = packed(padding=2_000_000)
    url = with_sum(server, "runtime.tar.gz", content)
    server.answers["/runtime.tar.gz"] = once(stalls(content, 1_000_000), then=says(content))
    first = start(url)
    go(first)
    eventually(lambda: server.gets("/runtime.tar.gz"))
    second = start(url)  # which waits for the first
    go(second)
    first.send_signal(signal.SIGKILL)
    first.wait()
    out, _ = second.communicate(timeout=60)

    assert second.returncode == 0
    assert Path(out.strip()).read_bytes() == PROGRAM
    assert server.gets("/runtime.tar.gz") == 2
    assert_nothing_half(cache)


@pytest.mark.parametrize("owner", ["the same", "another"])
def test_what_a_process_left_that_died_while_it_unpacked_is_swept_away(
    server: FileServer, cache: Path, owner: str
) -> None:
    url = with_sum(server, "runtime.tar.gz", packed())
    pulled(url, cache)
    [key] = [each.stem for each in cache.glob("named/*.json")]
    (cache / "named" / f"{key}.json").unlink()
    left = cache / f".unpacking-{key if owner == 'the same' else 'other-0123'}-abcd"
    left.mkdir()
    (left / "half").write_bytes(b"half")
    pulled(url, cache)
    assert_nothing_half(cache)


def test_a_manifest_of_nothing_is_no_runtime(own: OwnRegistry, cache: Path) -> None:
    Pusher(own.host).tag("1", manifest_of([]), MANIFEST)
    assert "it is no runtime" in refusal(f"{own.host}/{REPO}:1", cache).message
    Pusher(own.host).tag("2", manifest_of([layer(b"never pushed")]), MANIFEST)
    assert refusal(f"{own.host}/{REPO}:2", cache).code == "runtime.not_found"
