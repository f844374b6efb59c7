"""How much a context changes, what appears and vanishes, and contexts side by side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoair_evaluation.context_diff import diff_contexts
from memoair_evaluation.replay import (
    AskedContext,
    CalledTurn,
    ReplaySummary,
    compare_contexts,
    measure_change,
    split_evenly,
    to_expectation,
)
from memoair_protocol.context_format import SECTION_HEADERS
from memoair_protocol.enums import LaneName
from memoair_runtime.preview import ComposedContext, SourceKey

_WORDS = st.sampled_from(["boots", "refunds", "30 days", "Ünïcode", "a  b", "- x", ""])
_LINES = st.lists(_WORDS.map("- {}".format), max_size=8)
_SECTIONS = st.dictionaries(st.sampled_from(LaneName), _LINES.filter(bool), max_size=3)
_CONTEXTS = _SECTIONS.map(
    lambda sections: "\n\n".join("\n".join([SECTION_HEADERS[name], *lines]) for name, lines in sections.items())
)
_TEXTS = st.text(alphabet=st.sampled_from(" ab\n#-("), max_size=40)


def _org(*lines: str) -> str:
    return "\n".join([SECTION_HEADERS[LaneName.ORG], *lines])


def _sources(*items: str) -> frozenset[SourceKey]:
    """Return the sources of a context: each item is a kind and an id."""
    pairs = [item.split() for item in items]
    return frozenset((kind, source_id, "returns" if kind == "document" else None) for kind, source_id in pairs)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("", "", 0.0),
        (_org("- a", "- b"), _org("- a", "- b"), 0.0),
        ("", _org("- a"), 1.0),
        (_org("- a", "- b"), _org("- c", "- d"), 1.0),
        (_org("- a", "- b"), _org("- a", "- c"), 0.5),  # of four lines, two are in one context only
        (_org("- a", "- b", "- c"), _org("- a", "- b"), 0.2),  # of five lines, one
        (_org("- a", "- b", "- c", "- d"), _org("- d", "- a", "- b", "- c"), 0.0625),  # one line of eight has moved
        (_org("- a"), "## permanent\n- a", 1.0),  # the same words as something that was said
        (_org("- a", "- a"), _org("- a"), 0.333333),
    ],
)
def test_the_change_is_the_share_of_lines_that_differ(before: str, after: str, change: float) -> None:
    assert measure_change(before, after) == change


@given(st.one_of(_CONTEXTS, _TEXTS), st.one_of(_CONTEXTS, _TEXTS))
def test_a_change_is_between_0_and_1_and_the_same_in_both_directions(before: str, after: str) -> None:
    change = measure_change(before, after)

    assert 0.0 <= change <= 1.0
    assert change == measure_change(after, before) == round(change, 6)
    assert measure_change(before, before) == 0.0


@given(_CONTEXTS, _CONTEXTS)
def test_contexts_are_unchanged_only_if_they_say_the_same_in_the_same_order(before: str, after: str) -> None:
    sections = [{tuple(section.split("\n")) for section in context.split("\n\n## ")} for context in (before, after)]
    if measure_change(before, after) == 0.0:
        assert sorted(before.split("\n")) == sorted(after.split("\n"))
    elif before and after:
        assert sections[0] != sections[1] or before != after


def test_one_line_of_very_many_is_still_a_change() -> None:
    lines = [f"- {number}" for number in range(20_000)]
    assert measure_change(_org(*lines), _org(*lines[1:], "- 0")) > 0.0


def test_documents_facts_and_turns_appear_and_vanish() -> None:
    facts, turns = {"f1": "allergic to nuts", "f2": "lives in Bonn"}, {"e1": CalledTurn("s1", "t1")}
    before = ComposedContext("- allergic to nuts", _sources("document old", "fact f1", "turn e1", "profile caller"))
    after = ComposedContext("- lives in Bonn", _sources("document new", "fact f2", "turn e1"))

    change = compare_contexts(AskedContext.of(before, facts, turns), AskedContext.of(after, facts, turns)).to_wire()

    assert change["change"] == 1.0
    assert change["appeared"] == [
        {"kind": "document", "document": "new", "index": "returns"},
        {"kind": "fact", "id": "f2", "fact": "lives in Bonn"},
    ]
    assert change["vanished"] == [
        {"kind": "document", "document": "old", "index": "returns"},
        {"kind": "fact", "id": "f1", "fact": "allergic to nuts"},
    ]


def test_what_appeared_becomes_an_expectation() -> None:
    context = ComposedContext("", _sources("document new", "fact f1", "turn e1"))
    asked = AskedContext.of(context, {"f1": "allergic to nuts"}, {"e1": CalledTurn("s1", "t1")})
    change = compare_contexts(AskedContext(""), asked).to_wire()

    expectations = [to_expectation(item) for item in change["appeared"]]
    assert expectations == [{"document": "new", "index": "returns"}, {"fact": "allergic to nuts"}, {"turn": "e1"}]
    assert change["appeared"][-1] == {"kind": "turn", "id": "e1", "turn": "t1", "session": "s1"}


def test_a_summary_counts_contexts_and_names_documents_but_no_words_of_callers() -> None:
    summary = ReplaySummary()
    document = {"kind": "document", "document": "new", "index": "returns"}
    fact = {"kind": "fact", "id": "f1", "fact": "allergic to nuts"}
    summary.add({"change": 0.5, "appeared": [document, fact], "vanished": []}, is_changed=True)
    summary.add({"change": 0.25, "appeared": [document], "vanished": [fact]}, is_changed=True)
    summary.add({}, is_changed=False)

    wire = summary.to_wire()

    assert (wire["questions"], wire["changed"], wire["changedShare"], wire["meanChange"]) == (3, 2, 0.666667, 0.25)
    assert wire["documents"] == {
        "appeared": [{"index": "returns", "document": "new", "questions": 2}],
        "vanished": [],
    }
    assert wire["counts"]["facts"] == {"appeared": 1, "vanished": 1}
    assert "nuts" not in str(wire)


def test_an_empty_replay_has_a_summary() -> None:
    assert ReplaySummary().to_wire()["changedShare"] == 0.0


@given(st.one_of(_CONTEXTS, _TEXTS), st.one_of(_CONTEXTS, _TEXTS))
def test_the_rows_of_a_diff_have_all_lines_of_both_contexts(before: str, after: str) -> None:
    rows = [row.to_wire() for row in diff_contexts(before, after)]

    for side, context in (("before", before), ("after", after)):
        lines = ["".join(span["text"] for span in row[side]) for row in rows if row[side] is not None]
        assert "\n".join(lines) == context
    for row in rows:
        kinds = {(True, True): {"same", "changed"}, (True, False): {"removed"}, (False, True): {"added"}}
        assert row["kind"] in kinds[row["before"] is not None, row["after"] is not None]
        if row["kind"] == "same":
            assert row["before"] == row["after"]
            assert not any(span["changed"] for span in row["before"])
    assert all(row["kind"] == "same" for row in rows) == (before == after)


def test_the_words_that_differ_in_a_line_are_marked() -> None:
    (row,) = diff_contexts("- Return it within 30 days.", "- Return it within 14 days.")

    assert [(span.text, span.is_changed) for span in row.before or ()] == [
        ("- Return it within ", False),
        ("30 ", True),
        ("days.", False),
    ]
    assert [span.text for span in row.after or () if span.is_changed] == ["14 "]


def test_lines_with_little_in_common_are_marked_as_a_whole() -> None:
    (row,) = diff_contexts("- Return it within 30 days.", "- Our shop in Bonn is closed.")
    assert [span.is_changed for side in (row.before, row.after) for span in side or ()] == [True, True]


def test_very_long_lines_are_compared_as_a_whole() -> None:
    (row,) = diff_contexts("a " * 50_000, "a " * 50_001)
    assert row.kind == "changed"
    assert len(row.before or ()) == 1


@given(st.integers(0, 500), st.integers(1, 60))
def test_parts_of_a_period_are_equal_and_cover_it(total: int, parts: int) -> None:
    ranges = split_evenly(total, parts)

    assert [number for part in ranges for number in part] == list(range(total))
    assert len(ranges) == min(total, parts)
    assert not ranges or max(map(len, ranges)) - min(map(len, ranges)) <= 1
