"""The executor without threads: a lane that is slow is late in a preview, and never in an evaluation."""

import time

import pytest

from memoair_evaluation.case import parse_case
from memoair_evaluation.engine import EngineDocuments, open_engine
from memoair_protocol.enums import LaneName
from memoair_runtime.preview import PreviewDocuments, PreviewUser, open_documents
from memoair_runtime.recall.lanes.profile_lane import ProfileLane
from memoair_runtime.recall.lanes.working_lane import WorkingLane

DOCUMENTS = [{"indexName": None, "id": "returns", "text": "Boots go back within thirty days.", "metadata": {}}]
QUESTION = "Can boots be sent back?"


@pytest.fixture
def late_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two minutes pass with the search of the profile, which is the first lane."""
    passed_s = 0.0
    monotonic, search = time.monotonic, ProfileLane.search

    def search_slowly(*arguments: object) -> object:
        nonlocal passed_s
        passed_s += 120.0
        return search(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ProfileLane, "search", search_slowly)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + passed_s)


def test_a_preview_leaves_out_what_comes_after_the_deadline(late_clock: None) -> None:
    memory = open_documents(PreviewDocuments(documents=DOCUMENTS)).open_user(PreviewUser())
    reply = memory.search({"sessionId": "s", "query": QUESTION, "timeoutMs": 5_000})
    assert {lane["status"] for lane in reply["trace"]["lanes"].values()} == {"late"}
    assert (reply["contextText"], reply["trace"]["degraded"]) == ("", True)


def test_an_evaluation_waits_for_every_lane_and_says_which_were_late(late_clock: None) -> None:
    case = parse_case({"id": "a", "question": QUESTION, "must": [{"document": "returns"}]})
    with open_engine(EngineDocuments(documents=DOCUMENTS)) as engine:
        scores = engine.run_case(case).scores
    assert scores.passed
    assert scores.late_lanes == tuple(lane.value for lane in LaneName)


def test_a_lane_that_fails_costs_only_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("the words of a caller")

    monkeypatch.setattr(WorkingLane, "search", fail)
    memory = open_documents(PreviewDocuments(documents=DOCUMENTS)).open_user(PreviewUser())
    reply = memory.search({"sessionId": "s", "query": QUESTION})
    assert reply["trace"]["lanes"]["working"]["status"] == "error"
    assert reply["org"][0]["id"] == "returns"
