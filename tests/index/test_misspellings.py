"""Misspellings: a word that no document has finds those that have it but for one letter."""

from difflib import SequenceMatcher
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoair_index import Document, Index, Query
from memoair_index.misspellings import NO_SIGNATURES, SignatureSet, misspellings, signature_of
from memoair_index.static_model import NoEmbedding

WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=5, max_size=20)


def signatures_of(*terms: str) -> SignatureSet:
    signatures = SignatureSet(NO_SIGNATURES)
    signatures.update(signature for term in terms if (signature := signature_of(term)) is not None)
    return signatures


def hits_of(texts: list[str], question: str) -> dict[str, float]:
    """Return the texts that share a term with a question, each with what its words count."""
    index = Index(NoEmbedding())
    index.add(Document(text, text, group=text) for text in texts)
    found = index.search(Query(question), len(texts))
    return {hit.document.text: hit.contributions["around"] for hit in found if hit.contributions.get("around")}


@pytest.mark.parametrize(
    ("document", "question"),
    [
        ("the zirconia was late", "zirconnia"),
        ("the zirconia was late", "zirconi"),
        ("the zirconia was late", "zirconla"),
        ("the zirconia was late", "zricnia zircnoia"),
        ("die Krankenversicherung", "Krankenverscherung"),
        ("гостиница открыта", "гостинца"),
    ],
)
def test_a_word_with_one_wrong_letter_is_found(document: str, question: str) -> None:
    assert list(hits_of(["something else", document], question)) == [document]


@pytest.mark.parametrize("question", ["zirocnla", "zirc", "xirconia", "12345", "cat"])
def test_other_words_are_not(question: str) -> None:
    assert hits_of(["the zirconia was late", "1234 bat"], question) == {}


def test_a_word_that_any_document_has_is_taken_as_it_is() -> None:
    assert list(hits_of(["a zirconia", "a zirconla"], "zirconla")) == ["a zirconla"]


def test_a_misspelled_word_counts_half() -> None:
    right = hits_of(["zirconia", "boots"], "zirconia")["zirconia"]
    wrong = hits_of(["zirconia", "boots"], "zirconnia")["zirconia"]
    assert wrong == pytest.approx(right / 2)


def test_a_common_word_is_no_misspelling_of_another() -> None:
    index = Index()
    index.add([Document("1", "the house is closed")])
    assert not any("around" in hit.contributions for hit in index.search(Query("horse"), 1))


@given(word=WORDS, data=st.data())
def test_every_change_of_one_letter_but_the_first_is_found(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(word) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
    swapped_at = data.draw(st.integers(0, len(word) - 2))
    changed = data.draw(
        st.sampled_from(
            [
                word[:at] + word[at + 1 :],
                word[:at] + letter + word[at:],
                word[:at] + letter + word[at + 1 :],
                word[:swapped_at] + word[swapped_at + 1] + word[swapped_at] + word[swapped_at + 2 :],
            ]
        )
    )
    assert changed == word or changed in misspellings(word, signatures_of(changed))


@given(word=st.one_of(st.text(), WORDS), others=st.lists(st.one_of(st.text(), WORDS)))
def test_all_that_is_found_differs_by_one_letter(word: str, others: list[str]) -> None:
    for found in misspellings(word, signatures_of(*others)):
        assert found != word
        assert 0 < len(opcodes(word, found)) <= 3
        assert abs(len(found) - len(word)) <= 1


def opcodes(word: str, other: str) -> list[object]:
    """Return the places where two words differ."""
    matcher = SequenceMatcher(None, word, other, autojunk=False)
    return [opcode for opcode in matcher.get_opcodes() if opcode[0] != "equal"]


def test_signatures_are_found_in_a_file_and_in_what_was_added() -> None:
    known = signatures_of("zirconia", "marzipan")
    in_both = SignatureSet(known.to_array())
    in_both.update(filter(None, [signature_of("zirkonium")]))
    assert "zirconia" in misspellings("zirconja", in_both)
    assert "zirconia" in misspellings("zirconja", SignatureSet(known.to_array()))
    assert "zirkonium" in misspellings("zirkonjum", in_both)
    assert misspellings("zirkonjum", known) == []
    assert in_both.to_array().tolist() == sorted(filter(None, map(signature_of, ["marzipan", "zirconia", "zirkonium"])))


def test_a_misspelled_word_is_found_in_a_merged_file(tmp_path: Path) -> None:
    index = Index(NoEmbedding())
    index.add([Document("1", "the zirconia was late", group="1"), Document("2", "marzipan", group="2")])
    index.merge(tmp_path / "index")
    index.add([Document("3", "the amethyst was early", group="3")])
    reopened = Index.open(tmp_path / "index", NoEmbedding())
    assert [hit.document.id for hit in index.search(Query("zirconja"), 3)] == ["1"]
    assert [hit.document.id for hit in index.search(Query("amethist"), 3)] == ["3"]
    assert [hit.document.id for hit in reopened.search(Query("zirconja"), 3)] == ["1"]
