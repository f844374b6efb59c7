"""One rule for ids: SDK, runtime, transcripts, headers and cloud agree on every string."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from memoair_cloud.calls.event_parsing import parse_event
from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.http.schemas.base import Identifier
from memoair_protocol.http_headers import identity_headers
from memoair_protocol.identifiers import identifier_problem, stored_identifier_problem
from memoair_runtime.errors import BadRequestError
from memoair_runtime.requests import BodyParser, SearchRequest
from memoair_runtime.storage.folder_names import folder_name, read_identifier
from memoair_transcripts import TranscriptOptions
from memoair_voice_sync import _arguments as check
from memoair_voice_sync._turns.user import User

TELEPHONE_NUMBERS = [
    "+442079460018",
    "+44 (0)20 7946-0018",
    "(555) 010-9999 ext. 12",
    "tel:+1-201-555-0123;ext=4",
    "sip:+15550100@pbx.example.com;transport=tls",
    "0049/30/901820",
    "*31#",
    "١٢٣٤٥",
    "anonymous",
    "555\u00a0010",
]
REFUSED = [
    "",
    " ",
    ".",
    "..",
    "caller_1 ",
    "\tcaller",
    "a\x00b",
    "a\nb",
    "\x7f",
    "\ud83d",
    "a" * 513,
    "ä" * 257,
    "a\u2003",
]
# Text around the borders of the rule: its characters, its lengths, and anything else.
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=[]), max_size=8),
    st.text(st.sampled_from("a. \t\n\x00\x1f\x7f\x85\xa0\u2003\u200b\ud800\udfff/%+ä"), max_size=6),
    st.builds(lambda char, count: char * count, st.sampled_from("aä€😀"), st.integers(120, 520)),
)


def accepts(door: object, *arguments: object) -> bool:
    try:
        door(*arguments)  # type: ignore[operator]
    except (ValueError, TypeError, BadRequestError, InvalidRequestError):
        return False
    return True


def as_runtime_session(value: str) -> None:
    BodyParser(SearchRequest)(msgspec.json.encode({"sessionId": value, "query": "?"}))


def as_cloud_event(value: str) -> None:
    event = {"eventId": value, "type": "session_end", "sessionId": value, "seq": 1, "payload": {}}
    parse_event(msgspec.json.encode({**event, "occurredAt": "2026-01-01T00:00:00Z"}))


DOORS = {
    "the SDK's user": lambda value: User.parse({"id": value}, None),
    "the SDK's user_id": lambda value: User.parse(None, value),
    "the SDK's session": lambda value: check.identifier("session_id", value),
    "the runtime's session": as_runtime_session,
    "the cloud's body": TypeAdapter(Identifier).validate_python,
    "the cloud's event": as_cloud_event,
    "a transcript": lambda value: TranscriptOptions(user_id=value),
    "a header": lambda value: identity_headers("proj", None, value),
}


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("caller_1 ")
@example("..")
@example("\ud800")
@example("ä" * 256)
@example("ä" * 257)
def test_all_doors_agree_on_every_string(value: str) -> None:
    expected = identifier_problem(value) is None
    assert {name: accepts(door, value) for name, door in DOORS.items()} == dict.fromkeys(DOORS, expected)
    if expected:
        assert stored_identifier_problem(value) is None
        header = identity_headers("proj", None, value)["X-User-Id"]
        assert header.encode("latin-1").decode() == value


@pytest.mark.parametrize("value", TELEPHONE_NUMBERS)
def test_telephone_numbers_in_any_notation_are_ids(value: str) -> None:
    assert identifier_problem(value) is None


@pytest.mark.parametrize("value", REFUSED)
def test_ids_that_a_header_a_path_or_a_key_cannot_hold_are_refused_with_the_reason(value: str) -> None:
    problem = identifier_problem(value)
    assert problem
    with pytest.raises(ValueError, match="user_id") as raised:
        User.parse(None, value)
    assert str(raised.value) == f"user_id {problem}"


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_what_an_earlier_version_stored_has_a_folder_that_names_it(value: str) -> None:
    if stored_identifier_problem(value) is None and len(folder_name(value)) < 80:
        assert read_identifier(Path(folder_name(value))) == value
