"""Alternate forms: what is said and written in many ways shares a form, and what means something else does not."""

# ruff: noqa: RUF001 - some of these texts are Russian

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.timing import least

from memoair_index import Document, Index, Query
from memoair_index.alternate_forms import alternate_forms
from memoair_index.analysis import STOP_WORDS, document_terms, query_terms, split_words
from memoair_index.folding import fold

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # including lone surrogates


def forms_of(text: str) -> set[str]:
    """Return the alternate forms of a text, and its words that hold a digit or have several letters."""
    folded = fold(text)
    return {*alternate_forms(folded, STOP_WORDS), *split_words(folded)}


def distinctive_forms(text: str) -> set[str]:
    """Return the forms that tell a number, code, time or date from others: not the parts of two or three digits."""
    return {form for form in forms_of(text) if len(form) > 3 and not form.isalpha() and not form.startswith("@~")}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        # Telephone numbers
        ("+1 415.555.2671", "four one five five five five two six seven one"),
        ("(415) 555-2671", "415 555 2671"),
        ("415-555-2671", "four fifteen five five five twenty six seventy one"),
        ("+49 171 12 34 567", "0171 1234567"),
        ("0049 171 1234567", "oh one seven one one two three four five six seven"),
        ("+44 (0)20 7946 0018", "020 7946 0018"),
        ("plus four nine one seven one one two three four five six seven", "0171 1234567"),
        ("555-0134", "+1 415 555 0134"),
        ("0800 123 456", "oh eight hundred one two three four five six"),
        # Orders
        ("48213377", "four eight two one double three double seven"),
        ("48213377", "forty eight twenty one thirty three seventy seven"),
        ("order 4821 3377", "48213377"),
        ("10045", "one double zero four five"),
        ("77712", "triple seven one two"),
        ("4155", "four one five, five"),
        ("٤٧١١", "4711"),
        # Amounts
        ("$1,234.50", "1.234,50 Euro"),
        ("$1,234.50", "one thousand two hundred thirty four dollars and fifty cents"),
        ("$19.99", "nineteen dollars ninety nine"),
        ("£99.99", "ninety nine ninety nine"),
        ("2,75 kg", "two point seven five kilos"),
        ("1.5 million", "1,500,000"),
        ("1'250'000", "1 250 000"),
        ("120,000", "one hundred twenty thousand"),
        ("2500", "twenty five hundred"),
        ("1999", "nineteen ninety nine"),
        ("2,500", "two and a half thousand"),
        ("2,500", "2.5k"),
        ("1,500,000", "one and a half million"),
        ("1,500,000", "one point five million"),
        ("$1,299.50", "1 299,50 EUR"),
        ("1299.50", "one thousand two hundred ninety nine fifty"),
        ("2005", "two thousand and five"),
        # Codes
        ("BA-117", "b a one one seven"),
        ("BA 117", "flight ba117"),
        ("AB-12", "a b twelve"),
        ("AB-12", "AB dash 12"),
        ("AB-12", "alpha bravo one two"),
        ("AB-12", "A as in apple, B as in bravo, one two"),
        ("INV/2024/0187", "i n v twenty twenty four zero one eight seven"),
        ("QX7731", "ticket QX 77 31"),
        ("QX7731", "q x double seven three one"),
        ("RMA-55-B", "rma 55 b"),
        ("DE89370400440532013000", "iban de89 3704 0044 0532 0130 00"),
        # Dates
        ("14 Jan", "January 14th"),
        ("14-Jan-2026", "2026-01-14"),
        ("01/14/2026", "14.1.2026"),
        ("2026/01/14", "the fourteenth of January 2026"),
        ("Jan 14 '26", "14.1.26"),
        ("14.01.", "14 January"),
        ("14. Januar 2026", "January 14, 2026"),
        ("1er mars", "March 1"),
        ("14 de enero de 2026", "2026-01-14"),
        ("14 de janeiro", "14 gennaio"),
        ("14 ianuarie", "January 14"),
        ("14 января 2026", "14.01.2026"),
        ("14 Ocak", "January 14"),
        ("14 Kasım", "November 14"),
        ("2026年1月14日", "2026-01-14"),
        ("twenty-first of june", "June 21"),
    ],
)
def test_what_means_the_same_shares_a_form(written: str, said: str) -> None:
    assert distinctive_forms(written) & distinctive_forms(said)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("miller", "m i double l e r"),
        ("sean", "S. E. A. N."),
        ("schmidt", "S-C-H-M-I-D-T"),
        ("305", "three oh five"),
        ("777", "triple seven"),
        ("12b", "12 B"),
        ("21st", "the twenty-first"),
        ("9th", "the ninth"),
        ("3.50", "three fifty"),
        ("2,5 kg", "two point five kilos"),
        ("12.5", "twelve and a half"),
    ],
)
def test_short_forms_are_shared_too(written: str, said: str) -> None:
    assert forms_of(written) & forms_of(said)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("half past three", "3:30"),
        ("3:30 pm", "15:30"),
        ("three thirty in the afternoon", "15h30"),
        ("15.30 Uhr", "15 Uhr 30"),
        ("3.30pm", "fifteen thirty, so 15:30"),
        ("a quarter past nine", "9:15"),
        ("quarter to nine", "8:45"),
        ("ten to four", "3:50"),
        ("half nine", "9:30"),
        ("half nine in the morning", "9.30 am"),
        ("five o'clock", "5 pm"),
        ("seven in the morning", "7 a.m."),
        ("noon", "12:00"),
        ("midnight", "12 am"),
    ],
)
def test_clock_times_share_a_form(one: str, other: str) -> None:
    assert {form for form in forms_of(one) & forms_of(other) if form.startswith("@")}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 4711", "order 4712"),
        ("415 555 2671", "415 555 2672"),
        ("AB-12", "AC-12"),
        ("$1,234.50", "$1,234.60"),
        ("14 Jan 2026", "14 Feb 2026"),
        ("14.1.2026", "15.1.2026"),
        ("from 100 to 200, 300 and 400", "200300"),
        ("room 12, 14 guests", "1214"),
        ("We were 84. 35 more came.", "8435"),
        ("between 10 and 20", "1020"),
        ("2 out of 3", "2 October"),
        ("may 8:30", "8 May"),
        ("miller", "m i l e r"),
    ],
)
def test_what_means_something_else_shares_no_form(one: str, other: str) -> None:
    shared = distinctive_forms(one) & distinctive_forms(other)
    # A document's dates have a form of the day alone, for questions that leave the month out.
    assert not {form for form in shared if form not in {"4155", "415555", "2026", "@d14"}}


@pytest.mark.parametrize(
    ("document", "question", "is_found"),
    [
        ("Closed on 9 January 2026.", "are you open on the ninth?", True),
        ("Closed on 9.1.2026.", "are you open on the 9th", True),
        ("Closed on 9 January.", "are you open on 9 February?", False),
        ("Closed on 9 January.", "is it on the ninth try?", False),
        ("Closed on 19 January.", "are you open on the ninth?", False),
    ],
)
def test_a_day_without_its_month_finds_dates_of_that_day(document: str, question: str, is_found: bool) -> None:
    asked = set(alternate_forms(fold(question), STOP_WORDS, is_question=True))
    assert bool({form for form in asked & forms_of(document) if form.startswith("@")}) == is_found


@pytest.mark.parametrize(
    ("text", "unwanted"), [("WX4471K", "4471000"), ("half nine bottles", "@~9:30"), ("5 km", "5000")]
)
def test_what_only_looks_like_a_number_or_time_has_no_form(text: str, unwanted: str) -> None:
    assert unwanted not in forms_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "i would like to return the boots please",
        "May I come in? It may march on.",
        "it was the first time in march",
        "one of the two red boots",
        "a hotel in india with golf and tango",
    ],
)
def test_ordinary_text_has_no_forms(text: str) -> None:
    assert alternate_forms(fold(text), STOP_WORDS) == []


@given(digits=st.text("0123456789", min_size=4, max_size=16), data=st.data())
def test_a_number_shares_a_form_with_its_digits_however_it_is_separated(digits: str, data: st.DataObject) -> None:
    parts = []
    rest = digits
    while rest:
        length = data.draw(st.integers(2, 5))
        # A comma or point before three digits, or before the last one or two, makes another number.
        parts.append(rest[:length])
        rest = rest[length:]
    separators = st.sampled_from([" ", "-", " - ", "/", " / "])
    written = parts[0] + "".join(data.draw(separators) + part for part in parts[1:])
    has_date = re.search(r"(?<!\d)\d{1,4}([-/])\d{1,2}\1\d{1,4}(?!\d)", written)
    assert digits in forms_of(f"it is {written} okay") or has_date


NAMES = dict(zip("0123456789", "zero one two three four five six seven eight nine".split(), strict=True))


@given(digits=st.text("0123456789", min_size=3, max_size=16))
def test_a_number_shares_a_form_with_its_digits_said_one_by_one(digits: str) -> None:
    assert digits in forms_of(f"it is {' '.join(NAMES[digit] for digit in digits)} okay")


@given(ANY_TEXT)
def test_no_text_makes_it_fail(text: str) -> None:
    forms = alternate_forms(fold(text), STOP_WORDS)
    assert len(forms) == len(set(forms))


PIECES = (
    *(
        "1",
        "12",
        "1,234",
        "4.5",
        "double",
        "triple",
        "five",
        "twenty",
        "hundred",
        "thousand",
        "million",
        "point",
        "and",
    ),
    *(
        "a",
        "b",
        "AB",
        "oh",
        "pm",
        "half",
        "past",
        "jan",
        "the",
        "ninth",
        "of",
        "2026",
        "2026-01-14",
        "dollars",
        "as in",
    ),
    *(
        "alpha",
        "bravo",
        "for",
        "dash",
        "uhr",
        "月",
        "日",
        "'",
        ",",
        ".",
        "-",
        "/",
        "(",
        "\n",
        "\N{SUPERSCRIPT TWO}",
        "٣",
    ),
)


@given(st.lists(st.sampled_from(PIECES), max_size=60), st.sampled_from([" ", "", "-"]))
@settings(max_examples=300)
def test_no_mixture_of_numbers_and_words_makes_it_fail(pieces: list[str], separator: str) -> None:
    alternate_forms(fold(separator.join(pieces)), STOP_WORDS)


@pytest.mark.parametrize("piece", [*PIECES, "1 ", "1" + " " * 50, "a ", "two point five ", "one million ", "14 jan "])
def test_the_time_is_linear(piece: str) -> None:
    def measure_s(count: int) -> float:
        text = fold("two point one " + (piece + " ") * count)
        started_at = time.thread_time()
        alternate_forms(text, STOP_WORDS)
        return time.thread_time() - started_at

    measure_s(10)
    limit_s = 32 * max(measure_s(1_000) for _ in range(2)) + 0.3  # four times what eight times the text should take
    assert least(lambda: measure_s(8_000), limit_s) < limit_s


NAMES_IN_CAPITALS = (
    ("Ask the IT department about it.", "is the it department in", "it is in"),
    ("Ask the IT department about it.", "IT", "it"),
    ("Ship it to the US by sea.", "from the US", "tell us"),
    ("Vitamin A is in carrots.", "vitamin a", "a vitamin"),
    ("We have size S only.", "size s", "the size's"),
)


@pytest.mark.parametrize(("document", "question", "other"), NAMES_IN_CAPITALS)
def test_a_stop_word_that_is_a_name_is_found(document: str, question: str, other: str) -> None:
    def names_found(asked: str) -> int:
        forms = set(document_terms(document, fold(document), split_words(fold(document))).forms)
        return len(forms & {term for variants in query_terms(asked, split_words(fold(asked)), ()) for term in variants})

    assert names_found(question)
    assert not names_found(other)


def test_a_text_in_capitals_has_no_names() -> None:
    text = "CALL US, WE DO IT"
    assert document_terms(text, fold(text), split_words(fold(text))).forms == []


def test_a_document_is_found_by_what_a_caller_says() -> None:
    index = Index()
    index.add(
        Document(f"{number}", f"Order {number} was sent to the customer.") for number in range(48_213_300, 48_213_400)
    )
    (hit,) = index.search(Query("where is four eight two one double three seven seven"), 1)
    assert hit.document.id == "48213377"
