"""Cases in JSON: what is read, what is rejected and with which words, and that nothing is lost on the way back."""

import json
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoair_evaluation.candidate import InvalidCandidateError, RecallSettings, parse_candidate
from memoair_evaluation.case import (
    CURRENT_SESSION,
    Expectation,
    GivenFact,
    InvalidCaseError,
    InvalidSuiteError,
    RecallCase,
    case_to_wire,
    hash_case,
    parse_case,
    parse_suite,
    read_suite,
)
from memoair_evaluation.scoring import CaseScores, aggregate
from memoair_protocol.enums import LaneName
from memoair_protocol.limits import MAX_CASE_BYTES

FULL = {
    "id": "returns-1",
    "question": "Can I still send it back?",
    "given": {
        "profile": {"name": "Mara", "summary": "Likes hiking."},
        "facts": [
            "is allergic to nuts",
            {"text": "lives in Bern", "kind": "identity", "saidAt": "2026-01-02T00:00:00Z"},
        ],
        "turns": [
            {
                "turnId": "t1",
                "sessionId": "s1",
                "occurredAt": "2026-01-05T10:00:00Z",
                "user": "I bought boots.",
                "assistant": "Which ones?",
                "metadata": {"topic": "boots"},
            }
        ],
    },
    "talk": [{"user": "It is about my boots.", "assistant": "Yes?", "turnId": "now-1"}],
    "at": "2026-01-07T10:00:00Z",
    "must": [
        {"fact": "allergic to nuts"},
        {"document": "returns-policy", "index": "returns"},
        {"turn": "t1", "session": "s1"},
        {"text": "30 days"},
    ],
    "mustNot": [{"document": "old-policy"}],
    "expectedAnswer": "Yes, within 30 days.",
    "filter": {"topic": {"$in": ["boots", "shoes"]}},
    "lanes": ["permanent", "org"],
    "tags": ["returns"],
    "notes": "From a call in January.",
}
MINIMAL = {"id": "a", "question": "Hello?"}


def problem_of(content: Any) -> str:
    with pytest.raises(InvalidCaseError) as caught:
        parse_case(content)
    return str(caught.value)


def test_a_case_with_every_field_is_read_and_written_without_a_loss() -> None:
    case = parse_case(FULL)
    assert case.must[1] == Expectation(document="returns-policy", index="returns")
    assert case.at == datetime(2026, 1, 7, 10, tzinfo=timezone.utc)
    assert case.lanes == (LaneName.PERMANENT, LaneName.ORG)
    assert case.given is not None
    assert case.given.facts[0] == GivenFact("is allergic to nuts")
    assert case_to_wire(case) == FULL


def test_only_an_id_and_a_question_are_required() -> None:
    assert parse_case(MINIMAL) == RecallCase("a", "Hello?")
    assert case_to_wire(parse_case(MINIMAL)) == MINIMAL


def test_no_lane_at_all_is_not_the_same_as_all_of_them() -> None:
    assert case_to_wire(parse_case({**MINIMAL, "lanes": []}))["lanes"] == []


INVALID = {
    "id: required": {"question": "?"},
    "question: required": {"id": "a"},
    "id: contains a control character": {**MINIMAL, "id": "a\nb"},
    "question: is empty": {**MINIMAL, "question": "  "},
    "questoin: unknown field": {**MINIMAL, "questoin": "x"},
    "given.turn: unknown field": {**MINIMAL, "given": {"turn": []}},
    "given.profile.mail: unknown field": {**MINIMAL, "given": {"profile": {"mail": "x"}}},
    "given.turns[1].user: expected `str`, got `int`": {**MINIMAL, "given": {"turns": [{"user": "a"}, {"user": 7}]}},
    "given.turns[0]: neither user nor assistant says anything": {**MINIMAL, "given": {"turns": [{"user": " "}]}},
    "given.turns[0].occurredAt: not an ISO 8601 timestamp such as 2026-01-05T10:00:00Z": {
        **MINIMAL,
        "given": {"turns": [{"user": "a", "occurredAt": "yesterday"}]},
    },
    "given.turns[0].sessionId: this id is reserved for the call of the question": {
        **MINIMAL,
        "given": {"turns": [{"user": "a", "sessionId": CURRENT_SESSION}]},
    },
    "given.turns[1].turnId: another turn of the session has the same id": {
        **MINIMAL,
        "given": {"turns": [{"user": "a", "turnId": "t"}, {"user": "b", "turnId": "t"}]},
    },
    "talk[1].turnId: another turn of the session has the same id": {
        **MINIMAL,
        "talk": [{"user": "a", "turnId": "t"}, {"user": "b", "turnId": "t"}],
    },
    "given.facts[0]: is empty": {**MINIMAL, "given": {"facts": [""]}},
    "at: is before given.turns[0].occurredAt": {
        **MINIMAL,
        "at": "2026-01-01",
        "given": {"turns": [{"user": "a", "occurredAt": "2026-01-02"}]},
    },
    "at: is before given.facts[0].saidAt": {
        **MINIMAL,
        "at": "2026-01-01",
        "given": {"facts": [{"text": "a", "saidAt": "2026-01-02"}]},
    },
    "at: the year is not from 1900 to 9000": {**MINIMAL, "at": "0001-01-01"},
    "must[0]: exactly one of fact, document, turn and text is required": {**MINIMAL, "must": [{}]},
    "mustNot[1]: exactly one of fact, document, turn and text is required": {
        **MINIMAL,
        "mustNot": [{"text": "a"}, {"text": "a", "fact": "b"}],
    },
    "must[0].index: only with document": {**MINIMAL, "must": [{"text": "a", "index": "b"}]},
    "must[0].session: only with turn": {**MINIMAL, "must": [{"document": "a", "session": "b"}]},
    "must[0].text: has no word and no number to look for": {**MINIMAL, "must": [{"text": "?!"}]},
    "lanes[0]: expected one of profile, working, permanent, org": {**MINIMAL, "lanes": ["all"]},
    "filter: unknown operator, or an operator in place of a field name": {**MINIMAL, "filter": {"$near": 1}},
    "expected `object`, got `array`": [],
}


@pytest.mark.parametrize("problem", INVALID)
def test_what_is_invalid_is_named_by_its_field(problem: str) -> None:
    assert problem_of(INVALID[problem]) == problem


def test_a_message_repeats_no_value() -> None:
    secret = "my number is 4155550123"
    for content in (
        {**MINIMAL, secret: 1},
        {**MINIMAL, "lanes": [secret]},
        {**MINIMAL, "at": secret},
        {**MINIMAL, "filter": {secret: {}}},
        {**MINIMAL, "must": secret},
        {**MINIMAL, "id": f" {secret}"},
    ):
        assert secret not in problem_of(content)


def test_what_json_cannot_have_is_rejected() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = {"$and": [deep]}
    assert "cannot have" in problem_of({**MINIMAL, "question": "half a pair: \ud800"})
    assert problem_of({**MINIMAL, "filter": deep}) == "nested deeper than 64 levels"
    assert problem_of({**MINIMAL, "given": {"profile": {"summary": "x" * MAX_CASE_BYTES}}}).startswith("longer than")


times = st.integers(0, 4_000_000_000).map(lambda second: datetime.fromtimestamp(second, timezone.utc).isoformat())
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
phrases = st.sampled_from(["30 days", "Größe 42", "30天内", "it's"])
ids = st.from_regex(r"[a-z0-9][a-z0-9 .-]{0,8}[a-z0-9]", fullmatch=True)
talk_turns = st.fixed_dictionaries(
    {"user": words}, optional={"assistant": words, "metadata": st.dictionaries(words, st.integers(-5, 5), max_size=2)}
)
given_turns = st.builds(
    lambda turn, more: turn | more,
    talk_turns,
    st.fixed_dictionaries({}, optional={"sessionId": ids, "occurredAt": times}),
)
expectations = st.one_of(
    st.fixed_dictionaries({"fact": phrases}),
    st.fixed_dictionaries({"text": phrases}),
    st.fixed_dictionaries({"document": words}, optional={"index": words}),
    st.fixed_dictionaries({"turn": words}, optional={"session": words}),
)
facts = st.one_of(words, st.fixed_dictionaries({"text": words}, optional={"kind": words, "saidAt": times}))
cases = st.fixed_dictionaries(
    {"id": ids, "question": words},
    optional={
        "given": st.fixed_dictionaries(
            {},
            optional={
                "profile": st.fixed_dictionaries({}, optional={"name": words, "summary": words}),
                "facts": st.lists(facts, max_size=3),
                "turns": st.lists(given_turns, max_size=3),
            },
        ),
        "talk": st.lists(talk_turns, max_size=3),
        "must": st.lists(expectations, max_size=4),
        "mustNot": st.lists(expectations, max_size=2),
        "expectedAnswer": words,
        "lanes": st.lists(st.sampled_from([lane.value for lane in LaneName]), unique=True),
        "tags": st.lists(words, max_size=3),
        "notes": words,
    },
)


@given(cases)
@settings(max_examples=80)
def test_a_case_stays_the_same_on_the_way_through_json(content: dict[str, Any]) -> None:
    case = parse_case(content)
    wire = case_to_wire(case)
    assert parse_case(json.loads(json.dumps(wire))) == case
    assert parse_suite(json.dumps(wire).encode()) == [case]
    reordered = dict(reversed(wire.items())) | {"notes": "other notes", "tags": ["other"]}
    assert hash_case(parse_case(reordered)) == hash_case(case)
    assert hash_case(parse_case({**wire, "question": case.question + " really?"})) != hash_case(case)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FULL, "turns", "text", "x"]), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*FULL]), json_values))
@settings(max_examples=100)
def test_whatever_an_object_holds_it_is_a_case_or_is_rejected(content: dict[str, Any]) -> None:
    try:
        case = parse_case({**MINIMAL, **content})
    except InvalidCaseError:
        return
    assert parse_case(case_to_wire(case)) == case


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@settings(max_examples=200)
def test_whatever_bytes_a_suite_has_each_line_is_a_case_or_is_rejected(content: bytes) -> None:
    with suppress(InvalidSuiteError):
        assert all(isinstance(case, RecallCase) for case in parse_suite(content))


def test_all_invalid_lines_of_a_suite_are_named(tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    lines = [
        b'\xef\xbb\xbf{"id": "a", "question": "?"}\r',
        b"",
        b'{"id": "b"}',
        b"not JSON",
        b'{"id": "a", "question": "again?"}',
        b'{"id": "c", "question": "\xff"}',
        b'{"id": "d", "question": "?", "must": [{"text": "x"}, {}]}',
    ]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(InvalidSuiteError) as caught:
        read_suite(path)
    assert str(caught.value).splitlines() == [
        "line 3: question: required",
        "line 4: not valid JSON",
        "line 5: id: line 1 has a case with the same id",
        "line 6: not valid UTF-8 (byte 26)",
        "line 7: must[1]: exactly one of fact, document, turn and text is required",
    ]
    assert (caught.value.problems[0].line, caught.value.problems[0].field) == (3, "question")
    path.write_bytes(b"\n".join(lines[:2]))
    assert [case.id for case in read_suite(path)] == ["a"]


def test_of_many_invalid_lines_the_message_names_the_first_ones() -> None:
    with pytest.raises(InvalidSuiteError) as caught:
        parse_suite(b"x\n" * 30)
    assert str(caught.value).splitlines()[-2:] == ["line 20: not valid JSON", "... and 10 more"]
    assert len(caught.value.problems) == 30


CANDIDATE = {
    "recall": {
        "lanes": ["permanent", "org"],
        "topK": {"permanent": 3, "org": 0},
        "contextChars": 2_000,
        "laneChars": 800,
        "minConfidence": 0.2,
        "timeoutMs": 200.0,
    },
    "documents": {"setId": "set_1"},
    "prompt": {"label": "staging"},
}


def test_a_candidate_is_read_and_written_without_a_loss() -> None:
    candidate = parse_candidate(CANDIDATE)
    assert candidate.recall.top_k == {LaneName.PERMANENT: 3, LaneName.ORG: 0}
    assert candidate.to_wire() == CANDIDATE
    assert parse_candidate({}).recall == RecallSettings()
    assert parse_candidate({}).to_wire() == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"recal": {}}, "recal: unknown field"),
        ({"recall": {"topK": {"org": -1}}}, "recall.topK.org: expected `int` >= 0"),
        ({"recall": {"topK": {"all": 1}}}, "recall.topK.all: unknown field"),
        ({"recall": {"contextChars": 10}}, "recall.contextChars: expected `int` >= 100"),
        ({"recall": {"minConfidence": 2}}, "recall.minConfidence: expected `float` <= 1.0"),
        ({"prompt": {"label": "3"}}, "prompt.label: not the name of a label; a number is a version"),
        ({"prompt": {"label": "Über"}}, "prompt.label: not the name of a label; a number is a version"),
        ({"prompt": {}}, "prompt: exactly one of version, label and text is required"),
        ({"prompt": {"version": 1, "label": "x"}}, "prompt: exactly one of version, label and text is required"),
        ({"documents": {"setId": ""}}, "documents.setId: expected `str` of length >= 1"),
    ],
)
def test_what_is_invalid_in_a_candidate_is_named_by_its_field(content: Any, problem: str) -> None:
    with pytest.raises(InvalidCandidateError) as caught:
        parse_candidate(content)
    assert str(caught.value) == problem


def make_scores(**figures: Any) -> CaseScores:
    known: dict[str, Any] = {"recalled": 1.0, "recalled_half": 0.5, "rank": 1, "unwanted": 0, "chars": 100, "ms": 1.0}
    known |= {"late_lanes": (), "passed": True, "missing": (), "found": (0,)}
    return CaseScores(**known | figures)


def test_scores_of_a_run_count_only_cases_that_require_something() -> None:
    scores = aggregate(
        [
            make_scores(ms=3.0, late_lanes=("org",)),
            make_scores(recalled=0.5, recalled_half=0.0, rank=None, passed=False, unwanted=2, ms=1.0),
            make_scores(
                recalled=None, recalled_half=None, rank=None, chars=400, ms=2.0, late_lanes=("org", "permanent")
            ),
        ]
    )
    assert scores.to_wire() == {
        "cases": 3,
        "passed": 2,
        "passRate": 0.666667,
        "recalled": 0.75,
        "recalledHalf": 0.25,
        "meanReciprocalRank": 0.5,
        "unwanted": 2,
        "chars": 200.0,
        "ms50": 2.0,
        "ms95": 3.0,
        "lateLanes": {"org": 2, "permanent": 1},
    }
    assert aggregate([]).to_wire()["passRate"] is None


def test_the_grades_of_a_judge_are_counted_by_verdict() -> None:
    answers = [
        {"verdict": "right", "grade": 1.0},
        {"verdict": "wrong", "grade": 0.0},
        {"verdict": "right", "grade": 1.0},
    ]
    scores = aggregate(make_scores(answer=answer) for answer in answers)
    assert scores.to_wire()["answers"] == {"right": 2, "wrong": 1, "grade": 0.666667}


def test_scores_stay_the_same_on_the_way_through_json() -> None:
    scores = make_scores(
        late_lanes=("org",), unwanted_items=(1,), unwanted=1, answer={"verdict": "right", "grade": 1.0}
    )
    assert CaseScores.from_wire(json.loads(json.dumps(scores.to_wire()))) == scores
