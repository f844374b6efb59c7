"""A whole runtime after power failures: it starts, finds every acknowledged turn, and pulls what is missing."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.power import CRASHES, survivors
from support.crash_disk import CrashDisk
from support.devices import device
from support.scripted_cloud import ScriptedCloud, closes_connection, remote_turn
from support.waiting import eventually

from memoair_index.static_model import default_model


@pytest.fixture
def opened_model() -> None:
    """Open the embedding model, which stays open, before descriptors are counted."""
    default_model()


@pytest.fixture
def cloud(opened_model: None, nothing_left_behind: None) -> Iterator[ScriptedCloud]:
    with ScriptedCloud() as cloud:
        yield cloud
    gc.collect()  # an index keeps its mapped file open until it is collected


def test_a_runtime_starts_on_whatever_is_left(tmp_path: Path, cloud: ScriptedCloud) -> None:
    (tmp_path / "disk").mkdir()
    cloud.put_documents(("returns", "Boots can be returned within thirty days."))
    cloud.add_event(remote_turn("remote-1", "My umbrella is yellow."))
    cloud.update_profile(summary="Dana prefers email.")
    with CrashDisk(tmp_path / "disk") as disk, device(cloud, tmp_path / "disk" / "storage") as runtime:
        disk.promise(("t1", runtime.save("t1", "My boots are red.")))
        runtime.search("Which color are my boots?")
        cloud.put_documents(("hours", "We open at nine on weekdays."))
        cloud.add_fact("fact-1", "Dana lives in Lisbon.")
        cloud.update_profile(summary="Dana prefers the telephone.")
        runtime.pull()
        disk.promise(("t2", runtime.save("t2", "My hat is green.")))
        runtime.end()
        runtime.flush()
    for crash, root in survivors(disk, tmp_path, count=max(12, CRASHES // 5)):
        cloud.behave("*", always=closes_connection)
        with device(cloud, root / "storage", waits_for_pull=False) as runtime:
            eventually(lambda runtime=runtime: runtime.service.health()["lanes"]["permanent"] == "ready")
            assert runtime.search("boots", timeoutMs=5_000)["trace"]["lanes"]["permanent"]["status"] == "ok"
            for turn_id, event_id in crash.promises:
                text = "My boots are red." if turn_id == "t1" else "My hat is green."
                assert runtime.save(turn_id, text) == event_id
                assert any(text in found for found in runtime.find_texts(text))
            cloud.behave_well()
            # The first attempt may be one that had begun before, and failed.
            eventually(lambda runtime=runtime: runtime.pull()["status"] == "ok", within_s=60.0)
            assert runtime.find_texts("Where is Lisbon?")
            assert runtime.find_texts("umbrella")
            org = runtime.search("When do you open on weekdays, and what can be returned?", lanes=["org"])["org"]
            assert {hit["id"] for hit in org} == {"returns", "hours"}
            assert "telephone" in runtime.search("hello")["profile"]["summary"]
