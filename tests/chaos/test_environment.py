"""The environment of a client changes: the clock is set, the disk is full."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chaos.callers import PATIENT_S, count_turns_on_disk, runtime_pids, search
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("patient_saves")]

CALLER = {"id": "caller-0"}
HOUR_S = 3_600
DISK_BYTES = 1 << 20
# More than can be left in the last page of a full disk.
LONG_TEXT = "We speak of this and that. " * 400


@pytest.mark.parametrize("hours", [-48, -1, 1, 48])
def test_setting_the_clock_stops_no_runtime_and_breaks_nothing(
    new_client: Callable[..., MemoAirVoiceClientSync], monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    client = new_client(runtime_idle_ttl_s=60)
    client.load_index(user=CALLER)
    assert client.save_response(user=CALLER, user_text="I keep persimmons.", assistant_text="Good.", turn_id="t1")
    pids = runtime_pids(client)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + hours * HOUR_S)

    assert client.save_response(user=CALLER, user_text="I grow artichokes.", assistant_text="Good.", turn_id="t2")
    # The start of another user's runtime makes the supervisor check all of them.
    assert client.save_response(user={"id": "caller-1"}, user_text="Hi.", assistant_text="Hi.", turn_id="t1")
    assert "persimmons" in search(client, CALLER["id"], "persimmons")
    assert "artichokes" in search(client, CALLER["id"], "artichokes")

    stats = client.stats()
    assert runtime_pids(client).items() >= pids.items()
    assert (stats["evictions"], stats["restarts"], stats["degraded_searches"]) == (0, 0, 0)
    assert all(runtime["uptime_s"] >= 0 for runtime in stats["runtimes"])


def test_setting_the_clock_back_does_not_keep_an_idle_runtime(
    new_client: Callable[..., MemoAirVoiceClientSync], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = new_client(runtime_idle_ttl_s=0.5)
    client.load_index(user=CALLER)
    assert client.save_response(user=CALLER, user_text="Hello.", assistant_text="Hello.", turn_id="t1")
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() - 5 * HOUR_S)

    eventually(lambda: not client.stats()["runtimes"], PATIENT_S)


@pytest.fixture
def small_disk(tmp_path: Path, nothing_left_behind: None) -> Iterator[Path]:
    """Mount a file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(mount_point)]
    completed = subprocess.run(mount, capture_output=True, text=True)
    if completed.returncode:
        pytest.skip(f"mount failed: {completed.stderr.strip()}")
    yield mount_point
    # Fails while a process has a file on it open.
    eventually(lambda: subprocess.run(["umount", str(mount_point)], capture_output=True).returncode == 0, PATIENT_S)


@contextmanager
def full_disk(disk: Path) -> Iterator[None]:
    """Fill a disk until the block ends."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    try:
        yield
    finally:
        ballast.unlink()


@pytest.fixture
def client_on_small_disk(
    small_disk: Path, new_client: Callable[..., MemoAirVoiceClientSync]
) -> Iterator[MemoAirVoiceClientSync]:
    """Make a client that stores everything on the small disk; it is closed before the disk is unmounted."""
    with new_client(storage_root=str(small_disk)) as client:
        yield client


def test_a_save_on_a_full_disk_says_so_and_the_turn_can_be_saved_once_there_is_space(
    client_on_small_disk: MemoAirVoiceClientSync, small_disk: Path
) -> None:
    client = client_on_small_disk
    assert client.save_response(user=CALLER, user_text="I keep persimmons.", assistant_text="Good.", turn_id="t0")
    acknowledged, refused = ["t0"], [f"full-{number}" for number in range(5)]

    def save(turn_id: str) -> str | None:
        return client.save_response(user=CALLER, user_text=LONG_TEXT, assistant_text="Yes.", turn_id=turn_id)

    with full_disk(small_disk):
        for turn_id in refused:
            with pytest.raises(MemoAirVoiceMemoryError) as error:
                save(turn_id)
            assert error.value.code == "runtime.storage_unavailable", "neither log nor outbox has space for it"
            assert "persimmons" in search(client, CALLER["id"], "persimmons")
        assert client.stats()["pending_saves"] == client.stats()["spooled_saves"] == 0
        assert set(count_turns_on_disk(small_disk, CALLER["id"])) == set(acknowledged)

    for turn_id in refused:
        save(turn_id)
    eventually(lambda: not client.stats()["pending_saves"], PATIENT_S)
    assert client.save_response(user=CALLER, user_text="Goodbye.", assistant_text="Bye.", turn_id="t1")
    found = count_turns_on_disk(small_disk, CALLER["id"])
    assert list(found) == [*acknowledged, *refused, "t1"], "not in the order in which they were spoken"
    assert set(found.values()) == {1}
    assert client.stats()["lost_saves"] == 0


def test_a_new_user_on_a_full_disk_is_served_and_saved_once_there_is_space(
    client_on_small_disk: MemoAirVoiceClientSync, small_disk: Path
) -> None:
    client = client_on_small_disk
    with full_disk(small_disk):
        with pytest.raises(MemoAirVoiceMemoryError) as error:
            client.save_response(user=CALLER, user_text=LONG_TEXT, assistant_text="Yes.", turn_id="t1")
        assert error.value.code == "runtime.storage_unavailable"
        assert search(client, CALLER["id"], "persimmons") is not None

    client.save_response(user=CALLER, user_text=LONG_TEXT, assistant_text="Yes.", turn_id="t1")
    eventually(lambda: not client.stats()["pending_saves"], PATIENT_S)
    assert count_turns_on_disk(small_disk, CALLER["id"]) == {"t1": 1}
    assert "this and that" in search(client, CALLER["id"], "this and that")
