"""The wheel, installed into an empty environment, as users install it."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

# Building and installing take half a minute, and many times that on a loaded machine.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_the_wheel_installs_its_commands_and_data_into_an_empty_environment(
    tmp_path: Path, nothing_left_behind: None
) -> None:
    source = tmp_path / "source"
    run("git", "clone", "--quiet", ROOT, source)  # committed files only
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", source)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.partition("/")[0] for name in names if name.endswith("/__init__.py")}
    assert {"memoair_cli", "memoair_cloud", "memoair_index", "memoair_runtime", "memoair_voice"} < packages
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "tools", "benchmarks", "examples"))]
    assert {f"memoair_index/data/{name}" for name in ("minilm-static.bin", "weights.json", "confidence.json")} <= set(
        names
    )
    assert any(name.startswith("memoair_index/kernel/_compiled.") and name.endswith((".so", ".pyd")) for name in names)
    assert any(name.endswith("/NOTICE") for name in names)
    assert {"memoair_cloud/assets/dashboard.js", "memoair_cloud/dashboard/templates/call.html"} < set(names)
    assert "memoair_cloud/assets/vendored/htmx.org/LICENSE" in names
    assert {f"memoair_cli/cloud_demo/talks/{name}.yaml" for name in ("shop", "clinic")} < set(names)

    environment = tmp_path / "empty"
    venv.create(environment, with_pip=False)
    python, bin_ = environment / "bin" / "python", environment / "bin"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", wheel)

    assert run(bin_ / "memoair", "--version", cwd=tmp_path) == "0.4.0\n"
    assert "17 of 17" in run(bin_ / "memoair", "demo", cwd=tmp_path)
    without_settings = subprocess.run(
        [bin_ / "voice-runtime"], env={}, capture_output=True, text=True, timeout=200, check=False
    )
    assert without_settings.returncode == 2
    assert "MEMOAIR_RUNTIME_PROJECT_ID" in without_settings.stderr
    run(python, "-c", "import memoair_voice as v; assert v.__version__ == '0.4.0'", cwd=tmp_path)
    # Type-check users' code against the installed packages: without a py.typed, all types would be unknown.
    users = shutil.copy(source / "tests" / "typed" / "users.py", tmp_path)
    run(sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", python, users, cwd=tmp_path)


def test_the_wheel_builds_without_a_compiler(tmp_path: Path) -> None:
    source = tmp_path / "source"
    run("git", "clone", "--quiet", ROOT, source)
    env = {**os.environ, "CC": "/bin/false", "CXX": "/bin/false"}
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", source, env=env)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "memoair_index/kernel/numpy_kernel.py" in names
    assert not [name for name in names if name.endswith((".so", ".pyd"))]
