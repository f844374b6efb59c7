"""``memoair runtime``: pull a runtime, and show which one would start."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from support.artifacts import PROGRAM, RegistryClient, digest_of, runtime_archive
from support.commands import MEMOAIR, environment, memoair, start_process
from support.file_server import respond, stall
from support.registries import LocalRegistry
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

CONTENT = runtime_archive(padding=400_000)
OWN = version("memoair-voice")


@pytest.fixture(autouse=True)
def docker_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture
def registry(nothing_left_behind: None) -> Iterator[LocalRegistry]:
    with LocalRegistry() as running:
        yield running


@pytest.fixture
def digest(registry: LocalRegistry) -> str:
    return RegistryClient(registry.host).push("1", (CONTENT, None), version="1.0.3")


def test_a_runtime_is_pulled_and_its_digest_printed(registry: LocalRegistry, digest: str, tmp_path: Path) -> None:
    repo = f"{registry.host}/acme/runtime"
    done = memoair("runtime", "pull", f"{repo}:1")
    [program] = (tmp_path / "caches" / "memoair" / "runtimes").glob("content/*/*/bin/voice-runtime")
    assert done.out.splitlines() == [
        f"{repo}:1",
        f"digest   {digest}  (from the registry)",
        f"program  {program}",
    ]
    assert done.err == ""

    info = json.loads(memoair("runtime", "pull", "--json", MEMOAIR_RUNTIME_REPO=repo, MEMOAIR_RUNTIME_VERSION="1").out)
    assert set(info) == {"reference", "digest", "digestFrom", "version", "program", "pulledAt"}
    assert (info["digest"], info["version"], info["program"]) == (digest, "1.0.3", str(program))
    memoair("runtime", "pull", "1", "--cache-dir", tmp_path / "other", MEMOAIR_RUNTIME_REPO=repo)
    assert list((tmp_path / "other").glob("content/*"))


def test_a_release_is_pulled_by_its_url(registry: LocalRegistry) -> None:
    registry.files["/runtime-2.tar.gz"] = CONTENT
    registry.files["/runtime-2.tar.gz.sha256"] = digest_of(CONTENT).partition(":")[2].encode()
    url = f"{registry.url}/runtime-{{version}}.tar.gz"
    assert "from the checksum file on the server" in memoair("runtime", "pull", url, MEMOAIR_RUNTIME_VERSION="2").out
    pinned = f"{registry.url}/runtime-2.tar.gz#sha256={digest_of(CONTENT).partition(':')[2]}"
    assert "pinned by the reference" in memoair("runtime", "pull", pinned).out


@pytest.mark.parametrize(
    ("reference", "code", "message"),
    [
        ("{host}/acme/runtime:9", 1, "does not exist"),
        ("acme/runtime", 2, "REFERENCE must begin with a registry"),
        ("1 2", 2, "REFERENCE contains a space"),
        ("", 2, "REFERENCE is empty"),
        ("http://example.com/x.zip", 2, "REFERENCE must use https"),
        ("{host}/acme/broken:1", 3, "the manifest is not a JSON object"),
    ],
)
def test_failed_pulls_have_different_exit_codes(
    registry: LocalRegistry, reference: str, code: int, message: str
) -> None:
    registry.responders["/v2/acme/broken/manifests/1"] = respond(b"nonsense")
    done = memoair("runtime", "pull", reference.format(host=registry.host), code=code)
    assert message in done.err
    assert done.out == ""


def test_ctrl_c_cancels_a_pull_and_leaves_nothing(registry: LocalRegistry, digest: str, tmp_path: Path) -> None:
    blob = f"/v2/acme/runtime/blobs/{digest_of(CONTENT)}"
    registry.responders[blob] = stall(CONTENT, 300_000)
    folder = tmp_path / "stopped"
    arguments = ("runtime", "pull", f"{registry.host}/acme/runtime:1", "--cache-dir", str(folder))
    with start_process(*arguments, home=tmp_path) as process:
        eventually(lambda: registry.count_gets(blob))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert {each.name for each in folder.iterdir()} == {"named", "content"}
    assert not list(folder.glob("content/*"))


def test_a_terminal_shows_a_progress_bar_of_the_pull(registry: LocalRegistry, digest: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*MEMOAIR, "runtime", "pull", f"{registry.host}/acme/runtime:1"]
    try:
        done = subprocess.run(
            command,
            env=environment(tmp_path, TERM="xterm"),
            stdout=subprocess.PIPE,
            stderr=theirs,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )
        shown = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert digest in done.stdout.decode()
    assert "━" in shown


def test_the_commands_in_the_documentation_work(registry: LocalRegistry, tmp_path: Path) -> None:
    RegistryClient(registry.host).push("0.5.0", (CONTENT, None))
    page = (Path(__file__).parents[2] / "docs" / "runtimes.md").read_text(encoding="utf-8")
    shown = [line.split()[1:] for line in page.splitlines() if line.startswith("memoair ")]
    assert len(shown) >= 2
    for arguments in shown:
        ours = [each.replace("ghcr.io", registry.host) for each in arguments]
        memoair(*ours, MEMOAIR_RUNTIME_REPO=f"{registry.host}/acme/runtime")


def test_which_shows_the_installed_runtime() -> None:
    info = json.loads(memoair("runtime", "which", "--json").out)
    assert list(info) == ["kind", "why", "command", "version", "reference", "digest", "problem"]
    assert (info["kind"], info["version"], info["why"]) == ("bundled", OWN, "nothing else is named")
    assert info["command"][1:] == ["-m", "memoair_runtime"]
    same = json.loads(memoair("runtime", "which", "--json", MEMOAIR_RUNTIME_VERSION=OWN).out)
    assert (same["kind"], same["why"]) == ("bundled", "MEMOAIR_RUNTIME_VERSION names the version that is installed")


def test_which_asks_a_program_for_its_version(tmp_path: Path) -> None:
    program = tmp_path / "runtime"
    program.write_bytes(PROGRAM)
    program.chmod(0o755)
    output = memoair("runtime", "which", MEMOAIR_RUNTIME_BINARY=str(program)).out
    assert [line.split(maxsplit=1) for line in output.splitlines()] == [
        ["kind", "binary"],
        ["why", "MEMOAIR_RUNTIME_BINARY names it"],
        ["command", str(program)],
        ["version", OWN],
    ]
    output = memoair("runtime", "which", "--no-ask", MEMOAIR_RUNTIME_BINARY=str(program)).out
    assert "version" not in output
    missing = memoair("runtime", "which", "--json", code=1, MEMOAIR_RUNTIME_BINARY="/no/such")
    assert json.loads(missing.out)["problem"] == "there is no program /no/such"


def test_which_shows_the_pulled_runtime_and_pulls_nothing(registry: LocalRegistry, digest: str) -> None:
    variables = {"MEMOAIR_RUNTIME_REPO": f"{registry.host}/acme/runtime", "MEMOAIR_RUNTIME_VERSION": "1"}
    registry.requests.clear()
    done = memoair("runtime", "which", "--json", code=1, **variables)
    info = json.loads(done.out)
    assert (info["kind"], info["command"], info["version"]) == ("pulled", None, "1")
    assert info["why"] == "MEMOAIR_RUNTIME_REPO and MEMOAIR_RUNTIME_VERSION name it"
    assert "memoair runtime pull" in info["problem"]
    assert not registry.requests

    memoair("runtime", "pull", **variables)
    info = json.loads(memoair("runtime", "which", "--json", "--no-ask", **variables).out)
    assert (info["digest"], info["version"], info["problem"]) == (digest, "1.0.3", None)
    assert Path(info["command"][0]).read_bytes() == PROGRAM
    assert json.loads(memoair("runtime", "which", "--json", **variables).out)["version"] == OWN


def test_which_reports_an_invalid_reference() -> None:
    done = memoair("runtime", "which", code=1, MEMOAIR_RUNTIME_REPO="acme/runtime")
    assert "MEMOAIR_RUNTIME_REPO must begin with a registry" in done.out
