"""The dashboard on both databases. `tests/dashboard` tests the rest on one of them."""

import pytest
from support.clouds import RunningCloud
from support.dashboards import Visitor, fill_project


@pytest.mark.parametrize("state", ["all", "open", "backlog", "failed", "dead", "late"])
def test_calls_can_be_listed_by_state(cloud: RunningCloud, state: str) -> None:
    own = fill_project(cloud, f"states-{state}")
    visitor = sign_in(cloud, str(own.client.key))
    page = visitor.get(own.path("calls", state=state))
    assert page.status == 200
    assert ("call-b" in page.text) == (state == "all")
    assert visitor.get(own.path("calls", state=state, anytime="1")).status == 200


def test_all_pages_are_answered(cloud: RunningCloud) -> None:
    own = fill_project(cloud, "all-pages", "caller/1")
    visitor = sign_in(cloud, str(own.client.key))
    of_call = own.path("callers", "caller/1", "calls", "call-b")
    paths = [own.path(), own.path(period="90d", tz="America/New_York"), own.path("callers", q="sousa")]
    paths += [
        own.path("callers", "caller/1"),
        of_call,
        f"{of_call}?q=boots",
        f"{of_call}?at=b-2",
        f"{of_call}/again?turn=b-1",
    ]
    paths += [own.path("searches", lane="permanent", min_ms="1"), own.path("audit"), own.path("try", q="boots")]
    paths += [own.path("callers", "caller/1", page) for page in ("holds", "erase", "export")]
    for path in paths:
        page = visitor.get(path)
        assert page.status == 200, (path, page.text)
    assert "<mark>thirty</mark>" in visitor.get(of_call).text
    assert "250" in visitor.get(own.path()).text


def sign_in(cloud: RunningCloud, key: str) -> Visitor:
    visitor = Visitor(cloud.url)
    assert visitor.sign_in(key).status == 200
    return visitor
