"""The evaluation in continuous integration: its workflow runs, passes, and fails for documents that got worse."""

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.commands import memoair

EXAMPLE = Path(__file__).parents[3] / "examples" / "evals"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a checkout of the example's repository, and one of the state before the change beside it."""
    for name in ("before", "after"):
        shutil.copytree(EXAMPLE, tmp_path / name, ignore=shutil.ignore_patterns(".venv"))
    monkeypatch.chdir(tmp_path / "after")
    return tmp_path / "after"


def read_commands() -> list[list[str]]:
    """Return the arguments of each ``memoair`` that the workflow runs."""
    workflow = yaml.safe_load((EXAMPLE / "ci.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["evaluate"]["steps"]
    commands = [shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("memoair ")]
    return [command[1:] for command in commands]


@pytest.mark.usefixtures("checkout")
def test_the_workflow_passes() -> None:
    before, after = read_commands()
    memoair(*before)
    out = memoair(*after).out
    assert "20 cases, 20 passed" in out


def test_the_workflow_fails_for_documents_that_lose_an_answer(checkout: Path) -> None:
    policy = checkout / "documents" / "warranty.md"
    policy.write_text("# Warranty\n\nAsk us.\n", encoding="utf-8")
    before, after = read_commands()
    memoair(*before)
    failed = memoair(*after, code=1)
    assert "worse   warranty: passed yes -> no" in failed.out


def test_the_readme_shows_the_commands_of_the_workflow() -> None:
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    assert "memoair eval returns.jsonl --documents documents --fail-under 0.9" in readme
    assert read_commands()[1][:3] == ["eval", "returns.jsonl", "--documents"]
