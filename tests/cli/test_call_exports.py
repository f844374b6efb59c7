"""Subtitles and what telephone platforms export: every word in order and with its time; what can't be kept is told."""

import io
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoair_voice_sync.transcripts import (
    Rejection,
    TranscriptOptions,
    TranscriptTurn,
    format_of,
    read_transcript,
)
from memoair_voice_sync.transcripts._documents import MAX_DOCUMENT_BYTES

BEGAN = datetime(2026, 3, 2, 14, 4, tzinfo=timezone.utc)
BEGAN_MS = int(BEGAN.timestamp() * 1_000)
ANA = TranscriptOptions(user_id="ana", started_at=BEGAN)
CHANNELS = TranscriptOptions(user_id="ana", started_at=BEGAN, callers=("2",))


def read(
    content: bytes | str, name: str = "-", options: TranscriptOptions = ANA, format_: str | None = None
) -> tuple[list[TranscriptTurn], list[str]]:
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    found = list(read_transcript(stream, name, options, format=format_))
    turns = [each for each in found if isinstance(each, TranscriptTurn)]
    return turns, [str(each) for each in found if isinstance(each, Rejection)]


def words(turns: list[TranscriptTurn]) -> list[tuple[str, str]]:
    return [(each.user_text, each.assistant_text) for each in turns]


def seconds(turns: list[TranscriptTurn]) -> list[float | None]:
    return [each.occurred_at and (each.occurred_at - BEGAN).total_seconds() for each in turns]


def vapi(*messages: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": "call-7",
        "orgId": "o",
        "type": "inboundPhoneCall",
        "startedAt": BEGAN.isoformat(),
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
        "start_timestamp": BEGAN_MS,
        "transcript_object": list(utterances),
        **more,
    }


def uttered(role: str, content: str, start: float | None = None) -> dict[str, Any]:
    return {
        "role": role,
        "content": content,
        "words": [] if start is None else [{"word": "x", "start": start, "end": 9}],
    }


def sentence(channel: Any, text: str, start: Any = "1.5", **more: Any) -> dict[str, Any]:
    return {"media_channel": channel, "sentence_index": 0, "start_time": start, "transcript": text, **more}


# Subtitles


def test_voices_of_webvtt_are_speakers() -> None:
    turns, refused = read(
        "\ufeffWEBVTT - a call\r\nuserId: bob\r\nsessionId: call-9\r\noccurredAt: 2026-03-02T14:04:00Z\r\n\r\n"
        "STYLE\r\n::cue { color: red }\r\n\r\n"
        "1\r\n00:01.500 --> 00:02.000 align:start\r\n<v.loud Agent>Hello &amp; <i>welcome</i>.</v>\r\n\r\n"
        "NOTE nobody says this\r\n\r\n"
        "01:00:02.000 --> 01:00:03.000\r\n<v Caller>Hi,\r\nit is me.</v> <v Agent>I know.</v>\r\n"
    )

    assert not refused
    assert words(turns) == [("", "Hello & welcome."), ("Hi, it is me.", "I know.")]
    assert seconds(turns) == [1.5, 3_602]
    assert {(each.user_id, each.session_id) for each in turns} == {("bob", "call-9")}


@pytest.mark.parametrize("name", ["call.vtt", "call.srt"])
def test_speakers_stand_before_a_colon_and_cues_go_on(name: str) -> None:
    cues = ["Juno: Hello.", "Dana Whitlock: My parcel", "is late.\nSince Monday.", "DANA WHITLOCK: Still."]
    sign = "." if name.endswith("vtt") else ","
    text = "\n".join(
        f"{number}\n00:00:0{number}{sign}000 --> 00:00:0{number}{sign}900\n{cue}\n" for number, cue in enumerate(cues)
    )
    options = TranscriptOptions(user_id="ana", started_at=BEGAN.replace(tzinfo=None), callers=("Dana Whitlock",))
    turns, refused = read(("WEBVTT\n\n" if name.endswith("vtt") else "") + text, name, options)

    assert not refused
    assert words(turns) == [("", "Hello."), ("My parcel is late. Since Monday.\nStill.", "")]
    assert seconds(turns) == [0, 1]
    assert (turns[1].user_name, turns[1].assistant_name) == ("Dana Whitlock", None)
    assert turns[0].assistant_name == "Juno"


def test_a_cue_that_can_not_be_read_costs_no_other_and_is_named_by_its_line() -> None:
    turns, refused = read(
        "WEBVTT\n\n"
        "00:01.000 --> 00:02.000\n<v Caller>One.\n\n"  # 3
        "no times secret\n\n"  # 6
        "00:02.000 --> 00:03.000\nsecret goes on\n\n"  # 8
        "00:99.000 --> 00:03.000\n<v Caller>secret\n\n"  # 11
        "00:03.000 --> 00:04.000\n<v Secret Person>No.\n\n"  # 14
        f"00:04.000 --> 00:05.000\n<v Caller>{'secret ' * 20_000}\n\n"  # 17
        "00:04.000 --> 00:05.000\n\n"  # 20: nothing is said
        "00:05.000 --> 00:06.000\n<v Agent>Two.\n",
        "call.vtt",
    )

    assert words(turns) == [("One.", "Two.")]
    assert refused == [
        "call.vtt:6: the cue has no timing line",
        "call.vtt:8: continues a cue that was rejected",
        "call.vtt:11: the cue cannot be parsed",
        "call.vtt:14: the speaker is neither the caller nor the agent; set the labels (callers, assistants)",
        "call.vtt:17: the cue is longer than 100000 characters",
    ]


@pytest.mark.parametrize(
    ("content", "why"),
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
def test_a_file_of_which_nothing_can_be_kept_is_refused_once(content: str, why: str) -> None:
    turns, refused = read(content.encode("latin-1"), "call.vtt", TranscriptOptions())

    assert not turns
    [refusal] = refused
    assert refusal.startswith(f"call.vtt: {why}")
    assert "secret" not in refusal


def test_words_before_the_first_voice_are_refused_and_times_without_a_beginning_are_none() -> None:
    turns, refused = read(
        "WEBVTT\n\n00:01.000 --> 00:02.000\nHello?\n\n00:02.000 --> 00:03.000\n<v Caller>Hi.\n",
        "call.vtt",
        TranscriptOptions(user_id="ana"),
    )

    assert refused == ["call.vtt:3: no speaker is named for this text"]
    assert (words(turns), seconds(turns)) == ([("Hi.", "")], [None])


def test_without_the_library_the_file_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "webvtt", None)
    turns, refused = read("WEBVTT\n\n00:01.000 --> 00:02.000\n<v Caller>Hi.\n", "call.vtt")

    assert not turns
    assert refused == ["call.vtt: subtitles require webvtt-py: pip install 'memoair-voice[subtitles]'"]


# What platforms export


def test_a_call_of_vapi_is_read_whole() -> None:
    turns, refused = read(
        json.dumps(
            vapi(
                {"role": "system", "message": "secret prompt", "time": BEGAN_MS},
                {"role": "bot", "message": "Hello.", "time": BEGAN_MS + 1_500, "secondsFromStart": 9},
                {"role": "user", "message": "My parcel is late.", "secondsFromStart": 4.25},
                {"role": "tool_calls", "message": "", "toolCalls": [{"secret": 1}]},
                {"role": "assistant", "content": "I see."},
            )
        )
    )

    assert not refused
    assert words(turns) == [("", "Hello."), ("My parcel is late.", "I see.")]
    assert seconds(turns) == [1.5, 4.25]
    assert (turns[0].user_id, turns[0].session_id) == ("ana", "call-7")
    assert (turns[0].user_name, turns[0].assistant_name) == ("Dana", "Juno")


def test_who_calls_is_what_the_call_says_or_the_option_or_the_number() -> None:
    heard = {"role": "user", "message": "Hi.", "secondsFromStart": 1}
    said = uttered("user", "Hi.", 1)
    told = {"metadata": {"userId": "dana"}}
    for nobody, named in ((vapi(heard), vapi(heard, **told)), (retell(said), retell(said, **told))):
        assert read(json.dumps(named))[0][0].user_id == "dana"
        assert read(json.dumps(nobody))[0][0].user_id == "ana"
        assert read(json.dumps(nobody), options=TranscriptOptions())[0][0].user_id == "+442079460123"
    outbound = read(json.dumps(retell(said, direction="outbound")), options=TranscriptOptions())[0]
    assert outbound[0].user_id == "+15552345678"
    web = {**retell(said), "from_number": None, "call_type": "web_call"}
    assert read(json.dumps(web), options=TranscriptOptions())[1] == [
        "-:1: userId is missing; add it, or set a user for the whole file (user_id, --user)"
    ]


def test_a_call_of_retell_is_read_whole() -> None:
    turns, refused = read(
        json.dumps(
            retell(
                uttered("agent", "Hello.", 0.5),
                uttered("user", "My parcel is late.", 4),
                uttered("tool_call_invocation", "secret"),
                {"role": "dtmf", "digit": "1"},
                uttered("agent", "I see."),
                agent_name="Juno",
            )
        )
    )

    assert not refused
    assert words(turns) == [("", "Hello."), ("My parcel is late.", "I see.")]
    assert seconds(turns) == [0.5, 4]
    assert (turns[0].session_id, turns[0].assistant_name) == ("call-7", "Juno")


def test_sentences_of_twilio_are_a_call_in_whatever_form_they_are_saved() -> None:
    said = [sentence(1, "Hello.", 0.5), sentence(2, "My parcel is late.", "4.0"), sentence("1", "I see.", None)]
    forms = [
        json.dumps({"sentences": said, "meta": {"page": 0, "key": "sentences"}}, indent=2),
        json.dumps(said),
        "\n".join(map(json.dumps, said)),
    ]
    for form in forms:
        turns, refused = read(form, options=CHANNELS)
        assert not refused
        assert words(turns) == [("", "Hello."), ("My parcel is late.", "I see.")]
        assert seconds(turns) == [0.5, 4]


def test_whose_channel_it_is_must_be_told() -> None:
    turns, refused = read(json.dumps({"sentences": [sentence(1, "secret"), sentence(2, "secret")]}))
    assert not turns
    assert refused == [
        f"-:1: sentences[{number}]: media_channel does not say who speaks; "
        "set callers or assistants to the channels (--caller, --assistant)"
        for number in (0, 1)
    ]
    part = {"channel_participant": 1, "role": "Customer", "full_name": "Dana"}
    agent = {"channel_participant": 2, "role": "Agent", "full_name": "Juno"}
    told = {"sid": "GT1", "media_start_time": "2026-03-02T14:05:00Z", "channel": {"participants": [part, agent]}}
    said = [sentence(1, "Hi."), sentence(2, "Hello.")]
    for document in ({"transcript": told, "sentences": said}, {**told, "sentences": said}):
        [found], _ = read(json.dumps(document))
        assert (found.user_text, found.assistant_text, found.session_id) == ("Hi.", "Hello.", "GT1")
        assert (found.user_name, found.assistant_name, seconds([found])) == ("Dana", "Juno", [61.5])


@pytest.mark.parametrize("separator", ["\n", ""])
def test_many_calls_are_a_list_or_a_line_each_and_each_is_refused_by_itself(separator: str) -> None:
    calls: list[Any] = [
        retell(uttered("user", "one", 1), call_id="a"),
        7,
        retell(uttered("user", "two", 1), call_id=["secret"]),
        {"call_type": "phone_call", "transcript_object": "secret"},
        {"hello": "secret"},
        retell(uttered("user", "three", 1), uttered("ghost", "secret"), "secret", call_id="b"),
    ]
    text = separator.join(map(json.dumps, calls)) if separator else json.dumps(calls)
    turns, refused = read(text, "calls.json")

    assert [(each.session_id, each.user_text) for each in turns] == [("a", "one"), ("b", "three")]
    reasons = [
        "a number, not a JSON object",
        "call_id must be a string, not a list",
        "transcript_object must be a list, not a string",
        "not a completed Retell call: transcript_object is missing",
        "transcript_object[1]: role must be one of user, agent",
        "transcript_object[2]: a string, not a JSON object",
    ]
    places = [2, 3, 4, 5, 6, 6]
    where = [f"{place}: " if separator else f"1: call {place}: " for place in places]
    assert refused == [f"calls.json:{at}{why}" for at, why in zip(where, reasons, strict=True)]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "ghost", "message": "secret"}, "role must be one of user, bot, assistant"),
        ({"message": "secret"}, "role must be one of user, bot, assistant"),
        ({"role": "user", "message": ["secret"]}, "message must be a string, not a list"),
        ({"role": "user", "message": "secret", "time": "soon"}, "time must be a number"),
        ({"role": "user", "message": "secret", "time": 1e300}, "time is not a timestamp in milliseconds since 1970"),
        ({"role": "user", "message": "secret", "time": "nan"}, "time is not a timestamp in milliseconds since 1970"),
        ({"role": "user", "message": "secret", "time": True}, "time must be a number, not a boolean"),
    ],
)
def test_a_message_that_can_not_be_is_refused_by_itself(message: dict[str, Any], reason: str) -> None:
    before, behind = ({"role": "user", "message": each, "secondsFromStart": 1} for each in ("before", "behind"))
    turns, refused = read(json.dumps(vapi(before, message, behind)))

    assert words(turns) == [("before\nbehind", "")]
    assert refused == [f"-:1: artifact.messages[1]: {reason}".replace("artifact.messages", refused[0].split()[1][:-4])]
    assert "secret" not in refused[0]


def test_a_call_that_is_too_large_is_refused_and_the_others_are_read() -> None:
    heard = {"role": "user", "message": "Hi.", "secondsFromStart": 1}
    large = json.dumps(vapi(heard, cost="x" * MAX_DOCUMENT_BYTES))
    small = json.dumps(vapi(heard))
    why = f"longer than {MAX_DOCUMENT_BYTES} bytes; write one call per line"
    turns, refused = read(f"{small}\n{large}\n{small}", format_="vapi")
    assert (len(turns), refused) == (2, [f"-:2: {why}"])
    turns, refused = read(json.dumps([json.loads(large)], indent=1), format_="vapi")
    assert (len(turns), refused) == (0, [f"-:1: {why}"])


def test_a_call_without_an_id_is_known_by_what_the_file_says() -> None:
    text = json.dumps({"sentences": [sentence(2, "Hi.")]})
    assert read(text, "a.json", CHANNELS) == read(text, "b.json", CHANNELS)
    other = json.dumps({"sentences": [sentence(2, "Ho.")]})
    assert read(text, "a.json", CHANNELS)[0][0].session_id != read(other, "a.json", CHANNELS)[0][0].session_id
    named = json.dumps({"sentences": [sentence(2, "Hi.", transcript_sid="GT1")]})
    assert read(named, "a.json", CHANNELS)[0][0].session_id == "GT1"


# Formats, and what never happens


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
def test_the_format_is_told_by_name_and_content(name: str, content: str, format_: str) -> None:
    assert format_of(name, content.encode()) == format_


SPEECH = st.lists(
    st.tuples(st.booleans(), st.text("abc äß?!'&", min_size=1, max_size=12).filter(str.strip)), min_size=1, max_size=9
)


def written(format_: str, speech: list[tuple[bool, str]]) -> str:
    """A call in which the caller and the agent say this, a second after each other."""
    if format_ in ("webvtt", "srt"):
        sign, head = (".", "WEBVTT\n\n") if format_ == "webvtt" else (",", "")
        labels = {True: "Caller", False: "Agent"}
        return head + "\n".join(
            f"{number}\n00:00:{number:02}{sign}000 --> 00:00:59{sign}000\n{labels[is_caller]}: "
            f"{text.replace('&', '&amp;')}\n"
            for number, (is_caller, text) in enumerate(speech)
        )
    if format_ == "twilio":
        said = [sentence(1 + is_caller, text, number) for number, (is_caller, text) in enumerate(speech)]
        return json.dumps({"sentences": said})
    if format_ == "vapi":
        roles = {True: "user", False: "bot"}
        spoken = [
            {"role": roles[who], "message": text, "secondsFromStart": at} for at, (who, text) in enumerate(speech)
        ]
        return json.dumps(vapi(*spoken), indent=2)
    roles = {True: "user", False: "agent"}
    return json.dumps(retell(*(uttered(roles[who], text, at) for at, (who, text) in enumerate(speech))))


@given(st.sampled_from(["webvtt", "srt", "twilio", "vapi", "retell"]), SPEECH)
@settings(max_examples=200, deadline=None)
def test_every_word_is_kept_in_its_order_with_its_time(format_: str, speech: list[tuple[bool, str]]) -> None:
    turns, refused = read(written(format_, speech), "-", CHANNELS if format_ == "twilio" else ANA, format_)

    assert not refused
    heard = [word for each in turns for side in (each.user_text, each.assistant_text) for word in side.split()]
    assert heard == [word for _, text in speech for word in text.split()]
    starts = [at for at, (who, _) in enumerate(speech) if at == 0 or (who and not speech[at - 1][0])]
    assert seconds(turns) == starts


PIECES = [
    *("WEBVTT", "\n", "\n\n", "00:01.000 --> 00:02.000\n", "1\n00:00:01,000 --> 00:00:02,000\n", "<v Caller>", "x"),
    *("-->", "NOTE userId: ana", "\xff", "{", "}", "[", "]", ",", '"sentences":', '"messages":', '"role":', '"user"'),
    *('"transcript_object":', '"message":', '"call":', "1", '"\\ud800"', "null", '"media_channel":', '"transcript":'),
    *("&#0;", "9" * 30),
]
NAMES = [
    *("sentences", "messages", "artifact", "call", "message", "role", "transcript_object", "words", "start", "time"),
    *("id", "content", "metadata", "userId", "customer", "media_channel", "transcript", "channel", "participants"),
    "startedAt",
]
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
contents = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=14).map(lambda parts: "".join(parts).encode("latin-1")),
    st.binary(max_size=200),
    values.map(lambda told: json.dumps(told).encode()),
)


@given(
    contents,
    st.sampled_from(["webvtt", "srt", "twilio", "vapi", "retell"]),
    st.sampled_from([TranscriptOptions(), ANA, CHANNELS]),
)
@settings(max_examples=600, deadline=None)
def test_whatever_the_bytes_reading_raises_nothing(content: bytes, format_: str, options: TranscriptOptions) -> None:
    found = list(read_transcript(io.BytesIO(content), "file", options, format=format_))

    count = content.count(b"\n") + 1
    assert all(0 <= each.line <= count for each in found)
    assert all(each.reason for each in found if isinstance(each, Rejection))


def test_a_long_file_of_subtitles_is_read_as_a_stream() -> None:
    class Cues(io.RawIOBase):
        """More cues than memory would hold, if anybody kept them."""

        def __init__(self) -> None:
            self.given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            start = timedelta(seconds=self.given % 3_000)
            cue = f"0{start}.000 --> 0{start}.500\n<v {'Agent' if self.given % 2 else 'Caller'}>Words {self.given}.\n\n"
            content = (b"" if self.given else b"WEBVTT\n\n") + cue.encode()
            self.given += 1
            buffer[: len(content)] = content
            return len(content)

    cues = Cues()
    turns = read_transcript(io.BufferedReader(cues), "call.vtt", ANA)
    for _ in range(2_000):
        assert isinstance(next(turns), TranscriptTurn)
    assert cues.given < 20_000
