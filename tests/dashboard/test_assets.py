"""Style sheets and scripts: those of npm are unchanged, all come from this server, and browsers may keep them."""

import hashlib
import json
import re
from pathlib import Path

from support.dashboards import Dashboard, Visitor

import memoair_cloud.assets
from memoair_cloud.assets.files import asset_url

FOLDER = Path(memoair_cloud.assets.__file__).parent


def test_vendored_files_are_those_that_the_script_has_brought() -> None:
    records = json.loads((FOLDER / "vendored.json").read_text())
    recorded = {name: digest for record in records for name, digest in record["sha256"].items()}
    files = {
        path.relative_to(FOLDER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (FOLDER / "vendored").rglob("*")
        if path.is_file()
    }
    assert files == recorded
    for record in records:
        assert re.fullmatch(r"\d+\.\d+\.\d+", record["version"])
        assert any("LICENSE" in name for name in record["sha256"]), record["package"]


def test_an_asset_may_be_kept_forever_and_another_version_is_not_found(dashboard: Dashboard) -> None:
    visitor, url = Visitor(dashboard.cloud.url), asset_url("dashboard.css")
    page = visitor.request("GET", url)
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/css")
    assert "immutable" in page.headers["cache-control"]
    for other in (
        url.replace(url.split("/")[2], "0" * 16),
        url.replace("dashboard.css", "vendored.json"),
        "/assets/x/../y",
    ):
        assert visitor.request("GET", other).status == 404


def test_pages_and_the_description_of_the_api_load_nothing_from_elsewhere(dashboard: Dashboard) -> None:
    visitor = dashboard.visitor()
    for path in (dashboard.path(), "/docs"):
        page = visitor.get(path)
        addresses = re.findall(r'(?:src|href)="([^"]*)"', page.text)
        assert addresses
        assert all(address.startswith(("/", "#", "data:,", "?")) for address in addresses)
        for address in {address for address in addresses if address.startswith("/assets/")}:
            assert visitor.request("GET", address).status == 200
