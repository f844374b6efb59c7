"""``memoair import --local``: imports into this machine's memory."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.imports import STARTED_AT, NewFile, run_import, turn, turn_ids_of
from support.clients import logged
from support.commands import memoair, start_process
from support.runtimes import PROJECT
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync

IDENTITY = {"MEMOAIR_PROJECT_ID": PROJECT}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """The storage root."""
    return tmp_path / "storage"


def import_locally(storage: Path, *arguments: str | Path, code: int = 0) -> Any:
    return run_import(*arguments, "--local", "--storage", storage, code=code, **IDENTITY)


def test_calls_are_saved_with_times_and_a_second_run_changes_nothing(
    storage: Path, new_file: NewFile, nothing_left_behind: None
) -> None:
    rows = [
        turn(number, user, userName=user.title(), assistantName="Juno") for user in ("ana", "bob") for number in (1, 2)
    ]
    longest = (1 << 20) - len(
        json.dumps(turn(3, "ana", "ana-2", userText=""))
    )  # the longest line; the request is longer than the limit
    file = new_file(*rows, turn(3, "ana", "ana-2", userText="x" * longest))
    summary = import_locally(storage, file, code=1)

    assert summary["turns"] == {"kept": 4, "alreadyThere": 0, "refused": 1}
    assert summary["refused"][0]["line"] == 5
    assert summary["refused"][0]["reason"].startswith("runtime.payload_too_large")
    events = [event for event in logged(storage, "ana") if event["sessionId"] == "ana-1"]
    assert [event["type"] for event in events] == ["session_start", "turn", "turn", "session_end"]
    assert events[0]["payload"] == {"user": {"id": "ana", "name": "Ana"}, "metadata": {"assistantName": "Juno"}}
    assert [event["occurredAt"] for event in events[1:3]] == ["2026-03-02T09:31:00Z", "2026-03-02T09:32:00Z"]

    before = logged(storage, "ana") + logged(storage, "bob")
    for more in ([], ["--restart"]):
        again = import_locally(storage, new_file(*rows), *more)
        assert again["turns"] == {"kept": 0, "alreadyThere": 4, "refused": 0}
    assert logged(storage, "ana") + logged(storage, "bob") == before
    found = memoair("search", "--user", "ana", "--storage", storage, "Which parcel was late?", **IDENTITY)
    assert "2 March 2026" in found.out
    assert "Parcel number 2" in found.out


def test_a_turn_with_other_words_is_corrected_and_an_erased_one_is_refused(
    storage: Path, new_file: NewFile, nothing_left_behind: None
) -> None:
    import_locally(storage, new_file(turn(1, "ana", userText="My boots are size nine."), turn(2, "ana")))
    corrected = new_file(turn(1, "ana", userText="My boots are size eleven."), turn(2, "ana"))
    for kept in (1, 0):
        summary = import_locally(storage, corrected)
        assert summary["turns"] == {"kept": kept, "alreadyThere": 2 - kept, "refused": 0}
    found = memoair("search", "--user", "ana", "--storage", storage, "Which boots?", **IDENTITY)
    assert "eleven" in found.out
    assert "nine" not in found.out

    with MemoAirVoiceClientSync(
        api_key="none", project_id=PROJECT, agent_id="a", cloud_base_url=None, storage_root=storage
    ) as client:
        client.forget_user(user_id="ana")
    summary = import_locally(storage, corrected, "--restart", code=1)
    assert summary["turns"] == {"kept": 0, "alreadyThere": 0, "refused": 2}
    assert summary["refused"][0]["reason"] == "the user was erased after this turn"


def test_after_a_kill_the_same_local_import_saves_each_turn_once_in_order(
    storage: Path, new_file: NewFile, tmp_path: Path, nothing_left_behind: None
) -> None:
    file = new_file(*(turn(number, f"caller-{number // 100}") for number in range(600)))
    arguments = ("import", file, "--local", "--storage", storage, "--threads", "1")
    # This runtime never replies for the fourth user and ends with its client, so the import cannot end before the kill.
    program = tmp_path / "runtime"
    program.write_text(
        f'#!/bin/sh\n[ "$MEMOAIR_RUNTIME_USER_ID" = caller-3 ] && exec cat\nexec {sys.executable} -m memoair_runtime\n'
    )
    program.chmod(0o755)
    with start_process(*arguments, home=tmp_path, MEMOAIR_RUNTIME_BINARY=str(program), **IDENTITY) as process:
        eventually(lambda: len(logged(storage, "caller-1")) > 10, within_s=60)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    summary = json.loads(memoair(*arguments, "--json", **IDENTITY).out)

    assert 0 < summary["turns"]["kept"] < 600
    assert summary["turns"]["kept"] + summary["turns"]["alreadyThere"] == 600
    for caller in range(6):
        turns = [event for event in logged(storage, f"caller-{caller}") if event["type"] == "turn"]
        assert turn_ids_of(turns) == [f"t{number}" for number in range(100 * caller, 100 * caller + 100)]
        assert turns[0]["occurredAt"][:13] >= STARTED_AT.isoformat()[:13]


def test_a_runtime_that_cannot_start_ends_the_import(storage: Path, new_file: NewFile) -> None:
    done = memoair(
        "import",
        new_file(turn(1)),
        "--local",
        "--storage",
        storage,
        code=3,
        MEMOAIR_RUNTIME_BINARY="/no/such",
        **IDENTITY,
    )

    assert "runtime.not_found: there is no program /no/such" in done.err
