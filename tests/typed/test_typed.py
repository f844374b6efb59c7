"""Code of applications is type-checked with mypy and pyright, as their editors and their CI do it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# A type checker takes seconds, and many times that on a loaded machine.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
# Pyright comes as a wheel with all it needs (its extra `nodejs`): nothing may be downloaded.
ENVIRON = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}


def run_module(tmp_path: Path, *command: str | Path) -> str:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", **ENVIRON}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(tmp_path: Path, file: Path) -> set[tuple[int, str]]:
    """Return the errors with their lines. Fail on an error in another file: applications would see it, too."""
    output = run_module(
        tmp_path, "mypy", "--strict", "--python-version", "3.10", "--config-file=", "--output=json", file
    )
    errors = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert not [error for error in errors if Path(error["file"]).name != file.name], errors
    return {(error["line"], error["message"]) for error in errors if error["severity"] == "error"}


def pyright(tmp_path: Path, file: Path) -> set[tuple[int, str]]:
    # In `strict` mode every partly unknown type is an error. Unused results are allowed.
    settings = {
        "include": [file.name],
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.10",
        "typeCheckingMode": "strict",
        "reportUnusedExpression": False,
        "reportUnusedCoroutine": False,
    }
    shutil.copy(file, tmp_path)  # only files beside the settings are checked
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps(settings))
    report = json.loads(run_module(tmp_path, "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", config))
    assert report["summary"]["filesAnalyzed"] == 1
    return {
        (each["range"]["start"]["line"] + 1, each["message"])
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    }


CHECKERS = [pytest.param(checker, id=checker.__name__) for checker in (mypy, pyright)]


@pytest.mark.parametrize("checker", CHECKERS)
def test_correct_uses_have_no_type_error(checker: Any, tmp_path: Path, nothing_left_behind: None) -> None:
    assert checker(tmp_path, HERE / "users.py") == set()


@pytest.mark.parametrize("checker", CHECKERS)
def test_wrong_uses_are_type_errors(checker: Any, tmp_path: Path, nothing_left_behind: None) -> None:
    file = HERE / "wrong_uses.py"
    lines = file.read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    found = checker(tmp_path, file)

    assert len(wrong) > 40
    assert wrong - {line for line, _ in found} == set(), "these lines must be errors"
    assert {(line, message) for line, message in found if line not in wrong} == set(), "these lines must not be errors"


def symbols(tmp_path: Path, package: str) -> dict[str, Any]:
    """Return what pyright knows of each public name of a package and of the names that those refer to."""
    report = json.loads(run_module(tmp_path, "pyright", "--outputjson", "--verifytypes", package, "--ignoreexternal"))
    return {each["name"]: each for each in report["typeCompleteness"]["symbols"]}


@pytest.mark.parametrize("package", ["memoair_voice_sync", "memoair_transcripts"])
def test_every_public_name_is_annotated(package: str, tmp_path: Path, nothing_left_behind: None) -> None:
    found = symbols(tmp_path, package)
    assert len([name for name, each in found.items() if each["isExported"]]) >= 8
    assert not [name for name, each in found.items() if not each["isTypeKnown"] or each["isTypeAmbiguous"]]


def test_every_public_name_of_the_async_package_has_a_type(tmp_path: Path, nothing_left_behind: None) -> None:
    # Its methods are made from the sync methods, so they have no annotations; the inferred types are complete.
    found = symbols(tmp_path, "memoair_voice")
    assert "memoair_voice._client.MemoAirVoiceClient.search_memory" in found
    assert not [name for name, each in found.items() if not each["isTypeKnown"] and not each["isTypeAmbiguous"]]
