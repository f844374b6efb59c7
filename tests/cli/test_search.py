"""``memoair search``: its output, its exit codes, and that it leaves nothing behind."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from support.calls import write_call
from support.commands import CommandResult, memoair
from support.loopback_server import LoopbackHandler, LoopbackServer
from support.runtimes import PROJECT, USER

from memoair_cli import search as search_command

SAID = [("I ordered the Tarn boots.", "In which size?"), ("Size nine, please.", "Noted."), ("Bye.", "Goodbye.")]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A storage root with one call of one caller."""
    write_call(tmp_path / "storage", "call-1", SAID, user={"name": "Dana"})
    return tmp_path / "storage"


@pytest.fixture(autouse=True)
def nothing_left(nothing_left_behind: None) -> None:
    """Check that no runtime outlives a search."""


def search(storage: Path, query: str, *arguments: str | Path, user: str = USER, code: int = 0) -> CommandResult:
    command = ("search", "--user", user, "--storage", storage, *arguments, query)
    return memoair(*command, code=code, MEMOAIR_PROJECT_ID=PROJECT, COLUMNS="200")


def log_files(storage: Path) -> dict[str, bytes]:
    return {str(path.relative_to(storage)): path.read_bytes() for path in storage.rglob("*.jsonl")}


def test_hits_are_shown_with_score_and_source_and_no_call_is_recorded(storage: Path) -> None:
    before = log_files(storage)
    done = search(storage, "Which size are the boots?")
    assert "## permanent" in done.out
    assert done.out.count("Size nine, please.") == 1
    assert "permanent 3 hits" in done.out
    assert done.err == ""
    assert log_files(storage) == before


def test_an_explanation_shows_each_hit_once_with_its_source_and_why(storage: Path) -> None:
    write_call(storage, "call-2", [("I want the brochure. " * 40, "Of course.")])
    done = search(storage, "Which size are the boots?", "--explain")
    shown = done.out.splitlines()

    assert "## permanent" not in done.out, "the context is shown without --explain"
    assert done.out.count("Size nine, please.") == 1
    assert [line for line in shown if line.startswith("  1. ") and "% sure  2026-03-02 call-1 t" in line]
    assert [line for line in shown if line.startswith("     why: ") and "around " in line]
    assert max(map(len, shown)) <= 250, "a long turn is cut"
    assert len(shown) < 30


def test_a_hit_for_which_the_context_had_no_room_is_marked(storage: Path) -> None:
    for call in range(2, 9):
        said = [(f"Concerning the boots, item {call}{turn}: " + "the boots are red. " * 60, "") for turn in range(4)]
        write_call(storage, f"call-{call}", said)
    done = search(storage, "What about the boots?", "--explain", "--top-k", "20")
    hits = re.split(r"\n(?= {1,2}\d+\. )", done.out)[1:]
    cut = [hit for hit in hits if "not in the context: no room was left" in hit]
    assert 0 < len(cut) < len(hits), done.out
    context = search(storage, "What about the boots?", "--top-k", "20").out
    assert not [hit for hit in cut if re.findall(r"item \d+", hit)[0] in context]


class Clock:
    """The clock of a search, which a test can advance."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.passed_s

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.mark.parametrize(
    ("syncs", "requests", "failure"),
    [
        ([{"state": "connecting"}, {"state": "ok", "hasPulled": False}, {"state": "ok", "hasPulled": True}], 3, None),
        ([{"state": "connecting"}, {"state": "retrying"}], 2, "the cloud is unreachable or fails"),
        ([{"state": "retrying", "hasPulled": True}], 1, None),
        ([{"state": "refused"}], 1, "the cloud rejects the requests"),
        ([None], 1, None),
    ],
)
def test_the_first_pull_from_the_cloud_is_awaited(
    syncs: list[Any], requests: int, failure: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_PULL_TIMEOUT_S", "_HEALTH_TIMEOUT_S"):
        monkeypatch.setattr(search_command, name, 30.0)
    monkeypatch.setattr(search_command, "time", clock := Clock())
    paths = []

    class Health(LoopbackServer):
        def answer(self, handler: LoopbackHandler) -> None:
            paths.append(handler.path)
            handler.reply(json.dumps({"status": "ok", "sync": syncs[min(len(paths), len(syncs)) - 1]}).encode())

    class Memory:
        def runtime_url(self, timeout_s: float) -> str:
            clock.passed_s += 100  # a slow start of the runtime takes no time from the wait for the cloud
            return server.url

    with Health() as server:
        reported = search_command._wait_for_cloud(Memory(), 30.0)  # type: ignore[arg-type]
    assert paths == ["/v1/runtime/health"] * requests
    assert reported == failure


def test_a_failed_pull_is_reported_and_an_empty_result_then_fails(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_command, "_PULL_TIMEOUT_S", 30.0)
    unreachable = {
        "MEMOAIR_PROJECT_ID": PROJECT,
        "MEMOAIR_API_KEY": "memoair_pk_x",
        "MEMOAIR_BASE_URL": "http://127.0.0.1:9",
    }
    there = ("search", "--storage", storage, "--user")
    warning = "the cloud is unreachable or fails: only this machine's memory was searched"
    found = memoair(*there, USER, "Which size are the boots?", **unreachable)
    assert "Size nine" in found.out
    assert warning in found.err
    assert warning in memoair(*there, "nobody", "boots", code=3, **unreachable).err


def test_json_output_has_the_whole_result(storage: Path) -> None:
    found = json.loads(search(storage, "boots", "--json", "--lane", "permanent", "--top-k", "1").out)

    assert "Tarn boots" in found["contextText"]
    assert [hit["lane"] for hit in found["permanent"]] == ["permanent"]
    assert found["trace"]["lanes"]["org"]["status"] == "skipped"


def test_control_characters_of_a_caller_do_not_reach_the_terminal(storage: Path) -> None:
    write_call(storage, "call-2", [("\x1b]0;owned\x07 The boots [bold]are[/bold] red.", "")])
    done = search(storage, "Which colour are the boots?")

    assert "[bold]are[/bold] red." in done.out
    assert not [sign for sign in done.out if not sign.isprintable() and sign != "\n"]


def test_documents_from_an_org_file_are_searched(storage: Path, tmp_path: Path) -> None:
    org = tmp_path / "faq.jsonl"
    org.write_text(json.dumps({"id": "returns", "text": "Boots can be returned within thirty days."}) + "\n")
    done = search(storage, "How long can boots be returned?", "--org-file", org, "--lane", "org", "--explain")

    assert "thirty days" in done.out
    assert "sure  returns" in done.out


def test_an_unknown_caller_or_project_is_reported_and_not_created(storage: Path) -> None:
    done = search(storage, "boots", user="nobody", code=1)

    assert done.err == f"nothing was found: {storage} has no such caller\n"
    assert not [path for path in (storage / PROJECT).iterdir() if "nobody" in path.name]
    elsewhere = memoair(
        "search", "--storage", storage / "x", "boots", code=1, MEMOAIR_PROJECT_ID="p", MEMOAIR_USER_ID="u"
    )
    assert elsewhere.err == f"nothing was found: {storage / 'x'} has no such project\n"
    assert search(storage, "weather", "--lane", "org", code=1).err == "nothing was found\n"


def test_a_timeout_is_reported(storage: Path) -> None:
    done = search(storage, "boots", "--timeout-ms", "1", code=3)

    assert "the search failed: runtime.timeout" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lane", "attic"], "lanes must be a list of lane names: profile, working, permanent, org"),
        (["--org-file", "/no/such.jsonl"], "is not a file"),
        (["--top-k", "0"], "--top-k"),
    ],
)
def test_invalid_options_are_reported(storage: Path, arguments: list[str], message: str) -> None:
    assert message in search(storage, "boots", *arguments, code=2).err


def test_the_project_is_required() -> None:
    done = memoair("search", "--user", "ana", "boots", code=2)
    assert done.err == "MEMOAIR_PROJECT_ID is not set; set it, or pass --project\n"
