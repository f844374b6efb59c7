"""Readers of subtitles and of call exports: text, order, times, and rejections."""

import io
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoair_transcripts import (
    Rejection,
    TranscriptOptions,
    TranscriptTurn,
    format_of,
    read_transcript,
)
from memoair_transcripts._documents import MAX_DOCUMENT_BYTES

STARTED_AT = datetime(2026, 3, 2, 14, 4, tzinfo=timezone.utc)
STARTED_AT_MS = int(STARTED_AT.timestamp() * 1_000)
ANA = TranscriptOptions(user_id="ana", started_at=STARTED_AT)
CHANNELS = TranscriptOptions(user_id="ana", started_at=STARTED_AT, callers=("2",))


def read(
    content: bytes | str, name: str = "-", options: TranscriptOptions = ANA, format_: str | None = None
) -> tuple[list[TranscriptTurn], list[str]]:
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    found = list(read_transcript(stream, name, options, format=format_))
    turns = [each for each in found if isinstance(each, TranscriptTurn)]
    return turns, [str(each) for each in found if isinstance(each, Rejection)]


def texts(turns: list[TranscriptTurn]) -> list[tuple[str, str]]:
    return [(each.user_text, each.assistant_text) for each in turns]


def offsets(turns: list[TranscriptTurn]) -> list[float | None]:
    return [each.occurred_at and (each.occurred_at - STARTED_AT).total_seconds() for each in turns]


def vapi(*messages: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": "call-7",
        "orgId": "o",
        "type": "inboundPhoneCall",
        "startedAt": STARTED_AT.isoformat(),
        "customer": {"number": "+442079460123", "name": "Dana"},
        "assistant": {"name": "Juno"},
        "artifact": {"messages": list(messages)},
        **more,
    }


def retell(*utterances: Any, **more: Any) -> dict[str, Any]:
    return {
        "call_id": "call-7",
        "call_type": "phone_call",
        "direction": "inbound",
        "from_number": "+442079460123",
        "to_number": "+15552345678",
        "start_timestamp": STARTED_AT_MS,
        "transcript_object": list(utterances),
        **more,
    }


def utterance(role: str, content: str, start: float | None = None) -> dict[str, Any]:
    return {
        "role": role,
        "content": content,
        "words": [] if start is None else [{"word": "x", "start": start, "end": 9}],
    }


def sentence(channel: Any, text: str, start: Any = "1.5", **more: Any) -> dict[str, Any]:
    return {"media_channel": channel, "sentence_index": 0, "start_time": start, "transcript": text, **more}


# Subtitles


def test_webvtt_voices_are_speakers() -> None:
    turns, rejected = read(
        "\ufeffWEBVTT - a call\r\nuserId: bob\r\nsessionId: call-9\r\noccurredAt: 2026-03-02T14:04:00Z\r\n\r\n"
        "STYLE\r\n::cue { color: red }\r\n\r\n"
        "1\r\n00:01.500 --> 00:02.000 align:start\r\n<v.loud Agent>Hello &amp; <i>welcome</i>.</v>\r\n\r\n"
        "NOTE nobody says this\r\n\r\n"
        "01:00:02.000 --> 01:00:03.000\r\n<v Caller>Hi,\r\nit is me.</v> <v Agent>I know.</v>\r\n"
    )

    assert not rejected
    assert texts(turns) == [("", "Hello & welcome."), ("Hi, it is me.", "I know.")]
    assert offsets(turns) == [1.5, 3_602]
    assert {(each.user_id, each.session_id) for each in turns} == {("bob", "call-9")}


@pytest.mark.parametrize("name", ["call.vtt", "call.srt"])
def test_labels_before_a_colon_are_speakers_and_cues_without_one_continue(name: str) -> None:
    cues = ["Juno: Hello.", "Dana Whitlock: My parcel", "is late.\nSince Monday.", "DANA WHITLOCK: Still."]
    mark = "." if name.endswith("vtt") else ","
    text = "\n".join(
        f"{number}\n00:00:0{number}{mark}000 --> 00:00:0{number}{mark}900\n{cue}\n" for number, cue in enumerate(cues)
    )
    options = TranscriptOptions(user_id="ana", started_at=STARTED_AT.replace(tzinfo=None), callers=("Dana Whitlock",))
    turns, rejected = read(("WEBVTT\n\n" if name.endswith("vtt") else "") + text, name, options)

    assert not rejected
    assert texts(turns) == [("", "Hello."), ("My parcel is late. Since Monday.\nStill.", "")]
    assert offsets(turns) == [0, 1]
    assert (turns[1].user_name, turns[1].assistant_name) == ("Dana Whitlock", None)
    assert turns[0].assistant_name == "Juno"


def test_an_invalid_cue_is_rejected_with_its_line_and_the_others_are_read() -> None:
    turns, rejected = read(
        "WEBVTT\n\n"
        "00:01.000 --> 00:02.000\n<v Caller>One.\n\n"  # 3
        "no times secret\n\n"  # 6
        "00:02.000 --> 00:03.000\nsecret goes on\n\n"  # 8
        "00:99.000 --> 00:03.000\n<v Caller>secret\n\n"  # 11
        "00:03.000 --> 00:04.000\n<v Secret Person>No.\n\n"  # 14
        f"00:04.000 --> 00:05.000\n<v Caller>{'secret ' * 20_000}\n\n"  # 17
        "00:04.000 --> 00:05.000\n\n"  # 20: an empty cue
        "00:05.000 --> 00:06.000\n<v Agent>Two.\n",
        "call.vtt",
    )

    assert texts(turns) == [("One.", "Two.")]
    assert rejected == [
        "call.vtt:6: the cue has no timing line",
        "call.vtt:8: continues a cue that was rejected",
        "call.vtt:11: the cue cannot be parsed",
        "call.vtt:14: the speaker is neither the caller nor the agent; set the labels (callers, assistants)",
        "call.vtt:17: the cue is longer than 100000 characters",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Caller>Hi.\n",
            "userId is missing; add it, or set a user for the whole file (user_id, --user)",
        ),
        (
            "WEBVTT\nuserId: ana\noccurredAt: secret\n\n00:01.000 --> 00:02.000\n<v Caller>Hi.\n",
            "occurredAt is not an ISO",
        ),
        ("00:01.000 --> 00:02.000\n<v Caller>Hi.\n", "the file does not begin with WEBVTT"),
        ("\x1f\x8b secret", "the file is compressed (gzip)"),
    ],
)
def test_an_unusable_file_is_rejected_once(content: str, reason: str) -> None:
    turns, rejected = read(content.encode("latin-1"), "call.vtt", TranscriptOptions())

    assert not turns
    [rejection] = rejected
    assert rejection.startswith(f"call.vtt: {reason}")
    assert "secret" not in rejection


def test_text_before_the_first_voice_is_rejected_and_times_need_a_start() -> None:
    turns, rejected = read(
        "WEBVTT\n\n00:01.000 --> 00:02.000\nHello?\n\n00:02.000 --> 00:03.000\n<v Caller>Hi.\n",
        "call.vtt",
        TranscriptOptions(user_id="ana"),
    )

    assert rejected == ["call.vtt:3: no speaker is named for this text"]
    assert (texts(turns), offsets(turns)) == ([("Hi.", "")], [None])


def test_without_webvtt_py_the_file_is_rejected_with_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "webvtt", None)
    turns, rejected = read("WEBVTT\n\n00:01.000 --> 00:02.000\n<v Caller>Hi.\n", "call.vtt")

    assert not turns
    assert rejected == ["call.vtt: subtitles require webvtt-py: pip install 'memoair-voice[transcripts]>=0.4'"]


# Call exports


def test_a_vapi_call_is_read() -> None:
    turns, rejected = read(
        json.dumps(
            vapi(
                {"role": "system", "message": "secret prompt", "time": STARTED_AT_MS},
                {"role": "bot", "message": "Hello.", "time": STARTED_AT_MS + 1_500, "secondsFromStart": 9},
                {"role": "user", "message": "My parcel is late.", "secondsFromStart": 4.25},
                {"role": "tool_calls", "message": "", "toolCalls": [{"secret": 1}]},
                {"role": "assistant", "content": "I see."},
            )
        )
    )

    assert not rejected
    assert texts(turns) == [("", "Hello."), ("My parcel is late.", "I see.")]
    assert offsets(turns) == [1.5, 4.25]
    assert (turns[0].user_id, turns[0].session_id) == ("ana", "call-7")
    assert (turns[0].user_name, turns[0].assistant_name) == ("Dana", "Juno")


def test_the_user_id_comes_from_metadata_or_options_or_the_phone_number() -> None:
    vapi_message = {"role": "user", "message": "Hi.", "secondsFromStart": 1}
    retell_utterance = utterance("user", "Hi.", 1)
    metadata = {"metadata": {"userId": "dana"}}
    for anonymous, named in (
        (vapi(vapi_message), vapi(vapi_message, **metadata)),
        (retell(retell_utterance), retell(retell_utterance, **metadata)),
    ):
        assert read(json.dumps(named))[0][0].user_id == "dana"
        assert read(json.dumps(anonymous))[0][0].user_id == "ana"
        assert read(json.dumps(anonymous), options=TranscriptOptions())[0][0].user_id == "+442079460123"
    outbound = read(json.dumps(retell(retell_utterance, direction="outbound")), options=TranscriptOptions())[0]
    assert outbound[0].user_id == "+15552345678"
    web = {**retell(retell_utterance), "from_number": None, "call_type": "web_call"}
    assert read(json.dumps(web), options=TranscriptOptions())[1] == [
        "-:1: userId is missing; add it, or set a user for the whole file (user_id, --user)"
    ]


def test_a_retell_call_is_read() -> None:
    turns, rejected = read(
        json.dumps(
            retell(
                utterance("agent", "Hello.", 0.5),
                utterance("user", "My parcel is late.", 4),
                utterance("tool_call_invocation", "secret"),
                {"role": "dtmf", "digit": "1"},
                utterance("agent", "I see."),
                agent_name="Juno",
            )
        )
    )

    assert not rejected
    assert texts(turns) == [("", "Hello."), ("My parcel is late.", "I see.")]
    assert offsets(turns) == [0.5, 4]
    assert (turns[0].session_id, turns[0].assistant_name) == ("call-7", "Juno")


def test_twilio_sentences_are_one_call_in_every_file_layout() -> None:
    sentences = [sentence(1, "Hello.", 0.5), sentence(2, "My parcel is late.", "4.0"), sentence("1", "I see.", None)]
    layouts = [
        json.dumps({"sentences": sentences, "meta": {"page": 0, "key": "sentences"}}, indent=2),
        json.dumps(sentences),
        "\n".join(map(json.dumps, sentences)),
    ]
    for layout in layouts:
        turns, rejected = read(layout, options=CHANNELS)
        assert not rejected
        assert texts(turns) == [("", "Hello."), ("My parcel is late.", "I see.")]
        assert offsets(turns) == [0.5, 4]


def test_twilio_channels_require_options_or_participants() -> None:
    turns, rejected = read(json.dumps({"sentences": [sentence(1, "secret"), sentence(2, "secret")]}))
    assert not turns
    assert rejected == [
        f"-:1: sentences[{number}]: media_channel does not say who speaks; "
        "set callers or assistants to the channels (--caller, --assistant)"
        for number in (0, 1)
    ]
    customer = {"channel_participant": 1, "role": "Customer", "full_name": "Dana"}
    agent = {"channel_participant": 2, "role": "Agent", "full_name": "Juno"}
    transcript = {
        "sid": "GT1",
        "media_start_time": "2026-03-02T14:05:00Z",
        "channel": {"participants": [customer, agent]},
    }
    sentences = [sentence(1, "Hi."), sentence(2, "Hello.")]
    for document in ({"transcript": transcript, "sentences": sentences}, {**transcript, "sentences": sentences}):
        [found], _ = read(json.dumps(document))
        assert (found.user_text, found.assistant_text, found.session_id) == ("Hi.", "Hello.", "GT1")
        assert (found.user_name, found.assistant_name, offsets([found])) == ("Dana", "Juno", [61.5])


@pytest.mark.parametrize("separator", ["\n", ""])
def test_calls_in_a_list_or_one_per_line_are_rejected_individually(separator: str) -> None:
    calls: list[Any] = [
        retell(utterance("user", "one", 1), call_id="a"),
        7,
        retell(utterance("user", "two", 1), call_id=["secret"]),
        {"call_type": "phone_call", "transcript_object": "secret"},
        {"hello": "secret"},
        retell(utterance("user", "three", 1), utterance("ghost", "secret"), "secret", call_id="b"),
    ]
    text = separator.join(map(json.dumps, calls)) if separator else json.dumps(calls)
    turns, rejected = read(text, "calls.json")

    assert [(each.session_id, each.user_text) for each in turns] == [("a", "one"), ("b", "three")]
    reasons = [
        "a number, not a JSON object",
        "call_id must be a string, not a list",
        "transcript_object must be a list, not a string",
        "transcript_object[2]: a string, not a JSON object",
    ]
    lines = [2, 3, 4, 6]
    positions = [f"{line}: " if separator else f"1: call {line}: " for line in lines]
    assert rejected == [f"calls.json:{position}{reason}" for position, reason in zip(positions, reasons, strict=True)]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"message": "secret"}, "role must be one of user, bot, assistant"),
        ({"role": "user", "message": ["secret"]}, "message must be a string, not a list"),
        ({"role": "user", "message": "secret", "time": "soon"}, "time must be a number"),
        ({"role": "user", "message": "secret", "time": 1e300}, "time is not a timestamp in milliseconds since 1970"),
        ({"role": "user", "message": "secret", "time": "nan"}, "time is not a timestamp in milliseconds since 1970"),
        ({"role": "user", "message": "secret", "time": True}, "time must be a number, not a boolean"),
    ],
)
def test_an_invalid_message_is_rejected_individually(message: dict[str, Any], reason: str) -> None:
    before, after = ({"role": "user", "message": each, "secondsFromStart": 1} for each in ("before", "after"))
    turns, rejected = read(json.dumps(vapi(before, message, after)))

    assert texts(turns) == [("before\nafter", "")]
    assert rejected == [
        f"-:1: artifact.messages[1]: {reason}".replace("artifact.messages", rejected[0].split()[1][:-4])
    ]
    assert "secret" not in rejected[0]


def test_a_call_that_is_too_large_is_rejected_and_the_others_are_read() -> None:
    message = {"role": "user", "message": "Hi.", "secondsFromStart": 1}
    large = json.dumps(vapi(message, cost="x" * MAX_DOCUMENT_BYTES))
    small = json.dumps(vapi(message))
    reason = f"longer than {MAX_DOCUMENT_BYTES} bytes; write one call per line"
    turns, rejected = read(f"{small}\n{large}\n{small}", format_="vapi")
    assert (len(turns), rejected) == (2, [f"-:2: {reason}"])
    turns, rejected = read(json.dumps([json.loads(large)], indent=1), format_="vapi")
    assert (len(turns), rejected) == (0, [f"-:1: {reason}"])


def test_a_generated_session_id_depends_on_the_content() -> None:
    text = json.dumps({"sentences": [sentence(2, "Hi.")]})
    assert read(text, "a.json", CHANNELS) == read(text, "b.json", CHANNELS)
    other = json.dumps({"sentences": [sentence(2, "Ho.")]})
    assert read(text, "a.json", CHANNELS)[0][0].session_id != read(other, "a.json", CHANNELS)[0][0].session_id
    named = json.dumps({"sentences": [sentence(2, "Hi.", transcript_sid="GT1")]})
    assert read(named, "a.json", CHANNELS)[0][0].session_id == "GT1"


# Formats, arbitrary input, memory


@pytest.mark.parametrize(
    ("name", "content", "format_"),
    [
        ("call.VTT", "", "webvtt"),
        ("call.srt", "", "srt"),
        ("-", "WEBVTT\n", "webvtt"),
        ("-", "WEBVTTX", "text"),
        ("-", "\n1\r\n00:00:01,500 --> 00:00:02,000\nHi", "srt"),
        ("call.txt", "WEBVTT\n", "text"),
        ("a.json", json.dumps(vapi(), indent=1), "vapi"),
        ("a.json", json.dumps({"message": {"type": "end-of-call-report"}}), "vapi"),
        ("a.jsonl", json.dumps(retell()), "retell"),
        ("-", json.dumps([retell()]), "retell"),
        ("a.json", json.dumps({"sentences": [sentence(1, "Hi.")]}), "twilio"),
        ("a.jsonl", json.dumps({"userText": "x", "assistantText": '"transcript_object":', "metadata": {}}), "jsonl"),
        ("a.jsonl", json.dumps({"role": "user", "text": 'say "media_channel": 1'}), "jsonl"),
        (
            "a.jsonl",
            json.dumps({"sessionId": "s", "role": "user", "text": "x", "metadata": {"secondsFromStart": 1}}),
            "jsonl",
        ),
        ("a.jsonl", "", "jsonl"),
    ],
)
def test_the_format_is_detected_by_name_and_content(name: str, content: str, format_: str) -> None:
    assert format_of(name, content.encode()) == format_


SPEECH = st.lists(
    st.tuples(st.booleans(), st.text("abc äß?!'&", min_size=1, max_size=12).filter(str.strip)), min_size=1, max_size=9
)


def export_of(format_: str, speech: list[tuple[bool, str]]) -> str:
    """Return a call in a format. Each text is spoken one second after the one before."""
    if format_ in ("webvtt", "srt"):
        separator, head = (".", "WEBVTT\n\n") if format_ == "webvtt" else (",", "")
        labels = {True: "Caller", False: "Agent"}
        return head + "\n".join(
            f"{number}\n00:00:{number:02}{separator}000 --> 00:00:59{separator}000\n{labels[is_caller]}: "
            f"{text.replace('&', '&amp;')}\n"
            for number, (is_caller, text) in enumerate(speech)
        )
    if format_ == "twilio":
        sentences = [sentence(1 + is_caller, text, number) for number, (is_caller, text) in enumerate(speech)]
        return json.dumps({"sentences": sentences})
    if format_ == "vapi":
        roles = {True: "user", False: "bot"}
        messages = [
            {"role": roles[who], "message": text, "secondsFromStart": at} for at, (who, text) in enumerate(speech)
        ]
        return json.dumps(vapi(*messages), indent=2)
    roles = {True: "user", False: "agent"}
    return json.dumps(retell(*(utterance(roles[who], text, at) for at, (who, text) in enumerate(speech))))


@given(st.sampled_from(["webvtt", "srt", "twilio", "vapi", "retell"]), SPEECH)
@settings(max_examples=200, deadline=None)
def test_all_text_is_kept_in_order_with_its_time(format_: str, speech: list[tuple[bool, str]]) -> None:
    turns, rejected = read(export_of(format_, speech), "-", CHANNELS if format_ == "twilio" else ANA, format_)

    assert not rejected
    actual = [word for each in turns for side in (each.user_text, each.assistant_text) for word in side.split()]
    assert actual == [word for _, text in speech for word in text.split()]
    starts = [at for at, (who, _) in enumerate(speech) if at == 0 or (who and not speech[at - 1][0])]
    assert offsets(turns) == starts


PIECES = [
    *("WEBVTT", "\n", "\n\n", "00:01.000 --> 00:02.000\n", "1\n00:00:01,000 --> 00:00:02,000\n", "<v Caller>", "x"),
    *("-->", "NOTE userId: ana", "\xff", "{", "}", "[", "]", ",", '"sentences":', '"messages":', '"role":', '"user"'),
    *('"transcript_object":', '"message":', '"call":', "1", '"\\ud800"', "null", '"media_channel":', '"transcript":'),
    *("&#0;", "9" * 30),
]
NAMES = [
    *("sentences", "messages", "artifact", "call", "message", "role", "transcript_object", "words", "start", "time"),
    *("id", "content", "metadata", "userId", "customer", "media_channel", "transcript", "channel", "participants"),
    *("startedAt", "results", "channels", "alternatives", "utterances", "speaker", "monologues", "elements", "value"),
    *("multivoice_message", "parts", "text", "conversation_id", "call_id", "time_in_call_secs"),
]
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
contents = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=14).map(lambda parts: "".join(parts).encode("latin-1")),
    st.binary(max_size=200),
    values.map(lambda value: json.dumps(value).encode()),
)


@given(
    contents,
    st.sampled_from(["webvtt", "srt", "twilio", "vapi", "retell", "elevenlabs", "deepgram", "assemblyai", "rev"]),
    st.sampled_from([TranscriptOptions(), ANA, CHANNELS]),
)
@settings(max_examples=600, deadline=None)
def test_reading_arbitrary_bytes_never_raises(content: bytes, format_: str, options: TranscriptOptions) -> None:
    found = list(read_transcript(io.BytesIO(content), "file", options, format=format_))

    count = content.count(b"\n") + 1
    assert all(0 <= each.line <= count for each in found)
    assert all(each.reason for each in found if isinstance(each, Rejection))


def test_subtitles_are_streamed() -> None:
    class Cues(io.RawIOBase):
        """An endless stream of cues."""

        def __init__(self) -> None:
            self.cue_count = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            start = timedelta(seconds=self.cue_count % 3_000)
            voice = "Agent" if self.cue_count % 2 else "Caller"
            cue = f"0{start}.000 --> 0{start}.500\n<v {voice}>Words {self.cue_count}.\n\n"
            content = (b"" if self.cue_count else b"WEBVTT\n\n") + cue.encode()
            self.cue_count += 1
            buffer[: len(content)] = content
            return len(content)

    cues = Cues()
    turns = read_transcript(io.BufferedReader(cues), "call.vtt", ANA)
    for _ in range(2_000):
        assert isinstance(next(turns), TranscriptTurn)
    assert cues.cue_count < 20_000
