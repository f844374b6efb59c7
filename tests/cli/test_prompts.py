"""``memoair prompt``: push, pull, compare, labels and their history; messages and exit codes."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli.imports import cloud_environment
from support.clouds import Client
from support.commands import MEMOAIR, CommandResult, environment, memoair

TEXT = "Greet {{caller}}.\r\n\tBe brief, \U0001f600.\n\n"
Run = Callable[..., CommandResult]


@pytest.fixture
def run(client: Client) -> Run:
    """Return a function that runs ``memoair prompt`` for an agent of the test's own."""
    environ = {**cloud_environment(client), "COLUMNS": "200"}

    def run_command(*arguments: str | Path, code: int = 0, stdin: str | bytes | None = None) -> CommandResult:
        return memoair("prompt", *arguments, code=code, stdin=stdin, **environ)

    return run_command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prompt.md"
    path.write_bytes(TEXT.encode())
    return path


def test_a_file_is_pushed_once_and_pulled_exactly(run: Run, file: Path, tmp_path: Path) -> None:
    done = run("push", file, "--label", "production", "--label", "staging", "--notes", "first")
    assert done.out == "pushed version 1; production and staging point to it\n"
    assert run("push", file).out == "unchanged: version 1, the latest, has this text already\n"
    assert run("push", file, "--label", "beta").out.endswith("already; beta points to it\n")
    copy = tmp_path / "copy.md"
    assert f"version 1 is written to {copy}" in run("pull", "1", "--output", copy).err
    assert copy.read_bytes() == TEXT.encode()
    assert f"version 1 is what is there already: {copy}" in run("pull", "staging", "--output", copy).err
    copy.write_text("mine")
    refused = run("pull", "--output", copy, code=1)
    assert "has another text; pass --force to replace it" in refused.err
    assert copy.read_text() == "mine"
    run("pull", "--output", copy, "--force")
    assert copy.read_bytes() == TEXT.encode()


def test_standard_input_is_pushed_without_a_mark_of_the_byte_order(run: Run) -> None:
    assert run("push", "-", stdin=b"\xef\xbb\xbfHello.").out == "pushed version 1\n"
    assert run("pull", "1").out == "Hello."


def test_json_is_what_the_cloud_replies(run: Run, file: Path) -> None:
    pushed = json.loads(run("push", file, "--json").out)
    assert (pushed["version"], pushed["isNew"], pushed["placeholders"]) == (1, True, ["caller"])
    assert json.loads(run("push", file, "--json").out)["isNew"] is False
    assert json.loads(run("label", "production", "1", "--json").out)["version"] == 1
    assert json.loads(run("pull", "--json").out)["label"] == "production"
    assert json.loads(run("diff", "1", "1", "--json").out) == {"from": "version 1", "to": "version 1", "diff": ""}
    assert [row["version"] for row in json.loads(run("list", "--json").out)] == [1]
    assert [row["name"] for row in json.loads(run("label", "--json").out)] == ["production"]
    assert [row["replaced"] for row in json.loads(run("log", "--json").out)] == [None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "prompt.md is empty"),
        (b" \n\n", "prompt.md is empty"),
        (b"caf\xe9", "prompt.md is not in UTF-8: the byte at 3 is invalid"),
        ("é".encode() * 100_001, "prompt.md has more than 100,000 characters"),
        (b"x" * 500_000, "prompt.md has more than 100,000 characters"),
        (b"Hello\n{{ first name }}", "prompt.md: line 2, column 1: {{ opens no valid placeholder"),
        (None, "prompt.md was not read: No such file or directory"),
    ],
)
def test_a_file_that_can_be_no_prompt_is_refused_with_the_reason(
    run: Run, file: Path, content: bytes | None, message: str
) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    done = run("push", file, code=1)
    assert message in done.err
    assert "first name" not in done.err
    assert run("list").err == "the agent has no prompt yet\n"


def test_versions_labels_and_files_are_compared(run: Run, file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    file.write_text("Hello\nBe brief.\n")
    run("push", "prompt.md", "--label", "production")
    assert run("diff", "production", "prompt.md").err == "version 1 (production) and prompt.md are the same\n"
    file.write_text("Hello\nBe polite.\n")
    head = "@@ -1,2 +1,2 @@\n Hello\n-Be brief.\n+Be polite.\n"
    assert run("diff", "production", "prompt.md", code=1).out == f"--- version 1 (production)\n+++ prompt.md\n{head}"
    assert run("diff", "prompt.md", code=1).out == f"--- version 1\n+++ prompt.md\n{head}"
    assert run("diff", "production", "-", stdin="Hello\nBe polite.\n", code=1).out.endswith(head)
    run("push", "prompt.md")
    assert run("diff", "1", "2", code=1).out == f"--- version 1\n+++ version 2\n{head}"
    assert run("diff", "production", code=1).out == f"--- version 1 (production)\n+++ version 2\n{head}"
    Path("production").write_text("Hello\nBe polite.\n")  # the label comes first
    run("diff", "production", "2", code=1)
    assert run("diff", "./production", "2").out == ""
    for arguments in (["nobody"], ["9", "1"], ["1", "nothing.md"], ["-", "-"], ["1", "no/such/file"]):
        assert run("diff", *arguments, code=2).err


def test_labels_are_moved_promoted_rolled_back_and_removed(run: Run, client: Client) -> None:
    assert run("label").err == "the agent's prompt has no labels\n"
    assert run("log", code=1).err.endswith("cloud.not_found: the agent's prompt has no such label\n")
    for number, label in ((1, "production"), (2, "staging")):
        run("push", "-", "--label", label, stdin=f"Text {number}.")
    assert run("label", "production", "staging").out == "production points to version 2\n"
    assert run("label", "production").out == "production points to version 2\n"
    assert [line.split()[:2] for line in run("label").out.splitlines()] == [
        ["label", "version"], ["production", "2"], ["staging", "2"],
    ]  # fmt: skip
    conflict = run("label", "production", "1", "--expect", "1", code=1)
    assert "cloud.conflict: the label points to version 2, not to version 1 as expected" in conflict.err
    assert run("label", "production", "--rollback", "--expect", "2").out == "production points to version 1\n"
    assert "had no other version before" in run("label", "production", "--rollback", code=1).err
    assert run("label", "production", "--remove", code=2).err == "nothing was deleted: pass --yes\n"
    assert run("label", "production", "--remove", "--yes").out == "production is removed; it pointed to version 1\n"
    moves = [line.split() for line in run("log", "production").out.splitlines()[1:]]
    assert [(move[2:4], "rollback" in move) for move in moves] == [
        (["1", "removed"], False), (["2", "1"], True), (["1", "2"], False), (["1", "first"], False),
    ]  # fmt: skip
    assert run("push", "-", "--expect", "1", stdin="Text 3.", code=1).err.endswith(
        "cloud.conflict: the latest version is 2, not 1 as expected: compare them first\n"
    )
    versions = [line.split()[:2] for line in run("list").out.splitlines()]
    assert versions[:2] == [["version", "labels"], ["2", "staging"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["label", "Production", "1"], "'Production' is no valid label"),
        (["label", "12", "1"], "'12' is no valid label"),
        (["push", "-", "--label", "a b"], "'a b' is no valid label"),
        (["pull", "../users"], "'../users' is no valid label"),
        (["label", "a", "1", "--rollback"], "pass one of VERSION, --rollback and --remove"),
        (["label", "--remove"], "name the label"),
    ],
)
def test_a_wrong_use_exits_with_2(run: Run, arguments: list[str], message: str) -> None:
    assert message in run(*arguments, code=2, stdin="x").err


def test_the_agent_must_be_named(client: Client) -> None:
    environ = {**cloud_environment(client), "MEMOAIR_AGENT_ID": ""}
    assert memoair("prompt", "list", code=1, **environ).err == "MEMOAIR_AGENT_ID is not set; set it, or pass --agent\n"


def test_control_characters_reach_no_terminal_in_lists(run: Run) -> None:
    run("push", "-", "--notes", "\x1b]0;owned\x07 [bold]x[/bold]", stdin="Text.")
    assert "\x1b" not in run("list").out
    assert "[bold]x[/bold]" in run("list").out


def test_another_process_writes_the_bytes_of_the_prompt(client: Client, run: Run, tmp_path: Path) -> None:
    run("push", "-", "--label", "production", stdin=TEXT.encode())
    environ = environment(tmp_path, **cloud_environment(client))
    done = subprocess.run([*MEMOAIR, "prompt", "pull"], env=environ, capture_output=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == (TEXT.encode(), b"")
