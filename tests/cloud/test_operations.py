"""What an operator sees: how much waits, what has failed for good, and how it is tried again."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.clouds import Client, running

from memoair_cloud.consolidation import CallTurn, Extraction, RuleExtractor
from memoair_cloud.indexes import builder
from memoair_cloud.memories import extraction_worker
from memoair_cloud.memories.extraction_worker import ExtractionWorker
from memoair_cloud.operations import Backlog, backlog, dead_letters, revive


def test_what_has_failed_for_good_is_told_without_words_and_tried_again_when_somebody_says_so(
    new_database: Callable[[], str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(RuleExtractor):
        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            raise ValueError(turns[0].user_text)

    def fail(*_: Any) -> None:
        raise KeyError("We open at nine.")

    def metrics() -> dict[str, float]:
        told = Client(cloud.url).ok("GET", "/metrics").decode()
        lines = [line.rsplit(" ", 1) for line in told.splitlines() if line.startswith("memoair_cloud_")]
        return {name.removeprefix("memoair_cloud_"): float(value) for name, value in lines}

    monkeypatch.setattr(extraction_worker, "_FIRST_PAUSE", timedelta(0))
    with running(new_database(), folder) as cloud:
        engine, client = cloud.services.engine, cloud.tenant()
        project = client.identity["project"]
        for number in range(2):
            client.call_of(f"call-{number}", "I live in Lisbon.")
        document = {"id": "d", "text": "We open at nine."}
        client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [document]})
        waiting = backlog(engine)
        assert (waiting.calls, waiting.builds) == (2, 1)
        assert waiting.oldest_call_at is not None
        assert metrics()['waiting{work="learn"}'] == 2
        assert metrics()["oldest_call_seconds"] > 0

        broken = ExtractionWorker(engine, Broken(), timedelta(hours=1))
        while broken.learn_one(project):
            pass
        with monkeypatch.context() as patch:
            patch.setattr(builder, "split_document", fail)
            for _ in range(builder.MOST_FAILURES):
                with pytest.raises(KeyError):
                    builder.build_org_index(engine, cloud.services.blobs, project)
        dead = [(each.work, each.project_id, each.failure, each.count) for each in dead_letters(engine)]
        assert dead == [("learn", project, "ValueError", 2), ("build", project, "KeyError", 1)]
        assert "Lisbon" not in repr(dead_letters(engine))
        waiting = backlog(engine)
        assert (waiting.calls, waiting.builds) == (0, 0)
        assert metrics()['dead_letters{work="learn"}'] == 2
        assert (broken.projects_due(), builder.projects_to_build(engine)) == ([], [])

        assert revive(engine) == 3
        assert dead_letters(engine) == []
        cloud.work()
        assert [memory["text"] for memory in client.memories()] == ["Ana lives in Lisbon."]
        assert client.ok("GET", "/v1/voice-sdk/bootstrap")["orgFile"]["version"] == 1
        assert backlog(engine) == Backlog(0, None, 0)
        assert metrics()['dead_letters{work="build"}'] == 0
