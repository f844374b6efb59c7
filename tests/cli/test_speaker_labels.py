"""Who says a line: no line goes on with the speaker before it unless nothing in it looks like a speaker."""

import io
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoair_transcripts import Rejection, SkippedItem, TranscriptOptions, TranscriptTurn, read_transcript

UNKNOWN = "the speaker is neither the caller nor the agent; set the labels (callers, assistants)"
MARKED = "begins like an utterance (a time, a bullet, bold print), but names no speaker"
BOTH = TranscriptOptions(user_id="ana", callers=("Dana Whitlock",), assistants=("Juno",))
ONE = TranscriptOptions(user_id="ana", callers=("Dana",))


def read(
    text: str, options: TranscriptOptions = BOTH, name: str = "call.txt"
) -> tuple[list[tuple[str, str]], list[tuple[int, str]]]:
    """Return the words of both sides, and the lines and reasons of rejections."""
    found = list(read_transcript(io.BytesIO(text.encode()), name, options))
    turns = [(item.user_text, item.assistant_text) for item in found if isinstance(item, TranscriptTurn)]
    return turns, [(item.line, item.reason) for item in found if isinstance(item, Rejection)]


def cue(*texts: str) -> str:
    cues = (f"00:0{number}.000 --> 00:0{number}.900\n{text}\n" for number, text in enumerate(texts))
    return "WEBVTT\n\n" + "\n".join(cues)


NAMES = [
    "Joost van der Berg",
    "José Álvarez",
    "ben kaplan",
    "J. R. Okafor",
    "A.",
    "Okafor, Ben",
    "Ben Kaplan MD, PhD",
    "Siân O\u2019Neil",
    "Maria d'Arcy",
    "de la Cruz",
    "Ben-Ami",
    "Me",
    "+44 20 7946 0999",
    "tel:+442079460999",
    "ben@example.com",
    "sip:ben@example.com",
    "田中",
    "محمد بن سلمان",
    "Иван Петров",
    "Nguyễn Thị Hoa",
    "สมชาย ใจดี",
    "Maria de los Angeles Fernández de la Vega y Ortega",
]
LINES = [
    "{}: No.",
    "{}:No.",
    "{} : No.",
    "**{}:** No.",
    "**{}**: No.",
    "*{}:* No.",
    "<b>{}</b>: No.",
    "- {}: No.",
    "• {}: No.",
    ">> {}: No.",
    "[00:12] {}: No.",
    "00:12 {}: No.",
    "{} (00:12): No.",
    "{}: (00:12) No.",
    "\u200e{}\u200f: No.",
    "{} (she/her): No.",
    "{} [Acme, Leeds]: No.",
    "{}  0:12\nNo.",
    "{} | 00:12\nNo.",
    "[{}] 14:04:09\nNo.",
    "**{}**\nNo.",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_speaker_is_recognized_by_any_name_in_any_line(name: str, form: str) -> None:
    options = TranscriptOptions(user_id="ana", callers=(name,), assistants=("Juno",))
    for line in LINES:
        for written in (unicodedata.normalize(form, name), name.upper()):
            found = read(f"Juno: Hi.\n{line.format(written)}\nAnd more.\n", options)
            assert found == ([("", "Hi."), ("No. And more.", "")], []), line


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_given_never_goes_on_with_the_speaker_before_it(name: str) -> None:
    for line in LINES:
        turns, rejected = read(f"Dana Whitlock: Hi.\n{line.format(name)}\nAnd more.\nJuno: Yes?\n")
        assert turns == [("Hi.", "Yes?")], line
        assert rejected[0] == (2, UNKNOWN), line


# Not those in small letters only, and those that also may be words.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "ben kaplan"])
def test_any_other_name_is_the_other_side_if_one_is_given(name: str) -> None:
    for line in ("{}: No.", "- {}: No.", "**{}:** No.", "[00:12] {}: No.", "{}  0:12\nNo."):
        assert read(f"Dana: Hi.\n{line.format(name)}\nAnd more.\n", ONE) == ([("Hi.", "No. And more.")], []), line


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[00:12] No.", MARKED),
        ("00:12 No.", MARKED),
        ("- No.", MARKED),
        ("— No.", MARKED),
        (">> No.", MARKED),
        ("• No.", MARKED),
        ("10:30 is fine", MARKED),
        ("**Note** well", UNKNOWN),
        ("[Laughs] yes", UNKNOWN),
        ("here is the thing: no", UNKNOWN),
        ("It is on my Bill: no", UNKNOWN),
        ("a note from the desk: no", UNKNOWN),
        ("Monday 10:30 works", UNKNOWN),
        ("住所は次のとおりです、はい\uff1a東京", UNKNOWN),
    ],
)
@pytest.mark.parametrize("options", [BOTH, ONE])
def test_a_line_that_looks_labeled_and_names_no_speaker_is_rejected(
    line: str, reason: str, options: TranscriptOptions
) -> None:
    caller = options.callers[0]
    turns, rejected = read(f"{caller}: Hi.\n{line}\nmore\nJuno: Yes?\n", options)

    assert turns == [("Hi.", "Yes?")]
    assert rejected == [(2, reason), (3, "continues a line that was rejected")]


@pytest.mark.parametrize(
    "line",
    [
        "at 10:30 it came",
        "It came at 10:30",
        "see https://example.org/x",
        "well :) yes",
        "[laughs]",
        "(softly) no",
        "*sighs* I know",
        "Is it late? Really late: two weeks",
        "the options are: this, that",
        "and I waited there for two whole weeks and nobody came: nobody",
    ],
)
def test_words_that_only_contain_a_colon_or_a_time_go_on(line: str) -> None:
    assert read(f"Dana Whitlock: Hi.\n{line}\nJuno: Yes?\n") == ([(f"Hi. {line}", "Yes?")], [])


@pytest.mark.parametrize("divider", ["\t", " | ", "> ", "\u2236 ", " \ua789 ", "\ufe55"])
def test_other_dividers_separate_a_speaker_from_words(divider: str) -> None:
    text = f"Dana Whitlock{divider}Hi.\nBen Kaplan{divider}No.\nJuno{divider}Yes?\n"

    assert read(text) == ([("Hi.", "Yes?")], [(2, UNKNOWN)])


def test_a_dash_separates_speakers_from_words_only_in_files_without_colons() -> None:
    assert read("Dana Whitlock - Hi.\nJuno \u2013 Yes?\n") == ([("Hi.", "Yes?")], [])
    assert read("Dana Whitlock: Hi.\nJuno - is late.\nJuno: Yes?\n") == ([("Hi.", "Yes?")], [(2, MARKED)])


def test_an_unknown_name_on_a_line_of_its_own_is_rejected_where_names_stand_so() -> None:
    text = "Dana Whitlock\nHi.\nBen Kaplan\nNo.\nJuno\nYes?\n"

    assert read(text) == ([("Hi.", "Yes?")], [(3, UNKNOWN), (4, "continues a line that was rejected")])
    assert read("Dana Whitlock: Hi.\nBen Kaplan\nJuno: Yes?\n") == ([("Hi. Ben Kaplan", "Yes?")], [])


def test_people_who_differ_only_in_parentheses_are_not_taken_for_one() -> None:
    text = "Dana (Leeds): One.\nDana (York): Two.\nJuno: Yes?\nDana (agent): Three.\n"
    options = TranscriptOptions(user_id="ana", callers=("Dana",), assistants=("Juno",))

    assert read(text, options) == ([("One.", "Yes?")], [(2, UNKNOWN), (4, UNKNOWN)])


def test_a_label_in_small_letters_that_comes_back_is_a_speaker() -> None:
    text = "dana: Hi.\njuno bot: Hello.\ndana: Yes.\njuno bot: Well.\n"

    assert read(text, ONE) == ([("Hi.", "Hello."), ("Yes.", "Well.")], [])


def test_a_known_speaker_in_the_middle_of_a_line_begins_to_speak() -> None:
    assert read("Dana Whitlock: Hi. Juno: Hello.\nDana Whitlock: I said: Juno is late.\n") == (
        [("Hi.", "Hello."), ("I said: Juno is late.", "")],
        [],
    )


@pytest.mark.parametrize(
    "text",
    [
        "Dana Whitlock: Hi.\nJuno: Hello.",
        "- Dana Whitlock: Hi.\n- Juno: Hello.",
        "&gt;&gt; DANA WHITLOCK: Hi.\n&gt;&gt; JUNO: Hello.",
        "Dana Whitlock: Hi. Juno: Hello.",
        "<v Dana Whitlock>Hi.</v>\n<v Juno>Hello.</v>",
        "<v Dana Whitlock>Hi.\nJuno: Hello.",
        "<b>Dana Whitlock:</b> Hi.\n<i>Juno: Hello.</i>",
    ],
)
def test_two_speakers_in_one_cue_are_two(text: str) -> None:
    assert read(cue(text, "More."), BOTH, "call.vtt") == ([("Hi.", "Hello. More.")], [])


@pytest.mark.parametrize(
    "text",
    [
        "Dana Whitlock: Hi.\n- Hello.",
        "Dana Whitlock: Hi.\nBen Kaplan: Hello.",
        "Dana Whitlock: Hi.\nben: Hello.",
        "<v Dana Whitlock>Hi.\n- Hello.",
        "<v Dana Whitlock>Hi.</v> Hello.",
        "<v Dana Whitlock>Hi.</v>\n<v Ben>Hello.</v>",
        "Dana Whitlock: Hi.\n&gt;&gt; Hello.",
    ],
)
def test_a_second_speaker_of_a_cue_who_is_unknown_is_rejected(text: str) -> None:
    turns, rejected = read(cue(text, "More.", "Juno: Yes?"), BOTH, "call.vtt")

    assert turns == [("Hi.", "Yes?")]
    assert len(rejected) == 2  # and what goes on with it
    assert not [reason for _, reason in rejected if "ello" in reason]


def test_a_cue_with_an_unknown_name_behind_a_sentence_is_rejected() -> None:
    assert read(cue("Dana Whitlock: Hi. Ben Kaplan: No.", "Juno: Yes?"), BOTH, "call.vtt") == (
        [("", "Yes?")],
        [(3, UNKNOWN)],
    )


def test_a_voice_may_say_what_looks_like_a_label_but_not_name_another_speaker() -> None:
    text = cue("<v Dana Whitlock>My number: 5.\nAnd: this.", "<v Dana Whitlock>Juno: Hello.")

    assert read(text, BOTH, "call.vtt") == (
        [("My number: 5. And: this.", "")],
        [(7, "the voice and the label name two speakers")],
    )


# Words are small and without colons; what a line may begin with is drawn from what tools and people write.
WORDS = st.text("abcdeäß .,", min_size=1, max_size=20).map(lambda text: f"w{text.strip()}")
STRANGER = st.sampled_from([line.format(name) for line in LINES[:16] for name in NAMES if name != "Me"])
ITEMS = st.lists(st.tuples(st.sampled_from(["caller", "agent", "stranger", "more"]), WORDS, STRANGER), max_size=12)


@given(ITEMS, st.booleans())
@settings(max_examples=200, deadline=None)
def test_words_are_the_last_named_speakers_or_rejected(items: list[tuple[str, str, str]], is_srt: bool) -> None:
    lines, expected, speaker = [], {"caller": [], "agent": [], "": []}, ""
    labels = {"caller": "Dana Whitlock: ", "agent": "Juno: ", "more": "", "stranger": ""}
    for number, (kind, words, stranger) in enumerate(items):
        marked = f"{words}{number}"
        speaker = kind if kind in ("caller", "agent") else "" if kind == "stranger" else speaker
        expected[speaker].append(marked)
        lines.append(f"{labels[kind]}{stranger + ' ' if kind == 'stranger' else ''}{marked}")
    if is_srt:
        text = "\n".join(
            f"{number}\n00:00:{number:02},000 --> 00:00:59,000\n{line}\n" for number, line in enumerate(lines)
        )
    else:
        text = "\n".join(lines)
    turns, rejected = read(text, BOTH, "call.srt" if is_srt else "call.txt")

    assert " ".join(user for user, _ in turns if user).split() == " ".join(expected["caller"]).split()
    assert " ".join(agent for _, agent in turns if agent).split() == " ".join(expected["agent"]).split()
    assert len(rejected) == len(expected[""])


def test_what_is_passed_over_is_reported_without_its_words() -> None:
    skipped: list[SkippedItem] = []
    text = "Juno: Hi.\nTranscribed by https://otter.ai\n"
    found = list(read_transcript(io.BytesIO(text.encode()), "call.txt", BOTH, on_skip=skipped.append))

    assert len(found) == 1
    assert skipped == [SkippedItem("call.txt", 2, "written by the tool, not said")]
