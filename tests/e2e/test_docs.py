"""What README and docs show works, and what the code has is documented."""

import json
import re
import shlex
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from support.clouds import running
from typer.testing import CliRunner

from memoair_cli.app import app
from memoair_runtime.settings import Settings
from memoair_voice_sync._errors import ERROR_CODES
from memoair_voice_sync.transcripts import TranscriptOptions, TranscriptTurn, read_transcript

ROOT = Path(__file__).parents[2]
BLOCKS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL), 1)
]
EXAMPLES = [pytest.param(path, id=path.name) for path in sorted((ROOT / "examples").rglob("*.py"))]


def run_python(tmp_path: Path, *arguments: str) -> str:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_the_readme_has_code_for_threads_and_for_asyncio() -> None:
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("code", BLOCKS)
def test_code_in_the_documents_runs(code: str, tmp_path: Path, nothing_left_behind: None) -> None:
    run_python(tmp_path, "-c", code)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs_twice_and_the_second_run_remembers_the_first(
    example: Path, tmp_path: Path, nothing_left_behind: None
) -> None:
    assert "## permanent" not in run_python(tmp_path, str(example))
    assert "## permanent" in run_python(tmp_path, str(example))


# What is not run: it would never end, and is what the test itself stands in for.
SERVE = ["cloud", "serve"]


def shown(page: str) -> list[str]:
    """What stands in the blocks of a page, line by line; some are indented, some fenced."""
    lines, fenced = [], False
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    ") or not line:
            lines.append(line if fenced else line[4:])
    return lines


def commands(page: str) -> list[list[str]]:
    """The commands that a page shows, as a shell gives them to us; patterns are left to whoever runs them."""
    return [shlex.split(line, comments=True)[1:] for line in shown(page) if line.startswith("memoair ")]


def test_the_commands_that_the_documents_show_work_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_left_behind: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    calls = tmp_path / "calls"
    calls.mkdir()
    rows = [line for line in shown("docs/import.md") if line.startswith('{"')]
    (calls / "calls.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "faq.jsonl").write_text(json.dumps({"id": "returns", "text": "Boots go back within thirty days."}))
    (tmp_path / "opening-hours.md").write_text("We open at nine.")

    def run(*arguments: str) -> str:
        expanded = [str(calls / "calls.jsonl") if each == "calls/*.jsonl" else each for each in arguments]
        done = CliRunner().invoke(app, expanded)
        assert done.exit_code == 0, (arguments, done.output)
        return done.stdout

    def memoair(page: str) -> None:
        for arguments in commands(page):
            ran.append(arguments[0])
            told = run(*arguments) if arguments[:2] != SERVE else ""
            if key := re.search(r"memoair_pk_\S+", told):
                monkeypatch.setenv("MEMOAIR_API_KEY", key[0])

    ran: list[str] = []
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path) as cloud:
        monkeypatch.setenv("MEMOAIR_BASE_URL", cloud.url)
        monkeypatch.setenv("MEMOAIR_CLOUD_DATABASE_URL", str(cloud.services.engine.url))
        monkeypatch.setenv("MEMOAIR_CLOUD_BLOB_URL", cloud.services.blobs.url)
        memoair("docs/cloud.md")
        monkeypatch.setenv("MEMOAIR_PROJECT_ID", "proj_acme")
        memoair("README.md")
        memoair("docs/import.md")
    assert set(ran) == {"cloud", "project", "agent", "index", "import", "search", "doctor"}


def read(lines: list[str], name: str, **options: Any) -> list[tuple[str, str, str]]:
    stream = BytesIO("\n".join(lines).encode())
    turns = list(read_transcript(stream, name, TranscriptOptions(**options)))
    assert all(isinstance(turn, TranscriptTurn) for turn in turns), turns
    return [(f"{turn.occurred_at}", turn.user_text, turn.assistant_text) for turn in turns]  # type: ignore[union-attr]


def test_the_transcripts_that_the_documents_show_are_read_as_they_say() -> None:
    lines = shown("docs/import.md")
    assert read([line for line in lines if line.startswith('{"')], "calls.jsonl") == [
        ("2026-03-02 09:30:00+00:00", "Where is my parcel?", "In Leeds."),
        ("None", "And now?", "At your door."),
    ]
    begin = lines.index("userId: caller_42")
    assert read(lines[begin : begin + 7], "call.txt", callers=("Dana Whitlock",)) == [
        ("2026-03-02 14:04:04+00:00", "", "Hello, this is Juno."),
        ("2026-03-02 14:04:09+00:00", "Hi. My parcel is late.", "I see."),
    ]


def test_the_readme_begins_with_the_demo_and_the_tests() -> None:
    commands = re.findall(r"^\$ (.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert commands[0].endswith("memoair demo")
    # All of them run: those that can stand company two at a time, then the others.
    assert commands[1].endswith(
        "python -m pytest -q -n 2 -m 'not alone' && .venv-test/bin/python -m pytest -q -m alone"
    )


def test_every_error_code_and_every_variable_of_the_runtime_is_documented() -> None:
    page = (ROOT / "docs" / "runtime-http.md").read_text(encoding="utf-8")
    source = Path(sys.modules[Settings.__module__].__file__ or "").read_text(encoding="utf-8")
    variables = set(re.findall(r'(?:get|_identifier)\(\s*"([A-Z_]+)"', source))

    assert {code for code in ERROR_CODES if code.startswith("runtime.") and code not in page} == {
        "runtime.projection_unavailable",  # comes with the cloud
        "runtime.bootstrap_failed",
    }
    assert len(variables) > 8
    assert not [name for name in variables if f"MEMOAIR_RUNTIME_{name}" not in page]
