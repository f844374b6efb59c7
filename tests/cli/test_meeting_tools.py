"""Transcripts in the shapes that meeting tools, transcribers and messengers write as text. All people are made up."""

import io
from datetime import datetime, timezone

import pytest

from memoair_transcripts import Rejection, SkippedItem, TranscriptOptions, TranscriptTurn, read_transcript

STARTED_AT = datetime(2026, 3, 2, 14, 4, tzinfo=timezone.utc)
OPTIONS = TranscriptOptions(
    user_id="ana", started_at=STARTED_AT, callers=("Dana Whitlock", "Speaker 1"), assistants=("Juno", "Speaker 2")
)

OTTER = """Returns call
Tue, Mar 2, 2026 2:04PM • 12:34

SUMMARY KEYWORDS
parcel, late

SPEAKERS
Dana Whitlock, Juno

Dana Whitlock  0:03
Hi. My parcel
is late.

Juno  0:09
I see.

Transcribed by https://otter.ai
"""
MEET = """Returns call (2026-03-02 14:04 GMT) - Transcript
Attendees
Dana Whitlock, Juno
Transcript
Dana Whitlock: Hi. My parcel
is late.
00:05:00
Juno: I see.
Meeting ended after 00:12:34 👋
This transcript was computer generated and might contain errors.
"""
GEMINI = """📝 Notes
Mar 2, 2026
Invited Dana Whitlock Juno
Summary
Dana Whitlock: asked for the parcel.
Next steps
- Juno: send it

📖 Transcript

## Returns call - Transcript

### 00:00:03

**Dana Whitlock:** Hi. My parcel is late.

### 00:05:00

**Juno:** I see.

### Transcription ended after 00:20:11

*This editable transcript was computer generated and might contain errors.*
"""
ZOOM = """[Dana Whitlock] 14:04:03
Hi. My parcel is late.

[Juno] 14:04:09
I see.
"""
ZOOM_CHAT = (
    "14:04:03 From Dana Whitlock to Everyone:\n\tHi. My parcel is late.\n"
    "14:04:09\t From  Juno  to  Dana Whitlock(Direct Message) : I see.\n"
)
TEAMS = """Dana Whitlock started transcription

Dana Whitlock   0:03
Hi. My parcel is late.

Juno   0:09
I see.
Juno stopped transcription
"""
TEAMS_WORD = """0:0:3.0 --> 0:0:5.340
Dana Whitlock
Hi. My parcel is late.
0:0:9.52 --> 0:0:11.0
Juno
I see.
"""
REV = """This transcript was exported on Mar 02, 2026 - view latest version here.

Dana Whitlock (00:03):
Hi. My parcel is late.

Juno (00:09):
I see.
"""
REV_LINKS = "Speaker 1: [00:03](https://rev.example/x)\tHi. My parcel is late.\nSpeaker 2: (00:09) I see.\n"
NAME_THEN_TIME = "Dana Whitlock\n00:03\nHi. My parcel is late.\nJuno\n00:09\nI see.\n"
TIME_THEN_NAME = "00:03 Dana Whitlock\nHi. My parcel is late.\n[00:00:09] Juno\nI see.\n"
WHATSAPP = """02/03/2026, 14:00 - Messages and calls are end-to-end encrypted.
02/03/2026, 14:04 - Dana Whitlock: Hi. My parcel
is late.
23/03/2026, 14:05 - Juno: I see.
23/03/2026, 14:06 - Juno: <Media omitted>
"""
WHATSAPP_IOS = (
    "[3/2/26, 2:00:00\u202fPM] Returns: \u200eMessages and calls are end-to-end encrypted.\n"
    "[3/2/26, 2:04:03\u202fPM] Dana Whitlock: Hi. My parcel is late.\n"
    "\u200e[3/22/26, 2:05:00\u202fPM] Juno: I see.\n\u200e[3/22/26, 2:06:00\u202fPM] Juno: \u200eimage omitted\n"
)


@pytest.mark.parametrize(
    ("text", "first_second", "skipped_lines"),
    [
        (OTTER, 3, {1, 2, 4, 5, 7, 8, 17}),
        (MEET, 300, {1, 2, 3, 4, 9, 10}),
        (GEMINI, 3, {1, 2, 3, 4, 5, 6, 7, 9, 11, 21, 23}),
        (ZOOM, 3, set()),
        (ZOOM_CHAT, 3, set()),
        (TEAMS, 3, {1, 8}),
        (TEAMS_WORD, 3, set()),
        (REV, 3, {1}),
        (REV_LINKS, 3, set()),
        (NAME_THEN_TIME, 3, set()),
        (TIME_THEN_NAME, 3, set()),
        (WHATSAPP, 0, {1, 5}),
        (WHATSAPP_IOS, 3, {1, 4}),
    ],
    ids="otter meet gemini zoom zoom-chat teams teams-word rev rev-links name-time time-name whatsapp ios".split(),
)
def test_what_was_said_is_read_and_what_the_tool_wrote_is_passed_over(
    text: str, first_second: int, skipped_lines: set[int]
) -> None:
    skipped: list[SkippedItem] = []
    found = list(read_transcript(io.BytesIO(text.encode()), "call.txt", OPTIONS, on_skip=skipped.append))

    assert not [item for item in found if isinstance(item, Rejection)]
    [turn] = [item for item in found if isinstance(item, TranscriptTurn)]
    assert (turn.user_text, turn.assistant_text) == ("Hi. My parcel is late.", "I see.")
    seconds = turn.occurred_at and (turn.occurred_at - STARTED_AT).total_seconds()
    assert seconds == first_second
    assert {item.line for item in skipped} == skipped_lines


@pytest.mark.parametrize(
    "label", ["Unknown Speaker  0:12", "[Ben] 14:04:12", "Ben (00:12):", "02/03/2026, 14:06 - Ben:"]
)
def test_an_unknown_speaker_of_a_tool_is_rejected_with_the_lines_after_it(label: str) -> None:
    text = f"Dana Whitlock  0:03\nHi.\n{label}\nsecret\n\nJuno  0:15\nYes?\n"
    found = list(read_transcript(io.BytesIO(text.encode()), "call.txt", OPTIONS))

    turns = [(item.user_text, item.assistant_text) for item in found if isinstance(item, TranscriptTurn)]
    assert turns == [("Hi.", "Yes?")]
    assert [item.line for item in found if isinstance(item, Rejection)] == [3, 4]
    assert "secret" not in "".join(map(str, found[:2]))


def test_words_behind_a_time_or_a_closing_line_are_not_the_last_speakers() -> None:
    text = "Dana Whitlock: Hi.\n00:05:00\nsecret\nJuno: Yes?\nMeeting ended after 00:12:34\nsecret\n"
    found = list(read_transcript(io.BytesIO(text.encode()), "call.txt", OPTIONS))

    turns = [(item.user_text, item.assistant_text) for item in found if isinstance(item, TranscriptTurn)]
    assert turns == [("Hi.", "Yes?")]
    assert [item.line for item in found if isinstance(item, Rejection)] == [3, 6]


def test_dates_that_may_be_read_in_two_ways_give_no_time() -> None:
    text = "02/03/2026, 14:04 - Dana Whitlock: Hi.\n04/03/2026, 14:05 - Juno: Yes?\n"
    [turn] = read_transcript(io.BytesIO(text.encode()), "call.txt", OPTIONS)

    assert isinstance(turn, TranscriptTurn)
    assert turn.occurred_at is None
