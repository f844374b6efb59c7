"""The pages of prompts over HTTP, as a browser without JavaScript gets them."""

import html
import re
from typing import Any

import pytest
from support.clouds import Client, session_start
from support.dashboards import Dashboard, Page, Visitor

from memoair_cloud.dashboard.pages import prompts
from memoair_cloud.dashboard.prompt_diff import MAX_LINES, read_diff
from memoair_protocol.text_diff import diff_texts

PROMPTS = "/v1/voice-sdk/prompts"
LABELS = "/v1/voice-sdk/prompt-labels"
AREA = r"<textarea[^>]*>\n(.*?)</textarea>"


class PromptPages:
    """The pages of one agent's prompt, and a person who may change it."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.client: Client = dashboard.cloud.tenant("prompts")
        self.visitor: Visitor = dashboard.visitor(str(self.client.key))
        self._dashboard = dashboard

    def path(self, *parts: str, **query: str) -> str:
        own = Dashboard(self._dashboard.cloud, self.client, self.client.identity["project"], "")
        return own.path("prompts", *parts, **query)

    def get(self, *parts: str, **query: str) -> Page:
        return self.visitor.get(self.path(*parts, **query))

    def post(self, *parts: str, shown_on: tuple[str, ...] = (), **fields: str) -> Page:
        """Send a form as the page that shows it would, with its hidden fields."""
        page = self.path(*shown_on)
        return self.visitor.post(self.path(*parts), page, **fields)

    def push(self, text: str, **more: Any) -> Any:
        return self.client.ok("POST", PROMPTS, {"text": text, **more})


@pytest.fixture
def pages(dashboard: Dashboard) -> PromptPages:
    return PromptPages(dashboard)


def find(pattern: str, page: Page) -> str:
    """Return the text in a page that a pattern has a group for."""
    match = re.search(pattern, page.text, re.DOTALL)
    assert match, page.text
    return html.unescape(match[1])


def test_an_agent_without_a_prompt_gets_its_first_one_from_the_form(pages: PromptPages) -> None:
    empty = pages.get()
    assert "This agent has no prompt yet" in empty.text
    assert "memoair prompt push FILE" in empty.text
    assert "aria-current" in find(r'<nav class="top".*?(<a[^>]*>Prompts</a>)', empty)
    pushed = pages.post(
        text="Hello {{name}}\r\nBye\r\n", notes="first", label="production", expected="0", shown_on=("new",)
    )
    assert "Version 1 is pushed" in pushed.text
    assert "Agents that ask for production get it" in pushed.text
    prompt = pages.client.ok("GET", f"{LABELS}/production")
    assert (prompt["text"], prompt["notes"]) == ("Hello {{name}}\nBye\n", "first")
    again = pages.post(text="Hello {{name}}\nBye\n", expected="1", shown_on=("new",))
    assert "version 1 has this text already" in again.text


def test_the_form_begins_with_the_latest_text_to_the_last_character(pages: PromptPages) -> None:
    text = "\n\nFirst </textarea><b> & {{ x }}\n\n"
    pages.push(text)
    form = pages.get("new")
    assert find(AREA, form) == text
    assert 'name="expected" value="1"' in form.text
    pages.push("Second.")
    assert find(AREA, pages.get("new", base="1")) == text


def test_what_was_typed_is_not_lost_if_it_cannot_be_pushed(pages: PromptPages) -> None:
    pages.push("One.")
    for fields, problem in (
        ({"text": "My {{new text}}"}, "line 1, column 4"),
        ({"text": "My text", "label": "Not valid"}, "label: use up to 64"),
        ({"text": "x" * 100_001}, "at most 100000 characters"),
        ({"text": " ", "notes": "kept"}, "the text is blank"),
    ):
        page = pages.post(expected="1", shown_on=("new",), **fields)
        assert page.status == 422
        assert problem in html.unescape(page.text)
        assert all(html.escape(value) in page.text for value in fields.values())
    pages.push("Two, of a colleague.")
    page = pages.post(text="Mine.", expected="1", shown_on=("new",))
    assert page.status == 409
    assert "Someone else has pushed while you wrote" in page.text
    assert "old=1&amp;new=2" in page.text
    assert ">\nMine.</textarea>" in page.text
    assert 'name="expected" value="2"' in page.text
    assert len(pages.client.ok("GET", PROMPTS)["prompts"]) == 2


def test_a_label_is_moved_rolled_back_and_removed_after_a_confirmation(pages: PromptPages) -> None:
    for number in (1, 2, 3):
        pages.push(f"Text {number}.")
    label = ("labels", "production")
    moved = pages.post("1", "label", label="production", confirm="true", shown_on=("1",))
    assert "production points to version 1" in moved.text
    assert pages.post(*label, "move", version="3", expected="1", shown_on=label).status == 422
    refused = pages.post("2", "label", label="production", shown_on=("2",))
    assert "Tick the box to confirm" in refused.text
    assert pages.client.ok("GET", f"{LABELS}/production")["version"] == 1
    pages.post(*label, "move", version="3", expected="1", confirm="true", shown_on=label)
    page = pages.get(*label)
    assert "Roll back to version 1" in page.text
    # Two people who roll back at once go back by one version, not by two.
    outdated = pages.post(*label, "rollback", expected="1", confirm="true", shown_on=label)
    assert (outdated.status, "someone else has moved it" in outdated.text) == (409, True)
    rolled_back = pages.post(*label, "rollback", expected="3", confirm="true", shown_on=label)
    assert "production is rolled back to version 1" in rolled_back.text
    assert "Roll back to" not in rolled_back.text
    removed = pages.post(*label, "remove", expected="1", confirm="true", shown_on=label)
    assert "production is removed" in removed.text
    assert "Undo the removal" in removed.text
    pages.post(*label, "rollback", expected="0", confirm="true", shown_on=label)
    assert pages.client.ok("GET", f"{LABELS}/production")["version"] == 1
    pages.post(*label, "move", version="production", expected="1", confirm="true", shown_on=label)
    history = pages.get(*label).text
    assert history.count("rolled back</span>") == 2
    audited = html.unescape(pages.visitor.get(pages.path().replace("/prompts", "/audit")).text)
    for what in ("prompt label rolled back", "production: version 3 → version 1", "production: version 1 → nothing"):
        assert what in re.sub(r"\s+", " ", audited)
    assert "nothing → version 1" in audited


def test_versions_are_compared_by_number_and_label_with_the_words_that_differ(pages: PromptPages) -> None:
    pages.push("Be <b>polite</b> to {{caller}} always.\nSame.\n", labels=["production"])
    pages.push("Be <b>brief</b> to {{guest}} always.\nSame.\n")
    page = pages.get("compare", old="production", new="2")
    assert page.status == 200
    assert '<span class="removed">-Be &lt;b&gt;<mark>polite</mark>&lt;/b&gt; to' in page.text
    assert "<mark>{{guest}}</mark>" in page.text
    assert re.search(r"New placeholders[^<]*<code>guest</code>", page.text)
    assert re.search(r"gone: <code>caller</code>", page.text)
    assert "The texts are the same" in pages.get("compare", old="2", new="2").text
    for old, status in (("", 422), ("0", 404), ("9", 404), ("nobody", 404), ("Not valid", 422), ("9" * 40, 422)):
        assert pages.get("compare", old=old, new="2").status == status, old


def test_thousands_of_versions_and_moves_are_shown_page_by_page(
    pages: PromptPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "PAGE_ROWS", 4)
    for number in range(1, 7):
        pages.push(f"Text {number}.", labels=["production"])
    first = pages.get()
    assert first.text.count('data-name="Pushed"') == 4
    following = pages.visitor.get(find(r'href="([^"]*)" rel="next"', first))
    assert following.text.count('data-name="Pushed"') == 2
    assert "version 1</a>" in following.text
    history = pages.get("labels", "production")
    assert history.text.count('data-name="When"') == 4
    assert pages.visitor.get(find(r'href="([^"]*)" rel="next"', history)).text.count('data-name="When"') == 2


def test_agents_have_pages_of_their_own(pages: PromptPages) -> None:
    client = pages.client
    pages.push("Of the first agent.")
    first = client.identity["agent"]
    path = f"/v1/projects/{client.identity['project']}/agents"
    second = client.ok("POST", path, {"name": "Second <i>agent</i>", "agentType": "voice"})["id"]
    chooser = pages.get()
    assert "Whose do you want to see?" in chooser.text
    assert "<i>" not in chooser.text
    assert pages.get("1").status == 422
    assert "Of the first agent." in pages.get("1", agent=first).text
    assert pages.get("1", agent=second).status == 404
    assert pages.get(agent="agent_of_nobody").status == 404
    other = pages.get(agent=second)
    assert "This agent has no prompt yet" in other.text
    form = pages.visitor.post(pages.path(agent=second), pages.path("new", agent=second), text="Theirs.", expected="0")
    assert "Version 1 is pushed" in form.text
    assert client.with_identity(agent=second).ok("GET", f"{PROMPTS}/1")["text"] == "Theirs."
    log = pages.visitor.get(pages.path(changed=first).replace("/prompts", "/audit")).text
    assert f"{first}</small>" in log
    assert f"{second}</small>" not in log


def test_a_version_leads_to_its_calls_and_a_call_to_its_version(pages: PromptPages) -> None:
    for number in (1, 2):
        pages.push(f"Text {number}.")
        start = session_start(f"start-{number}", f"call-{number}")
        start["payload"]["metadata"] = {"prompt": {"version": number, "label": "production"}}
        pages.client.send(start)
    calls = pages.visitor.get(find(r'href="([^"]*)">Calls with this version', pages.get("2")))
    assert "call-2" in calls.text
    assert "call-1" not in calls.text
    call = pages.visitor.get(find(r'href="([^"]*/calls/call-2[^"/]*)"', calls))
    version = pages.visitor.get(find(r'href="([^"]*/prompts/[^"]*)">version 2', call))
    assert "Text 2." in version.text


def test_a_project_without_agents_says_so(dashboard: Dashboard) -> None:
    client = dashboard.cloud.account()
    project = client.ok("POST", "/v1/projects", {"name": "New", "slug": "without-agents"})["id"]
    page = dashboard.visitor(str(client.key)).get(f"/dashboard/p/{project}/prompts")
    assert "This project has no agents" in page.text


def test_a_prompt_is_text_on_every_page(pages: PromptPages) -> None:
    code = "<script>alert(1)</script><img src=x onerror=alert(1)> {{x}} {{{{% raw %}}"
    pages.push(code, notes=code, labels=["production"])
    pages.push(f"{code}!", notes=code)
    for parts in ((), ("1",), ("new",), ("compare",), ("labels", "production")):
        page = pages.get(*parts, **({"old": "1", "new": "2"} if parts == ("compare",) else {}))
        assert page.status == 200
        assert "<script>alert" not in page.text
        assert "<img" not in page.text
        assert "unsafe" not in page.headers["content-security-policy"]
        assert not re.search(r"\sstyle=|\son\w+=\"", page.text)


def test_only_so_many_lines_and_words_are_compared() -> None:
    before, after = ("".join(f"{word} {number}\n" for number in range(3_000)) for word in ("one", "two"))
    lines = read_diff(diff_texts(before, after, "a", "b"))
    assert len(lines) == MAX_LINES + 1
    long = [" ".join(f"{word}{number}" for number in range(5_000)) for word in ("one", "two")]
    assert [line.marks for line in read_diff(diff_texts(*long, "a", "b"))] == [()] * 5
