"""Replays in a real browser: started by form, followed without loading the page again, accepted as cases."""

import re

from dashboard.test_browser import browser, context, page  # noqa: F401 - fixtures
from dashboard.test_browser_documents import check_page
from playwright.sync_api import Page, expect
from support.dashboards import Dashboard

ROOT = "/v1/voice-sdk/evaluations"
WEEK = {"id": "returns-2026", "text": "Boots can be returned within seven days.", "indexName": "faq"}


def test_a_replay_is_started_followed_and_accepted(dashboard: Dashboard, page: Page) -> None:  # noqa: F811
    dashboard.client.ok("POST", f"{ROOT}/document-sets", {"name": "Policies of 2026", "documents": [WEEK]})
    dashboard.cloud.run_tasks()
    page.goto(dashboard.path("evaluations"))
    page.get_by_role("link", name="Replays").click()
    check_page(page)
    page.goto(dashboard.path("evaluations", "replays"))
    page.get_by_role("button", name="New replay").click()
    page.get_by_label("Documents").select_option(label="Policies of 2026, 1 document")
    page.get_by_text("Recall settings").click()
    page.get_by_label("Hits of org, at most").fill("3")
    page.get_by_role("button", name="Replay", exact=True).click()
    expect(page.get_by_text("waiting for a worker")).to_be_visible()
    page.evaluate("window.isSamePage = true")

    dashboard.cloud.run_tasks()

    expect(page.get_by_text("Documents that appear")).to_be_visible()  # the page looks by itself
    assert page.evaluate("window.isSamePage") is True
    first = page.locator("article.change").first
    expect(first.locator("table.sides tr.changed td").last).to_contain_text("seven days")
    check_page(page)
    page.get_by_role("checkbox", name="How long can I return the boots?").check()
    page.get_by_label("Name of the new one").fill("Accepted in a browser")
    page.get_by_role("button", name="Accept as cases").click()
    expect(page.get_by_role("status")).to_contain_text("1 case added")
    page.get_by_role("link", name="Open the suite").click()
    expect(page.get_by_role("row", name=re.compile("How long can I return the boots"))).to_be_visible()
    page.goto(dashboard.path("evaluations", "replays", "new"))
    check_page(page)
