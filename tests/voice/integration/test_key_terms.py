"""Names for speech recognizers, found in what is known about a caller."""

from typing import Any

import pytest

from memoair_voice import SearchResult
from memoair_voice.integration import find_key_terms


def found(*lines: str, profile: dict[str, Any] | None = None) -> SearchResult:
    text = "\n".join(["## permanent", "(said in earlier calls)", *(f"- {line}" for line in lines)])
    return SearchResult(text, profile, [], [], [], [], {})


@pytest.mark.parametrize(
    ("line", "terms"),
    [
        ("Ada: My dog is called Rex.", ["Rex"]),
        ("Ada: I live in Ashby Magna, near New York.", ["Ashby Magna", "New York"]),
        ("Ada: We met Jean-Luc and O'Neill's sister.", ["Jean-Luc", "O'Neill"]),
        ("Ada: Then I'm off on Monday. Boots are fine, OK?", []),
        ("Ada: Ich heiße Zoë, aus Århus.", ["Zoë", "Århus"]),
        ("The caller owns a Subaru", ["Subaru"]),
        ("Ada: yes", []),
    ],
)
def test_names_are_words_with_a_capital_letter_within_a_sentence(line: str, terms: list[str]) -> None:
    assert find_key_terms(found(line)) == terms


def test_the_callers_own_name_comes_first_and_each_term_once() -> None:
    result = found("Ada: My name is Ada Lovelace.", "Ada: It is Rex, the dog.", profile={"name": "Ada Lovelace"})
    assert find_key_terms(result, "ada lovelace") == ["ada lovelace", "ada", "lovelace", "Rex"]
    assert find_key_terms(result) == ["Ada Lovelace", "Ada", "Lovelace", "Rex"]
    assert find_key_terms(None, "Ada") == ["Ada"]
    assert find_key_terms(None) == []


def test_there_are_not_too_many_terms_and_none_is_too_long() -> None:
    many = found(*(f"Ada: I know Name{number} and {'X' * 60}." for number in range(80)))
    terms = find_key_terms(many)
    assert len(terms) == 50
    assert all(term.startswith("Name") for term in terms)
