"""Documents and uploads in a real browser: files and folders that are chosen or dropped, and a broken connection."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from dashboard.test_browser import browser, context, page  # noqa: F401 - fixtures
from documents.made_files import make_pdf
from playwright.sync_api import BrowserContext, Page, Route, expect
from support.dashboards import Dashboard
from support.waiting import eventually

from memoair_cloud.database.upload_models import UploadedDocument

axe = pytest.importorskip("axe_playwright_python.sync_playwright")


@pytest.fixture
def index(request: pytest.FixtureRequest) -> str:
    """The name of an index of the test's own."""
    return f"index-{abs(hash(request.node.name))}"


def check_page(page: Page, schemes: Sequence[str] = ("light", "dark")) -> None:  # noqa: F811
    """Check that a page has no serious fault for screen readers, in color schemes, and fits a telephone."""
    page.emulate_media(reduced_motion="reduce")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        violations = axe.Axe().run(page).response["violations"]
        faults = [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in violations]
        impacts = [fault["impact"] for fault in violations]
        assert not {"serious", "critical"} & set(impacts), faults
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 390, "height": 844})
    eventually(lambda: page.evaluate("document.documentElement.scrollWidth") <= 390, 20)  # charts are drawn again
    page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.parametrize(
    "parts",
    [("documents",), ("documents", "faq"), ("documents", "faq", "document", "returns"), ("documents", "faq", "upload")],
    ids="/".join,
)
def test_pages_of_documents_are_for_everyone(dashboard: Dashboard, page: Page, parts: tuple[str, ...]) -> None:  # noqa: F811
    page.goto(dashboard.path(*parts))
    check_page(page)


def test_a_folder_is_uploaded_over_a_broken_connection_checked_and_applied(
    dashboard: Dashboard,
    context: BrowserContext,  # noqa: F811
    index: str,
    tmp_path: Path,
) -> None:
    # The pages of the other tests permit no failed request.
    page = context.new_page()  # noqa: F811
    (tmp_path / "help" / "fees").mkdir(parents=True)
    (tmp_path / "help" / "returns.md").write_text("# Returns\n## Boots\nWithin thirty days.\n")
    (tmp_path / "help" / "fees" / "parcels.pdf").write_bytes(make_pdf([["Parcels are free."]]))
    (tmp_path / "help" / "torn.pdf").write_bytes(b"%PDF-1.7")
    broken = []

    def break_once(route: Route) -> None:
        if broken:
            route.continue_()
        else:
            broken.append(route.request.url)
            route.abort("connectionreset")

    page.route("**/uploads/*/files", break_once)
    page.goto(dashboard.path("documents", index, "upload"))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="choose a folder").click()
    chooser.value.set_files(str(tmp_path / "help"))
    expect(page.get_by_role("status")).to_have_text("3 files chosen")
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/uploads/*")
    assert broken
    dashboard.cloud.run_tasks()
    expect(page.get_by_text("nothing has changed yet")).to_be_visible()  # the page looks by itself
    expect(page.get_by_role("row", name="torn.pdf")).to_contain_text("not a valid PDF file")
    expect(page.get_by_role("row", name="fees/parcels.pdf")).to_be_visible()
    check_page(page)
    page.get_by_role("button", name="Apply: change 2 documents").click()
    dashboard.cloud.run_tasks()
    expect(page.get_by_text("done", exact=True)).to_be_visible()
    page.get_by_role("link", name="Back to the documents").click()
    page.get_by_role("link", name="returns.md").click()
    expect(page.get_by_text("Returns > Boots Within thirty days.")).to_be_visible()
    assert not dashboard.client.ok("GET", f"/v1/voice-sdk/index/{index}/uploads")["uploads"][0]["replaceAll"]
    with dashboard.cloud.services.engine.connect() as connection:
        assert not connection.execute(UploadedDocument.__table__.select()).all()
    page.close()


def test_dropped_files_are_uploaded_and_replace_all(
    dashboard: Dashboard,
    page: Page,  # noqa: F811
    index: str,
) -> None:
    document = {"id": "gone", "text": "Gone."}
    dashboard.client.ok("POST", "/v1/voice-sdk/index/create", {"name": index, "documents": [document]})
    page.goto(dashboard.path("documents", index, "upload"))
    transfer = page.evaluate_handle(
        "() => { const data = new DataTransfer(); data.items.add(new File(['New.'], 'new.txt')); return data; }"
    )
    page.dispatch_event("[data-drop]", "drop", {"dataTransfer": transfer})
    expect(page.locator("[data-chosen] li")).to_have_text(["new.txt"])
    page.get_by_label("Show what would change").uncheck()
    page.get_by_label("Replace all").check()
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/uploads/*")
    dashboard.cloud.run_tasks()
    expect(page.get_by_role("row", name="gone")).to_be_visible()
    page.get_by_label("Delete 1 document").check()
    page.get_by_role("button", name="Apply").click()
    dashboard.cloud.run_tasks()
    expect(page.get_by_text("done", exact=True)).to_be_visible()
    found = dashboard.client.ok("GET", f"/v1/voice-sdk/index/{index}/documents")["documents"]
    assert [row["id"] for row in found] == ["new.txt"]


def test_a_form_that_is_refused_says_why(dashboard: Dashboard, page: Page, index: str) -> None:  # noqa: F811
    page.goto(dashboard.path("documents", index, "upload"))
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Choose at least one file.")
    page.set_input_files("input[type=file]", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"A."})
    page.get_by_text("How CSV").click()
    page.get_by_label("Encoding").fill("klingon")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Unknown encoding. (cloud.invalid)")
