"""``memoair demo``, as a new user runs it."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from support.timing import least, slowdown


def run_memoair(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from memoair_cli.app import main; main()", *arguments]
    environ = {"HOME": str(home), "PATH": "/usr/bin:/bin", "COLUMNS": "200", "TMPDIR": str(home)}
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=100, check=False)


def test_the_demo_recalls_everything_and_loses_nothing(tmp_path: Path, nothing_left_behind: None) -> None:
    def measure_run_s() -> float:
        """Return how many seconds a run takes, scaled to a quiet machine: most of the run is computing."""
        before, began_at = slowdown(), time.monotonic()
        done = run_memoair("demo", home=tmp_path)
        took_s = time.monotonic() - began_at
        check_demo(done)
        return took_s / max(before, slowdown())

    assert least(measure_run_s, 10, tries=3) < 10
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("memoair-demo")]


def check_demo(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "kill -9" in done.stdout
    assert re.search(r"recalled\s+permanent: “the Tarn boots, size nine” ✓", done.stdout)
    assert "missing" not in done.stdout
    recalled, wanted = re.search(r"(\d+) of (\d+)\s*\n\s*turns that survived", done.stdout).groups()  # type: ignore[union-attr]
    assert recalled == wanted != "0"


def test_the_demo_keeps_its_memory_in_the_given_folder(tmp_path: Path, nothing_left_behind: None) -> None:
    done = run_memoair("demo", "--storage", str(tmp_path / "kept"), home=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    logs = sorted((tmp_path / "kept").rglob("session.jsonl"))
    assert len(logs) == 4
    turns = [json.loads(line)["type"] for log in logs for line in log.read_text().splitlines()].count("turn")
    assert f"{turns} of {turns}" in done.stdout


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    done = run_memoair("dmeo", home=tmp_path)

    assert done.returncode == 2
    assert "dmeo" in done.stderr
