"""Outcomes and prompt figures in a real browser: a table from the file to the comparison of two versions."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard.test_browser import browser, page, sign_in  # noqa: F401 - fixtures
from dashboard.test_browser_documents import check_page
from dashboard.test_outcomes import fill_versions
from playwright.sync_api import Browser, BrowserContext, Page, expect
from support.dashboards import Dashboard

# A folder for pictures of the pages, to look at when they change.
_PICTURES = os.environ.get("MEMOAIR_TEST_PICTURES")


@pytest.fixture(scope="module")
def own(dashboard: Dashboard) -> Dashboard:
    return fill_versions(dashboard, "browser-outcomes")


@pytest.fixture(scope="module")
def context(browser: Browser, own: Dashboard) -> Iterator[BrowserContext]:  # noqa: F811
    opened = sign_in(browser, own, viewport={"width": 1280, "height": 900})
    yield opened
    opened.close()


def take_picture(page: Page, name: str) -> None:  # noqa: F811
    if _PICTURES:
        page.set_viewport_size({"width": 1280, "height": 900})
        page.screenshot(path=Path(_PICTURES) / f"{name}.png", full_page=True)
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=Path(_PICTURES) / f"{name}-dark.png", full_page=True)
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 390, "height": 844})
        page.screenshot(path=Path(_PICTURES) / f"{name}-phone.png", full_page=True)
        page.set_viewport_size({"width": 1280, "height": 900})


def test_a_table_becomes_a_comparison_of_two_versions(own: Dashboard, page: Page, tmp_path: Path) -> None:  # noqa: F811
    page.goto(own.path("prompt-figures"))
    expect(page.locator("main")).to_contain_text("No outcomes are reported of these calls.")
    check_page(page)
    take_picture(page, "figures-empty")
    page.get_by_role("link", name="uploaded").first.click()
    rows = [f"v1-{number},{'resolved' if number < 30 else 'escalated'},{1 + number % 3}\n" for number in range(40)]
    rows += [f"v2-{number},{'resolved' if number < 38 else 'escalated'},{2 + number % 4}\n" for number in range(40)]
    rows += [f"v3-{number},resolved,5\n" for number in range(5)] + ["later,resolved,\n", ",resolved,\n"]
    (tmp_path / "calls.csv").write_text("Contact,Disposition,CSAT\n" + "".join(rows))
    page.get_by_label("File, at most").set_input_files(tmp_path / "calls.csv")
    check_page(page)
    take_picture(page, "upload")
    page.get_by_role("button", name="Check the file").click()
    expect(page.get_by_role("alert")).to_contain_text("the columns are Contact, Disposition, CSAT")
    page.get_by_label("Session id of the call").select_option("Contact")
    page.get_by_role("button", name="Check again").click()
    expect(page.get_by_role("list", name="Dry run")).to_contain_text("85of known calls")
    check_page(page)
    take_picture(page, "upload-checked")
    page.get_by_role("button", name="Save 86 outcomes").click()
    expect(page.get_by_role("status")).to_have_text("86 outcomes saved.")
    check_page(page)
    take_picture(page, "outcomes")

    page.get_by_role("link", name="Prompt figures").click()
    page.get_by_label("From version").select_option("1")
    page.get_by_label("To version").select_option("2")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#comparison")).to_contain_text("version 2 is higher")
    assert page.locator("#comparison svg").count() == 3
    value = page.locator("#comparison svg rect.value").first
    assert value.evaluate("mark => mark.getBoundingClientRect().width") > 0, "the intervals are drawn"
    check_page(page)
    take_picture(page, "figures")
    page.get_by_role("link", name="version 2").first.click()
    expect(page.locator("main")).to_contain_text("With version 2 of the prompt.")
    take_picture(page, "calls")
    page.get_by_role("link", name="v2-", exact=False).first.click()
    expect(page.locator("dl.pairs")).to_contain_text("version 2")
