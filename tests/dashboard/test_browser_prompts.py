"""Prompts in a real browser: write, compare, release and take back a version, by mouse and without JavaScript."""

import re

import pytest
from dashboard.test_browser import browser, context, page, sign_in  # noqa: F401 - fixtures
from dashboard.test_browser_documents import check_page
from playwright.sync_api import Browser, Page, expect
from support.dashboards import Dashboard


@pytest.mark.parametrize(
    ("parts", "query"),
    [
        ((), {}),
        (("2",), {}),
        (("new",), {}),
        (("compare",), {"old": "1", "new": "2"}),
        (("labels", "production"), {}),
    ],
    ids=str,
)
def test_pages_of_prompts_are_for_everyone(
    dashboard: Dashboard,
    page: Page,  # noqa: F811
    parts: tuple[str, ...],
    query: dict[str, str],
) -> None:
    page.goto(dashboard.path("prompts", *parts, **query))
    check_page(page)


@pytest.mark.parametrize("has_javascript", [True, False])
def test_a_version_is_written_released_and_taken_back(
    dashboard: Dashboard,
    browser: Browser,  # noqa: F811
    has_javascript: bool,
) -> None:
    client = dashboard.cloud.tenant("prompts")
    own = Dashboard(dashboard.cloud, client, client.identity["project"], "")
    visit = sign_in(browser, own, java_script_enabled=has_javascript)
    page = visit.new_page()  # noqa: F811
    page.goto(own.path())
    page.get_by_role("link", name="Prompts").click()
    page.get_by_role("link", name="Write the first version").click()
    page.get_by_label("Text").fill("\n\nGreet {{caller}}.\nBe brief.\n")
    page.get_by_label("Notes").fill("first words")
    page.get_by_label(re.compile("Point this label")).fill("production")
    page.get_by_role("button", name="Push").click()
    expect(page.get_by_role("status")).to_contain_text("Version 1 is pushed")
    assert client.ok("GET", "/v1/voice-sdk/prompt-labels/production")["text"] == "\n\nGreet {{caller}}.\nBe brief.\n"

    page.get_by_role("link", name="Begin a new version with this text").click()
    expect(page.get_by_label("Text")).to_have_value("\n\nGreet {{caller}}.\nBe brief.\n")
    page.get_by_label("Text").fill("\n\nGreet {{caller name}}.\nBe brief.\n")
    page.get_by_role("button", name="Push").click()
    expect(page.get_by_role("alert")).to_contain_text("line 3, column 7")
    page.get_by_label("Text").fill("\n\nGreet {{caller}}.\nBe polite.\n")
    page.get_by_role("button", name="Push").click()
    expect(page.get_by_role("status")).to_contain_text("No agent gets it until a label points to it")

    page.get_by_role("link", name="Compare with production").click()
    expect(page.locator(".prompt-diff .added")).to_have_text("+Be polite.")
    expect(page.locator(".prompt-diff mark")).to_have_text(["brief", "polite"])
    page.get_by_role("link", name="version 2").click()
    page.get_by_label(re.compile("Label, which")).fill("production")
    page.get_by_role("button", name="Move the label").click()  # the browser asks for the confirmation first
    expect(page.get_by_role("heading", level=1)).to_have_text("Version 2")
    page.get_by_label(re.compile("Agents that ask")).check()
    page.get_by_role("button", name="Move the label").click()
    expect(page.get_by_role("status")).to_contain_text("production points to version 2")

    page.get_by_label(re.compile("get version 1 again")).check()
    page.get_by_role("button", name="Roll back to version 1").click()
    expect(page.get_by_role("status")).to_contain_text("production is rolled back to version 1")
    page.get_by_text("Remove this label").click()
    page.get_by_label(re.compile("get no prompt from then on")).check()
    page.get_by_role("button", name="Remove production").click()
    expect(page.get_by_role("status")).to_contain_text("production is removed")
    expect(page.locator("table tbody tr")).to_have_count(4)
    page.get_by_role("link", name="All prompts").click()
    page.get_by_role("link", name="All changes in the audit log").click()
    expect(page.locator("main")).to_contain_text("production: version 2 → version 1")
    visit.close()
