"""``redact=`` sees every turn before any of it is saved; if it fails, nothing is saved."""

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.clients import NewClient, frozen, logged, patient_saves, pid_of, recall
from support.stored_files import read_stored_files
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync
from memoair_voice_sync.redaction import redact

ADA = {"id": "ada", "name": "Ada", "metadata": {"phone": "zanzibarplum"}}
NewMemory = Callable[..., MemoAirVoiceMemorySync]


def redact_plums(text: str) -> str:
    return text.replace("zanzibarplum", "[fruit]").replace("4711", "[number]")


TURN: dict[str, Any] = {
    "user_text": "I said zanzibarplum.",
    "assistant_text": "A zanzibarplum, and another zanzibarplum.",
    "tool_calls": [
        {
            "name": "zanzibarplum",
            "arguments": {"text": "zanzibarplum", "all": ["zanzibarplum", {"deep": "zanzibarplum"}], "number": 24711},
            "ok": True,
            "latencyMs": 8.5,
            "hits": 3,
        }
    ],
    "metadata": {
        "heard": "A zanzibarplum",
        "note": "zanzibarplum",
        "occurredAt": "2026-03-02T04:47:11.4711Z",
        "none": None,
    },
}
SAVED = {
    "userText": "I said [fruit].",
    "assistantText": "A [fruit]",
    "assistantFullText": "A [fruit], and another [fruit].",
    "toolCalls": [
        {
            "name": "[fruit]",
            "arguments": {"text": "[fruit]", "all": ["[fruit]", {"deep": "[fruit]"}], "number": "2[number]"},
            "ok": True,
            "latencyMs": 8.5,
            "hits": 3,
        }
    ],
    "metadata": {"note": "[fruit]", "occurredAt": "2026-03-02T04:47:11.4711Z", "none": None},
}


def turns_of(storage_root: Path) -> list[dict[str, Any]]:
    turns = [dict(each["payload"]) for each in logged(storage_root, "ada", "turn")]
    for each in turns:
        del each["turnId"]
    return turns


def files_containing(storage_root: Path, words: bytes) -> list[Path]:
    return [path for path, content in read_stored_files(storage_root) if words in content]


def test_every_way_of_saving_is_redacted(new_client: NewClient, storage_root: Path) -> None:
    client = new_client(redact=redact_plums)
    user = {"id": "ada"}
    client.load_index(user=user)
    with patient_saves():
        assert client.save_response(user=user, **TURN)
        with client.session(user=user) as call:
            assert call.save_response(**TURN)
    assert client.import_call("old", [{"turn_id": "t1", **TURN}], user=user)
    with frozen(pid_of(client, "ada")):
        assert client.save_response(user=user, **TURN) is None
    eventually(lambda: not client.stats()["pending_saves"], within_s=60.0)
    found = recall(client, "ada", "did I say zanzibarplum?")
    client.close()

    assert turns_of(storage_root) == [SAVED] * 4
    assert "I said [fruit]." in found.contextText
    assert not files_containing(storage_root, b"zanzibarplum")


def test_after_turn_of_a_memory_is_redacted(new_memory: NewMemory, storage_root: Path) -> None:
    memory = new_memory(redact=redact_plums, user_id="ada")
    memory.start_session()
    assert memory.after_turn(turn_id="t1", **TURN)

    assert turns_of(storage_root) == [SAVED]
    assert TURN["metadata"]["note"] == "zanzibarplum", "the application's dict is not changed"


def test_user_fields_and_queries_are_not_redacted(new_client: NewClient, storage_root: Path) -> None:
    asked: list[str] = []
    client = new_client(redact=lambda text: asked.append(text) or redact_plums(text))
    client.load_index(user=ADA)
    recall(client, "ada", "what is a zanzibarplum?")

    assert not asked
    [start] = logged(storage_root, "ada", "session_start")
    assert start["payload"]["user"] == ADA


def raises(text: str) -> str:
    raise KeyError(text)


def loops(text: str) -> str:
    return loops(text)


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        (raises, "raised KeyError"),
        (lambda _: None, "returned NoneType"),
        (lambda text: text.encode(), "returned bytes"),
        (lambda _: 7, "returned int"),
    ],
)
def test_if_redaction_fails_the_turn_is_not_saved_and_nothing_leaks(
    new_client: NewClient,
    new_memory: NewMemory,
    storage_root: Path,
    caplog: pytest.LogCaptureFixture,
    hook: Any,
    why: str,
) -> None:
    client, memory = new_client(redact=hook), new_memory(redact=hook, user_id="ada")
    client.load_index(user={"id": "ada"})
    calls: list[Callable[[], object]] = [
        lambda: client.save_response(user={"id": "ada"}, **TURN),
        lambda: client.import_call("old", [{"turn_id": "t1", **TURN}], user={"id": "ada"}),
        lambda: memory.after_turn(turn_id="t1", **TURN),
    ]
    with caplog.at_level(logging.DEBUG):
        for call in calls:
            with pytest.raises(MemoAirVoiceMemoryError) as raised:
                call()
            assert raised.value.code == "redaction.failed"
            assert why in raised.value.message
            assert raised.value.__context__ is None
            assert "I said" not in "".join(traceback.format_exception(raised.value))

    assert caplog.text.count("action=redaction_failed") == len(calls)
    assert "plum" not in caplog.text
    assert client.stats()["pending_saves"] == 0
    assert turns_of(storage_root) == []
    assert not files_containing(storage_root, b"zanzibarplum")


def test_if_redaction_of_one_turn_fails_no_turn_is_imported(new_client: NewClient, storage_root: Path) -> None:
    client = new_client(redact=lambda text: text if "bad" not in text else raises(text))
    turns = [{"turn_id": each, "user_text": each, "assistant_text": ""} for each in ("good", "bad")]
    with pytest.raises(MemoAirVoiceMemoryError, match=r"redaction\.failed"):
        client.import_call("old", turns, user={"id": "ada"})

    assert logged(storage_root, "ada") == []


def test_a_turn_that_is_nested_too_deeply_is_rejected(new_memory: NewMemory) -> None:
    deep: dict[str, Any] = {}
    deep["deep"] = deep
    with pytest.raises(ValueError, match="metadata cannot be encoded as JSON"):
        new_memory(redact=redact_plums).after_turn("hi", "", "t1", metadata=deep)
    with pytest.raises(ValueError, match="too deep"):
        new_memory(redact=loops).after_turn("hi", "", "t1")


def test_a_redact_hook_must_be_callable(new_client: NewClient) -> None:
    for hook in ("phone", 7, ["phone"]):
        with pytest.raises(TypeError, match="redact"):
            new_client(redact=hook)
        with pytest.raises(TypeError, match="redact"):
            MemoAirVoiceMemorySync(project_id="p", user_id="u", redact=hook)  # type: ignore[arg-type]


@pytest.mark.usefixtures("patient_saves")
def test_with_the_included_patterns_no_number_is_on_the_disk(new_client: NewClient, storage_root: Path) -> None:
    client = new_client(redact=redact)
    client.load_index(user={"id": "ada"})
    said = "My card is 4242 4242 4242 4242, call me on +44 20 7946 0123. The order is 48213377."
    tools = [{"name": "pay", "arguments": '{"card": 4242424242424242}'}, {"arguments": {"card": 4242424242424242}}]
    metadata = {"occurredAt": "2026-03-02T09:30:00Z", "startedAtMs": 1_792_384_723_000}
    client.save_response(user={"id": "ada"}, user_text=said, assistant_text=said, tool_calls=tools, metadata=metadata)
    found = recall(client, "ada", "what is the order?")
    client.close()

    assert "My card is [card number], call me on [phone number]. The order is 48213377." in found.contextText
    assert not files_containing(storage_root, b"4242")
    assert not files_containing(storage_root, b"7946")
    [turn] = turns_of(storage_root)
    assert turn["metadata"] == metadata


@pytest.mark.usefixtures("patient_saves")
def test_words_split_numbers_and_numbers_over_turns_are_not_on_the_disk(
    new_client: NewClient, new_memory: NewMemory, storage_root: Path
) -> None:
    client = new_client(redact=redact)
    user, call = {"id": "ada"}, "call-1"
    client.load_index(user=user, session_id=call)
    words = "It's four one five, five five five, oh one two three. The order is 48213377."
    tools = [{"arguments": {"digits": ["4242", "4242", "4242", "4242"], "count": 4}}]
    metadata = {"words": [{"word": "0171", "start": 1}, {"word": "1234567", "start": 2}]}
    said = [words, "My card is 4111 1111", "1111 1111"]
    for place, text in enumerate(said):
        client.save_response(
            user=user,
            session_id=call,
            turn_id=str(place),
            user_text=text,
            assistant_text="Go on.",
            tool_calls=tools,
            metadata=metadata,
        )
    client.save_response(user=user, session_id=call, turn_id="2", user_text="1111 1111", assistant_text="Go on.")
    turns = [{"turn_id": str(place), "user_text": text, "assistant_text": ""} for place, text in enumerate(said)]
    client.import_call("old", turns, user=user)
    client.close()
    memory = new_memory(redact=redact, user_id="ada")
    memory.start_session()
    for place, text in enumerate(said):
        assert memory.after_turn(text, "Go on.", str(place))

    for number in (b"4242", b"1111 1111", b'"0171"', b"1234567", b"oh one two", b"five five five"):
        assert not files_containing(storage_root, number)
    assert files_containing(storage_root, b"48213377")
    saved = [turn["userText"] for turn in turns_of(storage_root)]
    expected = ["It's [phone number]. The order is 48213377.", "My card is [card number]", "[card number]"]
    assert sorted(saved) == sorted(expected * 3)
