"""The batch job: each transcript is imported once, by several threads, even if the job is interrupted."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import batch_import
import pytest
from support.clients import PROJECT, free_ports, logged, turn_ids
from support.waiting import eventually

from memoair_runtime.storage.user_folder import UserFolder

RunBatch = Callable[..., dict[str, Any]]


def make_line(user: str, call: int, turn: int, **overrides: Any) -> str:
    """Return a turn of a call as a line of JSON."""
    fields = {
        "userId": user,
        "sessionId": f"{user}-{call}",
        "turnId": f"t{turn}",
        "occurredAt": f"2026-03-{call:02}T09:{turn:02}:00Z",
        "userText": f"Parcel {call}-{turn} is late.",
        "assistantText": "I see.",
    }
    return json.dumps({**fields, **overrides})


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Return the arguments of every run."""
    first, last = free_ports()
    own = ["--project", PROJECT, "--agent", "agent_test", "--storage-root", str(tmp_path / "storage")]
    return [
        *own,
        "--ports",
        f"{first}-{last}",
        "--done",
        str(tmp_path / "done"),
        "--refused",
        str(tmp_path / "refused"),
    ]


@pytest.fixture
def run_batch(arguments: list[str], capsys: pytest.CaptureFixture[str], nothing_left_behind: None) -> RunBatch:
    """Return a function that runs the job in this process and returns the summary that it prints."""

    def run_batch(*files: Path, code: int = 0, **options: str) -> dict[str, Any]:
        extra = [part for name, value in options.items() for part in (f"--{name}", value)]
        assert batch_import.main([*map(str, files), *arguments, *extra]) == code
        return dict(json.loads(capsys.readouterr().out))

    return run_batch


def make_summary(**counts: Any) -> dict[str, Any]:
    return {"calls": 0, "turns": 0, "skipped": 0, "refused": 0, "failed": {}, **counts}


def test_calls_are_imported_once_with_their_original_times(run_batch: RunBatch, tmp_path: Path) -> None:
    lines = [make_line(user, call, turn) for turn in range(3) for user in ("ana", "bob") for call in (1, 2)]
    file = write_lines(tmp_path / "calls.jsonl", *lines)
    assert run_batch(file) == make_summary(calls=4, turns=12)
    assert run_batch(file) == make_summary(skipped=4)
    (tmp_path / "done").unlink()
    assert run_batch(file) == make_summary(calls=4, turns=12)  # sent again; the turns are already known
    for user in ("ana", "bob"):
        assert turn_ids(tmp_path / "storage", user) == ["t0", "t1", "t2"] * 2
        times = sorted(event["occurredAt"] for event in logged(tmp_path / "storage", user, "turn"))
        assert times == [f"2026-03-0{call}T09:0{turn}:00Z" for call in (1, 2) for turn in range(3)]


def test_a_call_with_new_turns_is_imported_again(run_batch: RunBatch, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "calls.jsonl", make_line("ana", 1, 0))
    assert run_batch(file) == make_summary(calls=1, turns=1)
    write_lines(file, make_line("ana", 1, 0), make_line("ana", 1, 1))
    assert run_batch(file) == make_summary(calls=1, turns=2)
    assert turn_ids(tmp_path / "storage", "ana") == ["t0", "t1"]


def test_invalid_lines_are_reported_without_their_content(run_batch: RunBatch, tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "calls.jsonl", make_line("ana", 1, 0), '{"secret": "words"}', "secret words", make_line("ana", 1, 1)
    )
    assert run_batch(file, code=1) == make_summary(calls=1, turns=2, refused=2)
    report = (tmp_path / "refused").read_text()
    assert [entry.partition(": ")[0] for entry in report.splitlines()] == ["calls.jsonl:2", "calls.jsonl:3"]
    assert "words" not in report


def test_text_files_and_empty_files_are_read(run_batch: RunBatch, tmp_path: Path) -> None:
    text = write_lines(tmp_path / "call.txt", "userId: ana", "", "Agent: Juno here.", "Caller: My parcel is late.")
    empty = write_lines(tmp_path / "empty.jsonl")
    assert run_batch(text, empty) == make_summary(calls=1, turns=2)
    assert len(turn_ids(tmp_path / "storage", "ana")) == 2


def test_more_callers_than_runtimes_are_imported(run_batch: RunBatch, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "calls.jsonl", *(make_line(f"caller {number}", 1, 0) for number in range(25)))
    assert run_batch(file, threads="3") == make_summary(calls=25, turns=25)
    assert all(turn_ids(tmp_path / "storage", f"caller {number}") == ["t0"] for number in range(25))


def test_a_failed_call_is_counted_and_imported_by_the_next_run(run_batch: RunBatch, tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "calls.jsonl", make_line("ana", 1, 0), make_line("bob", 1, 0), make_line("__org__", 1, 0)
    )
    folder = UserFolder(tmp_path / "storage", PROJECT, "bob").path
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"a file where a folder must be")
    summary = run_batch(file, code=3)
    assert summary["calls"] == 1
    assert summary["failed"].pop("call.unfit") == 1
    assert list(summary["failed"].values()) == [1]
    folder.unlink()
    summary = run_batch(file, code=3)
    assert (summary["calls"], summary["skipped"], summary["failed"]) == (1, 1, {"call.unfit": 1})
    assert turn_ids(tmp_path / "storage", "bob") == ["t0"]


def test_a_missing_file_is_reported_before_anything_is_imported(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        batch_import.main([str(tmp_path / "nothing.jsonl"), *arguments])
    assert raised.value.code == 2
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "storage").exists()


def write_gated_runtime(folder: Path, gate: Path) -> Path:
    """Write a runtime that starts only for the first ten callers until the file ``gate`` exists."""
    program = folder / "runtime"
    program.write_text(
        "#!/bin/sh\n"
        'case "$MEMOAIR_RUNTIME_USER_ID" in *[0-9][0-9])\n'
        f"    while ! [ -e '{gate}' ]; do kill -0 $PPID 2>/dev/null || exit 1; sleep 0.05; done;;\n"
        "esac\n"
        f"exec {sys.executable} -m memoair_runtime\n"
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("stop_signal", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_continues_without_losing_or_duplicating_turns(
    stop_signal: signal.Signals, run_batch: RunBatch, arguments: list[str], tmp_path: Path
) -> None:
    users = [f"caller {number}" for number in range(60)]
    file = write_lines(tmp_path / "calls.jsonl", *(make_line(user, 1, turn) for user in users for turn in range(3)))
    gate = tmp_path / "on"
    program = write_gated_runtime(tmp_path, gate)  # otherwise the run may finish before the signal is sent
    process = subprocess.Popen(
        [sys.executable, batch_import.__file__, str(file), *arguments],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "MEMOAIR_RUNTIME_BINARY": str(program)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell starts background jobs with SIGINT ignored, and a test run in one passes that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        eventually(lambda: len(list((tmp_path / "storage" / PROJECT).glob("caller*"))) > 5, within_s=60)
        os.kill(process.pid, stop_signal)
        if stop_signal is signal.SIGINT:  # calls in progress are completed
            gate.touch()
        _, err = process.communicate(timeout=60)
        assert process.returncode == (130 if stop_signal is signal.SIGINT else -stop_signal), err
    finally:
        process.kill()
        process.wait()
    summary = run_batch(file)
    assert summary["calls"] + summary["skipped"] == len(users)
    assert summary["calls"] > 0, "the first run finished before the signal"
    assert all(turn_ids(tmp_path / "storage", user) == ["t0", "t1", "t2"] for user in users)
