"""The engine: what counts as recalled, that it answers as a runtime does, and that nothing but the data decides."""

import gc
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from support.calls import write_call
from support.runtimes import RunningRuntime
from support.waiting import eventually

from memoair_evaluation.candidate import RecallSettings, parse_candidate
from memoair_evaluation.case import CURRENT_SESSION, Given, GivenTurn, RecallCase, parse_case
from memoair_evaluation.engine import CaseQuestion, Engine, EngineDocuments, open_engine
from memoair_evaluation.matching import contains_phrase, to_words
from memoair_evaluation.scoring import CaseResult
from memoair_index import Index, split_document
from memoair_protocol.enums import LaneName
from memoair_runtime.preview import InvalidSearchError

NOON = datetime(2026, 3, 4, 12, tzinfo=timezone.utc)


def document(id_: str, text: str, index: str | None = "shop", **metadata: Any) -> dict[str, Any]:
    return {"indexName": index, "id": id_, "text": text, "metadata": metadata}


DOCUMENTS = [
    document("returns", "Boots can be sent back within thirty days.", topic="returns"),
    document("old-returns", "Boots could be sent back within ten days.", topic="returns"),
    document("hours", "The store opens at nine.", topic="hours"),
    document("hours", "The warehouse opens at six.", index="logistics", topic="hours"),
]
GIVEN = {
    "profile": {"name": "Mara"},
    "facts": ["Mara is allergic to nuts."],
    "turns": [
        {"turnId": "t1", "sessionId": "march", "user": "My boots are red.", "assistant": "Noted."},
        {"turnId": "t2", "sessionId": "march", "user": "I live in Bern.", "assistant": "A nice town."},
        {"turnId": "t1", "sessionId": "april", "user": "The parcel was late.", "assistant": "Sorry for that."},
    ],
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with open_engine(EngineDocuments(documents=DOCUMENTS)) as opened:
        yield opened


def make_case(question: str, **more: Any) -> RecallCase:
    return parse_case({"id": "a", "question": question, "given": GIVEN, **more})


def run(engine: Engine, question: str, **more: Any) -> CaseResult:
    settings = parse_candidate({"recall": more.pop("recall", {})}).recall
    return engine.run_case(make_case(question, **more), settings)


# What is recalled


def test_facts_documents_turns_and_texts_are_found(engine: Engine) -> None:
    must = [
        {"fact": "allergic to nuts"},
        {"document": "returns"},
        {"document": "returns", "index": "shop"},
        {"turn": "t1", "session": "march"},
        {"text": "THIRTY  days"},
    ]
    result = run(engine, "Can I send my red boots back? I am allergic to nuts.", must=must)
    assert result.scores.found == (0, 1, 2, 3, 4)
    assert (result.scores.recalled, result.scores.rank, result.scores.passed) == (1.0, 1, True)
    assert result.scores.chars == len(result.context) > 0


def test_what_is_not_in_the_context_is_missing(engine: Engine) -> None:
    must = [{"document": "returns"}, {"document": "returns", "index": "logistics"}, {"text": "forty days"}]
    must += [{"turn": "t9"}, {"turn": "t1", "session": "may"}, {"fact": "warehouse opens"}]
    result = run(engine, "Can boots be sent back? When does the warehouse open?", must=must)
    assert result.scores.missing == (1, 2, 3, 4, 5)  # what a document says is no fact about the caller
    assert result.scores.recalled == pytest.approx(1 / 6)
    assert not result.scores.passed


def test_what_must_not_be_there_is_counted_and_named(engine: Engine) -> None:
    must_not = [{"text": "nothing of this"}, {"document": "old-returns"}]
    result = run(engine, "Can boots be sent back?", mustNot=must_not)
    assert (result.scores.unwanted, result.scores.unwanted_items, result.scores.passed) == (1, (1,), False)
    assert (result.scores.recalled, result.scores.rank) == (None, None)


def test_the_headers_of_sections_are_not_recalled(engine: Engine) -> None:
    must = [{"fact": "about the caller"}, {"fact": "profile"}, {"text": "instructions"}, {"text": "org"}]
    must += [{"text": "documents background"}, {"text": "allergic to nuts"}, {"text": "thirty days"}]
    result = run(engine, "Can I send my red boots back? I am allergic to nuts.", must=must)
    assert {"## profile", "## org"} <= set(result.context.splitlines())
    assert result.scores.found == (5, 6), result.context


def test_a_document_is_recognized_by_its_id_and_not_by_its_first_words(engine: Engine) -> None:
    beginning = "Our terms of business for all orders of the spring collection say: "
    documents = [document(f"terms-{name}", f"{beginning}{name} is {name}.") for name in ("postage", "payment", "gifts")]
    with open_engine(EngineDocuments(documents=documents)) as other:
        must = [{"document": "terms-payment"}, {"document": "terms-gifts"}]
        result = run(other, "payment?", must=must, recall={"topK": {"org": 1}})
    assert result.scores.found == (0,)


def test_of_two_documents_with_one_text_both_are_recalled() -> None:
    same = "Gift cards are valid for two years."
    documents = [document("a", same), document("b", same), *DOCUMENTS]
    with open_engine(EngineDocuments(documents=documents)) as engine:
        result = run(engine, "Are gift cards valid?", must=[{"document": "a"}, {"document": "b"}])
    assert result.context.count(same) == 1
    assert result.scores.passed


def test_the_talk_before_the_question_takes_part(engine: Engine) -> None:
    talk = [{"user": "I am calling about the store.", "assistant": "Which one?"}, {"user": "The one in Bern."}]
    result = run(engine, "When does it open?", talk=talk, must=[{"document": "hours"}, {"turn": "talk-2"}])
    assert "## working" in result.context
    assert result.scores.passed


def test_half_the_budgets_hold_less(engine: Engine) -> None:
    case = make_case("Can I send my red boots back?", must=[{"document": "returns"}, {"document": "old-returns"}])
    settings = RecallSettings(lanes=(LaneName.ORG,), context_chars=220, lane_chars=220)
    result = engine.run_case(case, settings)
    assert result.half_context is not None
    assert len(result.half_context) <= 110 < len(result.context)
    assert (result.scores.recalled, result.scores.recalled_half) == (1.0, 0.0)
    halved = engine.run_case(case, RecallSettings(lanes=(LaneName.ORG,), context_chars=110, lane_chars=110))
    assert halved.context == result.half_context  # as if it had been searched with them


def test_settings_and_the_case_choose_the_lanes_together(engine: Engine) -> None:
    question = "Can boots be sent back? They are red."
    assert run(engine, question, lanes=["permanent"]).trace["lanes"]["org"]["status"] == "skipped"
    both = run(engine, question, lanes=["permanent", "org"], recall={"lanes": ["org", "profile"]})
    asked = [name for name, lane in both.trace["lanes"].items() if lane["status"] == "ok"]
    assert asked == ["org"]
    assert run(engine, question, recall={"lanes": []}).context == ""


def test_a_filter_leaves_out_what_it_does_not_match(engine: Engine) -> None:
    result = run(engine, "Can boots be sent back?", filter={"topic": "hours"}, must=[{"document": "returns"}])
    assert result.scores.missing == (0,)


def test_a_minimum_of_confidence_leaves_out_the_rest(engine: Engine) -> None:
    assert "## org" in run(engine, "Can boots be sent back?").context
    assert run(engine, "Can boots be sent back?", recall={"minConfidence": 1.0, "lanes": ["org"]}).context == ""


def test_days_are_counted_from_the_time_of_the_question(engine: Engine) -> None:
    turns = [
        {"user": f"We spoke about item {day}.", "occurredAt": f"2026-03-{day:02}T09:00:00Z", "sessionId": f"s{day}"}
        for day in range(1, 29)
    ]
    for day in (10, 20):
        at = f"2026-03-{day:02}T12:00:00Z"
        given = {"turns": [turn for turn in turns if turn["occurredAt"] < at]}
        must = [{"text": f"item {day - 1}"}]
        settings = {"contextChars": 300, "topK": {"permanent": 2}}
        result = run(engine, "What did we speak about yesterday?", given=given, at=at, must=must, recall=settings)
        assert result.scores.passed, result.context


def test_a_case_keeps_its_trace(engine: Engine) -> None:
    result = run(engine, "Sent back within thirty days?", at="2026-03-04T12:00:00Z", given={"turns": []})
    org = result.trace["lanes"]["org"]
    assert (org["status"], result.trace["occurredAt"]) == ("ok", "2026-03-04T12:00:00Z")
    assert org["items"][0]["documentId"] == "returns"
    assert org["items"][0]["text"] == "Boots can be sent back within thirty days."
    assert org["items"][0]["inContext"] is True
    assert org["items"][0]["terms"]
    json.dumps(result.trace)


def test_a_lane_is_late_if_it_took_longer_than_a_search_may_take(engine: Engine) -> None:
    slow, patient = RecallSettings(timeout_ms=0.000_001), RecallSettings(timeout_ms=60_000.0)
    case = make_case("Can boots be sent back?", must=[{"document": "returns"}])
    late = engine.run_case(case, slow).scores
    assert set(late.late_lanes) == {lane.value for lane in LaneName}
    assert late.passed  # nothing is cut off
    assert engine.run_case(case, patient).scores.late_lanes == ()


def test_a_raw_reply_is_explained(engine: Engine) -> None:
    given = Given(turns=[GivenTurn("My boots are red.", "Noted.")])
    reply = engine.ask(given, CaseQuestion("Which color are my boots?", NOON))
    assert reply["trace"]["explain"]["permanent"]
    assert engine.ask(None, CaseQuestion("When does the store open?", NOON))["org"][0]["id"] == "hours"
    with pytest.raises(InvalidSearchError, match="operator"):
        engine.ask(None, CaseQuestion("?", NOON, filter={"$x": 1}))


@pytest.mark.parametrize(
    ("text", "phrase", "is_found"),
    [
        ("Within 30\ndays.", "30 days", True),
        ("Within 130 days.", "30 days", False),
        ("Große Straße", "grosse STRASSE", True),
        ("我们在30天内退货", "30天内", True),
        ("我们在130天内退货", "30天内", False),
        ("100 30 days", "30 days", True),
        ("They\N{RIGHT SINGLE QUOTATION MARK}re here", "they're", True),
        ("a b c", "a c", False),
        ("anything", "...", False),
    ],
)
def test_phrases_are_compared_word_by_word(text: str, phrase: str, is_found: bool) -> None:
    assert contains_phrase(to_words(text), phrase) is is_found


# Documents


def test_documents_that_changed_since_the_index_file_count(tmp_path: Path) -> None:
    index = Index()
    for each in DOCUMENTS[:3]:
        index.add(split_document(each["id"], each["text"], each["metadata"], each["indexName"]))
    path = tmp_path / "org.index"
    index.merge(path)
    changes = EngineDocuments(
        index_file=path,
        documents=[document("hours", "The store opens at eleven."), document("new", "Boots are cheap in May.")],
        removed=[{"indexName": "shop", "id": "old-returns"}],
    )
    with open_engine(changes) as engine:
        result = run(
            engine,
            "Can boots be sent back? When does the store open? Are boots cheap?",
            must=[{"document": "returns"}, {"document": "new"}, {"text": "eleven"}],
            mustNot=[{"document": "old-returns"}, {"text": "nine"}],
        )
    assert result.scores.passed, result.context
    damaged = bytearray(path.read_bytes())
    for position in range(len(damaged) // 2, len(damaged), 7):
        damaged[position] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(OSError, match="damaged"), open_engine(changes):
        pass
    with pytest.raises(FileNotFoundError), open_engine(EngineDocuments(index_file=tmp_path / "none")):
        pass


# Nothing but the data decides


def test_cases_start_no_thread_and_write_no_file(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("not allowed")

    engine.run_case(make_case("Can boots be sent back?"))  # what is opened once
    for owner, name in ((threading.Thread, "start"), (tempfile, "mkdtemp"), (tempfile, "mkstemp"), (os, "mkdir")):
        monkeypatch.setattr(owner, name, refuse)
    assert engine.run_case(make_case("Can boots be sent back?", must=[{"document": "returns"}])).scores.passed


def test_a_case_leaves_nothing_to_the_garbage_collector(engine: Engine) -> None:
    case = make_case("Can boots be sent back?", talk=[{"user": "It is about my boots."}])

    def count_indexes() -> int:
        return sum(isinstance(each, Index) for each in gc.get_objects())

    engine.run_case(case)
    gc.collect()
    before = count_indexes()
    gc.disable()
    try:
        for _ in range(3):
            engine.run_case(case)
        assert count_indexes() == before
    finally:
        gc.enable()


def test_the_order_of_the_cases_does_not_matter(engine: Engine) -> None:
    cases = [
        make_case(f"Question {number} about boots and nuts?", must=[{"document": "returns"}, {"fact": "nuts"}])
        for number in range(6)
    ]

    def describe(result: CaseResult) -> Any:
        return result.scores.without_times(), result.context, result.half_context

    forward = [describe(engine.run_case(case)) for case in cases]
    backward = [describe(engine.run_case(case)) for case in reversed(cases)]
    assert forward == backward[::-1]


_DIGEST_CODE = """
import hashlib, json, sys
from memoair_evaluation.case import parse_suite
from memoair_evaluation.engine import EngineDocuments, open_engine
documents, suite = json.loads(sys.stdin.read())
with open_engine(EngineDocuments(documents=documents)) as engine:
    results = [engine.run_case(case) for case in parse_suite(suite.encode())]
for result in results:
    lanes = result.trace["lanes"].values()
    items = [item for lane in lanes for item in lane.get("items", ())]
    hits = [[item["id"], item["score"], item["confidence"], item["terms"]] for item in items]
    scores = result.scores.without_times().to_wire()
    print(json.dumps([scores, result.context, result.half_context, hits, result.case_sha256]))
"""


def test_other_processes_and_other_hash_seeds_score_the_same_to_the_last_digit() -> None:
    subjects = ["boots", "parcels", "gift cards", "the store in Bern", "nuts", "the warehouse"]
    documents = [
        document(f"d{number}", f"About {subject}: rule {number} says that {subjects[number % 3]} cost {number} francs.")
        for number, subject in enumerate(subjects * 12)
    ]
    lines = [
        json.dumps(
            {
                "id": f"c{number}",
                "question": f"What did I say about {subject} yesterday, and what does it cost?",
                "given": GIVEN,
                "talk": [{"user": f"It is about {subjects[number - 1]}.", "assistant": "Yes?"}],
                "must": [{"document": f"d{number}"}, {"text": "francs"}, {"fact": "nuts"}],
            }
        )
        for number, subject in enumerate(subjects)
    ]
    given = json.dumps([documents, "\n".join(lines)])
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _DIGEST_CODE],
            input=given,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
        ).stdout
        for seed, zone in (("1", "UTC"), ("4242", "Pacific/Auckland"))
    ]
    assert len(outputs[0].splitlines()) == len(subjects)
    assert hashlib.sha256(outputs[0].encode()).hexdigest() == hashlib.sha256(outputs[1].encode()).hexdigest(), outputs


def test_a_runtime_recalls_the_same_context(
    start_runtime: Callable[..., RunningRuntime], storage_root: Path, tmp_path: Path
) -> None:
    org_file = tmp_path / "org.jsonl"
    documents = [document(each["id"], each["text"], None, **each["metadata"]) for each in DOCUMENTS[:3]]
    org_file.write_text("".join(json.dumps(each) + "\n" for each in documents))
    exchanges = [("My boots are red.", "Noted."), ("I live in Bern.", "A nice town."), ("They are too small.", "Oh.")]
    started_at = datetime(2026, 1, 5, 10, tzinfo=timezone.utc)
    write_call(storage_root, "earlier", exchanges, started_at)
    runtime = start_runtime(ORG_FILE=str(org_file))
    runtime.wait_until_loaded()
    runtime.start(CURRENT_SESSION)
    runtime.save(CURRENT_SESSION, "n1", "It is about my boots.", "Yes?")
    question = "Can I send the red ones back?"
    eventually(lambda: "too small" in runtime.search(CURRENT_SESSION, question)["contextText"])
    expected = runtime.search(CURRENT_SESSION, question)

    turns = [
        {"user": user, "assistant": assistant, "sessionId": "earlier", "occurredAt": f"2026-01-05T10:{minute:02}:00Z"}
        for minute, (user, assistant) in enumerate(exchanges)
    ]
    talk = [{"user": "It is about my boots.", "assistant": "Yes?"}]
    case = parse_case({"id": "a", "question": question, "given": {"turns": turns}, "talk": talk})
    with open_engine(EngineDocuments(documents=documents)) as engine:
        result = engine.run_case(case)
    assert result.context == expected["contextText"]
    assert [item["documentId"] for item in result.trace["lanes"]["org"]["items"]] == [
        hit["source"]["documentId"] for hit in expected["org"]
    ]
