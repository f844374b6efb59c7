"""Misspellings: a word that no document has finds those that have it but for one letter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoair_index import Document, Index, Query
from memoair_index.analysis import stable_hash
from memoair_index.misspellings import misspelling_ids
from memoair_index.postings import PostingArrays, Postings
from memoair_index.static_model import NoEmbedding

WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=5, max_size=20)


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
def test_every_change_of_one_letter_but_the_first_is_tried(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(word) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
    changed = data.draw(
        st.sampled_from(
            [word[:at] + word[at + 1 :], word[:at] + letter + word[at:], word[:at] + letter + word[at + 1 :]]
        )
    )
    assert changed == word or stable_hash(changed) in misspelling_ids(word).tolist()


@given(st.text())
def test_no_word_makes_it_fail(word: str) -> None:
    assert len(misspelling_ids(word)) < 2_000


def test_the_frequencies_of_many_keys_are_those_of_each() -> None:
    ids = misspelling_ids("abcde")
    in_file, in_both, added = ids[[0, 7, 9]].tolist()
    before = Postings(PostingArrays.empty(), 0)
    before.add(0, {in_file: 1, in_both: 2})
    postings = Postings(before.snapshot().merge(np.arange(1)), 1)
    postings.add(1, {in_both: 1, added: 3})
    assert postings.frequencies(ids) == {in_file: 1, in_both: 2, added: 1}
    postings.remove([added])
    assert postings.frequencies(ids) == {in_file: 1, in_both: 2}
