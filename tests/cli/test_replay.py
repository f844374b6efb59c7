"""``memoair replay``: what it sends, shows, refuses and leaves behind."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.imports import cloud_environment
from support.clouds import Client, RunningCloud, session_start, turn
from support.commands import CommandResult, memoair

from memoair_cloud.queue import Worker

WEEK = ("--from", "2026-03-01", "--to", "2026-03-08")
FAQ = {"name": "faq", "documents": [{"id": "returns", "text": "Boots can be returned within thirty days."}]}
SETS = "/v1/voice-sdk/evaluations/document-sets"


@pytest.fixture(scope="module")
def worker(cloud: RunningCloud) -> Iterator[None]:
    """Run a worker, as a server does."""
    started = Worker(cloud.services.queue)
    started.start()
    yield
    started.stop(30)


@pytest.fixture
def environ(client: Client, worker: None) -> dict[str, str]:
    """The environment of a project with a document and three questions of two callers."""
    client.ok("POST", "/v1/voice-sdk/index/create", FAQ)
    client.send(
        session_start("s1"),
        turn("t1", seq=2, said="How long can I return the boots?"),
        turn("t2", seq=3, said="Read \x1b]0;owned\x07 [bold]this[/bold]: when can I return the boots?"),
    )
    other = client.with_identity(**{**client.identity, "user": "ben"})
    other.send(session_start("s3", "call-3", name="Ben"), turn("t3", "call-3", said="Can boots be returned?"))
    other.close()
    return {**cloud_environment(client), "MEMOAIR_AGENT_ID": client.identity["agent"], "COLUMNS": "250"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with another document about the same."""
    path = tmp_path / "docs"
    path.mkdir()
    (path / "returns-2026.md").write_text("Boots can be returned within a week.")
    return path


def replay(environ: dict[str, str], *arguments: str | Path, code: int = 0) -> CommandResult:
    return memoair("replay", *arguments, code=code, **environ)


def test_a_replay_shows_the_documents_that_change_and_the_largest_changes(
    environ: dict[str, str], client: Client, folder: Path
) -> None:
    done = replay(environ, *WEEK, "--documents", f"faq={folder}")

    lines = done.out.splitlines()
    assert lines[0].startswith("3 questions of 3 turns: 3 contexts change (100.0%), ")
    assert "documents that appear: faq/returns-2026.md (3)" in lines
    assert "documents that vanish: faq/returns (3)" in lines
    table = lines[lines.index("") + 1 :]
    assert table[0].split()[:4] == ["change", "asked", "caller", "question"]
    assert len(table) == 4
    assert "+faq/returns-2026.md, -faq/returns" in done.out
    assert "[bold]this[/bold]" in done.out
    assert "\x1b" not in done.out
    assert "replay run_" in done.err
    assert client.ok("GET", SETS)["documentSets"] == [], "what was sent for it does not stay"


def test_the_one_index_of_a_project_need_not_be_named(environ: dict[str, str], client: Client, folder: Path) -> None:
    done = replay(environ, *WEEK, "--documents", folder, "--keep-documents", "--json")

    printed = json.loads(done.out)
    assert printed["run"]["scores"]["documents"]["appeared"][0]["index"] == "faq"
    assert [change["change"] for change in printed["changes"]] == sorted(
        (change["change"] for change in printed["changes"]), reverse=True
    )
    assert len(client.ok("GET", SETS)["documentSets"]) == 1
    client.ok("POST", "/v1/voice-sdk/index/create", {**FAQ, "name": "shop"})
    refused = replay(environ, *WEEK, "--documents", folder, code=2)
    assert refused.err.strip() == "--documents: name the index of the documents: INDEX=PATH, one of faq, shop"
    named = replay(environ, *WEEK, "--documents", f"faq={folder}")
    assert "the candidate has no documents of the project's shop" in named.err
    again = replay(environ, "--run", printed["run"]["runId"], "--json")
    assert json.loads(again.out)["run"]["scores"] == printed["run"]["scores"]


def test_more_changes_than_allowed_fail_a_pipeline(environ: dict[str, str]) -> None:
    changed = replay(environ, *WEEK, "--lane", "profile", "--fail-over", ".2", code=1)
    assert "100.0% of the contexts change, which is above --fail-over 0.2" in changed.err
    same = replay(environ, *WEEK, "--top-k", "org=4", "--fail-over", "0")
    assert "0 contexts change (0.0%)" in same.out


def test_a_period_without_calls_is_no_error(environ: dict[str, str]) -> None:
    done = replay(environ, "--from", "2020-01-01", "--to", "2020-02-01", "--top-k", "1")
    assert done.out.startswith("0 questions of 0 turns")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (WEEK, "nothing would change: pass --documents, --candidate or a setting such as --top-k"),
        (("--to", "2026-03-08", "--top-k", "1"), "--from is required: a day such as 2026-03-02, or a time"),
        (("--from", "yesterday", "--top-k", "1"), "--from yesterday: write a date"),
        (("--from", "2026-03-08", "--to", "2026-03-08", "--top-k", "1"), "--from must be before --to"),
        ((*WEEK, "--documents", "faq=/no/such/folder"), "no such file or folder"),
        ((*WEEK, "--candidate", "/no/such/file"), "/no/such/file"),
        ((*WEEK, "--top-k", "elsewhere=1"), "--top-k"),
    ],
)
def test_what_cannot_be_replayed_is_refused_before_anything_is_sent(
    environ: dict[str, str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in replay(environ, *arguments, code=2).err


def test_an_unknown_replay_and_one_of_another_agent_are_refused(environ: dict[str, str], client: Client) -> None:
    assert "unknown run" in replay(environ, "--run", "run_of_nobody", code=2).err
    done = json.loads(replay(environ, *WEEK, "--top-k", "1", "--json").out)
    path = f"/v1/projects/{client.identity['project']}/agents"
    other = client.ok("POST", path, {"name": "Sales", "agentType": "voice"})["id"]
    foreign = {**environ, "MEMOAIR_AGENT_ID": other}
    assert "unknown run" in replay(foreign, "--run", done["run"]["runId"], code=2).err
    assert "MEMOAIR_AGENT_ID is not set" in replay({**environ, "MEMOAIR_AGENT_ID": ""}, *WEEK, code=2).err
