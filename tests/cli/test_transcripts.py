"""Readers of transcripts: JSON lines and plain text, turn ids, formats and timestamps."""

import gzip
import importlib
import io
import json
import subprocess
import sys
import tracemalloc
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memoair_transcripts
from memoair_cli.importing.redaction import make_redaction
from memoair_transcripts import (
    FORMATS,
    Rejection,
    TranscriptOptions,
    TranscriptTexts,
    TranscriptTurn,
    format_of,
    parse_timestamp,
    read_transcript,
)

UTC = timezone.utc
ANA = TranscriptOptions(user_id="ana")


def json_lines(*rows: Any) -> bytes:
    """Return rows as JSON lines; rows of bytes are used as they are."""
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def turn(**fields: Any) -> dict[str, Any]:
    return {
        "userId": "ana",
        "sessionId": "call-1",
        "userText": "My parcel is late.",
        "assistantText": "Sorry.",
        **fields,
    }


def message(role: str, text: str, **fields: Any) -> dict[str, Any]:
    return {"role": role, "text": text, "userId": "ana", "sessionId": "call-1", **fields}


def read(
    content: bytes, options: TranscriptOptions | None = None, name: str = "calls.jsonl", **more: Any
) -> tuple[list[TranscriptTurn], list[Rejection]]:
    found = list(read_transcript(io.BytesIO(content), name, options, **more))
    return (
        [each for each in found if isinstance(each, TranscriptTurn)],
        [each for each in found if isinstance(each, Rejection)],
    )


def read_text(text: str, options: TranscriptOptions = ANA) -> tuple[list[TranscriptTurn], list[Rejection]]:
    return read(text.encode(), options, "call.txt")


def texts(turns: list[TranscriptTurn]) -> list[tuple[str, str]]:
    return [(each.user_text, each.assistant_text) for each in turns]


# One turn per line


def test_a_turn_line_is_read_unchanged() -> None:
    row = turn(
        turnId="t1",
        occurredAt="2026-03-02T10:30:05.25+01:00",
        userName="Ana",
        assistantName="Juno",
        metadata={"a": [1]},
    )
    [found], rejected = read(json_lines(row))

    assert not rejected
    assert found == TranscriptTurn(
        user_id="ana",
        session_id="call-1",
        turn_id="t1",
        occurred_at=datetime(2026, 3, 2, 9, 30, 5, 250_000, UTC),
        user_text="My parcel is late.",
        assistant_text="Sorry.",
        user_name="Ana",
        assistant_name="Juno",
        metadata={"a": [1]},
        line=1,
    )


def test_byte_order_mark_crlf_and_blank_lines_are_ignored() -> None:
    content = b"\xef\xbb\xbf" + json_lines(turn(turnId="a"), b"", b"   ", turn(turnId="b")).replace(b"\n", b"\r\n")
    turns, rejected = read(content.removesuffix(b"\r\n"))

    assert [(each.turn_id, each.line) for each in turns] == [("a", 1), ("b", 4)]
    assert not rejected


INVALID_LINES: list[tuple[Any, str]] = [
    (b"\xff{}", "byte 1 of the line is not UTF-8"),
    (b"{", "not JSON; expected one object per line"),
    (b"[1]", "a list, not a JSON object"),
    (b"null", "null, not a JSON object"),
    (b"[" * 100_000, "nested deeper than 32 levels"),
    (b'{"userText": NaN}', "NaN and Infinity are not valid JSON"),
    (b'{"userText": 1e999}', "a number is too large"),
    (b'{"userText": ' + b"9" * 5_000 + b"}", "a number is too large"),
    (b'{"userText": -9223372036854775809}', "a number is too large"),
    (turn(userText="\ud83d secret"), "not valid Unicode: half of a surrogate pair"),
    ({"hello": 1}, "neither a turn (userText, assistantText) nor a message (role, text)"),
    (turn(role="user"), "both a turn (userText, assistantText) and a message (role)"),
    (turn(userText=7), "userText must be a string, not a number"),
    (turn(userText=None), "userText is null"),
    (turn(userText="", assistantText=""), "userText and assistantText are both empty"),
    ({"userId": "ana", "sessionId": "s", "userText": "hi"}, "assistantText is missing"),
    ({"userId": "ana", "userText": "hi", "assistantText": "ho"}, "sessionId is missing"),
    (
        {"sessionId": "s", "userText": "hi", "assistantText": "ho"},
        "userId is missing; add it, or set a user for the whole file (user_id, --user)",
    ),
    (turn(userId=42), "userId must be a string, not a number"),
    (turn(userId=""), "userId is empty"),
    (turn(userId="a\nb"), "userId contains a control character"),
    (turn(userId="ana "), "userId begins or ends with white space"),
    (turn(sessionId="ä" * 257), "sessionId is longer than 512 bytes"),
    (turn(turnId=["x"]), "turnId must be a string, not a list"),
    (turn(occurredAt="yesterday"), "occurredAt is not an ISO 8601 timestamp"),
    (turn(occurredAt=1772444000), "occurredAt must be a string, not a number"),
    (turn(occurredAt="0001-01-01T00:00:00+12:00"), "occurredAt is not an ISO 8601 timestamp"),
    (turn(metadata={"assistantName": 7}), "metadata.assistantName must be a string"),
    (turn(metadata={"heard": ["secret"]}), "metadata.heard must be a string"),
    (turn(metadata="x"), "metadata must be an object, not a string"),
    (turn(metadata={"a": json.loads("[" * 40 + "]" * 40)}), "metadata is nested deeper than 32 levels"),
    (turn(user_name="Ana"), "misspelled field; the correct name is userName"),
    (turn(OccurredAt="2026-03-02"), "misspelled field; the correct name is occurredAt"),
    (message("system", "secret"), "role must be user or assistant"),
    (message("user", ""), "the message is empty"),
    (message("user", "hi", content="ho"), "both text and content; use one of them"),
    ({"role": "user", "content": [{"text": "secret"}], "userId": "ana"}, "content must be a string, not a list"),
]


@pytest.mark.parametrize(("line", "reason"), INVALID_LINES, ids=[reason for _, reason in INVALID_LINES])
def test_an_invalid_line_is_rejected_with_a_reason_and_the_others_are_read(line: Any, reason: str) -> None:
    turns, rejected = read(json_lines(turn(turnId="before"), line, turn(turnId="after")))

    assert [each.turn_id for each in turns] == ["before", "after"]
    [rejection] = rejected
    assert (rejection.file, rejection.line) == ("calls.jsonl", 2)
    assert rejection.reason.startswith(reason)
    assert "secret" not in str(rejection)


def test_a_line_of_ten_megabytes_is_rejected_and_never_held_in_memory() -> None:
    long = json.dumps(turn(userText="x" * 10_000_000)).encode()
    stream = io.BytesIO(json_lines(turn(turnId="before"), long, turn(turnId="after"), long[:-1]))
    del long
    tracemalloc.start()
    try:
        found = list(read_transcript(stream, "calls.jsonl"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert [each.line for each in found] == [1, 2, 3, 4]
    assert [each.reason for each in found if isinstance(each, Rejection)] == [
        "the line is longer than 1048576 bytes"
    ] * 2
    assert peak < 4_000_000


def test_a_line_of_the_maximum_length_is_read_and_a_longer_one_is_not() -> None:
    frame = len(json.dumps(turn(userText="")).encode())
    turns, rejected = read(
        json_lines(turn(userText="x" * ((1 << 20) - frame)), turn(userText="x" * ((1 << 20) - frame + 1)))
    )

    assert [each.line for each in turns] == [1]
    assert [each.line for each in rejected] == [2]


def test_a_utf_16_file_is_rejected_once() -> None:
    turns, rejected = read(("\ufeff" + json_lines(turn(), turn()).decode()).encode("utf-16-le"))

    assert not turns
    assert list(map(str, rejected)) == ["calls.jsonl: the file is UTF-16; save it as UTF-8"]


def test_a_compressed_file_is_rejected_once_and_not_per_line() -> None:
    turns, rejected = read(gzip.compress(json_lines(*(turn(userText=f"{number}") for number in range(500)))))

    assert not turns
    assert list(map(str, rejected)) == ["calls.jsonl: the file is compressed (gzip); decompress it first"]


def test_a_read_error_ends_the_file_and_keeps_the_lines_before_it() -> None:
    class Failing(io.BytesIO):
        def readline(self, size: int | None = -1) -> bytes:
            line = super().readline(size)
            if not line:
                raise OSError(5, "Input/output error")
            return line

    found = list(read_transcript(Failing(json_lines(turn(turnId="a"))), "calls.jsonl"))

    assert isinstance(found[0], TranscriptTurn)
    assert str(found[1]) == "calls.jsonl:2: reading the file failed: Input/output error"


# Ids


def test_a_generated_turn_id_is_the_same_on_every_read() -> None:
    rows = [turn(userText=f"{number % 3}") for number in range(9)]  # three different turns, three times each
    whole, _ = read(json_lines(*rows))
    half, _ = read(json_lines(*rows[:5]))

    assert len({each.turn_id for each in whole}) == 9
    assert [each.turn_id for each in half] == [each.turn_id for each in whole[:5]]
    later, _ = read(json_lines(turn(userText="0", occurredAt="2026-03-02")))
    assert later[0].turn_id not in {each.turn_id for each in whole}


def test_generated_ids_of_two_halves_of_a_call_differ() -> None:
    first, _ = read(json_lines(turn(userText="one"), turn(userText="two")))
    second, _ = read(json_lines(turn(userText="three"), turn(userText="four")))

    assert not {each.turn_id for each in first} & {each.turn_id for each in second}


def test_a_reused_turn_id_is_rejected_unless_the_turn_is_the_same() -> None:
    turns, rejected = read(
        json_lines(
            turn(turnId="1"),
            turn(turnId="1"),
            turn(turnId="1", userText="Another."),
            turn(turnId="1", sessionId="call-2", userText="Another."),
        )
    )

    assert [each.line for each in turns] == [1, 2, 4]
    assert [(each.line, each.reason) for each in rejected] == [(3, "another turn of this call has the same turnId")]


def test_a_generated_session_id_depends_on_the_content_and_not_on_the_file_name() -> None:
    rows = [{"role": "user", "text": "Hello."}, {"role": "assistant", "text": "Hi."}]
    one, _ = read(json_lines(*rows), ANA, "a/one.jsonl")
    copy, _ = read(json_lines(*rows), ANA, "b/two.jsonl")
    other, _ = read(json_lines(*rows, {"role": "user", "text": "Bye."}), ANA, "a/one.jsonl")
    named, _ = read(json_lines(*rows), TranscriptOptions(user_id="ana", session_id="call-7"))

    assert one == copy
    assert one[0].session_id != other[0].session_id
    assert named[0].session_id == "call-7"


def test_a_pipe_is_read_like_a_file() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or -1, 7) if size and size > 0 else size)

    content = json_lines(*({"role": "user", "text": f"{number} {'x' * 900}"} for number in range(200)))
    piped = list(read_transcript(Pipe(content), "calls.jsonl", ANA))

    assert len(content) > 2 * (1 << 16)
    assert piped == list(read_transcript(io.BytesIO(content), "calls.jsonl", ANA))
    assert piped


def test_an_invalid_id_in_the_options_raises_value_error() -> None:
    with pytest.raises(ValueError, match="user_id contains a control character"):
        TranscriptOptions(user_id="a\nb")


def test_repr_contains_neither_text_nor_ids_of_callers() -> None:
    [found], _ = read(
        json_lines(turn(userId="+4412345", sessionId="secret-call", userName="Ana Secret", metadata={"a": "secret"}))
    )

    assert not [word for word in ("4412345", "ecret", "parcel", "Sorry") if word in repr(found)]


# Redaction


def test_names_metadata_and_generated_ids_are_redacted_too() -> None:
    redact = make_redaction(())
    row = turn(userName="+44 20 7946 0123", assistantName="Juno", metadata={"number": "+44 20 7946 0123", "at": 7})
    [found] = read_transcript(io.BytesIO(json_lines(row)), "calls.jsonl", redact=redact)
    [plain] = read_transcript(io.BytesIO(json_lines(row)), "calls.jsonl")

    assert isinstance(found, TranscriptTurn)
    assert isinstance(plain, TranscriptTurn)
    assert (found.user_name, found.assistant_name) == (None, "Juno")
    assert found.metadata == {"number": "[phone number]", "at": 7}
    assert found.turn_id == plain.turn_id  # the words hold no number


def test_a_turn_that_cannot_be_redacted_is_rejected_without_its_words() -> None:
    def fail(texts: TranscriptTexts) -> TranscriptTexts:
        raise RuntimeError(texts.user_text)

    [rejection] = read_transcript(io.BytesIO(json_lines(turn(userText="secret"))), "calls.jsonl", redact=fail)

    assert str(rejection) == "calls.jsonl:1: redaction failed; the turn is not saved"


# Messages


def test_messages_are_combined_into_turns() -> None:
    turns, rejected = read(
        json_lines(
            message("assistant", "Juno here."),
            message("user", "Hi.", occurredAt="2026-03-02T09:00:00Z", metadata={"a": 1}),
            message("user", "It is late.", userName="Ana"),
            message("assistant", "What is?", metadata={"b": 2}),
            message("user", "The parcel."),
        )
    )

    assert not rejected
    assert texts(turns) == [("", "Juno here."), ("Hi.\nIt is late.", "What is?"), ("The parcel.", "")]
    assert turns[1].occurred_at == datetime(2026, 3, 2, 9, tzinfo=UTC)
    assert (turns[1].user_name, turns[1].metadata, turns[1].line) == ("Ana", {"a": 1, "b": 2}, 2)


def test_messages_of_several_calls_are_combined_separately() -> None:
    turns, _ = read(
        json_lines(
            message("user", "a1"),
            message("user", "b1", sessionId="call-2"),
            message("user", "c1", userId="bob"),
            message("assistant", "a2"),
            message("assistant", "b2", sessionId="call-2"),
            message("assistant", "c2", userId="bob"),
        )
    )

    assert {(each.user_id, each.session_id, *pair) for each, pair in zip(turns, texts(turns), strict=True)} == {
        ("ana", "call-1", "a1", "a2"),
        ("ana", "call-2", "b1", "b2"),
        ("bob", "call-1", "c1", "c2"),
    }


def test_a_turn_line_completes_the_turn_of_messages_before_it() -> None:
    turns, _ = read(json_lines(message("user", "one"), turn(userText="two"), message("assistant", "three")))

    assert texts(turns) == [("one", ""), ("two", "Sorry."), ("", "three")]


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(["user", "assistant"]),
        st.sampled_from(["call-1", "call-2"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=20),
    ),
    max_size=30,
)


@given(MESSAGES)
@settings(max_examples=150, deadline=None)
def test_combining_messages_keeps_all_text_in_order(messages: list[tuple[str, str, str]]) -> None:
    turns, rejected = read(json_lines(*(message(role, text, sessionId=call) for role, call, text in messages)))

    assert not rejected
    for call in ("call-1", "call-2"):
        actual = [
            (role, text)
            for each in turns
            if each.session_id == call
            for role, whole in (("user", each.user_text), ("assistant", each.assistant_text))
            if whole
            for text in whole.split("\n")
        ]
        assert actual == [(role, text) for role, at, text in messages if at == call]
    assert len({(each.session_id, each.turn_id) for each in turns}) == len(turns)


# Plain text


def test_a_text_file_is_one_call() -> None:
    turns, rejected = read_text("Agent: Hello.\nCaller: Hi there,\nit is me.\n\ncaller: My parcel\nAGENT: I see.\n")

    assert not rejected
    assert texts(turns) == [("", "Hello."), ("Hi there, it is me.\nMy parcel", "I see.")]
    assert {(each.user_name, each.assistant_name) for each in turns} == {(None, None)}
    assert len({each.session_id for each in turns}) == 1


@pytest.mark.parametrize(
    "options",
    [
        TranscriptOptions(user_id="ana", callers=("Dana Whitlock",)),
        TranscriptOptions(user_id="ana", assistants=("juno",)),
        TranscriptOptions(user_id="ana", callers=("DANA WHITLOCK",), assistants=("Juno",)),
    ],
)
def test_options_name_the_speakers(options: TranscriptOptions) -> None:
    turns, rejected = read_text("Juno: Hello.\nDana Whitlock: Hi.\nJuno: Yes?\n", options)

    assert not rejected
    assert texts(turns) == [("", "Hello."), ("Hi.", "Yes?")]
    assert (turns[1].user_name, turns[1].assistant_name) == ("Dana Whitlock", "Juno")


def test_an_unknown_speaker_and_the_continuation_are_rejected() -> None:
    turns, rejected = read_text("Caller: Hi.\nSecret Person: No.\nand more secret\nAgent: Yes?\n")

    assert texts(turns) == [("Hi.", "Yes?")]
    assert [each.line for each in rejected] == [2, 3]
    assert rejected[0].reason.startswith("the speaker is neither the caller nor the agent")
    assert rejected[1].reason == "continues a line that was rejected"
    assert "ecret" not in "".join(map(str, rejected))


def test_text_before_an_unreadable_line_is_kept() -> None:
    turns, rejected = read(b"Caller: Hi.\n\xff\xfe\nmore\nAgent: Yes?\n", ANA, "call.txt")

    assert texts(turns) == [("Hi.", "Yes?")]
    assert [each.line for each in rejected] == [2, 3]


def test_text_before_the_first_speaker_is_rejected() -> None:
    turns, rejected = read_text("CALL RECORD\nCaller: Hi.\n")

    assert texts(turns) == [("Hi.", "")]
    assert list(map(str, rejected)) == ["call.txt:1: no speaker is named for this text"]


@pytest.mark.parametrize(
    "line", ["at 10:30 it came", "see https://example.org/x", "the options are: this, that", ": so"]
)
def test_not_every_colon_marks_a_speaker(line: str) -> None:
    options = TranscriptOptions(user_id="ana", callers=("Dana",))  # all others are the agent
    turns, rejected = read_text(f"Dana: Hi\n{line}\nJuno: Yes?\n", options)

    assert not rejected
    assert texts(turns) == [(f"Hi {line}", "Yes?")]


def test_a_header_gives_the_fields_of_the_call() -> None:
    turns, rejected = read_text(
        "User-Id: bob\nsessionId: call-9\noccurredAt: 2026-03-02T16:04:00+02:00\nuserName: Bob\nassistantName: Juno\n\n"
        "Caller: Hi.\nAgent: Yes?\nuserId: is no header any more\n"
    )

    assert [(each.user_id, each.session_id, each.user_name, each.assistant_name) for each in turns] == [
        ("bob", "call-9", "Bob", "Juno")
    ]
    assert [each.line for each in rejected] == [9]


def test_a_text_without_a_user_id_is_rejected_once() -> None:
    turns, rejected = read_text("Caller: Hi.\nAgent: Yes?\n", TranscriptOptions())

    assert not turns
    assert list(map(str, rejected)) == [
        "call.txt: userId is missing; add it, or set a user for the whole file (user_id, --user)"
    ]


@pytest.mark.parametrize(
    ("started", "timestamps", "seconds"),
    [
        ("2026-03-02T16:04:00+02:00", ["[00:06]", "(01:02:03.5)"], [6, 3723.5]),
        ("2026-03-02T23:59:00+02:00", ["[23:59:10]", "[00:01:00]"], [10, 120]),
        ("2026-03-02T16:04:00+02:00", ["[2026-03-02 14:04:10]", "[2026-03-02T16:04:20+02:00]"], [10, 20]),
    ],
)
def test_timestamps_are_offsets_or_times_of_day_or_dates(
    started: str, timestamps: list[str], seconds: list[float]
) -> None:
    turns, rejected = read_text(
        f"occurredAt: {started}\n{timestamps[0]} Caller: Hi.\n{timestamps[1]}   Caller: Bye.\nAgent: Yes.\n"
    )
    [_], _ = turns, rejected
    apart, _ = read_text(f"occurredAt: {started}\n{timestamps[0]} Agent: Hi.\n{timestamps[1]} Caller: Bye.\n")

    assert not rejected
    assert texts(turns) == [("Hi.\nBye.", "Yes.")]
    assert [
        (each.occurred_at - parse_timestamp(started)).total_seconds() for each in apart if each.occurred_at
    ] == seconds


def test_offsets_are_dropped_if_the_start_of_the_call_is_unknown() -> None:
    turns, _ = read_text("[00:06] Caller: Hi.\n[laughs]\nAgent: Yes?\n")

    assert texts(turns) == [("Hi. [laughs]", "Yes?")]
    assert turns[0].occurred_at is None


def test_the_text_of_a_single_speaker_is_split_into_several_turns() -> None:
    text = "Caller: " + "one two three four five\n" * 40_000
    turns, rejected = read_text(text)

    assert not rejected
    assert len(turns) > 2
    assert " ".join(each.user_text for each in turns).split() == text.split()[1:]


SPEECH = st.lists(
    st.tuples(
        st.sampled_from(["Caller", "Agent"]),
        st.lists(st.text("abcäß ?!.'\t", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=3),
    ),
    max_size=12,
)


@given(SPEECH, st.sampled_from(["\n", "\r\n", "\n\n"]))
@settings(max_examples=150, deadline=None)
def test_all_text_of_a_text_file_is_kept_in_order(speech: list[tuple[str, list[str]]], feed: str) -> None:
    text = feed.join(f"{label}: {parts[0]}{''.join(feed + part for part in parts[1:])}" for label, parts in speech)
    turns, rejected = read_text(text)

    assert not rejected
    actual = [word for each in turns for whole in (each.user_text, each.assistant_text) for word in whole.split()]
    assert actual == [word for _, parts in speech for part in parts for word in part.split()]


# Formats, arbitrary bytes, timestamps, memory


@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(
                [
                    b'{"role":"user"',
                    b',"text":"x"}',
                    b"\n",
                    b"Caller: ",
                    b"[00:01] ",
                    b"\xff",
                    b"{",
                    b"}",
                    b":",
                    b"\r",
                    b"\xef\xbb\xbf",
                    b"userId: ana",
                ]
            )
        ).map(b"".join),
    ),
    st.sampled_from([None, *FORMATS]),
    st.sampled_from([TranscriptOptions(), ANA, TranscriptOptions(user_id="ana", callers=("a",))]),
)
@settings(max_examples=400, deadline=None)
def test_reading_arbitrary_bytes_never_raises(content: bytes, format_: str | None, options: TranscriptOptions) -> None:
    turns, rejected = read(content, options, "file", format=format_)

    count = content.count(b"\n") + 1
    assert all(1 <= each.line <= count for each in turns)
    assert all(0 <= each.line <= count and each.reason for each in rejected)


@pytest.mark.parametrize(
    ("name", "head", "format_"),
    [
        ("a.JSONL", b"", "jsonl"),
        ("a.ndjson", b"x", "jsonl"),
        ("a.txt", b"{", "text"),
        ("-", b"\xef\xbb\xbf\n {", "jsonl"),
        ("-", b"Agent: hi", "text"),
        ("-", b"[\n  {", "jsonl"),
        ("export.log", b"[00:01] Agent: hi", "text"),
    ],
)
def test_the_format_is_detected_by_name_or_head(name: str, head: bytes, format_: str) -> None:
    assert format_of(name, head) == format_


def test_an_unknown_format_raises_value_error_before_reading() -> None:
    with pytest.raises(ValueError, match="jsonl, text, webvtt, srt, twilio, vapi, retell"):
        read_transcript(io.BytesIO(b""), "x", format="csv")


@pytest.mark.parametrize(
    ("text", "timestamp"),
    [
        ("2026-03-02", datetime(2026, 3, 2, tzinfo=UTC)),
        ("2026-03-02 09:30", datetime(2026, 3, 2, 9, 30, tzinfo=UTC)),
        ("2026-03-02t09:30:00.123456789z", datetime(2026, 3, 2, 9, 30, 0, 123456, UTC)),
        ("2026-03-02T09:30:00,5 -0330", datetime(2026, 3, 2, 13, 0, 0, 500_000, UTC)),
        ("2026-03-02T09:30:00+05", datetime(2026, 3, 2, 4, 30, tzinfo=UTC)),
    ],
)
def test_timestamps_are_converted_to_utc(text: str, timestamp: datetime) -> None:
    assert parse_timestamp(text) == timestamp


@pytest.mark.parametrize(
    "text", ["", "today", "2026-13-01", "2026-03-02T25:00", "2026-03-02T09:30+99:00", "٢٠٢٦-03-02"]
)
def test_an_invalid_timestamp_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"timestamp|must be|offset|strictly between"):
        parse_timestamp(text)


def test_memory_does_not_grow_with_the_size_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    with path.open("wb") as file:
        for number in range(40_000):
            file.write(json_lines(turn(userText=f"{number} " + "x" * 100, sessionId=f"call-{number // 10}")))
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            for number, each in enumerate(read_transcript(file, "calls.jsonl")):
                assert isinstance(each, TranscriptTurn)
                if number == 17_000:  # by now, caches have reached their full size
                    tracemalloc.reset_peak()
                    before = tracemalloc.get_traced_memory()[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert number == 39_999
    assert peak - before < 4_000_000


def test_the_sdk_does_not_import_the_readers_and_they_import_nothing_else() -> None:
    code = (
        "import sys, memoair_voice_sync; before = set(sys.modules); import memoair_transcripts;"
        "print(*before, '|', *sys.modules)"
    )
    sdk, _, both = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.partition("|")

    assert not [name for name in sdk.split() if name.startswith("memoair_transcripts")]
    ours = [name for name in set(both.split()) - set(sdk.split()) if not name.startswith("memoair_transcripts")]
    assert not ours


def test_the_former_place_and_names_of_the_readers_are_deprecated() -> None:
    sys.modules.pop("memoair_voice_sync.transcripts", None)
    with pytest.warns(DeprecationWarning, match="is now memoair_transcripts"):
        former = importlib.import_module("memoair_voice_sync.transcripts")
    assert former.read_transcript is read_transcript
    for former_name, name in (("Refusal", "Rejection"), ("parse_moment", "parse_timestamp")):
        with pytest.warns(DeprecationWarning, match=rf"{former_name} is now memoair_transcripts\.{name}"):
            assert getattr(former, former_name) is getattr(memoair_transcripts, name)
    with pytest.raises(AttributeError, match="no attribute 'Refusals'"):
        _ = former.Refusals
