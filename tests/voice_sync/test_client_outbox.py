"""Turns that cannot be saved at once: saved later, each once and in order, or counted as lost."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from support.clients import NewClient, frozen, logged, pid_of, recall, say, turn_ids
from support.runtimes import PROJECT
from support.timing import least
from support.waiting import eventually

from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError


class Switchable(NamedTuple):
    """A runtime that fails at once while its switch is off."""

    program: str
    switch: Path


@pytest.fixture
def switchable(executable: Callable[[str], str], tmp_path: Path) -> Switchable:
    """Write a runtime that is switched off."""
    switch = tmp_path / "on"
    script = f"#!/bin/sh\n[ -e {switch} ] || exit 1\nexec {sys.executable} -m memoair_runtime\n"
    return Switchable(executable(script), switch)


def save(client: MemoAirVoiceClientSync, user_id: str, turn_id: str) -> str | None:
    return client.save_response(
        user={"id": user_id}, user_text=f"The word is {turn_id}.", assistant_text="Noted.", turn_id=turn_id
    )


def test_a_save_to_a_frozen_runtime_is_made_once_it_continues(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    callers = count()

    def save_s() -> float:
        """Return the seconds that a save takes when the runtime hangs."""
        caller = f"caller_{next(callers)}"
        say(client, caller, "hello", "t1")
        with frozen(pid_of(client, caller)):
            began_at = time.monotonic()
            assert save(client, caller, "t2") is None
            took_s = time.monotonic() - began_at
            assert save(client, caller, "t3") is None, "a turn must not overtake an earlier one"
            assert client.stats()["pending_saves"] == 2
        eventually(lambda: client.stats()["pending_saves"] == 0, within_s=60.0)

        assert turn_ids(storage_root, caller) == ["t1", "t2", "t3"]
        return took_s

    assert least(save_s, 2.0) < 2.0


def test_turns_that_cannot_be_saved_now_are_saved_later_once_and_in_order(
    new_client: NewClient, switchable: Switchable, storage_root: Path
) -> None:
    client = new_client(runtime_binary=switchable.program)
    began_at = datetime.now(timezone.utc)
    for number in range(5):
        assert save(client, "ada", f"t{number}") is None
        assert save(client, "bob", f"t{number}") is None
    spoken_before = datetime.now(timezone.utc)
    stats = client.stats()
    assert (stats["deferred_saves"], stats["pending_saves"], stats["lost_saves"]) == (10, 10, 0)
    assert logged(storage_root, "ada") == []

    switchable.switch.touch()
    eventually(lambda: client.stats()["pending_saves"] == 0, within_s=60.0)
    assert say(client, "ada", "The word is t5.", "t5")
    assert turn_ids(storage_root, "ada") == ["t0", "t1", "t2", "t3", "t4", "t5"]
    assert turn_ids(storage_root, "bob") == ["t0", "t1", "t2", "t3", "t4"]
    moments = [datetime.fromisoformat(event["occurredAt"]) for event in logged(storage_root, "ada", "turn")]
    assert moments == sorted(moments)
    assert all(began_at <= moment <= spoken_before for moment in moments[:5]), (
        "a turn keeps the time at which it was spoken"
    )
    assert (client.stats()["deferred_saves"], client.stats()["lost_saves"]) == (10, 0)
    assert "word is t3" in recall(client, "ada", "what was t3?").contextText


def test_close_saves_pending_turns(
    new_client: NewClient, switchable: Switchable, storage_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "memoair_voice_sync.client._CLOSE_TIMEOUT_S", 120.0
    )  # otherwise a start may take longer than close waits
    client = new_client(runtime_binary=switchable.program)
    for number in range(3):
        assert save(client, "ada", f"t{number}") is None
    switchable.switch.touch()
    client.close()

    assert turn_ids(storage_root, "ada") == ["t0", "t1", "t2"]
    assert (client.stats()["pending_saves"], client.stats()["lost_saves"]) == (0, 0)


def test_what_close_cannot_save_is_left_on_the_disk_and_counted(
    new_client: NewClient, switchable: Switchable, caplog: pytest.LogCaptureFixture
) -> None:
    client = new_client(runtime_binary=switchable.program)
    for number in range(3):
        assert save(client, "ada", f"t{number}") is None
    began_at = time.monotonic()
    client.close()

    assert time.monotonic() - began_at < 40.0, "close waits until the turns are saved"
    stats = client.stats()
    assert (stats["pending_saves"], stats["lost_saves"], stats["spooled_saves"]) == (0, 0, 3)
    assert [each.levelname for each in caplog.records if "turns=3" in each.getMessage()] == ["WARNING"]


def test_a_turn_that_can_never_be_saved_does_not_block_later_turns(
    new_client: NewClient, switchable: Switchable, storage_root: Path
) -> None:
    client = new_client(runtime_binary=switchable.program)
    assert save(client, "ada", "t1") is None
    big = "x" * (1 << 20)  # more than a runtime accepts
    assert client.save_response(user_id="ada", user_text=big, assistant_text="", turn_id="t2") is None
    with suppress(TypeError):  # may also be rejected at once
        client.save_response(user_id="ada", user_text="", assistant_text="", turn_id="t3", metadata={"at": object()})
    assert save(client, "ada", "t4") is None
    switchable.switch.touch()

    eventually(lambda: client.stats()["pending_saves"] == 0, within_s=60.0)
    assert turn_ids(storage_root, "ada") == ["t1", "t4"]
    assert client.stats()["lost_saves"] in (1, 2)


def test_a_turn_that_a_frozen_runtime_saved_late_is_not_saved_twice_after_an_eviction(
    new_client: NewClient, storage_root: Path
) -> None:
    client = new_client(max_concurrent_users=1)
    say(client, "ada", "hello", "t1")
    with frozen(pid_of(client, "ada")):
        assert save(client, "ada", "t2") is None

        def is_evicted() -> bool:
            with suppress(MemoAirVoiceMemoryError):  # impossible while the turn is being retried
                client.session(user_id="bob").close()
                return True
            return False

        eventually(is_evicted)
    eventually(lambda: client.stats()["pending_saves"] == 0 and client.stats()["retiring"] == 0, within_s=60.0)

    assert turn_ids(storage_root, "ada") == ["t1", "t2"]


def test_turns_of_a_user_that_cannot_be_saved_do_not_delay_other_users(
    new_client: NewClient, storage_root: Path
) -> None:
    client = new_client()
    say(client, "bob", "hello", "t1")
    UserFolder(storage_root, PROJECT, "ada").path.write_text("a file where a folder should be")
    assert save(client, "ada", "t1") is None
    with frozen(pid_of(client, "bob")):
        assert save(client, "bob", "t2") is None

    eventually(lambda: client.stats()["pending_saves"] == 1, within_s=60.0)
    assert say(client, "bob", "The word is t3.", "t3")
    assert turn_ids(storage_root, "bob") == ["t1", "t2", "t3"]
