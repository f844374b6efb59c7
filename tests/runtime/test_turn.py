"""A turn in the index: stored as passages of its sides, returned unchanged."""

from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memoair_index import Document, Index, Query
from memoair_index.sentences import PASSAGE_CHARS
from memoair_runtime.memory.speaker_names import AGENT, CALLER
from memoair_runtime.memory.turn import StoredTurn, event_id_of, first_document_ids, to_documents, to_turn, to_turns

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=timezone.utc)
SENTENCES = [
    "I would like to swap the red boots. ",
    "Size nine, please!\n",
    "Was it 3.50 or 4.75 euros? ",
    "返品したいのですが。",
    "Unbroken" * 120,
    "\n\n\n",
    " ",
    "\N{RIGHT-TO-LEFT OVERRIDE}\N{GRINNING FACE}" * 9,
    "שלום. مرحبا؟ ",
    "e\N{COMBINING ACUTE ACCENT}",
]

long_texts = st.lists(st.sampled_from(SENTENCES), max_size=60).map("".join)
texts = st.one_of(st.text(max_size=30), long_texts, st.just(""))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
moments = st.integers(0, 4 * 10**15).map(
    lambda us: datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=us)
)


@st.composite
def turns(draw: st.DrawFn, event_id: str = "0c4d") -> StoredTurn:
    return StoredTurn(
        event_id=event_id,
        session_id=draw(st.sampled_from(["call-1", "call:2", "caller:0", "\N{GRINNING FACE}"])),
        ordinal=draw(st.integers(0, 10**6)),
        turn_id=draw(st.text(min_size=1, max_size=9)),
        caller_name=draw(st.text(max_size=9)),
        agent_name=draw(st.text(max_size=9)),
        user_text=draw(texts),
        assistant_text=draw(texts),
        occurred_at=draw(moments),
        metadata=draw(st.dictionaries(st.text(max_size=5), values, max_size=3)),
    )


def make_turn(
    user_text: str = "", assistant_text: str = "", occurred_at: datetime = NOON, **metadata: Any
) -> StoredTurn:
    return StoredTurn("0c4d", "call-1", 3, "t3", "Dana", "Juno", user_text, assistant_text, occurred_at, metadata)


@given(turns())
@example(make_turn())
@example(make_turn("\n" * 2_000, " " * 2_000))
@example(make_turn("x", "y", price=2**70, debt=-(2**70), much=10**300))
@settings(deadline=None)
def test_documents_convert_back_to_the_same_turn(turn: StoredTurn) -> None:
    documents = to_documents(turn)
    assert documents
    assert to_turn(documents) == turn
    assert {event_id_of(document) for document in documents} == {turn.event_id}
    assert {document.id for document in documents} & set(first_document_ids(turn.event_id))
    assert len({document.id for document in documents}) == len(documents)
    assert all(len(document.text) <= PASSAGE_CHARS for document in documents)


@given(turns())
@settings(deadline=None)
def test_the_passages_of_a_side_join_to_its_whole_text(turn: StoredTurn) -> None:
    documents = to_documents(turn)
    for side, text in ((CALLER, turn.user_text), (AGENT, turn.assistant_text)):
        assert "".join(document.text for document in documents if document.speaker == side) == text
    sides = [document.speaker for document in documents]
    assert sides == sorted(sides, key=[CALLER, AGENT].index), "the caller speaks first"
    assert {document.group for document in documents} == {turn.session_id}


@given(st.lists(turns(), max_size=5))
@settings(deadline=None, max_examples=40)
def test_documents_of_several_turns_convert_back_to_the_same_turns(originals: list[StoredTurn]) -> None:
    originals = [attrs.evolve(turn, event_id=f"event-{number}") for number, turn in enumerate(originals)]
    documents = [document for turn in originals for document in to_documents(turn)]
    assert to_turns(documents) == originals


@given(turns())
@example(make_turn("x", "y", price=2**70, debt=-(2**70), much=10**300))
@settings(deadline=None, max_examples=30)
def test_a_turn_comes_back_unchanged_from_an_index_and_from_its_file(turn: StoredTurn) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "turns.index"
        index = Index()
        index.add([Document("before", "boots", group=turn.session_id), *to_documents(turn)])
        index.add([Document("behind", "boots", group=turn.session_id)])
        index.merge(path)
        for opened in (index, Index.open(path)):
            first, *documents, last = opened.group_documents(turn.session_id)
            assert to_turn(documents) == turn
            assert (first.id, last.id) == ("before", "behind")


def test_a_long_reply_is_found_by_any_passage_and_returned_whole() -> None:
    reply = " ".join(f"The {word} parcel arrives in {number} days." for number, word in enumerate(["red", "blue"] * 99))
    turn = make_turn("When?", f"{reply} The last one is with the zanzibarplum dentist.")
    index = Index()
    index.add(to_documents(turn))
    best = index.search(Query("zanzibarplum dentist"), 1)[0].document
    assert best.text != turn.assistant_text
    assert to_turn(index.contiguous_run(best.id, lambda document: event_id_of(document) == turn.event_id)) == turn


@pytest.mark.parametrize(
    "moment",
    [
        datetime.max.replace(tzinfo=timezone.utc),
        datetime.min.replace(tzinfo=timezone.utc),
        datetime(1969, 7, 20, 20, 17, 40, 999_999, tzinfo=timezone.utc),
        datetime(9999, 12, 31, tzinfo=timezone.utc),
    ],
)
def test_a_turn_may_have_an_extreme_time(moment: datetime) -> None:
    turn = make_turn("The red boots.", occurred_at=moment)
    came_back = to_turn(to_documents(turn))
    assert abs((came_back.occurred_at - moment).total_seconds()) < 1e-3
    assert came_back.user_text == turn.user_text
