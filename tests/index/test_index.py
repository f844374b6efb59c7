"""The index against a slow and obvious one, and under many threads."""

import math
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoair_index import Document, Hit, Index, Query, terms
from memoair_index.bm25 import K1, B

WORDS = ["boots", "refund", "dentist", "blue", "nine", "the", "Thursday"]
IDS = "abcdefgh"
GROUPS = ["", "call-1", "call-2"]

texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
documents = st.builds(Document, id=st.sampled_from(IDS), text=texts, group=st.sampled_from(GROUPS))
changes = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(documents, max_size=4)),
        st.tuples(st.just("remove"), st.lists(st.sampled_from(IDS), max_size=3)),
    ),
    max_size=12,
)
queries = st.builds(
    Query,
    text=st.lists(st.sampled_from([*WORDS, "unheard"]), max_size=4).map(" ".join),
    group=st.none() | st.sampled_from([*GROUPS, "call-9"]),
    without_group=st.none() | st.sampled_from([*GROUPS, "call-9"]),
)


class SlowIndex:
    """What `Index` promises, said as plainly as can be."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}  # oldest first

    def add(self, documents: list[Document]) -> None:
        for document in documents:
            self.documents.pop(document.id, None)
            self.documents[document.id] = document

    def remove(self, ids: list[str]) -> int:
        return sum(self.documents.pop(each, None) is not None for each in ids)

    def age_of(self, document: Document) -> int:
        return list(self.documents).index(document.id)

    def search(self, query: Query) -> list[tuple[Document, float]]:
        """All that is found: the best first, the older first among equals."""
        found = [(document, self.score(document, query)) for document in self.documents.values()]
        return sorted(
            ((document, score) for document, score in found if score > 0 and _is_wanted(document, query)),
            key=lambda each: -each[1],
        )

    def score(self, document: Document, query: Query) -> float:
        counts = {each.id: Counter(terms(each.text)) for each in self.documents.values()}
        average = sum(each.total() for each in counts.values()) / len(counts)
        own = counts[document.id]
        total = 0.0
        for term in set(terms(query.text)):
            if own[term]:
                holders = sum(term in each for each in counts.values())
                idf = math.log(1 + (len(counts) - holders + 0.5) / (holders + 0.5))
                total += idf * own[term] * (K1 + 1) / (own[term] + K1 * (1 - B + B * own.total() / average))
        return total


def _is_wanted(document: Document, query: Query) -> bool:
    return query.group in (None, document.group) and query.without_group != document.group


def _change_both(steps: list[tuple[str, list[Any]]]) -> tuple[Index, SlowIndex]:
    index, slow = Index(), SlowIndex()
    for what, operand in steps:
        if what == "add":
            index.add(operand)
            slow.add(operand)
        else:
            assert index.remove(operand) == slow.remove(operand)
    return index, slow


def _seen(query: Query, document: Document) -> tuple[Any, ...]:
    """All that a score can depend on: documents of which this is equal are ties."""
    counts = Counter(terms(document.text))
    return (counts.total(), *(counts[term] for term in sorted(set(terms(query.text)))))


@given(changes, queries, st.integers(0, 9))
@settings(deadline=None, max_examples=300)
def test_ranking_and_scores_are_those_of_the_slow_index(
    steps: list[tuple[str, list[Any]]], query: Query, limit: int
) -> None:
    index, slow = _change_both(steps)
    expected = slow.search(query)
    found = index.search(query, limit)

    assert len(found) == min(limit, len(expected))
    # Position by position, so nothing better was left out; beyond that only ties can stand in another order.
    assert [hit.score for hit in found] == pytest.approx([score for _, score in expected[:limit]], rel=1e-5)
    own = {document.id: score for document, score in expected}
    assert [hit.score for hit in found] == pytest.approx([own[hit.document.id] for hit in found], rel=1e-5)
    assert all(hit.document == slow.documents[hit.document.id] for hit in found)
    left_out = [document for document, _ in expected if document.id not in {hit.document.id for hit in found}]
    for earlier, later in pairwise([*(hit.document for hit in found), *left_out]):
        if _seen(query, earlier) == _seen(query, later):
            assert slow.age_of(earlier) < slow.age_of(later)


@given(changes)
@settings(deadline=None)
def test_the_index_counts_and_knows_what_it_holds(steps: list[tuple[str, list[Any]]]) -> None:
    index, slow = _change_both(steps)
    assert len(index) == len(slow.documents)
    assert [each for each in IDS if each in index] == [each for each in IDS if each in slow.documents]


@given(changes, st.lists(texts, max_size=5), queries)
@settings(deadline=None)
def test_adding_and_removing_gives_back_the_same_ranking(
    steps: list[tuple[str, list[Any]]], added: list[str], query: Query
) -> None:
    index, _ = _change_both(steps)
    before = index.search(query, 100)
    index.add(Document(f"new-{number}", text, "call-1") for number, text in enumerate(added))
    index.remove([f"new-{number}" for number in range(len(added))])
    assert index.search(query, 100) == before


def test_a_document_of_a_known_id_replaces_the_old_one_and_is_as_young_as_its_new_text() -> None:
    index = Index()
    index.add([Document("a", "red boots"), Document("b", "blue boots")])
    index.add([Document("a", "grey boots")])

    assert len(index) == 2
    assert [hit.document.text for hit in index.search(Query("boots"), 5)] == ["blue boots", "grey boots"]
    assert index.search(Query("red"), 5) == []


def test_the_last_of_several_documents_of_one_id_stands() -> None:
    index = Index()
    index.add([Document("a", "red boots"), Document("a", "blue boots")])
    assert [hit.document.text for hit in index.search(Query("boots"), 5)] == ["blue boots"]


def test_removing_what_is_not_there_removes_nothing() -> None:
    index = Index()
    index.add([Document("a", "red boots")])
    assert index.remove(["b", "a", "a"]) == 1
    assert index.remove([]) == 0
    assert "a" not in index


def test_documents_that_cannot_all_be_had_leave_the_index_as_it_was() -> None:
    def broken_off() -> Any:
        yield Document("a", "blue boots")
        raise OSError("the source has gone")

    index = Index()
    index.add([Document("a", "red boots")])
    with pytest.raises(OSError, match="gone"):
        index.add(broken_off())
    assert [hit.document.text for hit in index.search(Query("boots"), 5)] == ["red boots"]


def test_a_hit_carries_the_document_as_it_was_added() -> None:
    document = Document("a", "red boots", "call-1", "Dana", 1.5, {"topic": "returns"})
    index = Index()
    index.add([document])
    (hit,) = index.search(Query("boots"), 1)
    assert hit == Hit(document, hit.score)


@pytest.mark.parametrize("query", ["", "what was it then", "!?", "\ud800", "unheard"])
def test_a_query_without_known_terms_finds_nothing(query: str) -> None:
    index = Index()
    assert index.search(Query(query), 5) == []
    index.add([Document("a", "what was it then"), Document("b", "red boots"), Document("c", "")])
    assert index.search(Query(query), 5) == []


@pytest.mark.parametrize("limit", [0, -1, -(10**9)])
def test_a_limit_below_one_finds_nothing(limit: int) -> None:
    index = Index()
    index.add([Document("a", "red boots")])
    assert index.search(Query("boots"), limit) == []


def test_a_thousand_identical_documents_rank_by_age() -> None:
    index = Index()
    index.add(Document(str(number), "red boots") for number in range(1_000))

    assert [hit.document.id for hit in index.search(Query("boots"), 10)] == [str(number) for number in range(10)]
    index.remove(["0", "3"])
    everything = index.search(Query("boots"), 10**9)
    assert [hit.document.id for hit in everything] == [str(number) for number in range(1_000) if number not in (0, 3)]
    assert len({hit.score for hit in everything}) == 1
    assert everything[0].score > 0


def test_ties_rank_by_age_at_every_height_of_score() -> None:
    index = Index()
    index.add(Document(str(number), "boots " + "red " * (number % 3)) for number in range(999))
    found = [int(hit.document.id) for hit in index.search(Query("boots"), 999)]
    assert found == sorted(range(999), key=lambda number: (number % 3, number))
    assert [int(hit.document.id) for hit in index.search(Query("boots"), 400)] == found[:400]


def test_every_search_sees_what_was_added_before_it_began_and_nothing_half() -> None:
    index = Index()
    writers, each_adds = 4, 50
    added = [0] * writers  # by writer: how many of his documents the index has confirmed
    begin = threading.Barrier(writers + 2)

    def write(writer: int) -> None:
        begin.wait()
        for number in range(each_adds):
            index.add([Document(f"{writer}-{number}-{side}", "red boots", f"{writer}-{number}") for side in "ab"])
            added[writer] = number + 1

    def search() -> int:
        begin.wait()
        searches = 0
        while True:
            confirmed = list(added)
            found = Counter(hit.document.group for hit in index.search(Query("boots"), 10**6))
            assert set(found.values()) <= {2}
            for writer, count in enumerate(confirmed):
                assert all(f"{writer}-{number}" in found for number in range(count))
            searches += 1
            if sum(confirmed) == writers * each_adds:
                return searches

    with ThreadPoolExecutor(writers + 2) as threads:
        writing = [threads.submit(write, writer) for writer in range(writers)]
        searching = [threads.submit(search) for _ in range(2)]
        for future in writing:
            future.result()
        assert all(future.result() for future in searching)
    assert len(index) == writers * each_adds * 2


def test_threads_that_replace_and_remove_leave_exact_statistics() -> None:
    index = Index()
    begin = threading.Barrier(4)

    def churn(thread: int) -> None:
        begin.wait()
        for number in range(100):
            index.add([Document(f"shared-{number % 7}", f"red boots {thread}"), Document(f"own-{thread}", "blue")])
            index.remove([f"shared-{(number + thread) % 7}"])

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(churn, thread) for thread in range(4)]:
            future.result()
    index.remove([f"shared-{number}" for number in range(7)])
    index.remove([f"own-{thread}" for thread in range(4)])
    index.add([Document("a", "red boots"), Document("b", "red")])

    fresh = Index()
    fresh.add([Document("a", "red boots"), Document("b", "red")])
    assert index.search(Query("red boots"), 5) == fresh.search(Query("red boots"), 5)
