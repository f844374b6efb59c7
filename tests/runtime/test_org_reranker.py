"""The second stage for documents, with a tiny transformer: its vectors are made once for all runtimes of a project."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.runtimes import PROJECT, USER, RunningRuntime
from support.tiny_model import skip_without_onnx, write_tiny_model
from support.waiting import eventually

skip_without_onnx()

# The question's only word that any document has is "red"; the transformer knows that boots are shoes.
QUESTION = "red boots?"
DOCUMENTS = {
    "money": "red red: a refund of the money",
    "tooth": "red red: dentist, tooth",
    "shoes": "red and blue, shoes",
}

StartRuntime = Callable[..., RunningRuntime]


def write_org_file(path: Path, documents: dict[str, str]) -> None:
    lines = (json.dumps({"id": name, "text": text}) + "\n" for name, text in documents.items())
    path.write_text("".join(lines))


@pytest.fixture
def org_file(tmp_path: Path) -> Path:
    write_org_file(tmp_path / "org.jsonl", DOCUMENTS)
    return tmp_path / "org.jsonl"


def start_with_model(start_runtime: StartRuntime, org_file: Path, **variables: str) -> RunningRuntime:
    model = write_tiny_model(org_file.parent / "model")
    return start_runtime(ORG_FILE=str(org_file), MEDIUM_MODEL=str(model), **variables)


def start_medium(runtime: RunningRuntime, session_id: str) -> None:
    identity = {"workspaceId": PROJECT, "userId": USER}
    assert runtime.post("session/start", sessionId=session_id, satham={"variant": "medium"}, **identity)[0] == 200


def search_org(runtime: RunningRuntime, session_id: str, question: str = QUESTION) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = runtime.search(session_id, question, explain=True, timeoutMs=2_000)["org"]
    return hits


def is_reranked(runtime: RunningRuntime, session_id: str) -> bool:
    found = runtime.search(session_id, QUESTION, explain=True, timeoutMs=2_000)
    return any("transformer" in terms for terms in found["trace"]["explain"].get("org", {}).values())


def vector_files(org_file: Path) -> list[Path]:
    return list(org_file.parent.rglob("org-vectors.bin"))


def test_documents_of_the_same_meaning_rise_in_sessions_of_the_variant(
    start_runtime: StartRuntime, org_file: Path
) -> None:
    runtime = start_with_model(start_runtime, org_file)
    start_medium(runtime, "call-1")
    eventually(lambda: is_reranked(runtime, "call-1"))
    found = search_org(runtime, "call-1")
    assert found[0]["id"] == "shoes"
    runtime.start("call-2")
    assert not is_reranked(runtime, "call-2")
    assert {hit["id"] for hit in search_org(runtime, "call-2")} == {hit["id"] for hit in found}


def test_without_a_model_the_documents_are_found_and_the_trace_says_why_they_are_not_reranked(
    start_runtime: StartRuntime, org_file: Path
) -> None:
    runtime = start_runtime(ORG_FILE=str(org_file))
    start_medium(runtime, "call-1")
    runtime.wait_until_loaded()
    found = runtime.search("call-1", QUESTION)
    assert len(found["org"]) == 3
    assert any("medium is not available" in note for note in found["trace"]["notes"])
    assert vector_files(org_file) == []


def test_another_runtime_of_the_project_reads_the_vectors(start_runtime: StartRuntime, org_file: Path) -> None:
    first = start_with_model(start_runtime, org_file)
    start_medium(first, "call-1")
    eventually(lambda: is_reranked(first, "call-1"))
    eventually(lambda: len(vector_files(org_file)) == 1)
    (vectors,) = vector_files(org_file)
    before = vectors.stat()
    first.close()
    second = start_with_model(start_runtime, org_file)
    start_medium(second, "call-1")
    eventually(lambda: is_reranked(second, "call-1"))
    assert search_org(second, "call-1")[0]["id"] == "shoes"
    assert (vectors.stat().st_ino, vectors.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_documents_that_change_are_encoded_again(start_runtime: StartRuntime, org_file: Path) -> None:
    runtime = start_with_model(start_runtime, org_file)
    start_medium(runtime, "call-1")
    eventually(lambda: is_reranked(runtime, "call-1"))
    write_org_file(org_file, {**DOCUMENTS, "boots": "red, blue: boots"})
    start_medium(runtime, "call-2")
    eventually(lambda: search_org(runtime, "call-2")[0]["id"] == "boots")
    eventually(lambda: is_reranked(runtime, "call-2"))
