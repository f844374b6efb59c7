"""The dashboard in a real browser: every page, form and error, by keyboard, for screen readers, on a telephone."""

import os
import re
from collections.abc import Iterator

import pytest
from support.clouds import session_start, turn
from support.dashboards import CHROMIUM, Dashboard, fill_project
from support.waiting import eventually

if CHROMIUM is None and os.environ.get("MEMOAIR_REQUIRE_BROWSER") != "1":
    pytest.skip("there is no Chromium here: install the package chromium", allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

PAGES = {
    "overview": (),
    "callers": ("callers",),
    "caller": ("callers", "caller/1"),
    "erase": ("callers", "caller/1", "erase"),
    "holds": ("callers", "caller/1", "holds"),
    "fact": ("callers", "caller/1", "facts", "{fact}"),
    "call": ("callers", "caller/1", "calls", "call-b"),
    "again": ("callers", "caller/1", "calls", "call-b", "again"),
    "calls": ("calls",),
    "searches": ("searches",),
    "try": ("try",),
    "audit": ("audit",),
    "missing": ("callers", "nobody"),
}
QUERIES = {"again": {"turn": "b-1"}, "try": {"q": "How long can I return the boots?", "user": "caller/1"}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "this run requires a browser: install the package chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def sign_in(browser: Browser, dashboard: Dashboard, **options: object) -> BrowserContext:
    context = browser.new_context(base_url=dashboard.cloud.url, **options)  # type: ignore[arg-type]
    context.set_default_timeout(15_000)
    page = context.new_page()
    page.goto("/dashboard/sign-in")
    page.get_by_label("API key").fill(str(dashboard.client.key))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()
    page.close()
    return context


@pytest.fixture(scope="module")
def context(browser: Browser, dashboard: Dashboard) -> Iterator[BrowserContext]:
    opened = sign_in(browser, dashboard)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """Yield a page on which no script fails, and nothing breaks the policy or comes from elsewhere."""
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.on("requestfailed", lambda request: problems.append(request.url))
    yield opened
    opened.close()
    assert [problem for problem in problems if "status of 4" not in problem and "ERR_ABORTED" not in problem] == []


def path_of(dashboard: Dashboard, name: str) -> str:
    fact = dashboard.client.memories()[0]["memoryId"]
    parts = [fact if part == "{fact}" else part for part in PAGES[name]]
    return dashboard.path(*parts, **QUERIES.get(name, {}))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_serious_fault_for_screen_readers_and_fits_a_telephone(
    dashboard: Dashboard, page: Page, name: str
) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(reduced_motion="reduce")  # else colors are judged while they change
    page.goto(path_of(dashboard, name))
    for scheme in ("light", "dark") if name in ("overview", "caller", "fact", "call", "missing") else ("light",):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = Axe().run(page)
        serious = [
            (fault["id"], fault["nodes"][0]["html"][:200])
            for fault in found.response["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        assert serious == []
    page.set_viewport_size({"width": 390, "height": 844})
    eventually(lambda: page.evaluate("document.documentElement.scrollWidth") <= 390, 20)  # charts are drawn again


def test_the_keys_j_and_k_lead_from_turn_to_turn_and_slash_to_the_search(dashboard: Dashboard, page: Page) -> None:
    page.goto(path_of(dashboard, "call"))
    page.keyboard.press("j")
    expect(page.locator("article:focus")).to_contain_text("How long can I return the boots?")
    page.keyboard.press("j")
    expect(page.locator("article:focus")).to_contain_text("And where do I live?")
    page.keyboard.press("k")
    expect(page.locator("article:focus")).to_contain_text("How long can I return the boots?")
    page.keyboard.press("/")
    page.keyboard.type("live")
    page.keyboard.press("Enter")
    expect(page.locator("article")).to_have_count(1)
    expect(page.locator("mark").first).to_have_text("live")


def test_callers_are_found_while_typing_and_the_address_can_be_passed_on(dashboard: Dashboard, page: Page) -> None:
    page.goto(path_of(dashboard, "callers"))
    page.get_by_label("Name, id or metadata").fill("nobody at all")
    expect(page.locator("#results")).to_contain_text("No caller has")
    page.get_by_label("Name, id or metadata").fill("sousa")
    expect(page.locator("#results")).to_contain_text("Ana Sousa")
    expect(page).to_have_url(re.compile("q=sousa"))


def test_the_charts_are_drawn_from_the_tables(dashboard: Dashboard, page: Page) -> None:
    page.goto(path_of(dashboard, "overview"))
    expect(page.locator(".chart canvas")).to_have_count(2)


def test_a_question_is_answered_on_the_page(dashboard: Dashboard, page: Page) -> None:
    page.goto(dashboard.path("try"))
    page.get_by_label("Question").fill("How long can I return the boots?")
    page.get_by_label("As the caller with this id").fill("caller/1")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("pre.context")).to_contain_text("Boots can be returned within thirty days")


def test_what_a_caller_says_is_text_in_a_browser_too(dashboard: Dashboard, page: Page) -> None:
    own = fill_project(dashboard.cloud, "browser-injection", "<img src=x onerror=alert(1)>")
    code = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">"
    said = turn("x-1", "x", 2, said=code)
    said["payload"]["assistantText"] = code
    own.client.send(session_start("x-start", "x", 1, name=code), said)
    theirs = sign_in(page.context.browser, own)  # type: ignore[arg-type]
    opened = theirs.new_page()
    for parts in ((), ("callers",), ("callers", own.user_id), ("callers", own.user_id, "calls", "x"), ("audit",)):
        opened.goto(own.path(*parts))
        assert "broken" not in opened.title().replace("document.title = 'broken'", "")
    expect(opened.locator("body")).to_be_visible()
    theirs.close()


def test_all_of_it_works_without_javascript(browser: Browser, dashboard: Dashboard) -> None:
    own = fill_project(dashboard.cloud, "without-javascript")
    context = sign_in(browser, own, java_script_enabled=False)
    page = context.new_page()
    page.goto(own.path("callers", q="sousa"))
    page.get_by_role("link", name="Ana Sousa").click()
    page.get_by_role("link", name=re.compile("Lisbon")).click()
    page.get_by_label("Text").fill("Ana lives in Oslo.")
    page.get_by_role("button", name="Correct").click()
    expect(page.get_by_role("status")).to_contain_text("The fact is corrected")
    page.get_by_role("button", name="Undo the last correction").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Lisbon")
    page.get_by_label(re.compile("Delete the fact")).check()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("main")).to_contain_text("No facts have been learned")
    page.get_by_role("link", name=re.compile("Erase")).click()
    page.get_by_label(re.compile("To confirm")).fill("Ana Sousa")
    page.get_by_role("button", name="Erase this caller").click()
    expect(page.get_by_role("status")).to_contain_text("was erased")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    context.close()


def test_an_expired_session_and_a_wrong_key_say_so(browser: Browser, dashboard: Dashboard) -> None:
    context = browser.new_context(base_url=dashboard.cloud.url)
    context.add_cookies([{"name": "memoair_session", "value": "x", "domain": "127.0.0.1", "path": "/dashboard"}])
    page = context.new_page()
    page.goto(dashboard.path("callers"))
    expect(page.get_by_role("alert")).to_contain_text("Your session has ended")
    page.get_by_label("API key").fill("memoair_pk_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("unknown or revoked")
    page.get_by_label("API key").fill(str(dashboard.client.key))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Callers")
    context.close()


def test_the_description_of_the_api_is_shown_offline(dashboard: Dashboard, page: Page) -> None:
    page.goto("/docs")
    expect(page.locator("#swagger-ui")).to_contain_text("/v1/projects")
