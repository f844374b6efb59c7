"""The included patterns: numbers are removed, similar text stays, and any text is processed quickly."""

import random
import re
import time
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.timing import least

from memoair_voice_sync.redaction import KINDS, redact, redactor

everything = redactor(*KINDS)
PHONE, CARD, IBAN, EMAIL = "[phone number]", "[card number]", "[IBAN]", "[e-mail address]"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("call +44 20 7946 0123 please", f"call {PHONE} please"),
        ("Call +442079460123, or don't.", f"Call {PHONE}, or don't."),
        ("00 49 171 1234567", PHONE),
        ("0049 (0)171 1234567", PHONE),
        ("+1 (555) 234-5678", PHONE),
        ("tel:+15552345678", f"tel:{PHONE}"),
        ("0171 1234567.", f"{PHONE}."),
        ("(0171) 123 45 67", PHONE),
        ("01.23.45.67.89", PHONE),
        ("01 23 45 67 89", PHONE),
        ("020-7946-0123", PHONE),
        ("555 234 5678", PHONE),
        ("(555) 234-5678", PHONE),
        ("1-800-234-5678", PHONE),
        ("5552345678", PHONE),
        ("It's 555-0134", f"It's {PHONE}"),
        ("0 7 9 4 6 1 2 3 4 5 6", PHONE),
        ("0, 7, 9, 4, 6, 1, 2, 3, 4, 5, 6", PHONE),
        ("\u0660\u0661\u0667\u0661 \u0661\u0662\u0663\u0664\u0665\u0666\u0667", PHONE),
        ("4242 4242 4242 4242", CARD),
        ("4242, 4242, 4242, 4242.", f"{CARD}."),
        ("card 4242-4242-4242-4242 ok", f"card {CARD} ok"),
        ("3782 822463 10005", CARD),
        ("378282246310005", CARD),
        ("0171 123 4567, 4242 4242 4242 4242", f"{PHONE}, {CARD}"),
        ("0171 1234567+442079460123", f"{PHONE}{PHONE}"),
        ("5552345678,5552345678", f"{PHONE},{PHONE}"),
        ("(call 0171 1234567)", f"(call {PHONE})"),
        ("order 12, 4242 4242 4242 4242", f"order 12, {CARD}"),
        ("+4915112345678 0171 1234567", f"{PHONE} {PHONE}"),
        ("DE89 3704 0044 0532 0130 00 is mine", f"{IBAN} is mine"),
        ("gb82west12345698765432", IBAN),
        ("NO93 8601 1117 947", IBAN),
        ("dana@example.com.", "dana@example.com."),
        ("nothing", "nothing"),
        ("", ""),
    ],
)
def test_numbers_are_replaced_by_their_kind(said: str, kept: str) -> None:
    assert redact(said) == kept


@pytest.mark.parametrize(
    "said",
    [
        "order 48213377",
        "on 2026-03-02 14:30, at 14:30:15",
        "2026-03-02T14:30:15.250Z",
        "02-03-2026 14:30",
        "02/03/2026 14:30",
        "2.3.2026 um 14 Uhr 30",
        "1792384723",  # seconds since 1970
        "1792384723000",
        "1,234,567.89 euros",
        "3.14159265358979",
        "192.168.100.200",
        "from 100 to 200, then 300 and 400",
        "5 10 15 20 25 30 35 40 45",
        "4242 4242 4242 4243",  # its check digit is wrong
        "DE88 3704 0044",  # too short
        "version 10.4.2",
        "A4B7C9D1E2F3",
        "in 1984 or 2001",
    ],
)
def test_text_that_only_resembles_a_number_is_kept(said: str) -> None:
    assert redact(said) == said


def test_only_the_chosen_kinds_are_redacted() -> None:
    said = "dana@example.com, +44 20 7946 0123, 4242 4242 4242 4242, DE89 3704 0044 0532 0130 00"
    assert redactor("email")(said) == said.replace("dana@example.com", EMAIL)
    assert redactor("card", "email")(said).count("[") == 2
    assert everything(said) == f"{EMAIL}, {PHONE}, {CARD}, {IBAN}"
    assert redactor("iban")("DE88 3704 0044 0532 0130 00") == "DE88 3704 0044 0532 0130 00", (
        "its check digits are wrong"
    )
    for kinds in ((), ("phones",), ("phone", "")):
        with pytest.raises(ValueError, match="iban, card, phone, email"):
            redactor(*kinds)


digits = st.text("0123456789", min_size=1)
around = st.sampled_from(["", "Hi. ", "my number: ", "(", "it is\n", "是", "\u202e"])
behind = st.sampled_from(["", ".", ", thanks", ")", "\n", "?", " and so on", "\u202c"])


@st.composite
def phones(draw: st.DrawFn) -> str:
    drawn = draw(st.text("0123456789", min_size=8, max_size=8))
    separator = draw(st.sampled_from(["", " ", "-", ".", "\u00a0", "\N{EN DASH}"]))
    code = draw(st.sampled_from(["+44", "+1", "+91", "0049", "+351", "+7"]))
    return separator.join([code, f"2{drawn[:1]}", drawn[1:4], drawn[4:]])


@st.composite
def cards(draw: st.DrawFn) -> str:
    begin = draw(st.sampled_from("23456")) + draw(st.text("0123456789", min_size=11, max_size=17))
    doubled = [int(each) * (2 if place % 2 == 0 else 1) for place, each in enumerate(reversed(begin))]
    number = begin + str(-sum(sum(divmod(each, 10)) for each in doubled) % 10)
    separator = draw(st.sampled_from(["", " ", "-", ", ", "\u00a0"]))
    return separator.join(re.findall(".{1,4}", number))


@st.composite
def ibans(draw: st.DrawFn) -> str:
    country, length = draw(st.sampled_from([("DE", 18), ("GB", 18), ("FR", 23), ("MT", 27), ("XX", None)]))
    account = draw(st.text("0123456789ABCXYZ", min_size=length or 11, max_size=length or 27))
    check = 98 - int("".join(str(int(each, 36)) for each in f"{account}{country}00")) % 97
    number = f"{country}{check:02}{account}"
    written = draw(st.sampled_from(["", " "])).join(re.findall(".{1,4}", number))
    return written if draw(st.booleans()) else written.lower()


@given(around, phones() | cards() | ibans(), behind)
@example("", "de468xz040xzy17a", " and so on")  # its check digits are also valid with "and so"
def test_no_digit_of_a_number_remains_in_any_context(before: str, number: str, after: str) -> None:
    kept = redact(f"{before}{number}{after}")

    assert not re.search(r"\d", kept), kept
    assert kept.startswith(before)
    assert kept.endswith(after)


pieces = st.sampled_from(
    [
        "4242",
        " ",
        "-",
        ", ",
        "+",
        "0",
        "00",
        "(",
        ")",
        "DE89",
        "@",
        ".",
        "a",
        "1",
        "555",
        "é",
        "\u0664",
        "\n",
        "2026-03-02",
    ]
)


@given(st.text() | st.lists(pieces | cards() | phones() | ibans(), max_size=12).map("".join))
@example("+1(555)234-5678+1(555)234-5678")
def test_redaction_of_any_text_removes_only_numbers(text: str) -> None:
    kept = everything(text)
    pieces = re.split(r"\[(?:IBAN|card number|phone number|e-mail address|date of birth|security code)\]", kept)
    assert kept == text or len(pieces) > 1
    place = 0
    for piece in pieces:  # the remaining text keeps its order
        place = text.index(piece, place) + len(piece)


@pytest.mark.parametrize(
    "piece",
    [
        "0 ",
        "+",
        "0",
        "1-",
        "(",
        "a@",
        "a.",
        "DE89",
        "DE89 3704 ",
        "4242 ",
        "00 ",
        "+1 (",
        "(((0(((",
        "00-",
        "ab12 ",
        "@a.",
        "5, ",
    ],
)
def test_redaction_takes_linear_time(piece: str) -> None:
    def took_s(length: int) -> float:
        text = piece * (length // len(piece))
        began_at = time.thread_time()
        everything(text)
        return time.thread_time() - began_at

    # Linear time grows about 16 times for 16 times the length; quadratic time grows about 256 times.
    most_s = 64 * least(partial(took_s, 4_000), 0.0)
    assert least(partial(took_s, 64_000), most_s) < most_s


def test_numbers_in_any_order_are_redacted() -> None:
    source = random.Random(1)
    numbers: list[Any] = [("+44 20 7946 0123", PHONE), ("4242 4242 4242 4242", CARD), ("GB82WEST12345698765432", IBAN)]
    for _ in range(50):
        chosen = source.choices(numbers, k=5)
        text = " then ".join(number for number, _ in chosen)
        assert redact(text) == " then ".join(kind for _, kind in chosen)
