"""The commands that install us, wherever they are written: they install this project and no other of its name."""

import json
import re
import shlex
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from _pytest.mark import ParameterSet
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
OTHER_VERSION, OUR_VERSION = "0.3.2", "0.4.0"  # on PyPI, where it is another program; and in this checkout
OURS = {"memoair-voice", "memoair-livekit", "memoair-pipecat"}
_COMMAND = re.compile(r"\bpip['\"]?(?: --python \S+)? (?:install|wheel|download) ([^`\n]*)")
_END = re.compile(r""" && | ; |;|"{1,3}\)?$|"[,)]| #|   """)
_OPTIONS_WITH_VALUE = {"-r", "--requirement", "--index-url", "--find-links", "--wheel-dir", "--python"}
_PATH = re.compile(r"^(\.{0,2}(?:/[\w.-]+)*/?)(\[[\w,]+\])?$")


class InstallLine(NamedTuple):
    """A command that installs something, and its place."""

    path: Path
    line: int
    command: str


def shown_files() -> list[Path]:
    """Return the files that users read or that write messages for them."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    shown = ("README.md", "docs/", "examples/", "integrations/", "memoair_", "tools/")
    return [ROOT / name for name in names if name.startswith(shown) and Path(name).suffix in (".md", ".py", ".txt")]


def install_lines() -> Iterator[InstallLine]:
    for path in shown_files():
        text = path.read_text(encoding="utf-8")
        for match in _COMMAND.finditer(text):
            yield InstallLine(path, text.count("\n", 0, match.start()) + 1, match[1])


def split_arguments(command: str) -> list[str]:
    """Return what a command installs: the arguments that are no options, up to the end of the command."""
    command = command.replace("{extra}", "mcp").replace("{_PACKAGE}", "memoair-voice")
    command = _END.split(command)[0]
    try:
        words = shlex.split(command)
    except ValueError:  # within a sentence: the quote ends elsewhere
        words = command.replace("'", " ").replace('"', " ").split()
    installed = []
    arguments = iter(words)
    for word in arguments:
        if word in _OPTIONS_WITH_VALUE:
            next(arguments, None)
        elif not word.startswith("-"):
            installed.append(word)
    return installed


LINES = list(install_lines())


@pytest.mark.parametrize("line", [pytest.param(line, id=f"{line.path.name}:{line.line}") for line in LINES])
def test_an_install_line_installs_this_project(line: InstallLine) -> None:
    arguments = split_arguments(line.command)
    for argument in arguments:
        if match := _PATH.match(argument):
            folder = Path("/src" if match[1].startswith("/") else match[1])
            if folder != Path("/src"):  # where an image has the checkout
                base = line.path.parent if match[1].startswith("..") else ROOT
                assert (base / folder / "setup.cfg").exists() or (base / folder / "pyproject.toml").exists(), argument
        else:
            check_is_ours(argument)


def check_is_ours(text: str) -> None:
    requirement = Requirement(text)
    if requirement.name in OURS or requirement.name.startswith("memoair"):
        assert requirement.specifier.contains(OUR_VERSION), text
        assert not requirement.specifier.contains(OTHER_VERSION), f"{text} would install another program"


def test_install_lines_are_found_everywhere() -> None:
    folders = {line.path.relative_to(ROOT).parts[0] for line in LINES}
    assert {"README.md", "docs", "examples", "integrations", "memoair_cli", "memoair_protocol"} <= folders
    assert len(LINES) > 25


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*/requirements.txt")), ids=lambda path: path.parent.name)
def test_requirements_of_an_example_exclude_the_other_program(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        check_is_ours(line)


@pytest.mark.parametrize("command", ["pip install memoair-voice", "pip install 'memoair-voice[cloud]'"])
def test_a_bare_name_is_refused_by_this_test(command: str) -> None:
    match = _COMMAND.search(command)
    assert match is not None
    [argument] = split_arguments(match[1])
    with pytest.raises(AssertionError):
        check_is_ours(argument)


# Each takes ten seconds. The other commands of the page are tried on demand.
ALWAYS_TRIED = (".", "'.[cloud]'", ". ./integrations/livekit")


def commands_of_the_page() -> list[ParameterSet]:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    commands = [command for command in re.findall(r"`pip install ([^`]+)`", page) if command.startswith((".", "'."))]
    assert set(ALWAYS_TRIED) <= set(commands)
    return [
        pytest.param(command, marks=[] if command in ALWAYS_TRIED else [pytest.mark.extended]) for command in commands
    ]


@pytest.mark.timeout(900)  # it resolves all requirements, and builds our wheel
@pytest.mark.parametrize("command", commands_of_the_page())
def test_each_command_of_the_page_works_in_an_empty_environment(command: str, tmp_path: Path) -> None:
    if "pipecat" in command and sys.version_info < (3, 11):
        pytest.skip("Pipecat needs a newer Python")
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", ROOT, source], check=True)  # committed files only
    venv.create(tmp_path / "empty", with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", tmp_path / "empty" / "bin" / "python"]
    report = tmp_path / "report.json"
    options = ["install", "--quiet", "--dry-run", "--report", report]
    done = subprocess.run(
        [*pip, *options, *shlex.split(command)], cwd=source, capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stderr
    resolved = json.loads(report.read_text())["install"]
    ours = {item["metadata"]["name"]: item for item in resolved if item["metadata"]["name"] in OURS}
    assert "memoair-voice" in ours
    for name, item in ours.items():
        assert item["download_info"]["url"].startswith("file://"), name
        assert item["metadata"]["version"] == OUR_VERSION
    for name in ("livekit", "pipecat"):
        assert (f"memoair-{name}" in ours) == (f"integrations/{name}" in command)
