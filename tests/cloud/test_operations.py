"""Operations: the backlog, dead letters, and how to retry them."""

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
from memoair_cloud.operations import Backlog, get_backlog, list_dead_letters, retry_dead_letters
from memoair_protocol.backoff import Backoff


def test_dead_letters_are_listed_without_words_and_can_be_retried(
    new_database: Callable[[], str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenExtractor(RuleExtractor):
        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            raise ValueError(turns[0].user_text)

    def fail(*_: Any) -> None:
        raise KeyError("We open at nine.")

    def read_metrics() -> dict[str, float]:
        text = Client(cloud.url).ok("GET", "/metrics").decode()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("memoair_cloud_")]
        return {name.removeprefix("memoair_cloud_"): float(value) for name, value in lines}

    monkeypatch.setattr(extraction_worker, "_BACKOFF", Backoff(0.0, 0.0))
    with running(new_database(), folder) as cloud:
        engine, client = cloud.services.engine, cloud.tenant()
        project = client.identity["project"]
        for number in range(2):
            client.send_call(f"call-{number}", "I live in Lisbon.")
        document = {"id": "d", "text": "We open at nine."}
        client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [document]})
        waiting = get_backlog(engine)
        assert (waiting.calls, waiting.builds) == (2, 1)
        assert waiting.oldest_call_at is not None
        assert read_metrics()['waiting{work="learn"}'] == 2
        assert read_metrics()["oldest_call_seconds"] > 0

        broken = ExtractionWorker(engine, BrokenExtractor(), timedelta(hours=1))
        while broken.process_next_call(project):
            pass
        with monkeypatch.context() as patch:
            patch.setattr(builder, "split_document", fail)
            for _ in range(builder.MAX_FAILURES):
                with pytest.raises(KeyError):
                    builder.build_org_index(engine, cloud.services.blobs, project)
        dead = [(letter.work, letter.project_id, letter.failure, letter.count) for letter in list_dead_letters(engine)]
        assert dead == [("learn", project, "ValueError", 2), ("build", project, "KeyError", 1)]
        assert "Lisbon" not in repr(list_dead_letters(engine))
        waiting = get_backlog(engine)
        assert (waiting.calls, waiting.builds) == (0, 0)
        assert read_metrics()['dead_letters{work="learn"}'] == 2
        assert (broken.find_due_projects(), builder.find_projects_to_build(engine)) == ([], [])

        assert retry_dead_letters(engine) == 3
        assert list_dead_letters(engine) == []
        cloud.run_tasks()
        assert [memory["text"] for memory in client.memories()] == ["Ana lives in Lisbon."]
        assert client.ok("GET", "/v1/voice-sdk/bootstrap")["orgFile"]["version"] == 1
        assert get_backlog(engine) == Backlog(0, None, 0, 0)
        assert read_metrics()['dead_letters{work="build"}'] == 0
