"""Text analysis: which texts give the same terms, which do not, and that no text makes it fail."""

# ruff: noqa: RUF001 - some of these tests are about letters that look alike

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoair_index import extract_terms
from memoair_index.analysis import split_words, stable_hash, to_term_ids
from memoair_index.folding import fold

MEGABYTE = 1 << 20
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # including lone surrogates


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Boots", "BOOTS"),
        ("returned", "returns"),
        ("café", "cafe"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "café"),
        ("Ångström", "angstrom"),
        ("Straße", "STRASSE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("Ёлка", "елка"),
        ("İstanbul", "istanbul"),
        ("ﬁnest", "finest"),
        ("Ｂｏｏｔｓ", "boots"),
        ("𝐁𝐎𝐎𝐓𝐒", "boots"),
        ("Dana's", "Dana"),
        ("the boss's", "boss"),
        ("Dana\N{RIGHT SINGLE QUOTATION MARK}s", "Dana's"),
        ("O\N{RIGHT SINGLE QUOTATION MARK}Brien", "o'brien"),
        ("O'Brien", "obrien"),
        ("size nine", "Size: nine!"),
    ],
)
def test_variant_spellings_give_the_same_terms(one: str, other: str) -> None:
    assert extract_terms(one) == extract_terms(other)
    assert extract_terms(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("4711", "4712"), ("3.50", "35"), ("size nine", "size ten"), ("résumé", "result"), ("мир", "мор")],
)
def test_different_words_give_different_terms(one: str, other: str) -> None:
    assert extract_terms(one) != extract_terms(other)


@pytest.mark.parametrize("number", ["4711", "3.50", "10:30", "1,000", "1,234.56", "٤٧١١"])
def test_a_number_is_one_term(number: str) -> None:
    assert len(extract_terms(f"it was {number}, okay?")) == 1


@pytest.mark.parametrize(
    "word",
    ["straße", "привет", "שלום", "مرحبا", "أحمد", "हिन्दी", "Tiếng", "Ελλάδα"],
)
def test_a_word_of_a_script_with_spaces_is_one_term(word: str) -> None:
    assert len(extract_terms(word)) == 1


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("我想退货", ["我想", "想退", "退货"]),
        ("学", ["学"]),
        ("がっこう", ["がっ", "っこ", "こう"]),
        ("학교에서", ["학교", "교에", "에서"]),
        ("iPhone手机壳2个", ["iphon", "手机", "机壳", "2", "个"]),
        ("ที่นี่", ["ที", "ี่", "่น", "นี", "ี่"]),
    ],
)
def test_scripts_without_spaces_are_indexed_by_pairs_of_characters(text: str, terms: list[str]) -> None:
    assert extract_terms(text) == terms


def test_a_long_text_without_spaces_is_indexed_to_its_end() -> None:
    text = "".join(chr(0x4E00 + number) for number in range(300))
    assert len(set(extract_terms(text))) >= 290


@pytest.mark.parametrize("word", ["أحمد", "हिन्दी", "がっこう", "한국어", "Tiếng", "é"])
def test_composed_and_decomposed_spellings_give_the_same_terms(word: str) -> None:
    assert extract_terms(unicodedata.normalize("NFC", word)) == extract_terms(unicodedata.normalize("NFD", word))


def test_right_to_left_words_keep_the_order_of_the_text() -> None:
    assert extract_terms("שלום עולם boots") == ["שלום", "עולם", "boot"]


@pytest.mark.parametrize(
    "text",
    [
        "What was it, then?",
        "Um, uh, okay, thank you, please!",
        "DON'T",
        "don\N{RIGHT SINGLE QUOTATION MARK}t",
        "It's what you're about.",
        "THE the The",
    ],
)
def test_stop_words_give_no_terms(text: str) -> None:
    assert extract_terms(text) == []


@pytest.mark.parametrize(
    "text", ["", " \t\r\n", "...!?", "___", "'", "''", "👢👢", "👩‍👩‍👧", "🇩🇪", "\ud800", "\x00\x07"]
)
def test_a_text_without_words_gives_no_terms(text: str) -> None:
    assert extract_terms(text) == []


def test_adjacent_emoji_are_not_part_of_a_word() -> None:
    assert extract_terms("boots👢 are❤️ red") == extract_terms("boots are red")


def test_repeated_words_are_kept_in_order() -> None:
    assert extract_terms("red boots, blue boots") == ["red", "boot", "blue", "boot"]


def test_a_megabyte_of_words_and_a_one_megabyte_word_are_analyzed() -> None:
    assert len(extract_terms("boots " * (MEGABYTE // 6))) == MEGABYTE // 6
    assert len(extract_terms("b" * MEGABYTE)) == 1
    assert len(extract_terms("é" * MEGABYTE)) == 1
    assert extract_terms("'" * MEGABYTE) == []
    assert len(extract_terms("1." * (MEGABYTE // 2))) == 1


def test_terms_hold_no_upper_case_letter_of_unicode() -> None:
    all_letters = " ".join(filter(str.isalnum, map(chr, range(sys.maxunicode + 1))))
    assert [term for term in extract_terms(all_letters) if term != term.casefold()] == []


@given(ANY_TEXT)
@settings(deadline=None)
def test_terms_of_any_text_are_not_empty_and_hold_no_spaces(text: str) -> None:
    for term in extract_terms(text):
        assert term
        assert not any(character.isspace() for character in term)


@given(st.text(st.one_of(st.sampled_from("aZ09'.,:_ -"), st.characters(max_codepoint=127))))
@settings(max_examples=300)
def test_the_fast_path_for_ascii_finds_the_same_words_as_unicode(text: str) -> None:
    assert split_words(f"{text} \N{CYRILLIC SMALL LETTER ZHE}") == [*split_words(text), "\N{CYRILLIC SMALL LETTER ZHE}"]


@given(st.lists(ANY_TEXT, max_size=4))
@settings(deadline=None)
def test_terms_of_a_text_equal_the_terms_of_its_lines(lines: list[str]) -> None:
    assert extract_terms("\n".join(lines)) == [term for line in lines for term in extract_terms(line)]


@pytest.mark.parametrize("text", ["a" * 65, "é" * 200, "١" * 200, "1" * MEGABYTE])
def test_words_are_truncated_at_64_characters(text: str) -> None:
    assert extract_terms(text) == extract_terms(text[:64])
    assert extract_terms(text[:64]) != extract_terms(text[:63])


@given(ANY_TEXT)
@settings(deadline=None)
def test_folding_is_idempotent(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(ANY_TEXT, st.text(max_size=3))
@settings(deadline=None)
def test_hashes_are_stable_64_bit_numbers_without_collisions(text: str, other: str) -> None:
    assert stable_hash(text) == stable_hash("".join(text))
    assert 0 <= stable_hash(text) < 2**64
    encoded = [value.encode(errors="replace") for value in (text, other)]
    assert (stable_hash(text) == stable_hash(other)) == (encoded[0] == encoded[1])


def test_hashes_equal_those_in_existing_files() -> None:
    assert {text: stable_hash(text) for text in ("", "boot", "שלום")} == {
        "": 0xB4B2797457A0A6E4,
        "boot": 0x4F678CBD270A9C4F,
        "שלום": 0xAB67FA0BA34742F7,
    }


@given(ANY_TEXT)
@settings(deadline=None)
def test_term_ids_are_the_hashes_of_the_terms(text: str) -> None:
    assert to_term_ids(split_words(fold(text))) == [stable_hash(term) for term in extract_terms(text)]
