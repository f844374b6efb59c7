"""The confidence of hits: bounded, of the same meaning in small and large stores, and robust."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoair_index import Document, Index, Query
from memoair_index.confidence import CONFIDENCE_FEATURES, INTERCEPT, default_coefficients
from memoair_index.static_model import NoEmbedding

SUBJECTS = ["boots", "dentist", "invoice", "garden", "passport", "violin", "harbor", "kitchen", "bicycle", "museum"]
ACTIONS = ["return", "repair", "book", "cancel", "order", "insure", "measure", "paint", "rent", "clean"]


def make_index(size: int, *, embedding: NoEmbedding | None = None) -> Index:
    """Return an index of short texts: the first is about boots, and what others say of them differs."""
    index = Index(embedding)
    index.add(
        Document(
            str(number),
            f"You can {ACTIONS[number % 10]} the {SUBJECTS[number // 10 % 10]} at desk {number} on weekdays.",
            group=str(number),
        )
        for number in range(size)
    )
    return index


def best_confidence(index: Index, text: str) -> float:
    return index.search(Query(text), 5)[0].confidence


def test_every_feature_has_a_coefficient_of_the_expected_sign() -> None:
    coefficients = default_coefficients()
    assert set(coefficients) == {INTERCEPT, *CONFIDENCE_FEATURES}
    assert {name for name, value in coefficients.items() if value < 0} == {INTERCEPT, "behind"}


@pytest.mark.parametrize("size", [4, 30, 1_000])
def test_a_question_that_the_store_answers_has_more_confidence_than_a_foreign_one(size: int) -> None:
    index = make_index(size)
    known = best_confidence(index, "where can I repair the boots?")
    foreign = best_confidence(index, "which planets did the telescope discover near the desk?")
    assert known > 0.5 > 0.25 > foreign


@pytest.mark.parametrize("text", ["repair boots", "where do I repair my boots please"])
def test_confidence_does_not_grow_with_the_store_as_scores_do(text: str) -> None:
    small, large = make_index(30), make_index(30)
    large.add(Document(f"more {number}", f"Note {number} about rivers, clouds and tea.") for number in range(1_000))
    scores = [index.search(Query(text), 1)[0].score for index in (small, large)]
    assert scores[1] > 1.3 * scores[0]
    assert best_confidence(small, text) == pytest.approx(best_confidence(large, text), abs=0.15)


def test_words_that_no_document_contains_lower_the_confidence() -> None:
    index = make_index(100)
    shares = [
        index.search(Query(f"repair the boots {unknown}"), 1)[0].confidence_features["share"]
        for unknown in ("", "quasar", "quasar telescope")
    ]
    assert shares[0] == pytest.approx(1, abs=0.05)
    assert shares[0] > shares[1] + 0.2 > shares[2] + 0.3
    confidences = [
        best_confidence(index, f"repair the boots {unknown}".strip())
        for unknown in ("", "quasar", "quasar telescope", "quasar telescope nebula zygote")
    ]
    assert confidences == sorted(confidences, reverse=True)
    assert confidences[0] > confidences[-1] + 0.2


def test_of_one_search_the_best_hit_has_the_most_confidence() -> None:
    index = make_index(100)
    hits = index.search(Query("repair the boots"), 10)
    assert hits[0].document.id == "1"
    assert max(hits, key=lambda hit: hit.confidence) is hits[0]
    assert list(hits[0].confidence_features) == list(CONFIDENCE_FEATURES)


def test_a_filter_compares_hits_with_the_best_that_passes() -> None:
    index = make_index(100)
    query = Query("repair the boots")
    everything = {hit.document.id: hit.confidence for hit in index.search(query, 10)}
    passing = index.search(query, 10, lambda document: document.id != "1")
    assert passing[0].confidence_features["behind"] == 0
    assert passing[0].confidence >= everything[passing[0].document.id]


def test_the_limit_does_not_change_the_confidence() -> None:
    index = make_index(100)
    one, many = (index.search(Query("repair the boots"), limit) for limit in (1, 20))
    assert one[0].confidence == many[0].confidence


def test_a_document_in_several_chunks_does_not_compete_with_itself() -> None:
    whole, chunked = make_index(30), make_index(30)
    chunked.add([Document("1b", "You can repair the boots at desk 1 on weekdays.", group="1")])
    ahead = [index.search(Query("repair the boots"), 1)[0].confidence_features["ahead"] for index in (whole, chunked)]
    assert ahead[1] > 0.5 * ahead[0] > 0


@settings(deadline=None, max_examples=60)
@given(
    st.text(max_size=40) | st.lists(st.sampled_from([*SUBJECTS, *ACTIONS, "desk", "сапоги", "長靴"])).map(" ".join),
    st.lists(st.sampled_from(["the boots", "desk 3", ""]), max_size=3),
)
def test_confidence_is_always_between_0_and_1(text: str, talk: list[str]) -> None:
    for hit in INDEX.search(Query(text, recent_turns=tuple(talk), now=0.0), 10):
        assert 0 <= hit.confidence <= 1
        assert all(map(math.isfinite, hit.confidence_features.values()))


INDEX = make_index(40)


def test_without_an_embedding_the_words_decide() -> None:
    index = make_index(100, embedding=NoEmbedding())
    assert best_confidence(index, "repair the boots") > 0.3 + best_confidence(index, "desk telescope nebula")


def test_a_store_has_the_same_confidence_after_it_was_written(tmp_path: Path) -> None:
    index = make_index(100)
    before = [(hit.document.id, hit.confidence) for hit in index.search(Query("repair the boots"), 10)]
    index.merge(tmp_path / "index.bin")
    opened = Index.open(tmp_path / "index.bin")
    after = [(hit.document.id, hit.confidence) for hit in opened.search(Query("repair the boots"), 10)]
    assert [id_ for id_, _ in after] == [id_ for id_, _ in before]
    assert [confidence for _, confidence in after] == pytest.approx([confidence for _, confidence in before])


def test_hits_keep_their_confidence_while_the_index_changes() -> None:
    index = make_index(30)
    hits = index.search(Query("repair the boots"), 5)
    expected = [hit.confidence for hit in hits]
    index.remove([hit.document.id for hit in hits])
    index.add([Document("new", "Repair the boots.")])
    assert [hit.confidence for hit in hits] == expected
