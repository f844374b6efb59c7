"""Make the README's screenshots of the dashboard, from `memoair cloud demo`.

    python tools/screenshots.py [--folder docs/images]

Needs Playwright (`pip install playwright`) and chromium. `--all` makes more, to look at pages when they change: every
kind of page in light and dark, and on a telephone.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
# Everyone who clones the project downloads them.
MAX_BYTES = 150_000
_LINK = re.compile(r"http://\S+/dashboard/link/\S+")
_DESKTOP, _PHONE = {"width": 1240, "height": 860}, {"width": 390, "height": 844}
_REPLAY = {"width": 1240, "height": 640}
_SHOWN_TURN = "article.turn:has(del)"
_PROJECT = "/dashboard/p/proj_harbour-pine"
_PAGES = {
    "projects": "/dashboard",
    "overview": f"{_PROJECT}?period=30d",
    "callers": f"{_PROJECT}/callers",
    "caller": f"{_PROJECT}/callers/caller_0142",
    "calls": f"{_PROJECT}/calls?period=30d",
    "searches": f"{_PROJECT}/searches?period=30d",
    "try": f"{_PROJECT}/try?q=When+does+the+courier+come%3F&caller=caller_0142",
    "prompts": f"{_PROJECT}/prompts",
    "prompt": f"{_PROJECT}/prompts/2",
    "prompt-diff": f"{_PROJECT}/prompts/compare?old=production&new=staging",
    "prompt-label": f"{_PROJECT}/prompts/labels/production",
    "audit": f"{_PROJECT}/audit",
}


@contextmanager
def demo() -> Iterator[str]:
    """Run the demo; yield its one-time link."""
    command = [sys.executable, "-c", "from memoair_cli.app import main; main()", "cloud", "demo", "--no-browser"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        try:
            match = next(filter(None, map(_LINK.search, process.stdout or ())), None)
            if match is None:
                raise SystemExit("the demo gave no link")
            yield match[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def find_call(page: Page, url: str) -> str:
    """Return the path of a call that shows most of what a replay can show."""
    page.goto(f"{url}{_PROJECT}/calls?period=30d")
    paths = page.eval_on_selector_all("main a[href*='/calls/']", "links => links.map(link => link.pathname)")
    best, path = 0, ""
    for candidate in dict.fromkeys(paths):
        page.goto(url + candidate)
        html = page.content()
        score = min(html.count("<mark>"), 20) + 20 * ("<del" in html) + 6 * ("Tool <code>" in html)
        if score > best:
            best, path = score, candidate
    return path


def shoot(page: Page, path: Path) -> None:
    """Save what is seen of a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=path)
    print(f"{path}: {path.stat().st_size:,} bytes")


def shoot_readme(browser: Browser, link: str, folder: Path) -> None:
    """Make the two screenshots of the README."""
    url = link.partition("/dashboard")[0]
    with browser.new_context(viewport=_DESKTOP, color_scheme="light", timezone_id="Europe/London") as context:
        page = context.new_page()
        page.goto(link)
        shoot(page, folder / "dashboard-overview.png")
        page.goto(url + find_call(page, url))
        page.set_viewport_size(_REPLAY)
        page.evaluate("selector => document.querySelector(selector)?.scrollIntoView()", _SHOWN_TURN)
        shoot(page, folder / "dashboard-call.png")


def shoot_all(browser: Browser, link: str, folder: Path) -> None:
    """Make a screenshot of every kind of page, light and dark, and on a telephone."""
    url = link.partition("/dashboard")[0]
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(link)
        state = context.storage_state()
        pages = {**_PAGES, "call": find_call(page, url)}
    for name, scheme, viewport in (
        ("light", "light", _DESKTOP),
        ("dark", "dark", _DESKTOP),
        ("phone", "light", _PHONE),
    ):
        with browser.new_context(viewport=viewport, color_scheme=scheme, storage_state=state) as context:
            page = context.new_page()
            for kind, path in pages.items():
                page.goto(url + path)
                shoot(page, folder / f"{kind}-{name}.png")


def main() -> None:
    """Make them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--all", action="store_true", help="every kind of page, not only those of the README")
    parser.add_argument("--link", help="the one-time link of a demo that runs already")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        shoot_pages = shoot_all if options.all else shoot_readme
        if options.link:
            shoot_pages(browser, options.link, options.folder)
        else:
            with demo() as link:
                shoot_pages(browser, link, options.folder)
        browser.close()
    if not options.all:
        large = [path.name for path in options.folder.glob("dashboard-*.png") if path.stat().st_size > MAX_BYTES]
        if large:
            raise SystemExit(f"larger than {MAX_BYTES:,} bytes: {', '.join(large)}")


if __name__ == "__main__":
    main()
