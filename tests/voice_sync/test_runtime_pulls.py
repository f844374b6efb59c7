"""Pulling a runtime from registries and servers, good and bad: once for all processes, and complete or not at all."""

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
    RegistryClient,
    descriptor_of,
    digest_of,
    index_of,
    manifest_of,
    member,
    runtime_archive,
    tar_gz_of,
    tar_of,
    zip_of,
)
from support.file_server import (
    FileServer,
    first_then,
    hang,
    redirect_to,
    respond,
    send_slowly,
    stall,
)
from support.loopback_server import LoopbackHandler
from support.other_users import give_away, needs_superuser
from support.registries import PASSWORD, LocalRegistry, debian_registry, find_debian_registry
from support.waiting import eventually

from memoair_runtime_store import downloader
from memoair_runtime_store.cache import CachedRuntime, find_cached
from memoair_runtime_store.cancel_token import CancelToken
from memoair_runtime_store.errors import PullCancelledError, RuntimeStoreError
from memoair_runtime_store.pull import pull
from memoair_runtime_store.reference import OciReference, current_platform, parse_reference
from memoair_runtime_store.registry import Registry
from memoair_voice_sync import MemoAirVoiceMemoryError

pytestmark = pytest.mark.usefixtures("nothing_left_behind", "docker_folder")

THIS = current_platform()
REPO = "acme/runtime"


@pytest.fixture(scope="session")
def debian_program(tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    return find_debian_registry(tmp_path_factory.mktemp("debian"))


@pytest.fixture
def docker_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of docker's configuration: empty, unless a test writes to it."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


def debian_registry_or_skip(program: Path | str, folder: Path, **options: bool) -> Any:
    if isinstance(program, str):
        pytest.skip(f"{program}; the same test runs against the local registry")
    return debian_registry(program, folder, **options)


@pytest.fixture(params=["local", "debian"])
def registry(request: pytest.FixtureRequest, debian_program: Path | str, tmp_path: Path) -> Iterator[str]:
    """The host and port of a registry: the local one, then Debian's."""
    with ExitStack() as stack:
        if request.param == "local":
            yield stack.enter_context(LocalRegistry()).host
        else:
            yield stack.enter_context(debian_registry_or_skip(debian_program, tmp_path / "registry"))


@pytest.fixture
def local() -> Iterator[LocalRegistry]:
    with LocalRegistry() as running:
        yield running


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def pull_runtime(repo: str, cache: Path, version: str | None = None, *, refresh: bool = False) -> CachedRuntime:
    return pull(parse_reference(repo, version, "0.4.0"), cache, CancelToken(60), refresh=refresh)


def pull_error(repo: str, cache: Path, version: str | None = None) -> MemoAirVoiceMemoryError:
    """Return the error of a pull that fails. No part of the runtime may be left."""
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        pull_runtime(repo, cache, version)
    assert_no_partial_files(cache)
    assert not list(cache.glob("content/*"))
    assert find_cached(parse_reference(repo, version, "0.4.0"), cache) is None
    return raised.value


def assert_no_partial_files(cache: Path) -> None:
    kept = {each.name for each in cache.iterdir()} if cache.exists() else set()
    assert kept <= {"named", "content"}, kept
    assert not list(cache.glob("named/*.new"))


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the delays between retries."""
    monkeypatch.setattr("memoair_runtime_store.pull._RETRY_DELAYS_S", (0.01, 0.01))


# Artifacts in a registry


@pytest.mark.parametrize(
    ("content", "title"),
    [(runtime_archive(), None), (runtime_archive(), "runtime.tar.gz"), (PROGRAM, "voice-runtime"), (PROGRAM, None)],
)
def test_an_artifact_is_pulled_and_executable(registry: str, cache: Path, content: bytes, title: str | None) -> None:
    digest = RegistryClient(registry).push("1.2", (content, title), version="1.2.0")
    found = pull_runtime(f"{registry}/{REPO}", cache, "1.2")

    assert (found.digest, found.digest_from, found.version) == (digest, "registry", "1.2.0")
    assert found.program.read_bytes() == PROGRAM
    assert os.access(found.program, os.X_OK)
    assert (found.program.stat().st_mode & 0o022, cache.stat().st_mode & 0o022) == (0, 0)
    assert_no_partial_files(cache)


def test_an_index_selects_the_manifest_of_this_platform(registry: str, cache: Path) -> None:
    client = RegistryClient(registry)
    matching, other = (
        client.push_untagged((runtime_archive(), None)),
        client.push_untagged((runtime_archive(b"#!/bin/false\n"), None)),
    )
    index = index_of([("unknown", "unknown", other), ("plan9", "mips", other), (THIS.os, THIS.architecture, matching)])
    digest = client.put_manifest("all", index, INDEX)
    found = pull_runtime(f"{registry}/{REPO}:all", cache)

    assert (found.digest, found.program.read_bytes()) == (digest, PROGRAM)
    assert pull_runtime(f"{registry}/{REPO}@{digest}", cache).program == found.program

    client.put_manifest("others", index_of([("unknown", "unknown", other), ("plan9", "mips", other)]), INDEX)
    with pytest.raises(MemoAirVoiceMemoryError, match=f"not available for {THIS}, only for plan9/mips") as raised:
        pull_runtime(f"{registry}/{REPO}:others", cache)
    assert raised.value.code == "runtime.not_found"


def test_an_artifact_can_have_several_files(registry: str, cache: Path) -> None:
    library = tar_of(member("lib/data", b"data", mode=0o644))
    RegistryClient(registry).push("1", (library, "lib.tar"), (PROGRAM, "voice-runtime"))
    found = pull_runtime(f"{registry}/{REPO}:1", cache)

    assert (found.program.parent / "lib" / "data").read_bytes() == b"data"
    assert found.program.read_bytes() == PROGRAM


def test_a_missing_version_is_named_in_the_error(registry: str, cache: Path) -> None:
    RegistryClient(registry).push("1", (PROGRAM, None))
    error = pull_error(f"{registry}/{REPO}", cache, "9.9.9")

    assert error.code == "runtime.not_found"
    assert f"{registry}/{REPO}:9.9.9" in error.message


def test_a_cached_runtime_needs_no_network_until_it_is_refreshed(debian_program: Path | str, cache: Path) -> None:
    with LocalRegistry() as local:
        repo, client = f"{local.host}/{REPO}:stable", RegistryClient(local.host)
        old = client.push("stable", (runtime_archive(), None))
        assert pull_runtime(repo, cache).digest == old
        new = client.push("stable", (runtime_archive(PROGRAM + b"# new\n"), None))
        local.requests.clear()
        assert pull_runtime(repo, cache).digest == old
        assert not local.requests
        assert pull_runtime(repo, cache, refresh=True).digest == new
        local.requests.clear()
        assert pull_runtime(repo, cache, refresh=True).digest == new
        assert [each.path for each in local.requests] == [f"/v2/{REPO}/manifests/stable"], "the manifest is enough"
    assert pull_runtime(repo, cache).program.read_bytes() == PROGRAM + b"# new\n"
    assert find_cached(parse_reference(repo, None, None), cache) == pull_runtime(repo, cache)


def test_a_read_only_cache_is_usable(local: LocalRegistry, cache: Path) -> None:
    RegistryClient(local.host).push("1", (runtime_archive(), None))
    found = pull_runtime(f"{local.host}/{REPO}:1", cache)
    for path in (cache, *cache.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    before = {path: path.lstat().st_mtime_ns for path in (cache, *cache.rglob("*"))}
    try:
        assert pull_runtime(f"{local.host}/{REPO}:1", cache) == found
        assert {path: path.lstat().st_mtime_ns for path in (cache, *cache.rglob("*"))} == before
    finally:
        for path in (cache, *cache.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.parametrize("what", ["program", "entry", "content", "named", ""])
def test_a_runtime_that_other_users_may_write_is_not_run(local: LocalRegistry, cache: Path, what: str) -> None:
    RegistryClient(local.host).push("1", (runtime_archive(), None))
    found = pull_runtime(f"{local.host}/{REPO}:1", cache)
    [entry] = cache.glob("named/*.json")
    {"program": found.program, "entry": entry}.get(what, cache / what).chmod(0o777)
    with pytest.raises(MemoAirVoiceMemoryError, match="chmod go-w") as raised:
        pull_runtime(f"{local.host}/{REPO}:1", cache)
    assert raised.value.code == "runtime.start_failed"


@pytest.mark.parametrize("what", ["program", "content", "named"])
def test_a_cached_runtime_of_another_user_is_not_found(
    local: LocalRegistry, cache: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    RegistryClient(local.host).push("1", (runtime_archive(), None))
    found = pull_runtime(f"{local.host}/{REPO}:1", cache)
    owned = found.program if what == "program" else cache / what
    if os.geteuid() == 0:
        os.chown(owned, 12_345, -1)
    else:  # who may not give files away takes the part of another user
        monkeypatch.setattr("memoair_runtime_store.cache.os.geteuid", lambda: 12_345)
    with pytest.raises(MemoAirVoiceMemoryError, match="belongs to another user") as raised:
        find_cached(parse_reference(f"{local.host}/{REPO}:1", None, None), cache)
    assert raised.value.code == "runtime.start_failed"


@needs_superuser
@pytest.mark.parametrize("what", ["program", "entry", "content", "named", ""])
def test_a_runtime_of_another_user_is_not_run(local: LocalRegistry, cache: Path, what: str) -> None:
    RegistryClient(local.host).push("1", (runtime_archive(), None))
    found = pull_runtime(f"{local.host}/{REPO}:1", cache)
    [entry] = cache.glob("named/*.json")
    give_away({"program": found.program, "entry": entry}.get(what, cache / what))
    with pytest.raises(MemoAirVoiceMemoryError, match="belongs to another user") as raised:
        pull_runtime(f"{local.host}/{REPO}:1", cache)
    assert raised.value.code == "runtime.start_failed"


@pytest.mark.parametrize(
    "damage", ["empty the program", "remove the program", "truncate the info file", "truncate the entry"]
)
def test_a_damaged_cache_entry_is_pulled_again(local: LocalRegistry, cache: Path, damage: str) -> None:
    RegistryClient(local.host).push("1", (runtime_archive(), None))
    found = pull_runtime(f"{local.host}/{REPO}:1", cache)
    [info_file], [entry] = cache.glob("content/*/memoair-runtime.json"), cache.glob("named/*.json")
    if damage == "empty the program":
        found.program.write_bytes(b"")
    elif damage == "remove the program":
        found.program.unlink()
    else:
        os.truncate(info_file if "info" in damage else entry, 5)
    assert pull_runtime(f"{local.host}/{REPO}:1", cache).program.read_bytes() == PROGRAM
    assert_no_partial_files(cache)


# Authentication


def test_an_anonymous_token_is_sent_to_the_registry_only(local: LocalRegistry, server: FileServer, cache: Path) -> None:
    content = runtime_archive()
    RegistryClient(local.host).push("1", (content, None))
    local.requires_token, local.blob_store = True, server.url
    server.files[f"/{digest_of(content)}"] = content
    assert pull_runtime(f"{local.host}/{REPO}:1", cache).program.read_bytes() == PROGRAM

    sent = [(each.path.partition("?")[0], each.headers.get("authorization")) for each in local.requests[-4:]]
    bearer = f"Bearer {local.token}"
    manifest, blob = f"/v2/{REPO}/manifests/1", f"/v2/{REPO}/blobs/{digest_of(content)}"
    assert sent == [(manifest, None), ("/token", None), (manifest, bearer), (blob, bearer)]
    assert "scope=repository%3Aacme%2Fruntime%3Apull" in local.requests[-3].path
    [fetched] = server.requests
    assert "authorization" not in fetched.headers


def test_the_docker_login_is_sent_to_the_token_server(local: LocalRegistry, cache: Path, docker_folder: Path) -> None:
    RegistryClient(local.host).push("1", (runtime_archive(), None))
    local.requires_token = True
    login = base64.b64encode(b"ada:correct horse").decode()
    (docker_folder / "config.json").write_text(json.dumps({"auths": {local.host: {"auth": login}}}))
    pull_runtime(f"{local.host}/{REPO}:1", cache)

    [request] = [each for each in local.requests if each.path.startswith("/token")]
    assert request.headers["authorization"] == f"Basic {login}"


def save_login(docker_folder: Path, host: str) -> None:
    login = base64.b64encode(b"ada:correct horse").decode()
    (docker_folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
@pytest.mark.parametrize("what", ["manifests/1", "blobs/"])
def test_a_server_that_a_registry_redirects_to_gets_no_login(
    local: LocalRegistry, server: FileServer, cache: Path, docker_folder: Path, scheme: str, what: str
) -> None:
    content = runtime_archive()
    RegistryClient(local.host).push("1", (content, None))
    save_login(docker_folder, local.host)
    path = f"/v2/{REPO}/{what}{digest_of(content) if what == 'blobs/' else ''}"
    local.responders[path] = redirect_to(f"{server.url}/elsewhere?signature=secret", 307)
    challenge = f'{scheme} realm="{server.url}/token",service="own"'
    server.responders["/elsewhere"] = respond(b"", 401, WWW_Authenticate=challenge)
    server.responders["/token"] = respond(b'{"token": "x"}')
    error = pull_error(f"{local.host}/{REPO}:1", cache)

    assert error.code == "runtime.not_found"
    assert f"{local.url}" in error.message
    assert f"redirects to {server.url}, which denies access (HTTP status 401)" in error.message
    assert "secret" not in error.message
    assert [each.path.partition("?")[0] for each in server.requests] == ["/elsewhere"]
    assert not [each for each in server.requests if "authorization" in each.headers]


def test_a_redirect_back_to_the_registry_gets_no_credentials(
    local: LocalRegistry, server: FileServer, cache: Path
) -> None:
    content = runtime_archive()
    RegistryClient(local.host).push("1", (content, None))
    local.requires_token = True
    local.responders[f"/v2/{REPO}/blobs/{digest_of(content)}"] = redirect_to(f"{server.url}/away", 307)
    server.responders["/away"] = redirect_to(f"{local.url}/back", 307)
    local.responders["/back"] = respond(content)
    assert pull_runtime(f"{local.host}/{REPO}:1", cache).program.read_bytes() == PROGRAM

    [request] = [each for each in local.requests if each.path == "/back"]
    assert "authorization" not in request.headers


def test_the_login_goes_to_no_other_token_server_than_the_known_and_the_named_one(
    local: LocalRegistry, server: FileServer, cache: Path, docker_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RegistryClient(local.host).push("1", (runtime_archive(), None))
    challenge = f'Bearer realm="{server.url}/token",service="own"'
    serve_manifest = local._serve_content
    local.responders[f"/v2/{REPO}/manifests/1"] = lambda handler: (
        serve_manifest(handler, f"/v2/{REPO}/manifests/1")
        if handler.headers.get("Authorization") == "Bearer x"
        else handler.reply(b"", 401, WWW_Authenticate=challenge)
    )
    server.responders["/token"] = respond(b'{"token": "x"}')
    pull_runtime(f"{local.host}/{REPO}:1", cache)  # an anonymous token may come from anywhere
    save_login(docker_folder, local.host)
    error = pull_error(f"{local.host}/{REPO}:1", cache.with_name("other"))
    assert error.code == "runtime.start_failed"
    assert f"set MEMOAIR_RUNTIME_TOKEN_SERVER={server.host}" in error.message
    assert not [each for each in server.requests if "authorization" in each.headers]

    monkeypatch.setenv("MEMOAIR_RUNTIME_TOKEN_SERVER", server.host)
    pull_runtime(f"{local.host}/{REPO}:1", cache.with_name("other"))
    assert server.requests[-1].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("registry", "realm", "is_known"),
    [
        ("docker.io", "https://auth.docker.io/token", True),
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("ghcr.io", "https://ghcr.io/token", True),
        ("ghcr.io", "https://GHCR.io:443/token", True),
        ("ghcr.io", "https://ghcr.io:8443/token", False),
        ("ghcr.io", "https://auth.docker.io/token", False),
        ("ghcr.io", "http://ghcr.io/token", False),
        ("ghcr.io", "https://ghcr.io@evil.example/token", False),
        ("ghcr.io", "https://ghcr.io.evil.example/token", False),
        ("ghcr.io", "https:///token", False),
        ("ghcr.io", "/token", False),
    ],
)
def test_the_token_servers_of_registries_are_known(registry: str, realm: str, is_known: bool) -> None:
    reference = parse_reference(f"{registry}/{REPO}", "1", None)
    assert isinstance(reference, OciReference)
    checked = Registry(downloader.Downloader(CancelToken(1)), reference)
    if is_known:
        checked._check_token_server(realm)
        return
    with pytest.raises(RuntimeStoreError, match="not known as its token server"):
        checked._check_token_server(realm)


def test_basic_authentication_uses_the_docker_login_or_says_how_to_log_in(
    debian_program: Path | str, tmp_path: Path, cache: Path, docker_folder: Path
) -> None:
    login = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
    with debian_registry_or_skip(debian_program, tmp_path / "registry", requires_password=True) as host:
        RegistryClient(host, authorization=f"Basic {login}").push("1", (runtime_archive(), None))
        error = pull_error(f"{host}/{REPO}:1", cache)
        assert error.code == "runtime.not_found"
        assert f"docker login {host}" in error.message

        (docker_folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))
        assert pull_runtime(f"{host}/{REPO}:1", cache).program.read_bytes() == PROGRAM


@pytest.mark.parametrize("content", [b"not json", b"[]", b"{}", b'{"auths": {"x": 1}}', b"\xff"])
def test_an_unreadable_docker_config_is_ignored(
    local: LocalRegistry, cache: Path, docker_folder: Path, content: bytes
) -> None:
    RegistryClient(local.host).push("1", (runtime_archive(), None))
    local.requires_token = True
    (docker_folder / "config.json").write_bytes(content)
    assert pull_runtime(f"{local.host}/{REPO}:1", cache).program.exists()


def test_an_old_token_is_renewed_before_the_next_download(
    local: LocalRegistry, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (PROGRAM, "voice-runtime"), (tar_of(member("lib/data", b"data")), "lib.tar")
    RegistryClient(local.host).push("1", first, second)
    local.requires_token = True
    monkeypatch.setattr("memoair_runtime_store.registry._TOKEN_TTL_S", 60.0)

    def expire_token(handler: LoopbackHandler) -> None:
        local.token = "another-token"  # the first one is invalid from now on
        monkeypatch.setattr("memoair_runtime_store.registry._TOKEN_TTL_S", 0.0)
        handler.reply(PROGRAM)

    local.responders[f"/v2/{REPO}/blobs/{digest_of(PROGRAM)}"] = expire_token
    assert pull_runtime(f"{local.host}/{REPO}:1", cache).program.read_bytes() == PROGRAM


def test_a_rejected_token_is_requested_only_once(local: LocalRegistry, cache: Path) -> None:
    RegistryClient(local.host).push("1", (runtime_archive(), None))
    local.requires_token = True
    local.responders["/token"] = respond(b'{"token": "another"}')
    local.requests.clear()
    error = pull_error(f"{local.host}/{REPO}:1", cache)

    assert error.code == "runtime.not_found"
    assert "401" in error.message
    assert local.count_gets() == 3


@pytest.mark.parametrize("token", [b"", b"nonsense", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\r\\nb"}'])
def test_an_invalid_token_is_an_error(local: LocalRegistry, cache: Path, token: bytes) -> None:
    local.requires_token = True
    local.responders["/token"] = respond(token)
    assert "returned an invalid token" in pull_error(f"{local.host}/{REPO}:1", cache).message


# Registries that misbehave


def test_a_blob_with_another_digest_is_discarded(local: LocalRegistry, cache: Path) -> None:
    good, bad = runtime_archive(), runtime_archive(b"#!/bin/sh\necho evil\n")
    bad = bad[: len(good)].ljust(len(good), b"\0")
    RegistryClient(local.host).push("1", (good, None))
    local.responders[f"/v2/{REPO}/blobs/{digest_of(good)}"] = respond(bad)
    error = pull_error(f"{local.host}/{REPO}:1", cache)

    assert error.code == "runtime.start_failed"
    assert f"digest {digest_of(bad)}, expected {digest_of(good)}" in error.message


def test_a_manifest_with_another_digest_than_pinned_is_rejected(local: LocalRegistry, cache: Path) -> None:
    client = RegistryClient(local.host)
    pinned = client.push("1", (runtime_archive(), None))
    other = client.push_untagged((runtime_archive(b"#!/bin/sh\necho evil\n"), None))
    local.responders[f"/v2/{REPO}/manifests/{pinned}"] = respond(other)
    local.responders[f"/v2/{REPO}/manifests/1"] = respond(other, Docker_Content_Digest=pinned)

    assert f"expected {pinned}" in pull_error(f"{local.host}/{REPO}@{pinned}", cache).message
    assert f"expected {pinned}" in pull_error(f"{local.host}/{REPO}:1", cache).message


def test_the_digest_of_a_pinned_artifact_comes_from_the_reference(local: LocalRegistry, cache: Path) -> None:
    pinned = RegistryClient(local.host).push("1", (runtime_archive(), None))
    found = pull_runtime(f"{local.host}/{REPO}", cache, pinned)
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
def test_an_invalid_manifest_is_an_error(local: LocalRegistry, cache: Path, manifest: bytes) -> None:
    local.responders[f"/v2/{REPO}/manifests/1"] = respond(manifest)
    assert pull_error(f"{local.host}/{REPO}:1", cache).code in ("runtime.start_failed", "runtime.not_found")


@pytest.mark.parametrize(("promised", "sent"), [(10, 10), (1_000_000, 1_000_000)])
def test_a_blob_of_another_size_is_rejected(local: LocalRegistry, cache: Path, promised: int, sent: int) -> None:
    good = runtime_archive()
    RegistryClient(local.host).push("1", (good, None))
    local.responders[f"/v2/{REPO}/blobs/{digest_of(good)}"] = respond(b"x" * sent, content_length=promised)
    message = pull_error(f"{local.host}/{REPO}:1", cache).message
    assert f"has {promised} bytes" in message


# Releases on a web server


def put_release(server: FileServer, name: str, content: bytes, checksums: str | None = None) -> str:
    """Put a release on a server with its checksum file, and return its URL."""
    server.files[f"/{name}"] = content
    checksum_file = f"{digest_of(content).partition(':')[2]}  {name}\n" if checksums is None else checksums
    server.files[f"/{name}.sha256"] = checksum_file.encode()
    return f"{server.url}/{name}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("runtime.tar.gz", runtime_archive()),
        ("runtime.tar", tar_of(member("voice-runtime", PROGRAM))),
        ("runtime.zip", zip_of({"x/voice-runtime": PROGRAM, "x/README": b"read"})),
        ("voice-runtime-linux", PROGRAM),
        ("only.tgz", tar_gz_of(member("./", type=b"5"), member("./some-program", PROGRAM, mode=0o644))),
    ],
)
def test_a_release_is_pulled_and_executable(server: FileServer, cache: Path, name: str, content: bytes) -> None:
    found = pull_runtime(put_release(server, name, content), cache)

    assert (found.digest, found.digest_from) == (digest_of(content), "server")
    assert found.program.read_bytes() == PROGRAM
    assert os.access(found.program, os.X_OK)
    server.close()
    assert pull_runtime(found.reference, cache) == found


def test_a_release_with_a_checksum_in_its_url_needs_no_checksum_file(server: FileServer, cache: Path) -> None:
    content = runtime_archive()
    server.files["/runtime.tar.gz"] = content
    found = pull_runtime(f"{server.url}/runtime.tar.gz#{digest_of(content).replace(':', '=')}", cache)

    assert (found.digest, found.digest_from) == (digest_of(content), "reference")
    assert [each.path for each in server.requests] == ["/runtime.tar.gz"]


def test_a_release_without_a_checksum_is_not_pulled(server: FileServer, cache: Path) -> None:
    server.files["/runtime.tar.gz"] = runtime_archive()
    error = pull_error(f"{server.url}/runtime.tar.gz", cache)

    assert error.code == "runtime.not_found"
    assert "add #sha256=... to the URL" in error.message
    assert not server.count_gets("/runtime.tar.gz")


SHA256 = digest_of(runtime_archive()).partition(":")[2]


@pytest.mark.parametrize(
    "checksums",
    [
        SHA256,
        f"{SHA256.upper()}\r\n",
        f"{SHA256} *runtime.tar.gz",
        f"{SHA256}  ./dist/runtime.tar.gz\n{'0' * 64}  other.zip\n",
        f"SHA256 (runtime.tar.gz) = {SHA256}\n",
    ],
)
def test_all_formats_of_checksum_files_are_read(server: FileServer, cache: Path, checksums: str) -> None:
    assert (
        pull_runtime(put_release(server, "runtime.tar.gz", runtime_archive(), checksums), cache).digest
        == f"sha256:{SHA256}"
    )


@pytest.mark.parametrize(
    "checksums", ["", "<html>", "0" * 63, f"{SHA256}  other.zip", f"{SHA256}\n{'0' * 64}\n", "\0" * 100]
)
def test_a_checksum_file_without_the_release_is_an_error(server: FileServer, cache: Path, checksums: str) -> None:
    url = put_release(server, "runtime.tar.gz", runtime_archive(), checksums)
    assert "has no SHA-256 for runtime.tar.gz" in pull_error(url, cache).message


def test_a_wrong_checksum_discards_the_file_without_a_retry(server: FileServer, cache: Path) -> None:
    url = put_release(server, "runtime.tar.gz", runtime_archive(), "0" * 64)
    error = pull_error(url, cache)

    assert error.code == "runtime.start_failed"
    assert SHA256 in error.message
    assert "0" * 64 in error.message
    assert server.count_gets("/runtime.tar.gz") == 1


# Servers that misbehave


def test_a_broken_connection_is_retried(server: FileServer, cache: Path, short_delays: None) -> None:
    content = runtime_archive(padding=300_000)
    url = put_release(server, "runtime.tar.gz", content)
    cut = respond(content[:200_000], content_length=len(content))
    server.responders["/runtime.tar.gz"] = first_then(
        cut, others=first_then(respond(b"busy", 503), others=respond(content))
    )
    assert pull_runtime(url, cache).program.read_bytes() == PROGRAM
    assert server.count_gets("/runtime.tar.gz") == 3


def test_a_connection_that_keeps_breaking_is_an_error(server: FileServer, cache: Path, short_delays: None) -> None:
    content = runtime_archive()
    url = put_release(server, "runtime.tar.gz", content)
    server.responders["/runtime.tar.gz"] = respond(content[:100], content_length=len(content))
    error = pull_error(url, cache)

    assert error.code == "runtime.start_failed"
    assert f"closed the connection after 100 of {len(content)} bytes" in error.message
    assert server.count_gets("/runtime.tar.gz") == 3


def test_a_content_length_that_is_too_short_discards_the_file(server: FileServer, cache: Path) -> None:
    content = runtime_archive()
    url = put_release(server, "runtime.tar.gz", content)
    server.responders["/runtime.tar.gz"] = respond(content, content_length=len(content) - 10)
    assert "has the digest" in pull_error(url, cache).message


def test_a_download_stops_at_the_size_limit(server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoair_runtime_store.pull.MAX_DOWNLOAD_BYTES", 1_000_000)
    url = put_release(server, "runtime.tar.gz", runtime_archive())
    server.responders["/runtime.tar.gz"] = respond(b"", content_length=1 << 50)
    assert "more than the limit of 1000000" in pull_error(url, cache).message

    def send_endlessly(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:  # ends with the connection
            handler.wfile.write(b"x" * 65_536)

    server.responders["/runtime.tar.gz"] = send_endlessly
    assert "more than the limit of 1000000 bytes" in pull_error(url, cache).message


@pytest.mark.parametrize("responder", [hang, stall(b"x" * 1_000, 500)])
def test_a_server_that_hangs_ends_the_pull_by_timeout(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, short_delays: None, responder: Any
) -> None:
    monkeypatch.setattr(downloader, "READ_TIMEOUT_S", 0.2)
    url = put_release(server, "runtime.tar.gz", runtime_archive())
    server.responders["/runtime.tar.gz"] = responder
    started_at = time.monotonic()
    assert pull_error(url, cache).code == "runtime.start_failed"
    assert time.monotonic() - started_at < 25


def test_a_server_that_sends_single_bytes_ends_the_pull_by_deadline(server: FileServer, cache: Path) -> None:
    url = put_release(server, "runtime.tar.gz", runtime_archive())
    server.responders["/runtime.tar.gz"] = send_slowly
    started_at = time.monotonic()
    with pytest.raises(MemoAirVoiceMemoryError, match="did not finish within"):
        pull(parse_reference(url, None, None), cache, CancelToken(0.5))
    assert time.monotonic() - started_at < 15, "the server would send single bytes for hours"
    assert_no_partial_files(cache)


def cancel_a_pull(server: FileServer, content: bytes, responder: Any, cache: Path) -> None:
    """Cancel a pull while the server responds, and require that it ends at once."""
    url, cancel_token = put_release(server, "runtime.tar.gz", content), CancelToken(60)
    server.responders["/runtime.tar.gz"] = responder
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(pull, parse_reference(url, None, None), cache, cancel_token)
        eventually(lambda: server.count_gets("/runtime.tar.gz"))
        started_at = time.monotonic()
        cancel_token.cancel()
        with pytest.raises(PullCancelledError):
            running.result(20)
    assert time.monotonic() - started_at < 15, "the pull waited for the server, which hangs for 30 s"


@pytest.mark.parametrize("responder", [hang, send_slowly, stall(b"x" * 1_000_000, 500_000)])
def test_a_pull_is_cancelled_wherever_it_waits(server: FileServer, cache: Path, responder: Any) -> None:
    cancel_a_pull(server, runtime_archive(), responder, cache)
    assert_no_partial_files(cache)


def test_a_refused_connection_is_an_error(cache: Path, short_delays: None, server: FileServer) -> None:
    server.close()
    error = pull_error(f"{server.url}/runtime.tar.gz", cache)
    assert error.code == "runtime.start_failed"
    assert "is unreachable" in error.message


def test_an_unwritable_cache_is_named_in_the_error(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    url = put_release(server, "runtime.tar.gz", runtime_archive())
    with pytest.raises(MemoAirVoiceMemoryError, match=r"is not writable: .*; set runtime_cache_dir to another"):
        pull_runtime(url, tmp_path / "file" / "cache")


# Over TLS


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_server(authority: trustme.CA) -> Iterator[FileServer]:
    """A TLS server with a certificate of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FileServer(context) as running:
        yield running


@pytest.fixture
def trusted_authority(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))


def test_a_release_is_pulled_over_tls(tls_server: FileServer, cache: Path, trusted_authority: None) -> None:
    assert (
        pull_runtime(put_release(tls_server, "runtime.tar.gz", runtime_archive()), cache).program.read_bytes()
        == PROGRAM
    )


def test_an_untrusted_certificate_is_an_error(tls_server: FileServer, cache: Path) -> None:
    error = pull_error(put_release(tls_server, "runtime.tar.gz", runtime_archive()), cache)
    assert error.code == "runtime.start_failed"
    assert "TLS failed; if your company has its own certificates, set REQUESTS_CA_BUNDLE" in error.message
    assert not tls_server.requests


def test_a_pull_over_tls_is_cancelled(tls_server: FileServer, cache: Path, trusted_authority: None) -> None:
    content = runtime_archive(padding=200_000)
    cancel_a_pull(tls_server, content, stall(content, 100_000), cache)


# Redirects


def test_a_redirect_is_followed_and_its_signature_is_never_shown(server: FileServer, cache: Path) -> None:
    url = put_release(server, "runtime.tar.gz", runtime_archive())
    server.responders["/runtime.tar.gz"] = redirect_to("/elsewhere?signature=secret", 307)
    server.responders["/elsewhere"] = respond(b"", 403)
    assert "secret" not in pull_error(url, cache).message
    server.responders["/elsewhere"] = respond(runtime_archive())
    assert pull_runtime(url, cache).program.read_bytes() == PROGRAM


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("http://192.0.2.1/runtime.tar.gz", "does not use https"),
        ("ftp://127.0.0.1/x", "does not use https"),
        ("file:///etc/passwd", "does not use https"),
        ("/runtime.tar.gz", "redirects more than 5 times"),
        ("http://[", "redirects to an invalid URL"),
    ],
)
def test_an_unsafe_redirect_is_not_followed(server: FileServer, cache: Path, to: str, message: str) -> None:
    url = put_release(server, "runtime.tar.gz", runtime_archive())
    server.responders["/runtime.tar.gz"] = redirect_to(to)
    error = pull_error(url, cache)
    assert error.code == "runtime.start_failed"
    assert re.search(message, error.message)


def test_a_remote_server_must_not_redirect_to_this_machine() -> None:
    with pytest.raises(Exception, match="a remote server must not redirect to it"):
        downloader._check_url_security(
            "http://127.0.0.1:8080/admin", "https://example.com/runtime.zip", allow_http=True
        )


def test_loopback_urls_do_not_use_a_proxy(server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert pull_runtime(put_release(server, "runtime.tar.gz", runtime_archive()), cache).program.exists()


def test_credentials_from_netrc_are_not_sent(server: FileServer, cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    pull_runtime(put_release(server, "runtime.tar.gz", runtime_archive()), cache)
    assert not [each for each in server.requests if "authorization" in each.headers]


# Concurrent processes, and processes that are killed

_PULL = """
import sys
from pathlib import Path
from memoair_runtime_store.pull import pull
from memoair_runtime_store.reference import parse_reference
from memoair_runtime_store.cancel_token import CancelToken
sys.stdin.readline()
print(pull(parse_reference(sys.argv[1], None, None), Path(sys.argv[2]), CancelToken(60)).program)
"""


def start_pull(url: str, cache: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "error", "-c", _PULL, url, str(cache)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def let_start(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def start_process(cache: Path) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def start_and_record(url: str) -> "subprocess.Popen[str]":
        started.append(start_pull(url, cache))
        return started[-1]

    yield start_and_record
    for each in started:
        each.kill()
        each.communicate()


@pytest.mark.parametrize("kind", ["registry", "release"])
def test_ten_concurrent_processes_download_once(
    local: LocalRegistry, start_process: Callable[[str], "subprocess.Popen[str]"], cache: Path, kind: str
) -> None:
    content = runtime_archive(padding=2_000_000)
    if kind == "registry":
        RegistryClient(local.host).push("1", (content, None))
        url, path = f"{local.host}/{REPO}:1", f"/v2/{REPO}/blobs/{digest_of(content)}"
    else:
        url, path = put_release(local, "runtime.tar.gz", content), "/runtime.tar.gz"
    processes = [start_process(url) for _ in range(10)]
    for each in processes:
        let_start(each)
    outputs = {each.communicate(timeout=60)[0] for each in processes}

    assert [each.returncode for each in processes] == [0] * 10
    assert len(outputs) == 1
    assert Path(outputs.pop().strip()).read_bytes() == PROGRAM
    assert local.count_gets(path) == 1
    assert_no_partial_files(cache)


def test_after_a_kill_during_a_pull_the_next_process_succeeds(
    server: FileServer, start_process: Callable[[str], "subprocess.Popen[str]"], cache: Path
) -> None:
    content = runtime_archive(padding=2_000_000)
    url = put_release(server, "runtime.tar.gz", content)
    server.responders["/runtime.tar.gz"] = first_then(stall(content, 1_000_000), others=respond(content))
    first = start_process(url)
    let_start(first)
    eventually(lambda: server.count_gets("/runtime.tar.gz"))
    second = start_process(url)  # waits for the first one
    let_start(second)
    first.send_signal(signal.SIGKILL)
    first.wait()
    out, _ = second.communicate(timeout=60)

    assert second.returncode == 0
    assert Path(out.strip()).read_bytes() == PROGRAM
    assert server.count_gets("/runtime.tar.gz") == 2
    assert_no_partial_files(cache)


@pytest.mark.parametrize("owner", ["the same", "another"])
def test_leftovers_of_a_killed_process_are_removed(server: FileServer, cache: Path, owner: str) -> None:
    url = put_release(server, "runtime.tar.gz", runtime_archive())
    pull_runtime(url, cache)
    [key] = [each.stem for each in cache.glob("named/*.json")]
    (cache / "named" / f"{key}.json").unlink()
    leftover = cache / f".unpacking-{key if owner == 'the same' else 'other-0123'}-abcd"
    leftover.mkdir()
    (leftover / "half").write_bytes(b"half")
    pull_runtime(url, cache)
    assert_no_partial_files(cache)


def test_a_manifest_without_files_is_an_error(local: LocalRegistry, cache: Path) -> None:
    RegistryClient(local.host).put_manifest("1", manifest_of([]), MANIFEST)
    assert "is not a runtime" in pull_error(f"{local.host}/{REPO}:1", cache).message
    RegistryClient(local.host).put_manifest("2", manifest_of([descriptor_of(b"never pushed")]), MANIFEST)
    assert pull_error(f"{local.host}/{REPO}:2", cache).code == "runtime.not_found"
