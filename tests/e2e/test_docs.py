"""What README and docs show works, and what the code has is documented."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from memoair_runtime.settings import Settings
from memoair_voice_sync._errors import ERROR_CODES

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


def test_the_readme_begins_with_the_demo_and_the_tests() -> None:
    commands = re.findall(r"^\$ (.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert commands[0].endswith("memoair demo")
    assert commands[1].endswith("pytest")


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
