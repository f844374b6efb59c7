"""Turns that a client leaves on the disk: saved by the next one, erased with their user, redacted, for one cloud."""

from pathlib import Path

import pytest
from support.clients import NewClient, recall, say, turn_ids
from support.waiting import eventually
from voice_sync.test_client_outbox import Switchable, save, switchable

__all__ = ["switchable"]


@pytest.fixture(autouse=True)
def close_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients be closed at once, although turns cannot be saved."""
    monkeypatch.setattr("memoair_voice_sync.client._CLOSE_TIMEOUT_S", 0.2)


def spooled(storage_root: Path) -> bytes:
    """Return all that is in the outbox on the disk."""
    return b"".join(path.read_bytes() for path in (storage_root / "outbox.d").glob("*.jsonl"))


def test_the_next_client_saves_and_recalls_what_a_closed_one_has_left(
    new_client: NewClient, switchable: Switchable, storage_root: Path
) -> None:
    first = new_client(runtime_binary=switchable.program)
    for number in range(3):
        assert save(first, "ada", f"t{number}") is None
    first.close()
    second = new_client(runtime_binary=switchable.program)
    second.search_memory("the word", user_id="bob")  # looks after the turns of others
    eventually(lambda: second.stats()["pending_saves"] == 3, within_s=60.0)
    switchable.switch.touch()

    eventually(lambda: second.stats()["spooled_saves"] == 0, within_s=60.0)
    assert turn_ids(storage_root, "ada") == ["t0", "t1", "t2"]
    assert "word is t1" in recall(second, "ada", "what was t1?").contextText
    eventually(lambda: not (storage_root / "outbox.d").exists())


def test_a_forgotten_user_does_not_come_back_from_the_outbox_of_a_closed_client(
    new_client: NewClient, switchable: Switchable, storage_root: Path
) -> None:
    first = new_client(runtime_binary=switchable.program)
    assert save(first, "ada", "t1") is None
    assert save(first, "bob", "t2") is None
    first.close()
    assert b"word is t1" in spooled(storage_root)
    switchable.switch.touch()
    second = new_client(runtime_binary=switchable.program)
    second.forget_user(user_id="ada", timeout_s=60.0)
    assert b"word is t1" not in spooled(storage_root)

    eventually(lambda: second.stats()["spooled_saves"] == 0, within_s=60.0)
    assert turn_ids(storage_root, "bob") == ["t2"]
    assert turn_ids(storage_root, "ada") == []


def test_only_redacted_words_are_in_the_outbox(
    new_client: NewClient, switchable: Switchable, storage_root: Path
) -> None:
    client = new_client(runtime_binary=switchable.program, redact=lambda text: text.replace("t7", "[number]"))
    assert save(client, "ada", "turn") is None
    assert client.save_response(user_id="ada", user_text="It is t7.", assistant_text="t7, noted.") is None
    assert b"It is [number]." in spooled(storage_root)
    assert b"t7" not in spooled(storage_root)


def test_with_org_only_nothing_is_in_the_outbox(
    new_client: NewClient, switchable: Switchable, storage_root: Path
) -> None:
    client = new_client(runtime_binary=switchable.program, org_only=True)
    assert save(client, "ada", "t1") is None
    assert not (storage_root / "outbox.d").exists()


def test_turns_for_a_cloud_are_not_saved_by_a_client_without_one(
    new_client: NewClient, switchable: Switchable, storage_root: Path
) -> None:
    first = new_client(runtime_binary=switchable.program, cloud_base_url="http://127.0.0.1:9")
    assert save(first, "ada", "t1") is None
    first.close()
    switchable.switch.touch()
    second = new_client(runtime_binary=switchable.program)
    say(second, "bob", "hello", "t1")
    assert second.stats()["spooled_saves"] == 0
    assert b"word is t1" in spooled(storage_root)
