"""Objects that an application does not close: it gets a warning, and nothing is left behind."""

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.clients import PATIENT_MS, NewClient, client_arguments, is_alive, pid_of, say, turn_ids
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemorySync


def drop(held: list[Any]) -> None:
    held.clear()
    gc.collect()


def test_an_unclosed_client_warns_and_its_processes_end(tmp_path: Path, nothing_left_behind: None) -> None:
    client = MemoAirVoiceClientSync(**client_arguments(tmp_path))
    say(client, "ada", "I keep persimmons.", "t1")
    pid = pid_of(client, "ada")
    held = [client]
    del client
    with pytest.warns(ResourceWarning, match="unclosed <MemoAirVoiceClientSync") as warned:
        drop(held)
    assert "persimmons" not in str(warned[0].message)
    eventually(lambda: not is_alive(pid))
    assert turn_ids(tmp_path, "ada") == ["t1"]


def test_an_unclosed_memory_warns_and_its_runtime_ends(tmp_path: Path, nothing_left_behind: None) -> None:
    memory = MemoAirVoiceMemorySync(
        project_id="proj", user_id="ada", runtime_url="http://127.0.0.1:0", storage_root=str(tmp_path)
    )
    memory.start_session()
    pid = memory.runtime_pid
    assert pid is not None
    held = [memory]
    del memory
    with pytest.warns(ResourceWarning, match="unclosed <MemoAirVoiceMemorySync"):
        drop(held)
    eventually(lambda: not is_alive(pid))


def test_closed_unused_or_rejected_objects_do_not_warn(
    new_client: NewClient, new_memory: Callable[..., MemoAirVoiceMemorySync], tmp_path: Path
) -> None:
    MemoAirVoiceClientSync(**client_arguments(tmp_path))
    with MemoAirVoiceClientSync(**client_arguments(tmp_path)) as client:
        say(client, "ada", "hello", "t1")
    del client
    with pytest.raises(ValueError, match="project_id"):
        MemoAirVoiceClientSync(**client_arguments(tmp_path, project_id=""))
    with pytest.raises(ValueError, match="project_id"):
        MemoAirVoiceMemorySync(project_id="", user_id="ada")
    gc.collect()  # a warning would be an error, and pytest reports unraisable ones


def test_an_application_that_exits_without_close_exits_at_once(tmp_path: Path, nothing_left_behind: None) -> None:
    script = f"""
from memoair_voice_sync import MemoAirVoiceClientSync, _user_calls
_user_calls._SAVE_TIMEOUT_S = {PATIENT_MS / 1e3}
client = MemoAirVoiceClientSync(**{client_arguments(tmp_path)!r})
client.save_response(user_text="hello", assistant_text="", user_id="ada", turn_id="t1")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    assert turn_ids(tmp_path, "ada") == ["t1"]
