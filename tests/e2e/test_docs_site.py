"""The documentation as a site: built without a warning, whole, and fetching nothing from anywhere."""

import html
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from memoair_cli.app import app

ROOT = Path(__file__).parents[2]
REFERENCE = {
    "memoair_voice_sync": "sync.html",
    "memoair_voice": "async.html",
    "memoair_voice_sync.transcripts": "transcripts.html",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # The theme speaks of its successor on stderr.
    environ = {**os.environ, "HOME": str(folder), "NO_MKDOCS_2_WARNING": "1", "COLUMNS": "200"}
    # Not quietly: what is not told is not counted either, and then nothing is strict.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "Documentation built" in told
    assert "WARNING" not in told
    return folder / "site"


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert len(pages) > 20
    assert {path.relative_to(site) for path in site.rglob("*.html")} == pages | {Path("404.html")}


def test_a_reader_without_a_network_sees_all_of_it(site: Path) -> None:
    tags = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]+>")
    fetched = [tag for path in site.rglob("*.html") for tag in tags.findall(path.read_text(encoding="utf-8"))]
    styles = [path.name for path in site.rglob("*.css") if re.search(r"url\([\"']?https?:", path.read_text("utf-8"))]
    assert (fetched, styles) == ([], [])


@pytest.mark.parametrize("module", REFERENCE)
def test_the_reference_has_every_public_name_and_method(module: str, site: Path) -> None:
    ids = set(re.findall(r'id="([\w.]+)"', (site / "reference" / REFERENCE[module]).read_text(encoding="utf-8")))
    shown = importlib.import_module(module)
    elsewhere = set(importlib.import_module("memoair_voice_sync").__all__) if module == "memoair_voice" else set[str]()
    names = set(shown.__all__) - elsewhere
    assert not {name for name in names if f"{module}.{name}" not in ids and name != "FORMATS"}

    classes = {name: getattr(shown, name) for name in names if isinstance(getattr(shown, name), type)}
    methods = {
        f"{module}.{name}.{method}"
        for name, class_ in classes.items()
        if not issubclass(class_, Exception)
        for method in dir(class_)
        if not method.startswith("_") and callable(getattr(class_, method))
    }
    assert not methods - ids


def test_every_command_and_option_is_described(site: Path) -> None:
    page = text_of(site / "reference" / "cli.html")
    told = [typer.main.get_command(app)]
    options, commands = set(), []
    while told:
        command = told.pop()
        commands.append(command.name)
        options |= {name for each in command.params for name in each.opts if name.startswith("--")}
        told += getattr(command, "commands", {}).values()
    assert len(commands) > 12
    assert not [name for name in commands if name not in page]
    assert len(options) > 30
    assert not [name for name in options if name not in page]
