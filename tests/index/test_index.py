"""The index compared with a slow and obvious reference: hits, order and contributions; and with many threads."""

# ruff: noqa: RUF001 - some letters of other scripts look like Latin ones

import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from itertools import islice, pairwise
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memoair_index import Document, Hit, Index, Query, extract_terms
from memoair_index.analysis import split_words, stable_hash
from memoair_index.bm25 import K1, B
from memoair_index.cues import Cue, QuestionType, classify_question, detect_cues
from memoair_index.dates import find_days
from memoair_index.folding import fold
from memoair_index.labels import DECAY_PER_TURN, MIN_IDF_SHARE, MIN_RELEVANCE_SHARE, SUBJECT_CHANGE_FACTOR
from memoair_index.ranking import FEATURES, default_weights
from memoair_index.static_model import default_model

# Two hits may be in another order only if their scores are almost equal.
TIE, SAME = 1e-5, 1e-4
NOON = 43_200


def timestamp(year: int, month: int, day: int) -> float:
    return datetime(year, month, day, tzinfo=timezone.utc).timestamp() + NOON


# Words with neighbors among each other and words without, words for times, names and corrections.
WORDS = ["boots", "shoes", "sneakers", "dentist", "doctor", "refund", "nine", "the", "Dana", "Thursday", "no wait,"]
IDS = "abcdefghijkl"
GROUPS = ["", "call-1", "call-2"]
SPEAKERS = ["", "Dana", "agent"]
LABELS = ["Grant Hotel", "Hotel Lindenhof", "Riverside dental practice", "the", "Grant"]
TURNS = ["can I book the Grant Hotel", "or the Lindenhof", "my dental practice", "what", "dana said so"]
TIMESTAMPS = [None, timestamp(2023, 5, 8), timestamp(2023, 5, 20), timestamp(2022, 12, 31), timestamp(1969, 12, 24)]
NOW = timestamp(2023, 5, 21)
QUESTIONS = ["", "when was that", "how many", "who", "on may 7", "in december", "last week", "what in 1969-12-23", "I"]

# Two nines in a row are also the number 99, and the reference below knows no numbers; test_alternate_forms.py does.
texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join).filter(lambda text: "nine nine" not in text)
documents = st.builds(
    Document,
    id=st.sampled_from(IDS),
    text=texts,
    group=st.sampled_from(GROUPS),
    speaker=st.sampled_from(SPEAKERS),
    occurred_at=st.sampled_from(TIMESTAMPS),
    labels=st.lists(st.sampled_from(LABELS), max_size=2).map(tuple),
    metadata=st.dictionaries(st.sampled_from(["topic", "n"]), st.integers() | st.text(max_size=3), max_size=2),
)
queries = st.builds(
    Query,
    text=st.tuples(st.sampled_from(QUESTIONS), texts, st.sampled_from(["", "unheard", *LABELS])).map(" ".join),
    recent_turns=st.lists(st.sampled_from(TURNS), max_size=3).map(tuple),
    speaker=st.sampled_from([None, *SPEAKERS, "nobody"]),
    speaker_is_named=st.booleans(),
    speaker_names=st.sampled_from([frozenset[str](), frozenset({"Dana"}), frozenset({"boots", "nobody"})]),
    group=st.sampled_from([None, None, *GROUPS, "call-9"]),
    exclude_group=st.sampled_from([None, None, *GROUPS, "call-9"]),
    now=st.sampled_from([None, NOW]),
)


class ReferenceIndex:
    """A reference implementation of what `Index` promises, as simple as possible."""

    def __init__(self, documents: Mapping[str, Document] | None = None) -> None:
        self.documents: dict[str, Document] = dict(documents or {})  # oldest first
        self.model = default_model()
        self.weights = default_weights()

    def add(self, documents: Iterable[Document]) -> None:
        for document in documents:
            self.documents.pop(document.id, None)
            self.documents[document.id] = document

    def remove(self, ids: Iterable[str]) -> int:
        return sum(self.documents.pop(each, None) is not None for each in ids)

    def group(self, name: str) -> list[Document]:
        return [document for document in self.documents.values() if document.group == name]

    def search(self, query: Query) -> list[tuple[Document, dict[str, float]]]:
        """Return all hits with the contributions to their scores: the best first, the older first among ties."""
        if not (_query_terms(query) or find_days(fold(query.text), query.now) or query.recent_turns):
            return []
        impacts = self._impacts(dict.fromkeys(_query_terms(query), 1.0), with_neighbors=True)
        talk_impacts = self._impacts(_talk_terms(query), with_neighbors=False)
        dated, relevances = self._ids_of_named_days(query), self._label_relevances(query)
        ids_by_group: dict[str, list[str]] = {}
        for document_id, document in self.documents.items():
            ids_by_group.setdefault(document.group, []).append(document_id)
        found = []
        for document_id, document in self.documents.items():
            group = ids_by_group[document.group]
            around, talk = _pool(document_id, group, impacts), _pool(document_id, group, talk_impacts)
            is_wanted = query.group in (None, document.group) and query.exclude_group != document.group
            if is_wanted and (around > 0 or talk > 0 or document_id in dated or relevances.get(document_id, 0) > 0):
                values = {
                    "around": around / 4,
                    "talk": talk / 4,
                    "meaning": self._cosine(document, query) / 0.2,
                    "date": document_id in dated,
                    "label": relevances.get(document_id, 0.0),
                    **_speaker_and_cue_features(document, query),
                }
                found.append((document, {name: value * self.weights[name] for name, value in values.items()}))
        return sorted(found, key=lambda hit: -sum(hit[1].values()))

    def _idf(self, holders: int) -> float:
        return log(1 + (len(self.documents) - holders + 0.5) / (holders + 0.5))

    def _impacts(self, terms: Mapping[int, float], *, with_neighbors: bool) -> list[dict[str, float]]:
        """Return for each term its weighted impact on each document that contains it or a neighbor of it."""
        counts = {
            document.id: Counter(map(stable_hash, extract_terms(document.text))) for document in self.documents.values()
        }
        average = max(1.0, sum(count.total() for count in counts.values()) / max(1, len(counts)))
        frequency = Counter(term for count in counts.values() for term in count)
        impacts = []
        for term, weight in terms.items():
            neighbors = self.model.neighbors(term) if with_neighbors else ()
            near = ((other, 1.1 * cosine**2) for other, cosine in neighbors if frequency[other])
            factors = [(term, weight)] * bool(frequency[term]) + list(islice(near, 12))
            impact: dict[str, float] = {}
            for holder, factor in factors:
                for document, count in counts.items():
                    term_count = min(255, count[holder])
                    divisor = term_count + K1 * (1 - B + B * count.total() / average)
                    value = factor * self._idf(frequency[holder]) * term_count * (K1 + 1) / divisor
                    impact[document] = max(impact.get(document, 0), value)
            impacts.append(impact)
        return impacts

    def _novelty(self, idf_by_term: Mapping[str, float], bearers: list[str]) -> float:
        """Return the share of a label that the text of the documents that bear it does not contain."""
        texts = [set(extract_terms(self.documents[document_id].text)) for document_id in bearers]
        contained = sum(idf * sum(term in text for text in texts) / len(texts) for term, idf in idf_by_term.items())
        return max(0.0, 1 - contained / sum(idf_by_term.values()))

    def _cosine(self, document: Document, query: Query) -> float:
        """Return the cosine of both vectors, the document's rounded to 255 steps."""
        asked, said = self.model.encode([split_words(fold(query.text)), split_words(fold(document.text))])
        step = np.abs(said).max() / np.float32(127)
        return float(np.round(said / step) * step @ asked) if step else 0.0

    def _ids_of_named_days(self, query: Query) -> set[str]:
        days = find_days(fold(query.text), query.now)
        found = set()
        for document in self.documents.values():
            if document.occurred_at is not None:
                day = document.occurred_at // 86_400
                month = datetime.fromtimestamp(document.occurred_at, timezone.utc).month
                if month in days.months or any(first <= day <= last for first, last in days.spans):
                    found.add(document.id)
        return found

    def _label_relevances(self, query: Query) -> dict[str, float]:
        """Return the relevance of each document's most relevant label."""
        labeled = [(document.id, label) for document in self.documents.values() for label in set(document.labels)]
        holders = Counter(term for _, label in labeled for term in set(extract_terms(label)))
        groups = {document.id: document.group for document in self.documents.values()}
        bearers: dict[str, set[str]] = {}
        for document_id, label in labeled:
            bearers.setdefault(label, set()).add(groups[document_id])
        best: dict[str, float] = {}
        decay = 1.0
        for age, turn in enumerate([query.text, *reversed(query.recent_turns)][:48]):
            is_full = False
            for document, label in labeled:
                idf_by_term = {
                    term: self._idf(min(holders[term], len(self.documents))) for term in set(extract_terms(label))
                }
                full = sum(idf_by_term.values())
                said = sum(idf_by_term[term] for term in idf_by_term if term in extract_terms(turn))
                if said and said >= MIN_IDF_SHARE * full:
                    weight = len(bearers[label]) / (len(bearers[label]) + 4) * (1.0 if age else 0.1)
                    if said >= 0.9 * full:
                        is_full = True
                        novelty = self._novelty(idf_by_term, [each for each, other in labeled if other == label]) ** 2
                        weight = novelty + (1 - novelty) * weight
                    relevance = said / (full + 6) * weight * decay * DECAY_PER_TURN**age
                    best[document] = max(best.get(document, 0), relevance)
            if age == 0 and is_full:
                decay = SUBJECT_CHANGE_FACTOR
        return {
            key: relevance for key, relevance in best.items() if relevance >= MIN_RELEVANCE_SHARE * max(best.values())
        }


def _pool(document_id: str, group: list[str], impacts: list[dict[str, float]]) -> float:
    """Return the sum of the best impacts that reach a document: its own, or weaker ones of its neighbors."""
    position = group.index(document_id)
    near = [
        (other, decay)
        for distance, decay in enumerate((1.0, 0.7, 0.5, 0.35, 0.25))
        for other in {position - distance, position + distance}
        if 0 <= other < len(group)
    ]
    return sum(max(impact[group[other]] * decay for other, decay in near) for impact in impacts if impact)


def _query_terms(query: Query) -> list[int]:
    names = {term for name in query.speaker_names for term in extract_terms(name)}
    return [stable_hash(term) for term in dict.fromkeys(extract_terms(query.text)) if term not in names]


def _talk_terms(query: Query) -> dict[int, float]:
    """Return the terms of what was said before the question, and how much each counts."""
    terms: dict[int, float] = {}
    for age, turn in enumerate([*reversed(query.recent_turns)][:12]):
        for term in map(stable_hash, extract_terms(turn)):
            terms.setdefault(term, 0.9**age)
    names = {stable_hash(term) for name in query.speaker_names for term in extract_terms(name)}
    asked = {stable_hash(term) for term in extract_terms(query.text)}
    return {term: weight for term, weight in terms.items() if term not in names | asked}


def _speaker_and_cue_features(document: Document, query: Query) -> dict[str, float]:
    cues, asked = detect_cues(fold(document.text)), classify_question(fold(query.text))
    is_by_speaker = bool(document.speaker) and document.speaker == query.speaker
    return {
        "speaker": is_by_speaker and query.speaker_is_named,
        "self": is_by_speaker and not query.speaker_is_named,
        "time_word": bool(cues & Cue.TIME and asked & QuestionType.WHEN),
        "amount": bool(cues & Cue.TIME and asked & QuestionType.HOW_MUCH),
        "correction": bool(cues & Cue.CORRECTION),
    }


def ranking(hits: Iterable[Hit]) -> list[tuple[str, float]]:
    """Return the ids and the exact scores of hits."""
    return [(hit.document.id, hit.score) for hit in hits]


def ids(hits: Iterable[Hit]) -> list[str]:
    return [hit.document.id for hit in hits]


def check_search(index: Index, reference: ReferenceIndex, query: Query, limit: int) -> None:
    """Compare a search of the index with that of the reference."""
    expected = reference.search(query)
    contributions = {document.id: values for document, values in expected}
    score = {each: sum(values.values()) for each, values in contributions.items()}
    found = index.search(query, limit)

    assert len(found) == min(limit, len(expected))
    assert len(set(ids(found))) == len(found)
    for hit, (document, _) in zip(found, expected, strict=False):
        assert hit.document == reference.documents[hit.document.id]
        assert hit.score == pytest.approx(score[hit.document.id], abs=SAME)
        # Position by position, so that nothing better is missing; only ties may be in another order.
        assert score[hit.document.id] == pytest.approx(score[document.id], abs=TIE)
        actual = dict(hit.contributions)
        assert set(actual) <= set(FEATURES)
        assert all(actual.values()), "contributions of 0 are left out"
        for name in FEATURES:
            assert actual.get(name, 0) == pytest.approx(contributions[hit.document.id].get(name, 0), abs=SAME), name
    for earlier, later in pairwise(found):
        if earlier.score == later.score:
            assert list(reference.documents).index(earlier.document.id) < list(reference.documents).index(
                later.document.id
            )


class IndexMachine(RuleBasedStateMachine):
    """Add, remove, merge and reopen documents, and compare every search with the reference."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "index"
        self.index, self.reference = Index(), ReferenceIndex()
        self.in_file: ReferenceIndex | None = None  # the content of the file
        self.added = 0
        self.metadata: dict[str, Any] = {}

    def teardown(self) -> None:
        self._folder.cleanup()

    @initialize(new_documents=st.lists(documents, max_size=12))
    def begin(self, new_documents: list[Document]) -> None:
        self.add(new_documents)

    @rule(new_documents=st.lists(documents, max_size=4))
    def add(self, new_documents: list[Document]) -> None:
        self.index.add(new_documents)
        self.reference.add(new_documents)
        self.added += len(new_documents)

    @rule(document_ids=st.lists(st.sampled_from(IDS), max_size=3))
    def remove(self, document_ids: list[str]) -> None:
        assert self.index.remove(document_ids) == self.reference.remove(document_ids)

    @rule(metadata=st.dictionaries(st.text(max_size=3), st.integers(-9, 9), max_size=2))
    def merge(self, metadata: dict[str, int]) -> None:
        self.index.merge(self.path, lambda: metadata)
        self.in_file, self.added, self.metadata = ReferenceIndex(self.reference.documents), 0, metadata

    @rule()
    def open_again(self) -> None:
        """Open the file again, which loses what was not merged."""
        if self.in_file:
            self.index, self.reference, self.added = Index.open(self.path), ReferenceIndex(self.in_file.documents), 0

    @rule(query=queries, limit=st.sampled_from([1, 2, 5, 100]))
    def search(self, query: Query, limit: int) -> None:
        check_search(self.index, self.reference, query, limit)

    @rule(query=queries, topics=st.sets(st.sampled_from(IDS)))
    def search_with_a_filter(self, query: Query, topics: set[str]) -> None:
        found = self.index.search(query, 3, lambda document: document.id in topics)
        assert ids(found) == [each for each in ids(self.index.search(query, 100)) if each in topics][:3]

    @rule(chosen=st.sampled_from(IDS), speakers=st.sets(st.sampled_from(SPEAKERS)))
    def contiguous_run(self, chosen: str, speakers: set[str]) -> None:
        expected: list[Document] = []
        if document := self.reference.documents.get(chosen):
            group = self.reference.group(document.group)
            first = last = group.index(document)
            while first and group[first - 1].speaker in speakers:
                first -= 1
            while last + 1 < len(group) and group[last + 1].speaker in speakers:
                last += 1
            expected = group[first : last + 1]
        assert self.index.contiguous_run(chosen, lambda each: each.speaker in speakers) == expected

    @invariant()
    def contents_match_the_reference(self) -> None:
        assert len(self.index) == len(self.reference.documents)
        assert [each for each in IDS if each in self.index] == [
            each for each in IDS if each in self.reference.documents
        ]
        assert self.index.unmerged_count == self.added
        assert self.index.file_metadata == self.metadata
        for group in [*GROUPS, "call-9"]:
            assert self.index.group_documents(group) == self.reference.group(group)
            assert self.index.group_documents(group, 2) == self.reference.group(group)[-2:]
        for word in WORDS:
            holders = [
                each
                for each in self.reference.documents.values()
                if set(extract_terms(word)) <= set(extract_terms(each.text))
            ]
            assert self.index.document_frequency(word) == (len(holders) if len(extract_terms(word)) == 1 else 0)


TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = settings(deadline=None, max_examples=60, stateful_step_count=20)


@given(st.lists(documents, max_size=12), st.lists(documents, max_size=5), queries)
@settings(deadline=None)
def test_adding_and_removing_documents_restores_the_ranking(
    initial: list[Document], more: list[Document], query: Query
) -> None:
    index = Index()
    index.add(initial)
    before = ranking(index.search(query, 100))
    index.add(Document(f"new-{each.id}", *[*_fields(each)][1:]) for each in more)
    index.remove([f"new-{each.id}" for each in more])
    assert ranking(index.search(query, 100)) == before


def _fields(document: Document) -> Iterator[Any]:
    for name in ("id", "text", "group", "speaker", "occurred_at", "labels", "metadata"):
        yield getattr(document, name)


@given(st.lists(documents, max_size=12), queries)
@settings(deadline=None, max_examples=50)
def test_a_file_ranks_like_the_index_it_was_merged_from(initial: list[Document], query: Query) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        index = Index()
        index.add(initial)
        before = ranking(index.search(query, 100))
        index.merge(path)
        assert ranking(index.search(query, 100)) == ranking(Index.open(path).search(query, 100)) == before


def test_a_document_with_a_known_id_replaces_the_old_one_and_counts_as_new() -> None:
    index = Index()
    index.add([Document("a", "red boots"), Document("b", "blue boots")])
    index.add([Document("a", "blue boots")])

    assert len(index) == 2
    assert ids(index.search(Query("boots"), 5)) == ["b", "a"]
    assert "red" not in {hit.document.text for hit in index.search(Query("red"), 5)}
    assert index.document_frequency("red") == 0


def test_the_last_of_several_documents_with_one_id_is_kept() -> None:
    index = Index()
    index.add([Document("a", "red boots"), Document("a", "blue boots")])
    assert [hit.document.text for hit in index.search(Query("boots"), 5)] == ["blue boots"]


def test_removing_unknown_documents_removes_nothing() -> None:
    index = Index()
    index.add([Document("a", "red boots")])
    assert index.remove(["b", "a", "a"]) == 1
    assert index.remove([]) == 0
    assert "a" not in index
    assert 7 not in index


def test_an_iterable_that_fails_leaves_the_index_unchanged() -> None:
    def broken_off() -> Any:
        yield Document("a", "blue boots")
        raise OSError("the source has gone")

    index = Index()
    index.add([Document("a", "red boots")])
    with pytest.raises(OSError, match="gone"):
        index.add(broken_off())
    assert [hit.document.text for hit in index.search(Query("boots"), 5)] == ["red boots"]


def test_a_hit_keeps_its_document_after_changes_and_merges(tmp_path: Path) -> None:
    document = Document("a", "red boots", "call-1", "Dana", 1.5, ("Grant Hotel",), {"topic": "returns"})
    index = Index()
    index.add([document])
    (early,) = index.search(Query("boots"), 1)
    index.merge(tmp_path / "index")
    (late,) = index.search(Query("boots"), 1)
    index.add([Document("a", "no boots any more")])
    index.merge(tmp_path / "index")
    assert early.document == late.document == document


@pytest.mark.parametrize("query", ["", "what was it then", "!?", "\ud800", "unheard", "👢👢", "\u202e\u202e", "\x00"])
def test_a_query_without_known_words_finds_nothing(query: str) -> None:
    index = Index()
    assert index.search(Query(query), 5) == []
    index.add([Document("a", "what was it then"), Document("b", "red boots"), Document("c", "")])
    assert index.search(Query(query), 5) == []


@pytest.mark.parametrize("limit", [0, -1, -(10**9)])
def test_a_limit_below_one_finds_nothing(limit: int) -> None:
    index = Index()
    index.add([Document("a", "red boots")])
    assert index.search(Query("boots"), limit) == []


@pytest.mark.parametrize("limit", [2, 10**9, 2**63 - 1, 10**30])
def test_a_limit_may_exceed_the_number_of_documents(limit: int) -> None:
    index = Index()
    index.add([Document("a", "red boots"), Document("b", "red boots")])
    assert ids(index.search(Query("boots"), limit)) == ["a", "b"]
    assert ids(index.search(Query("boots"), limit, lambda document: document.id == "b")) == ["b"]


def test_ten_thousand_identical_documents_rank_by_age(tmp_path: Path) -> None:
    index = Index()
    index.add(Document(str(number), "red boots", f"call-{number}") for number in range(10_000))
    assert ids(index.search(Query("boots"), 10)) == [str(number) for number in range(10)]
    index.remove(["0", "3"])
    index.merge(tmp_path / "index")
    everything = index.search(Query("boots"), 10**9)
    assert ids(everything) == [str(number) for number in range(10_000) if number not in (0, 3)]
    assert len({hit.score for hit in everything}) == 1
    assert everything[0].score > 0


def test_ties_rank_by_age_at_every_score() -> None:
    index = Index()
    index.add(Document(str(number), "boots " + "red " * (number % 3), f"call-{number}") for number in range(999))
    found = [int(each) for each in ids(index.search(Query("boots"), 999))]
    assert found == sorted(range(999), key=lambda number: (number % 3, number))
    assert [int(each) for each in ids(index.search(Query("boots"), 400))] == found[:400]


def test_a_filter_finds_documents_of_any_rank(tmp_path: Path) -> None:
    index = Index()
    index.add(Document(str(number), "boots boots", f"call-{number}") for number in range(3_000))
    index.add(Document(f"late-{number}", "boots and many other words beside", f"late-{number}") for number in range(3))
    for _ in range(2):
        assert ids(index.search(Query("boots"), 2, lambda each: each.id.startswith("late"))) == ["late-0", "late-1"]
        assert ids(index.search(Query("boots"), 9, lambda each: each.id in ("7", "late-2"))) == ["7", "late-2"]
        assert index.search(Query("boots"), 5, lambda _: False) == []
        index.merge(tmp_path / "index")


def test_an_error_in_a_filter_fails_only_the_search() -> None:
    index = Index()
    index.add([Document("a", "red boots")])
    with pytest.raises(ZeroDivisionError):
        index.search(Query("boots"), 5, lambda _: 1 / 0 > 0)
    assert ids(index.search(Query("boots"), 5)) == ["a"]


def test_utterances_near_a_match_in_the_same_call_are_found() -> None:
    index = Index()
    index.add(Document(f"{number}", f"filler{number} talk{number}", "call") for number in range(12))
    index.add([Document("other", "words beside", "another call")])
    found = ids(index.search(Query("filler6"), 20))
    assert found[0] == "6"
    assert sorted(map(int, found)) == [2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_the_rare_words_of_a_long_query_are_used() -> None:
    index = Index()
    common = [f"word{number}" for number in range(300)]
    index.add(Document(str(number), " ".join(common), f"call-{number}") for number in range(5))
    index.add([Document("rare", "zirconium", "rare")])
    assert "rare" in ids(index.search(Query(" ".join([*common, "zirconium"])), 10))


def test_words_of_similar_meaning_are_found() -> None:
    index = Index()
    index.add([Document("a", "my physician said so", "1"), Document("b", "the parcel has come", "2")])
    assert ids(index.search(Query("doctor"), 5)) == ["a"]


def test_searches_see_all_earlier_additions_and_only_whole_batches() -> None:
    index = Index()
    writers, each_adds = 4, 50
    added = [0] * writers  # how many documents of each writer the index has confirmed
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


def test_concurrent_changes_and_searches_leave_exact_statistics() -> None:
    index = Index()
    begin = threading.Barrier(6)
    done = threading.Event()

    def churn(thread: int) -> None:
        begin.wait()
        for number in range(100):
            index.add([Document(f"shared-{number % 7}", f"red boots {thread}"), Document(f"own-{thread}", "blue")])
            index.remove([f"shared-{(number + thread) % 7}"])

    def search() -> None:
        begin.wait()
        while not done.is_set():
            for hit in index.search(Query("red boots blue", recent_turns=("Grant Hotel",)), 20):
                assert hit.document.id.startswith(("shared-", "own-"))

    with ThreadPoolExecutor(6) as threads:
        changing = [threads.submit(churn, thread) for thread in range(4)]
        searching = [threads.submit(search) for _ in range(2)]
        try:
            for future in changing:
                future.result()
        finally:
            done.set()
        for future in searching:
            future.result()
    index.remove([f"shared-{number}" for number in range(7)])
    index.remove([f"own-{thread}" for thread in range(4)])
    index.add([Document("a", "red boots"), Document("b", "red")])

    fresh = Index()
    fresh.add([Document("a", "red boots"), Document("b", "red")])
    assert ranking(index.search(Query("red boots"), 5)) == ranking(fresh.search(Query("red boots"), 5))


@pytest.mark.parametrize(
    "sign",
    ["boots ", "b", "👢", "👢 ", "שלום ", "مرحبا ", "é", "1", "1.", "'", " ", "\n", "\ud800", "\x00", "\u202e", "w%d "],
)
def test_a_query_of_a_hundred_thousand_characters_is_answered(sign: str) -> None:
    text = "".join(sign % number if "%" in sign else sign for number in range(100_000 // len(sign)))
    index = Index()
    index.add([Document("a", "red boots", "1"), Document("b", "blue hats", "2")])
    for asked in (text, f"{text} boots"):
        found = index.search(
            Query(asked, recent_turns=(text,), speaker=text, group=None, exclude_group=text, now=NOW), 5
        )
        assert ids(found) in ([], ["a"])
    assert ids(index.search(Query(f"{text} boots"), 5)) == ["a"]


@pytest.mark.parametrize("sign", ["red boots ", "b", "👢", "שלום ", "é", " ", ".", "\ud800", "\x00"])
def test_a_document_of_a_megabyte_is_stored_and_found(sign: str, tmp_path: Path) -> None:
    text = f"zirconium {sign * ((1 << 20) // len(sign))}"
    index = Index()
    index.add([Document("large", text, "1"), Document("small", "red boots", "2")])
    assert ids(index.search(Query("zirconium"), 5)) == ["large"]
    assert ids(index.search(Query("boots"), 1)) in (["small"], ["large"])
    index.merge(tmp_path / "index")
    assert len(Index.open(tmp_path / "index").search(Query("zirconium"), 1)[0].document.text) == len(text)
    assert index.remove(["large"]) == 1
    assert index.search(Query("zirconium"), 5) == []


def test_words_of_other_scripts_are_found() -> None:
    index = Index()
    index.add(
        [Document("he", "שלום עולם", "1"), Document("ar", "مرحبا بالعالم", "2"), Document("zh", "你好 世界", "3")]
    )
    for question, found in (("עולם", "he"), ("\u202eمرحبا\u202c", "ar"), ("世界", "zh"), ("👢 שלום!", "he")):
        assert ids(index.search(Query(question), 5)) == [found]


@pytest.mark.parametrize(
    "turns", [(), ("",), ("Do you know the Acme hotel?", "It has forty rooms and a garden."), ("\ud800",)]
)
def test_preparing_a_talk_changes_no_result(turns: tuple[str, ...]) -> None:
    documents = [
        Document("garden", "The garden opens at nine.", "1", labels=("Acme hotel",)),
        Document("pool", "The pool opens at ten.", "2", labels=("Miller hotel",)),
    ]
    query = Query("When does it open?", recent_turns=turns)
    unprepared, prepared = Index(), Index()
    for index in (unprepared, prepared):
        index.add(documents)
    prepared.prepare_talk(turns)
    expected = [(hit.document.id, hit.score) for hit in unprepared.search(query, 2)]
    assert [(hit.document.id, hit.score) for hit in prepared.search(query, 2)] == expected
