"""Labels: a document is found by what the conversation before the question was about."""

from pathlib import Path

import pytest

from memoair_index import Document, Index, Query

PLACES = [
    "Grant Hotel",
    "Alexander Bed and Breakfast",
    "Acorn Guest House",
    "Riverside Dental Practice",
    "Curry Garden",
]


@pytest.fixture
def index() -> Index:
    """Return an index with a text for every place that does not name the place."""
    with_labels = Index()
    with_labels.add(Document(place, "dogs are not allowed here", place, labels=(place,)) for place in PLACES)
    return with_labels


def first_by_label(index: Index, *turns: str, question: str = "and do they take dogs?") -> str | None:
    """Return the id of the first hit, if its label contributed to its score."""
    hits = index.search(Query(question, recent_turns=turns), 9)
    return hits[0].document.id if hits and hits[0].contributions.get("label") else None


def label_relevance(index: Index, *turns: str) -> float:
    """Return how much the label contributes to the score of the Grant Hotel."""
    hits = {hit.document.id: hit for hit in index.search(Query("do they take dogs", recent_turns=turns), 9)}
    return hits["Grant Hotel"].contributions.get("label", 0.0) if "Grant Hotel" in hits else 0.0


@pytest.mark.parametrize(
    "said", ["I'd like a room at the Grant Hotel", "the GRANT, hotel", "Grant's hotel please", "grant"]
)
def test_a_document_whose_label_was_mentioned_ranks_first(index: Index, said: str) -> None:
    assert first_by_label(index, "good morning", said, "for how many nights?", "two") == "Grant Hotel"


def test_the_question_itself_may_mention_a_label(index: Index) -> None:
    assert first_by_label(index, question="does the Curry Garden take dogs") == "Curry Garden"
    assert first_by_label(index, question="does the place take dogs") is None


def test_a_document_is_found_by_its_mentioned_label_alone(index: Index) -> None:
    hits = index.search(Query("and what is there?", recent_turns=("the Curry Garden",)), 9)
    assert [hit.document.id for hit in hits] == ["Curry Garden"]


def test_the_last_mentioned_label_ranks_first(index: Index) -> None:
    assert first_by_label(index, "the Grant Hotel", "or the Curry Garden") == "Curry Garden"
    assert first_by_label(index, "the Curry Garden", "or the Grant Hotel") == "Grant Hotel"


def test_relevance_declines_with_every_turn_and_ends(index: Index) -> None:
    relevances = [label_relevance(index, "the Grant Hotel", *["well"] * turns) for turns in range(60)]
    assert relevances[0] > 0
    for turns in range(46):
        assert relevances[turns + 1] == pytest.approx(0.95 * relevances[turns], rel=1e-4)
    assert relevances[50:] == [0.0] * 10


def test_a_repeated_mention_counts_as_the_later_one(index: Index) -> None:
    assert label_relevance(index, "the Grant Hotel", "well", "the Grant Hotel") == label_relevance(
        index, "the Grant Hotel"
    )


def test_a_full_mention_counts_more_than_a_part_and_a_small_part_does_not_count(index: Index) -> None:
    index.add([Document("long", "dogs", "long", labels=("Lindenhof Zirndorf Kastanie Birke Ahorn",))])
    assert label_relevance(index, "the Grant Hotel") > label_relevance(index, "Grant") > 0
    assert first_by_label(index, "a Birke") is None
    assert first_by_label(index, "a Birke and a Kastanie") == "long"


def test_a_label_of_every_document_has_little_relevance() -> None:
    index = Index()
    index.add(Document(str(number), "dogs are here", str(number), labels=("Help Centre",)) for number in range(50))
    index.add([Document("rare", "dogs are here", "rare", labels=("Help Centre", "Grant Hotel"))])
    common = index.search(Query("dogs", recent_turns=("the help centre",)), 99)
    rare = index.search(Query("dogs", recent_turns=("the Grant Hotel", "the help centre")), 99)
    assert 0 < common[0].contributions["label"] < rare[0].contributions["label"] / 20
    # Beside a relevant label it is ignored.
    assert [hit.document.id for hit in rare if "label" in hit.contributions] == ["rare"]


def test_a_full_mention_in_the_question_weakens_earlier_mentions(index: Index) -> None:
    with_another, alone = (
        {
            hit.document.id: hit.contributions["label"]
            for hit in index.search(Query(question, recent_turns=("the Grant Hotel",)), 9)
        }
        for question in ("the Curry Garden", "and")
    )
    assert list(with_another) == ["Curry Garden", "Grant Hotel"]
    assert with_another["Grant Hotel"] < alone["Grant Hotel"]


def test_a_label_is_removed_with_its_last_document(index: Index, tmp_path: Path) -> None:
    index.add([Document("second", "dogs are fine", "second", labels=("Grant Hotel", "Grant Hotel"))])
    index.remove(["Grant Hotel"])
    assert first_by_label(index, "the Grant Hotel") == "second"
    index.add([Document("second", "dogs are fine", "second")])
    assert first_by_label(index, "the Grant Hotel") is None
    index.merge(tmp_path / "index")
    assert first_by_label(index, "the Grant Hotel") is None
    index.add([Document("third", "dogs are fine", "third", labels=("Grant Hotel",))])
    assert first_by_label(index, "the Grant Hotel") == "third"


def test_labels_of_a_file_and_added_labels_work_together(index: Index, tmp_path: Path) -> None:
    index.merge(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    for each in (index, opened):
        each.add([Document("annex", "dogs are fine", "annex", labels=("Grant Hotel", "Lindenhof"))])
        found = each.search(Query("what is there", recent_turns=("the Grant Hotel",)), 9)
        assert {hit.document.id for hit in found} == {"Grant Hotel", "annex"}
        assert len({hit.contributions["label"] for hit in found}) == 1
        assert first_by_label(each, "the Lindenhof") == "annex"


@pytest.mark.parametrize("label", ["", "the", "!?", "\ud800", "b" * 100_000, "word " * 20_000])
def test_any_string_can_be_a_label(label: str, tmp_path: Path) -> None:
    index = Index()
    index.add([Document("a", "boots", "1", labels=(label, "Grant")), Document("b", "boots", "2", labels=(label,))])
    for _ in range(2):
        assert [hit.document.id for hit in index.search(Query("boots", recent_turns=(label, "Grant")), 5)] == ["a", "b"]
        index.merge(tmp_path / "index")
        index = Index.open(tmp_path / "index")
    assert index.remove(["a", "b"]) == 2
    assert index.search(Query("boots", recent_turns=(label, "Grant")), 5) == []
