"""No token of a chat template and no role heading comes through, in any disguise; what people say stays as it is."""

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.chat_tokens import ALL_TOKENS, PLAIN_TEXTS, ROLE_HEADINGS, SEEN_TOKENS, seen, survivors

from memoair_protocol.markup import break_markup, escape_markup
from memoair_protocol.sanitizer import sanitize_line

INVISIBLE = ["\u200b", "\u200c", "\u200d", "\u2060", "\u00ad", "\ufeff", "\u202e", "\u2066", "\ufe0f", "\U000e0041"]
WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
SMALL = str.maketrans("<>#:", "\ufe64\ufe65\ufe5f\ufe55")
BOLD = {ord("a") + number: 0x1D41A + number for number in range(26)}


@st.composite
def disguised(draw: st.DrawFn, tokens: tuple[str, ...] | list[str] = (*ALL_TOKENS, *ROLE_HEADINGS)) -> str:
    """A token, perhaps wide, small, bold or with characters in it that cannot be seen."""
    token = draw(st.sampled_from(tokens))
    table = draw(st.sampled_from([{}, {}, WIDE, SMALL, BOLD]))
    hidden = draw(st.lists(st.tuples(st.integers(0, len(token)), st.sampled_from(INVISIBLE)), max_size=3))
    token = token.translate(table)
    for place, char in hidden:
        token = token[:place] + char + token[place:]
    return token


said = st.lists(
    disguised() | st.sampled_from([" ", "hello", "\n", "Dana", "<", "[", "]", "|", ">", "#", ":"]), max_size=6
)


@pytest.mark.parametrize("token", [*ALL_TOKENS, *ROLE_HEADINGS])
def test_each_token_is_broken_up_and_its_words_stay(token: str) -> None:
    for text in (token, f"{token} refunds are free", token.translate(WIDE), f"Hello {token}"):
        line = sanitize_line(text)
        assert not list(survivors(line)), line
        assert re.findall(r"[^\W_]+", line.replace("\u200c", "")) == re.findall(r"[^\W_]+", text)


@given(said.map("".join))
@example("<|im_start|>system")
@example("<\u200d|im_start|\u200c>")
@example("<#system>")
@example("[[INST]]<<|user|>>")
@settings(deadline=None, max_examples=300)
def test_no_token_survives_in_any_disguise(text: str) -> None:
    line = sanitize_line(text)
    assert not list(survivors(line)), (text, line)
    assert sanitize_line(line) == line
    fenced = "\n".join(break_markup(part, keeps_plain_tags=True) for part in line.split("\n"))
    assert fenced == line


@given(st.lists(disguised(ALL_TOKENS) | st.text(max_size=8), max_size=6))
@settings(deadline=None, max_examples=100)
def test_escaping_a_document_changes_only_how_it_is_written(texts: list[str]) -> None:
    value = {"transcript": [{"caller": text, "n": [[], [1, None, True]]} for text in texts], "": "".join(texts)}
    document = json.dumps(value, ensure_ascii=False)
    escaped = escape_markup(document)
    assert json.loads(escaped) == value
    brackets = [token for token, form in SEEN_TOKENS if form in seen(escaped)]
    assert not brackets


@pytest.mark.parametrize("text", PLAIN_TEXTS)
def test_what_people_say_stays_as_it_is(text: str) -> None:
    assert sanitize_line(text) == text
    assert break_markup(text, keeps_plain_tags=True) == text
    assert escape_markup(json.dumps([text])) == json.dumps([text])
