"""``redact=`` meets all that leaves the application: numbers of every type, field names, sessions and users."""

import json
import logging
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clients import NewClient, logged, patient_saves

from memoair_voice_sync import MemoAirVoiceMemorySync
from memoair_voice_sync._turns.redaction import Redaction
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync._turns.user import User
from memoair_voice_sync.redaction import redact

PHONE, DIGITS = "[phone number]", "4155550123"
HOOKS: list[Any] = [redact, lambda text: text.replace(DIGITS, PHONE)]
hooks = pytest.mark.parametrize("hook", HOOKS, ids=["included", "own"])
NewMemory = Callable[..., MemoAirVoiceMemorySync]


def redacted(hook: Any, value: Any, name: str = "note") -> Any:
    turn = Redaction(hook).redact_turn(Turn("t", "", "", [{"name": "call", "arguments": value}], {name: value}))
    [tool_call] = turn.tool_calls
    assert list(turn.metadata.values()) == [tool_call["arguments"]]
    return tool_call["arguments"]


@hooks
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4155550123.0, PHONE),
        (4155550123.5, PHONE),
        (4155550123, PHONE),
        (Decimal(DIGITS), PHONE),
        (Decimal("4155550123.00"), PHONE),
        ([[4155550123.0], [["or"], [DIGITS]]], [[PHONE], [["or"], [PHONE]]]),
        ({DIGITS: {"x": 1}}, {PHONE: {"x": 1}}),
        ({"a": [{f"to {DIGITS}": None}]}, {"a": [{f"to {PHONE}": None}]}),
        ({DIGITS: 1, PHONE: 2}, {f"{PHONE} 2": 1, PHONE: 2}),
        (
            f'{{"to": "{DIGITS}", "or": "else", "n": 4155550123.0}}',
            f'{{"to": "{PHONE}", "or": "else", "n": "{PHONE}"}}',
        ),
        (f' [{{"{DIGITS}": 1}}]', f'[{{"{PHONE}": 1}}]'),
        ('{"to": "\\u0034155550123"}', f'{{"to": "{PHONE}"}}'),
        (json.dumps({"body": json.dumps({"to": DIGITS})}), json.dumps({"body": json.dumps({"to": PHONE})})),
        ({"to": (DIGITS, {"deep": [[4155550123.0]]})}, {"to": [PHONE, {"deep": [[PHONE]]}]}),
    ],
)
def test_a_number_is_redacted_in_every_type_and_place(hook: Any, value: Any, expected: Any) -> None:
    assert redacted(hook, value) == expected


@hooks
@pytest.mark.parametrize(
    "value",
    [
        True, None, 8.5, 0.4155550123, 52.5200066, -73.985428, 1690000000.123, 1e300, float("inf"), Decimal("NaN"),
        1.5e-9, {"confidence": 0.987654321, "latencyMs": 12.25, "start": 1234567.891}, [1, 2.5, 3], "[not json",
        '{"a": 1.50,  "b": "\\u00e9"}', {"order": {"2": "two"}},
    ],
)  # fmt: skip
def test_other_numbers_and_texts_stay_as_they_are(hook: Any, value: Any) -> None:
    found = redacted(hook, value)
    assert repr(found) == repr(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just(DIGITS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just(DIGITS), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values, st.booleans())
def test_no_digits_are_left_wherever_they_are(value: Any, is_encoded: bool) -> None:
    for hook in HOOKS:
        found = redacted(hook, json.dumps(value) if is_encoded else value)
        assert DIGITS not in json.dumps(found)


def test_a_number_that_is_split_over_floats_is_found() -> None:
    assert redacted(redact, {"digits": [4242.0, 4242.0, 4242.0, 4242.0]}) == {"digits": ["[card number]", "", "", ""]}


@hooks
def test_metadata_of_sessions_and_calls_users_and_reasons_are_redacted(
    new_client: NewClient, new_memory: NewMemory, storage_root: Path, hook: Any
) -> None:
    client = new_client(redact=hook)
    user = {
        "id": "ada",
        "name": f"Ada {DIGITS}",
        "metadata": {"phone": 4155550123.0, "tier": "gold", "at": "ada@b.example"},
    }
    metadata = {"from": DIGITS, "assistantName": "Juno", DIGITS: {"n": 4155550123.0}}
    with patient_saves():
        client.import_call(
            "old", [{"turn_id": "t1", "user_text": "Hi.", "assistant_text": ""}], user=user, metadata=metadata
        )
        with client.session(user=user, session_id="new", metadata=metadata) as call:
            call.save_response(user_text="Hi.", assistant_text="")
        client.end_call(user=user, session_id="new", reason=f"transferred to {DIGITS}")
    client.close()
    memory = new_memory(redact=hook, user_id="ada", session_id="raw")
    memory.start_session({**metadata, "user": user})
    memory.end_session(f"transferred to {DIGITS}")

    starts = [each["payload"] for each in logged(storage_root, "ada", "session_start")]
    assert len(starts) >= 3
    for start in starts:
        assert start["user"]["name"] == f"Ada {PHONE}"
        assert start["user"]["metadata"] | {"at": ""} == {"phone": PHONE, "tier": "gold", "at": ""}
        assert start["metadata"] == {"from": PHONE, "assistantName": "Juno", PHONE: {"n": PHONE}}
    assert not [path for path in storage_root.rglob("*") if path.is_file() and DIGITS.encode() in path.read_bytes()]


def test_of_a_user_only_numbers_and_addresses_meet_the_hook() -> None:
    seen: list[str] = []
    fields = {"id": "ada", "name": "Ada", "metadata": {"town": "Leeds", "list": ["x"], "phone": "0171 1234567"}}
    user = Redaction(lambda text: seen.append(text) or "gone").redact_user(User("ada", fields))
    assert user.fields == {**fields, "metadata": {"town": "Leeds", "list": ["x"], "gone": "gone"}}
    assert seen == ["phone", "0171 1234567"]


def test_a_hook_that_fails_leaves_of_a_user_only_the_id(caplog: pytest.LogCaptureFixture) -> None:
    def fail(text: str) -> str:
        raise KeyError(text)

    fields = {"id": "ada", "name": "Ada 0171 1234567"}
    assert Redaction(fail).redact_user(User("ada", fields)).fields == {"id": "ada"}
    assert "1234567" not in caplog.text


@hooks
def test_ids_that_read_as_numbers_are_warned_of_once_and_not_shown(
    new_client: NewClient, caplog: pytest.LogCaptureFixture, hook: Any
) -> None:
    client = new_client(redact=hook)
    turns = [{"turn_id": f"{number}-{DIGITS}", "user_text": "Hi.", "assistant_text": ""} for number in range(3)]
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            client.import_call("call-1", turns, user={"id": f"+1{DIGITS}"})
            client.import_call(DIGITS, turns, user={"id": f"+1{DIGITS}"})
    warned = [record.getMessage() for record in caplog.records if "action=id_not_redacted" in record.getMessage()]
    assert [message.rpartition("=")[2] for message in warned] == ["user_id", "turn_id", "session_id"]
    assert DIGITS not in caplog.text


def test_ordinary_ids_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    redaction = Redaction(redact)
    for number, user_id in enumerate(
        ["caller_42", "ada", "0191f3a2-7c1e-7d3f-8a55-3f1c0d9e2b11", "8f14e45fceea167a5a36"]
    ):
        redaction.redact_turn(Turn(f"t{number}", "Hi.", "", [], {}), (user_id, f"call-{number}"))
    assert "id_not_redacted" not in caplog.text
