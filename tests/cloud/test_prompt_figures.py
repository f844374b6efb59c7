"""Figures by version of the prompt: what they count, their intervals, and what a comparison may say."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from scipy import stats
from sqlalchemy import update
from sqlalchemy.orm import Session
from support.clouds import Client, RunningCloud, recall_trace, session_end, turn

from memoair_cloud.analytics.comparison import MIN_CALLS
from memoair_cloud.analytics.intervals import (
    Estimate,
    ScoreSample,
    ShareSample,
    collect_scores,
    estimate_mean,
    estimate_mean_difference,
    estimate_share,
    estimate_share_difference,
)
from memoair_cloud.database.models import CallSession
from memoair_cloud.database.recall_trace_models import RecallTrace
from memoair_protocol.outcomes import MAX_SCORE
from memoair_protocol.timestamps import format_utc, utc_now

FIGURES = "/v1/voice-sdk/analytics/prompts"


def ends(estimate: Estimate | None) -> tuple[float, float]:
    assert estimate is not None
    return estimate.low, estimate.high


def test_a_share_has_the_interval_of_wilson() -> None:
    """Newcombe 1998 (two-sided confidence intervals for the single proportion), table I, method 3."""
    for count, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert ends(estimate_share(ShareSample(count, total))) == pytest.approx((low, high), abs=1e-4)
    assert ends(estimate_share(ShareSample(29, 29))) == pytest.approx((0.8830, 1.0), abs=1e-4)
    assert estimate_share(ShareSample(0, 0)) is None


def test_a_difference_of_shares_has_the_interval_of_newcombe() -> None:
    """Newcombe 1998 (interval estimation for the difference between independent proportions), table II, method 10."""
    for (first, second), low, high in (
        (((48, 80), (56, 70)), 0.0524, 0.3339),
        (((3, 10), (9, 10)), 0.1705, 0.8090),
    ):
        found = estimate_share_difference(ShareSample(*first), ShareSample(*second))
        assert ends(found) == pytest.approx((low, high), abs=1e-4)
    assert estimate_share_difference(ShareSample(0, 0), ShareSample(1, 2)) is None


def test_means_have_the_intervals_of_student_and_welch() -> None:
    first, second = [1.0, 2.0, 2.0, 5.0, 4.0], [3.0, 3.5, 9.0, 4.0, 4.0, 8.0]
    samples = [collect_scores([(score, 1) for score in scores]) for scores in (first, second)]
    wanted = stats.ttest_1samp(first, 0).confidence_interval()
    assert ends(estimate_mean(samples[0])) == pytest.approx((wanted.low, wanted.high))
    wanted = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
    assert ends(estimate_mean_difference(*samples)) == pytest.approx((wanted.low, wanted.high))
    large = collect_scores([(1e9 + score, 1) for score in first])
    assert large.variance == pytest.approx(samples[0].variance), "large scores keep their digits"
    assert collect_scores([(MAX_SCORE, 1_000), (-MAX_SCORE, 1_000)]).variance == pytest.approx(MAX_SCORE**2, rel=1e-2)
    one, equal = collect_scores([(5.0, 1)]), collect_scores([(5.0, 40)])
    assert estimate_mean(one) is estimate_mean(equal) is estimate_mean(ScoreSample()) is None
    assert estimate_mean_difference(equal, equal) is estimate_mean_difference(one, samples[0]) is None


def test_the_scores_of_days_add_up() -> None:
    scores = [1e9 + score for score in (1.0, 2.0, 2.0, 5.0, 4.0, 3.0, 3.5)]
    days = [collect_scores([(score, 1) for score in scores[start:end]]) for start, end in ((0, 0), (0, 3), (3, 7))]
    whole = collect_scores([(score, 1) for score in scores])
    total = days[0] + days[1] + days[2]
    assert (total.count, total.mean) == (whole.count, pytest.approx(whole.mean))
    assert total.variance == pytest.approx(whole.variance)


def test_the_server_starts_without_the_library_of_statistics() -> None:
    code = "import sys, memoair_cloud.http.app; print('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.fixture
def app(client: Client) -> Iterator[Client]:
    """Yield the same client without a caller and an agent, as reports are made."""
    bare = Client(client.url, client.key, project=client.identity["project"])
    yield bare
    bare.close()


def fill(cloud: RunningCloud, client: Client, version: int | None, calls: int, prefix: str, agent: str = "") -> None:
    """Send calls of two callers with a search each, all with a version of the prompt."""
    at = format_utc(utc_now() - timedelta(minutes=5))
    for caller in range(2):
        name = f"{prefix}-caller-{caller}"
        own = client.with_identity(user=name, **({"agent": agent} if agent else {}))
        ids = [f"{prefix}-{number}" for number in range(calls) if number % 2 == caller]
        turns = (turn(f"{id_}-1", id_, 2, occurredAt=at) for id_ in ids)
        own.send(*turns, *(session_end(f"{id_}-2", id_, occurredAt=at) for id_ in ids))
        own.send_traces(*(recall_trace(f"{id_}-trace", id_, occurredAt=at, totalMs=2.0) for id_ in ids[:200]))
        own.close()
    with Session(cloud.services.engine) as session, session.begin():
        for model, column in ((CallSession, CallSession.id), (RecallTrace, RecallTrace.session_id)):
            is_own = model.project_id == client.identity["project"]
            values = update(model).where(is_own, column.startswith(f"{prefix}-"))
            session.execute(values.values(prompt_version=version))


def report(app: Client, prefix: str, counts: dict[str, int], scores: Callable[[int], float] | None = None) -> None:
    """Report outcomes for the calls of a prefix, in order."""
    names = [name for name, count in counts.items() for _ in range(count)]
    outcomes = [
        {"sessionId": f"{prefix}-{number}", "outcome": name, "score": scores(number) if scores else None}
        for number, name in enumerate(names)
    ]
    receipt = app.ok("POST", "/v1/voice-sdk/outcomes", {"outcomes": outcomes})
    assert (receipt["accepted"], receipt["unknownSessions"]) == (len(names), 0)


def test_versions_are_counted_apart(cloud: RunningCloud, client: Client, app: Client) -> None:
    project, agent = client.identity["project"], client.identity["agent"]
    other = client.ok("POST", f"/v1/projects/{project}/agents", {"name": "Sales", "agentType": "voice"})["id"]
    fill(cloud, client, 1, 6, "one")
    fill(cloud, client, 2, 4, "two")
    fill(cloud, client, None, 2, "none")
    fill(cloud, client, 1, 2, "sales", agent=other)
    report(app, "one", {"resolved": 3, "escalated": 1}, lambda number: number)
    again = {"sessionId": "one-0", "outcome": "resolved", "score": 10}
    repeated = [{**again, "outcomeId": f"again-{number}"} for number in range(2)]
    app.ok("POST", "/v1/voice-sdk/outcomes", {"outcomes": repeated})

    found = app.ok("GET", FIGURES)
    assert found["base"] == "reported"
    counted = [(row["agentId"], row["version"], row["calls"], row["searches"]) for row in found["versions"]]
    own = [(agent, 2, 4, 4), (agent, 1, 6, 6), (agent, None, 2, 2)]
    assert sorted(counted, key=str) == sorted([*own, (other, 1, 2, 2)], key=str)
    assert [row for row in counted if row[0] == agent] == own, "the latest version first"
    one = app.ok("GET", f"{FIGURES}?agent={agent}")["versions"][1]
    assert (one["callers"], one["turns"], one["openCalls"], one["reportedCalls"]) == (2, 6, 0, 4)
    assert (one["foundShare"], one["degradedShare"], one["medianMs"]) == (1.0, 0.0, pytest.approx(2.05, abs=0.1))
    resolved, escalated = one["outcomes"]
    assert (resolved["outcome"], resolved["count"], resolved["scoreCount"]) == ("resolved", 3, 5), "a call counts once"
    assert resolved["share"]["value"] == 0.75
    assert (resolved["meanScore"]["value"], escalated["meanScore"]) == (pytest.approx(23 / 5), None)
    of_calls = app.ok("GET", f"{FIGURES}?agent={agent}&base=calls")["versions"][1]["outcomes"][0]
    assert of_calls["share"]["value"] == 0.5
    assert [row["agentId"] for row in app.ok("GET", f"{FIGURES}?agent={other}")["versions"]] == [other]
    assert client.ok("GET", FIGURES)["versions"] == app.ok("GET", f"{FIGURES}?agent={agent}")["versions"]


def test_a_period_is_that_in_which_calls_began(client: Client, app: Client) -> None:
    client.send_call("then", "My parcel is late.", day="2026-03-02")
    app.ok("POST", "/v1/voice-sdk/outcomes", {"outcomes": [{"sessionId": "then", "outcome": "resolved"}]})
    assert app.ok("GET", FIGURES)["versions"] == []
    [version] = app.ok("GET", f"{FIGURES}?from=2026-03-02&to=2026-03-03")["versions"]
    assert (version["calls"], version["reportedCalls"]) == (1, 1), "an outcome counts with its call"
    assert app.ok("GET", f"{FIGURES}?from=2026-03-03&to=2026-03-04")["versions"] == []
    app.ok("POST", "/v1/voice-sdk/outcomes", {"outcomes": [{"sessionId": "then", "outcome": "late-survey"}]})
    [version] = app.ok("GET", f"{FIGURES}?from=2026-03-02&to=2026-03-03")["versions"]
    names = {row["outcome"] for row in version["outcomes"]}
    assert names == {"resolved", "late-survey"}, "a report is seen at once, however long ago the call was"
    for query in ("from=2026-03-02&to=2026-03-02", "from=2020-01-01&to=2026-03-02", "from=then", "base=x"):
        assert app.error_of("GET", f"{FIGURES}?{query}") == (422, "cloud.invalid"), query
    assert app.error_of("GET", f"{FIGURES}?agent=unknown") == (404, "cloud.not_found")


def test_two_versions_are_compared_only_if_there_are_enough_calls(
    cloud: RunningCloud, client: Client, app: Client
) -> None:
    path = f"{FIGURES}/comparison?agent={client.identity['agent']}&before=1&after=2"
    fill(cloud, client, 1, 80, "one")
    fill(cloud, client, 2, MIN_CALLS - 1, "two")
    report(app, "one", {"resolved": 48, "escalated": 32}, lambda number: 1 + number % 3)
    report(app, "two", {"resolved": MIN_CALLS - 1})
    found = app.ok("GET", path)
    assert [(row["outcome"], row["share"]["verdict"]) for row in found["outcomes"]] == [
        ("resolved", "not_enough_calls"),
        ("escalated", "not_enough_calls"),
    ]
    assert all(row["share"]["difference"] is None for row in found["outcomes"]), "no number that misleads"

    fill(cloud, client, 3, 70, "three")
    report(app, "three", {"resolved": 56, "escalated": 14}, lambda number: 1 + number % 3)
    found = app.ok("GET", path.replace("after=2", "after=3"))
    resolved, escalated = found["outcomes"]
    assert (escalated["share"]["verdict"], resolved["share"]["verdict"]) == ("lower", "higher")
    assert resolved["share"]["difference"] == {
        "value": pytest.approx(0.2),
        "low": pytest.approx(0.0524, abs=1e-4),
        "high": pytest.approx(0.3339, abs=1e-4),
    }
    assert (resolved["score"]["verdict"], resolved["score"]["beforeCount"]) == ("undecided", 48)
    assert escalated["score"]["verdict"] == "not_enough_calls"
    assert found["unevenReports"] is False
    assert (found["before"]["version"], found["after"]["version"]) == (1, 3)
    uneven = app.ok("GET", f"{path}&base=calls".replace("after=2", "after=4"))
    assert (uneven["after"]["calls"], uneven["unevenReports"]) == (0, True)

    for query in ("before=1&after=1", "before=0&after=1", "before=1"):
        assert app.error_of("GET", f"{FIGURES}/comparison?agent={client.identity['agent']}&{query}")[0] == 422
    assert app.error_of("GET", f"{FIGURES}/comparison?before=1&after=2") == (422, "cloud.invalid")
