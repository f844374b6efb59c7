"""Evaluations in a real browser: from a call to a case to a run, by keyboard and screen reader, on a telephone."""

import re

import pytest
from dashboard.test_browser import browser, context, page  # noqa: F401 - fixtures
from dashboard.test_browser_documents import check_page
from dashboard.test_evaluation_runs import BOOTS, EASY, RUNS
from dashboard.test_evaluations import CASE, SUITES, put
from playwright.sync_api import Page, expect
from support.dashboards import Dashboard


@pytest.fixture(scope="module")
def suite(dashboard: Dashboard) -> str:
    """The id of a suite with three cases and three runs, of which the last one is a candidate."""
    made: str = dashboard.client.ok("POST", SUITES, {"name": "In a browser"})["suiteId"]
    put(dashboard, made, EASY, BOOTS)
    for number in range(3):
        if number == 1:
            put(dashboard, made, CASE)
        candidate = {"recall": {"lanes": ["profile"]}} if number == 2 else {}
        dashboard.client.ok("POST", RUNS, {"suiteId": made, "candidate": candidate})
        dashboard.cloud.run_tasks()
    return made


def test_pages_of_evaluations_are_for_everyone(dashboard: Dashboard, page: Page, suite: str) -> None:  # noqa: F811
    runs = [run["runId"] for run in dashboard.client.ok("GET", f"{RUNS}?suite={suite}")["runs"]]
    here, run = ("evaluations", "suites", suite), ("evaluations", "runs", runs[0])
    for parts, query in (
        (("evaluations",), {}),
        (("evaluations", "document-sets"), {}),
        (here, {}),
        ((*here, "cases", "boots-1"), {}),
        ((*here, "cases", "boots-1", "edit"), {}),
        ((*here, "run"), {"like": runs[0]}),
        (run, {}),
        ((*run, "cases", "boots/1"), {}),
        ((*run, "comparison"), {"against": runs[1]}),
        ((*run, "comparison", "boots/1"), {"against": runs[1]}),
        (("callers", "caller/1", "calls", "call-b", "turns", "b-1", "case"), {}),
    ):
        response = page.goto(dashboard.path(*parts, **query))
        assert response is not None
        assert response.status == 200, parts
        # Colors that only pages of evaluations have are on the last of them.
        check_page(page, ("light", "dark") if "comparison" in parts or parts == run else ("light",))
    page.goto(dashboard.path(*here))
    expect(page.locator(".chart canvas")).to_have_count(1)
    expect(page.locator("#runs tbody tr[data-skip]")).to_have_count(1)


def test_a_turn_becomes_a_case_that_is_run_and_changed_without_loading_the_page_again(
    dashboard: Dashboard,
    page: Page,  # noqa: F811
) -> None:
    page.goto(dashboard.path("callers", "caller/1", "calls", "call-b"))
    page.get_by_role("link", name="Make this turn a case").first.click()
    page.get_by_label(re.compile("^Suite")).select_option(label="a new one, named below")
    page.get_by_label("Name of a new suite").fill("From a call")
    page.get_by_label("Hit 1 must be recalled").check()
    expect(page.get_by_label("the case goes, too")).to_be_checked()
    rows = page.get_by_role("group", name=re.compile(r"Must not be recalled, either, \d"))
    page.get_by_role("button", name="Another one").nth(1).click()
    expect(rows).to_have_count(2)
    rows.nth(1).get_by_label("Words or id").fill("receipt")
    page.get_by_role("button", name="Make the case").click()
    expect(page.get_by_role("status")).to_contain_text("The case is saved")
    page.get_by_role("link", name="From a call").click()
    page.get_by_role("button", name="Run…").click()
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("waiting for a worker")).to_be_visible()
    page.evaluate("window.isSamePage = true")

    dashboard.cloud.run_tasks()

    expect(page.get_by_text("0 of 1")).to_be_visible()  # the page looks by itself
    assert page.evaluate("window.isSamePage") is True
    page.get_by_role("row", name=re.compile("failed")).get_by_role("link").click()
    expect(page.locator(".outcomes li").first).to_contain_text("in the context")
    expect(page.locator("pre mark").first).to_be_visible()
    page.get_by_role("link", name="as it is now").click()
    page.get_by_role("button", name="Edit…").click()
    page.get_by_role("group", name="Must not be recalled, 1").get_by_label("Words or id").fill("")
    page.get_by_role("button", name="Save the case").click()
    page.get_by_role("link", name="From a call").click()
    page.get_by_role("button", name="Run…").click()
    page.get_by_role("button", name="Run", exact=True).click()
    dashboard.cloud.run_tasks()
    expect(page.get_by_text("1 of 1")).to_be_visible()
    page.get_by_role("button", name="Compare with the run before").click()
    expect(page.get_by_text("1 changed")).to_be_visible()


def test_cases_are_found_while_typing(dashboard: Dashboard, page: Page, suite: str) -> None:  # noqa: F811
    page.goto(dashboard.path("evaluations", "suites", suite))
    page.get_by_label("Words of a case").fill("boots returned?")
    expect(page.locator("#results tbody tr")).to_have_count(1)
    expect(page).to_have_url(re.compile("q=boots"))
    page.get_by_label("Words of a case").fill("nothing of this")
    expect(page.locator("#results")).to_contain_text("No case has")
