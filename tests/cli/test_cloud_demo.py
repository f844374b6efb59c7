"""``memoair cloud demo``: the calls that it plans, the cloud that it fills, its one-time link, and what it leaves."""

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from support.commands import MEMOAIR, environment, memoair
from support.dashboards import Page, Visitor

from memoair_cli.cloud_demo.planning import PlannedCall, plan_calls
from memoair_cli.cloud_demo.script import load_lines
from memoair_cloud.dashboard.one_time_links import LINK_TTL_S, OneTimeLinks

LONDON = ZoneInfo("Europe/London")
NOW = datetime(2026, 3, 18, 15, 20, tzinfo=timezone.utc)
SHOP, CLINIC = "/dashboard/p/proj_harbour-pine", "/dashboard/p/proj_fennick-row"


class RunningDemo(NamedTuple):
    """A demo that runs, and someone who has followed its link: what they saw before, and then."""

    url: str
    link_path: str
    visitor: Visitor
    page_before: Page
    first_page: Page


@contextmanager
def started(temporary: Path, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo. At the end, it must have left nothing in the folder of temporary files."""
    command = [*MEMOAIR, "cloud", "demo", "--no-browser", *arguments]
    environ |= {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=environment(temporary, **environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=30)
    assert list(temporary.iterdir()) == []


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    temporary, other = tmp_path_factory.mktemp("temporary"), tmp_path_factory.mktemp("other") / "cloud.db"
    variables = {"MEMOAIR_CLOUD_DATABASE_URL": f"sqlite:///{other}", "MEMOAIR_CLOUD_PORT": "1"}
    with started(temporary, "--calls", "24", **variables) as process:
        assert process.stdout is not None
        link = next(line.strip() for line in process.stdout if "/dashboard/link/" in line)
        url, path = link.partition("/dashboard")[0], link[link.index("/dashboard") :]
        visitor = Visitor(url)
        yield RunningDemo(url, path, visitor, visitor.get(SHOP), visitor.get(path))
        visitor.close()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, ""), rest
    assert not other.exists(), "the variables of another cloud led the demo there"


def test_the_link_signs_in_once_and_leads_to_the_pages(demo: RunningDemo) -> None:
    assert "Sign in" in demo.page_before.text
    assert demo.first_page.status == 200
    assert "Harbour &amp; Pine" in demo.first_page.text
    someone_else = Visitor(demo.url)
    again = someone_else.get(demo.link_path)
    assert (again.status, "used before" in again.text) == (403, True)
    assert "Sign in" in someone_else.get(SHOP).text
    someone_else.close()
    calls = set()
    for path in (SHOP, CLINIC):
        for part in (
            "",
            "/callers",
            "/calls",
            "/searches",
            "/audit",
            "/prompts",
            "/prompts/1",
            "/try?q=When+are+you+open%3F",
        ):
            shown = demo.visitor.get(path + part + ("&" if "?" in part else "?") + "period=30d")
            assert shown.status == 200, part
            calls |= set(re.findall(r'href="(/dashboard/p/[^"?]*/calls/[^"?/]+)', shown.text))
        versions = demo.visitor.get(f"{path}/prompts").text
        assert "one question at a time" in versions
        assert "prompt pushed" in demo.visitor.get(f"{path}/audit").text
    assert len(calls) == 24
    replays = [demo.visitor.get(path) for path in calls]
    assert {page.status for page in replays} == {200}
    shown = "".join(page.text for page in replays)
    assert "Asked:" in shown
    assert "<mark>" in shown
    assert "clinic-information / clinic-" in shown
    callers = set(re.findall(r"/dashboard/p/[^/]*/callers/caller_\d+", shown))
    facts = "".join(demo.visitor.get(path).text for path in callers)
    assert "phone number is 555-0" in facts


def test_the_figures_of_the_month_are_those_of_calls_that_arrived_in_it(demo: RunningDemo) -> None:
    for path in (SHOP, CLINIC):
        page = demo.visitor.get(f"{path}?period=30d").text
        late = re.search(r'state=late"><span class="name">Arrived late</span><span class="value[^"]*">(\d+)<', page)
        waiting = re.search(r'To be learned</span><span class="value[^"]*">(\d+)<', page)
        assert late is not None
        assert waiting is not None
        assert (late[1], waiting[1]) == ("0", "0")


def test_ending_it_while_it_fills_the_cloud_leaves_nothing(tmp_path: Path) -> None:
    with started(tmp_path, "--calls", "5000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, ""), out


def test_a_folder_with_files_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "cloud.db").write_text("another cloud")

    refused = memoair("cloud", "demo", "--no-browser", "--storage", tmp_path, code=1)

    assert "is not empty" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["cloud.db"]
    assert (tmp_path / "cloud.db").read_text() == "another cloud"
    memoair("cloud", "demo", "--no-browser", "--storage", tmp_path / "cloud.db", code=2)


@pytest.mark.skipif(os.name == "nt", reason="folders have no mode there")
def test_a_kept_cloud_is_only_for_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with subprocess.Popen(
        [*MEMOAIR, "cloud", "demo", "--no-browser", "--calls", "2", "--storage", str(folder)],
        env=environment(tmp_path, PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "/dashboard/link/" in line)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "memoair cloud serve --database-url" in out
    assert (folder / "cloud.db").exists()
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.fixture(scope="module")
def month() -> list[PlannedCall]:
    return plan_calls(load_lines(), NOW, LONDON, 200, 19)


def test_the_same_seed_gives_the_same_month(month: list[PlannedCall]) -> None:
    assert plan_calls(load_lines(), NOW, LONDON, 200, 19) == month
    assert plan_calls(load_lines(), NOW, LONDON, 200, 20) != month
    later = plan_calls(load_lines(), NOW + timedelta(days=7), LONDON, 200, 19)
    assert [call.talk for call in later] == [call.talk for call in month]


def test_calls_are_in_business_hours_of_the_last_month_and_in_order(month: list[PlannedCall]) -> None:
    assert len(month) == 200
    for call in month:
        start = call.started_at.astimezone(LONDON)
        assert NOW - timedelta(days=29) < start < call.ended_at < NOW
        assert start.weekday() != 6
        assert 8 <= start.hour < (12 if start.weekday() == 5 else 18)
        said = [turn.said_at for turn in call.turns]
        assert said == sorted(said)
    assert [call.ended_at for call in month] == sorted(call.ended_at for call in month)
    assert len({call.session_id for call in month}) == 200


def test_a_month_has_all_that_calls_can_have(month: list[PlannedCall]) -> None:
    turns = [turn for call in month for turn in call.turns]
    texts = [
        text for turn in turns for text in (turn.user_text, turn.heard_text, turn.full_text or "", turn.misheard or "")
    ]
    assert not [text for text in texts if "{" in text or "|" in text]
    callers = Counter(call.caller["id"] for call in month)
    assert len(callers) == 30
    assert sum(count > 1 for count in callers.values()) > 20
    assert {call.talk for call in month} == {name for line in load_lines() for name in line.talks}
    counts = {
        "interrupted": sum(turn.full_text is not None for turn in turns),
        "corrected": sum(turn.misheard is not None for turn in turns),
        "tools": sum(turn.tool is not None for turn in turns),
        "second person": sum(turn.speaker is not None for turn in turns),
        "late": sum(turn.is_late for turn in turns),
        "answering machine": sum(call.is_outbound for call in month),
        "from a machine that was offline": sum(
            call.arrived_at - call.ended_at > timedelta(minutes=10) for call in month
        ),
    }
    assert not [name for name, count in counts.items() if count < 2], counts
    # Word for word the same call never comes twice.
    assert len({tuple(turn.user_text for turn in call.turns) for call in month}) > 190


def test_a_link_ends_after_ten_minutes() -> None:
    now = 1_000.0
    links = OneTimeLinks(lambda: now)
    late, in_time = (links.issue("key", "/dashboard").rpartition("/")[2] for _ in range(2))
    now += LINK_TTL_S - 1
    assert links.redeem(in_time) is not None
    now += 1
    assert links.redeem(late) is None
    assert links.redeem("unknown") is None
