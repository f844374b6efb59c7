"""The corpus of lines: every number that is documented is redacted, and everything else stays."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import phonenumbers
import pytest

from memoair_redaction import KINDS, PLACEHOLDERS, Redactor

CORPUS = Path(__file__).parents[1] / "fixtures/redaction"
ANY_PLACEHOLDER = "|".join(map(re.escape, PLACEHOLDERS.values()))
redact_all_kinds = Redactor(KINDS)
# Their national formats are recognized where no word names them.
BARE_REGIONS = (
    "US CA GB DE FR ES IT NL BE CH AT SE NO DK FI PL PT IE GR CZ HU RO MX BR AR CL CO PE AU NZ IN CN JP KR SG HK RU TR "
    "ZA IL AE SA NG KE PH TH MY ID UA VN"
).split()


def read_lines(name: str) -> Iterator[tuple[str, str]]:
    """Yield the section and the text of each line."""
    section = ""
    for line in (CORPUS / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            yield section, line


def read_values() -> Iterator[dict[str, Any]]:
    """Yield the numbers that are split over the values of a structure."""
    for line in (CORPUS / "split.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if not record["kind"].startswith("turns"):
            yield record


@pytest.mark.parametrize(("section", "line"), list(read_lines("removed.txt")))
def test_each_number_is_replaced_and_nothing_else(section: str, line: str) -> None:
    pieces = re.split("[«»]", line)
    assert re.split(ANY_PLACEHOLDER, redact_all_kinds("".join(pieces))) == pieces[::2]


@pytest.mark.parametrize(("section", "line"), list(read_lines("kept.txt")))
def test_a_line_without_such_a_number_stays(section: str, line: str) -> None:
    assert redact_all_kinds(line) == line


@pytest.mark.parametrize("record", list(read_values()), ids=str)
def test_a_number_that_is_split_over_values_is_redacted(record: dict[str, Any]) -> None:
    before = json.dumps(record["value"])
    redacted = redact_all_kinds.redact_value(record["value"])
    assert json.dumps(record["value"]) == before, "the value that was passed has not changed"
    if record["kind"] == "kept" or record.get("kept"):
        assert redacted == record["value"]
        return
    text = json.dumps(redacted, ensure_ascii=False)
    assert re.search(ANY_PLACEHOLDER, text)
    # Times of words stay, and so does an area code without its number.
    digits = re.sub(r'"(?:start|end|confidence)": [\d.]+', "", text)
    assert sum(map(str.isdigit, digits)) <= 3, text


@pytest.mark.parametrize("kind", KINDS)
def test_a_redactor_of_one_kind_replaces_no_other(kind: str) -> None:
    redact = Redactor([kind])
    for section, line in read_lines("removed.txt"):
        if section.partition(".")[0] not in (kind, "security_code"):
            found = set(re.findall(ANY_PLACEHOLDER, redact(re.sub("[«»]", "", line))))
            assert found <= {PLACEHOLDERS[kind]}


def test_the_corpus_is_large_enough() -> None:
    assert sum(line.count("«") for _, line in read_lines("removed.txt")) >= 300
    assert len(list(read_lines("kept.txt"))) >= 300


def test_without_numbering_plans_named_numbers_are_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoair_redaction.national_formats._load", lambda: None)
    assert redact_all_kinds("Mi teléfono es 612345678.") == "Mi teléfono es [phone number]."
    assert redact_all_kinds("It's 0171 1234567.") == "It's [phone number]."
    assert redact_all_kinds("612 345 678") == "612 345 678"


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_the_example_numbers_of_every_country_are_redacted(region: str) -> None:
    for type_ in (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE):
        number = phonenumbers.example_number_for_type(region, type_)
        if number is None:
            continue
        written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
        assert redact_all_kinds(f"It's {written}, thanks.") == "It's [phone number], thanks."
        national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
        if sum(map(str.isdigit, national)) >= 7:  # shorter ones, on islands, are like any other number
            assert not re.search(r"\d", redact_all_kinds(f"Call me at {national}."))
        if region in BARE_REGIONS and (national[0] != "0" or sum(map(str.isdigit, national)) > 8):
            assert not re.search(r"\d", redact_all_kinds(national))
