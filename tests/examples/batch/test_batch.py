"""The batch job: transcripts kept once, by many threads, also where it was stopped."""

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

Run = Callable[..., dict[str, Any]]


def line(user: str, call: int, turn: int, **more: Any) -> str:
    """A turn of a call, as JSON lines have it."""
    told = {
        "userId": user,
        "sessionId": f"{user}-{call}",
        "turnId": f"t{turn}",
        "occurredAt": f"2026-03-{call:02}T09:{turn:02}:00Z",
        "userText": f"Parcel {call}-{turn} is late.",
        "assistantText": "I see.",
    }
    return json.dumps({**told, **more})


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """What the job is told in every run."""
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
def run(arguments: list[str], capsys: pytest.CaptureFixture[str], nothing_left_behind: None) -> Run:
    """Run the job in this process, and return what it prints."""

    def run(*files: Path, code: int = 0, **more: str) -> dict[str, Any]:
        told = [part for name, value in more.items() for part in (f"--{name}", value)]
        assert batch_import.main([*map(str, files), *arguments, *told]) == code
        return dict(json.loads(capsys.readouterr().out))

    return run


def outcome(**told: Any) -> dict[str, Any]:
    return {"calls": 0, "turns": 0, "skipped": 0, "refused": 0, "failed": {}, **told}


def test_calls_are_kept_once_with_the_times_of_then(run: Run, tmp_path: Path) -> None:
    lines = [line(user, call, turn) for turn in range(3) for user in ("ana", "bob") for call in (1, 2)]
    file = write(tmp_path / "calls.jsonl", *lines)
    assert run(file) == outcome(calls=4, turns=12)
    assert run(file) == outcome(skipped=4)
    (tmp_path / "done").unlink()
    assert run(file) == outcome(calls=4, turns=12)  # told again, and known
    for user in ("ana", "bob"):
        assert turn_ids(tmp_path / "storage", user) == ["t0", "t1", "t2"] * 2
        times = sorted(event["occurredAt"] for event in logged(tmp_path / "storage", user, "turn"))
        assert times == [f"2026-03-0{call}T09:0{turn}:00Z" for call in (1, 2) for turn in range(3)]


def test_a_call_that_has_grown_is_told_again(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "calls.jsonl", line("ana", 1, 0))
    assert run(file) == outcome(calls=1, turns=1)
    write(file, line("ana", 1, 0), line("ana", 1, 1))
    assert run(file) == outcome(calls=1, turns=2)
    assert turn_ids(tmp_path / "storage", "ana") == ["t0", "t1"]


def test_lines_that_are_none_are_told_without_their_words(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "calls.jsonl", line("ana", 1, 0), '{"secret": "words"}', "secret words", line("ana", 1, 1))
    assert run(file, code=1) == outcome(calls=1, turns=2, refused=2)
    told = (tmp_path / "refused").read_text()
    assert [each.partition(": ")[0] for each in told.splitlines()] == ["calls.jsonl:2", "calls.jsonl:3"]
    assert "words" not in told


def test_texts_and_an_empty_file_are_read_too(run: Run, tmp_path: Path) -> None:
    text = write(tmp_path / "call.txt", "userId: ana", "", "Agent: Juno here.", "Caller: My parcel is late.")
    empty = write(tmp_path / "empty.jsonl")
    assert run(text, empty) == outcome(calls=1, turns=2)
    assert len(turn_ids(tmp_path / "storage", "ana")) == 2


def test_more_callers_than_places_are_kept(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "calls.jsonl", *(line(f"caller {number}", 1, 0) for number in range(25)))
    assert run(file, threads="3") == outcome(calls=25, turns=25)
    assert all(turn_ids(tmp_path / "storage", f"caller {number}") == ["t0"] for number in range(25))


def test_a_call_that_fails_is_told_and_kept_by_the_next_run(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "calls.jsonl", line("ana", 1, 0), line("bob", 1, 0), line("__org__", 1, 0))
    folder = UserFolder(tmp_path / "storage", PROJECT, "bob").path
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"a file where a folder must be")
    told = run(file, code=3)
    assert told["calls"] == 1
    assert told["failed"].pop("call.unfit") == 1
    assert list(told["failed"].values()) == [1]
    folder.unlink()
    told = run(file, code=3)
    assert (told["calls"], told["skipped"], told["failed"]) == (1, 1, {"call.unfit": 1})
    assert turn_ids(tmp_path / "storage", "bob") == ["t0"]


def test_a_file_that_is_not_there_is_told_before_anything_is_done(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        batch_import.main([str(tmp_path / "nothing.jsonl"), *arguments])
    assert ended.value.code == 2
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "storage").exists()


def gated_runtime(folder: Path, switch: Path) -> Path:
    """Write a runtime that starts for the first ten callers only, as long as there is no switch."""
    program = folder / "runtime"
    program.write_text(
        "#!/bin/sh\n"
        'case "$MEMOAIR_RUNTIME_USER_ID" in *[0-9][0-9])\n'
        f"    while ! [ -e '{switch}' ]; do kill -0 $PPID 2>/dev/null || exit 1; sleep 0.05; done;;\n"
        "esac\n"
        f"exec {sys.executable} -m memoair_runtime\n"
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_goes_on_and_no_turn_is_lost_or_doubled(
    by: signal.Signals, run: Run, arguments: list[str], tmp_path: Path
) -> None:
    users = [f"caller {number}" for number in range(60)]
    file = write(tmp_path / "calls.jsonl", *(line(user, 1, turn) for user in users for turn in range(3)))
    switch = tmp_path / "on"
    program = gated_runtime(tmp_path, switch)  # else the run may be over before this process comes to send its signal
    process = subprocess.Popen(
        [sys.executable, batch_import.__file__, str(file), *arguments],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "MEMOAIR_RUNTIME_BINARY": str(program)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        eventually(lambda: len(list((tmp_path / "storage" / PROJECT).glob("caller*"))) > 5, within_s=60)
        os.kill(process.pid, by)
        if by is signal.SIGINT:  # what is under way ends
            switch.touch()
        _, err = process.communicate(timeout=60)
        assert process.returncode == (130 if by is signal.SIGINT else -by), err
    finally:
        process.kill()
        process.wait()
    told = run(file)
    assert told["calls"] + told["skipped"] == len(users)
    assert told["calls"] > 0, "it was ended before its end"
    assert all(turn_ids(tmp_path / "storage", user) == ["t0", "t1", "t2"] for user in users)
