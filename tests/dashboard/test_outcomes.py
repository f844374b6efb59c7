"""The pages of outcomes and of prompt figures, without JavaScript: upload, lists, filters, comparison, empty pages."""

import html
import re
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session
from support.clouds import session_end, turn
from support.dashboards import Dashboard, Page, Visitor, fill_project

from memoair_cloud.analytics.comparison import MIN_CALLS
from memoair_cloud.database.models import CallSession
from memoair_protocol.timestamps import format_utc, utc_now


@pytest.fixture(scope="module")
def own(dashboard: Dashboard) -> Dashboard:
    """Return a project of which versions 1 and 2 of the prompt have 40 calls each, and version 3 has 5."""
    found = fill_versions(dashboard, "outcomes")
    rows = [("v1", 0, 30, "resolved", None), ("v1", 30, 40, "escalated", 2.0), ("v2", 0, 10, "resolved", 5.5)]
    rows += [("v2", 10, 40, "escalated", 5.5), ("v3", 0, 5, "resolved", 1.0)]
    outcomes = [
        {"sessionId": f"{prefix}-{number}", "outcome": name, "score": 4.0 if (prefix, number) == ("v1", 0) else score}
        for prefix, first, end, name, score in rows
        for number in range(first, end)
    ]
    found.client.ok("POST", "/v1/voice-sdk/outcomes", {"outcomes": outcomes})
    return found


def fill_versions(dashboard: Dashboard, slug: str) -> Dashboard:
    found = fill_project(dashboard.cloud, slug)
    at = format_utc(utc_now() - timedelta(hours=1))
    for version, calls in ((1, 40), (2, 40), (3, 5)):
        ids = [f"v{version}-{number}" for number in range(calls)]
        turns = [turn(f"{id_}-1", id_, 2, occurredAt=at) for id_ in ids]
        found.client.send(*turns, *(session_end(f"{id_}-2", id_, occurredAt=at) for id_ in ids))
        with Session(found.cloud.services.engine) as session, session.begin():
            is_own = CallSession.project_id == found.project_id, CallSession.id.startswith(f"v{version}-")
            session.execute(update(CallSession).where(*is_own).values(prompt_version=version))
    return found


@pytest.fixture(scope="module")
def visitor(own: Dashboard) -> Visitor:
    return own.visitor()


def text_of(page: Page) -> str:
    assert page.status == 200, page.text
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.text)).split())


def packed_of(page: Page) -> dict[str, str]:
    match = re.search(r'name="packed" value="([^"]+)"', page.text)
    assert match
    return {"packed": html.unescape(match[1]), "is_chosen": "true"}


def test_empty_pages_say_how_to_report(own: Dashboard, visitor: Visitor) -> None:
    empty = fill_project(own.cloud, "without-outcomes")
    person = empty.visitor()
    for parts in (("outcomes",), ("prompt-figures",)):
        text = text_of(person.get(empty.path(*parts)))
        assert "client.report_outcome(session_id" in text
        assert "memoair outcomes import calls.csv" in text
    assert "No call of this period names the version" in text_of(person.get(empty.path("prompt-figures")))
    none = person.get(empty.path("prompt-figures", **{"from": "2020-01-01", "to": "2020-01-02"}))
    assert "No calls in this period." in text_of(none)
    assert "none reported" in text_of(person.get(empty.path("callers", empty.user_id, "calls", "call-b")))
    assert f'href="{empty.path("prompt-figures")}"' in person.get(empty.path()).text


def test_a_table_is_checked_and_then_saved(dashboard: Dashboard) -> None:
    own = fill_versions(dashboard, "uploads-of-outcomes")
    visitor = own.visitor()
    path = own.path("outcomes", "upload")
    table = "Anruf;Result;Note\nv1-0;resolved;4\n" + "".join(f"v1-{number};resolved;\n" for number in range(1, 30))
    table += "".join(f"v1-{number};escalated;2\n" for number in range(30, 40))
    table += "".join(f"v2-{number};{'resolved' if number < 10 else 'escalated'};5,5\n" for number in range(40))
    table += "".join(f"v3-{number};resolved;1\n" for number in range(5)) + "later;resolved;3\n;resolved;\nv1-1;<b>;\n"
    guessed = visitor.post_files(path, path, {"calls.csv": table.encode("utf-16")})
    text = text_of(guessed)
    assert "name the column with the session ids; the columns are Anruf, Result, Note." in text
    assert '<option value="Result" selected>' in guessed.text

    columns = {"session": "Anruf", "outcome": "Result", "score": "Note"}
    checked = visitor.post(path, path, **packed_of(guessed), **columns)
    text = text_of(checked)
    assert "88 rows 85 of known calls 1 of calls that have not arrived they wait for 30 days 2 rejected" in text
    assert "88 Anruf: empty" in text
    assert "89 Result: use letters a to z" in text
    assert "Save 86 outcomes" in text
    assert "No outcomes yet." in text_of(visitor.get(own.path("outcomes"))), "nothing is saved yet"
    nothing_known = visitor.post(path, path, **packed_of(checked), **{**columns, "session": "Result"})
    assert "None of these calls is known." in text_of(nothing_known)

    saved = visitor.post(path, path, **packed_of(checked), **columns, save="true")
    assert "86 outcomes saved." in text_of(saved)
    assert saved.path.endswith("outcomes?saved=86")
    waiting = text_of(visitor.get(own.path("outcomes", waiting="true")))
    assert "later call not arrived" in waiting
    assert "v1-0" not in waiting


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "the file is empty"),
        (b"session,outcome\n", "The table has no rows."),
        (b"\x00\x01PK\x03", "a binary file"),
        (b'session,outcome\n"' + b"x" * (17 << 20), "invalid CSV"),
        (b"session,outcome\n" + b"c,resolved\n" * 100_001, "more than 100,000 rows"),
    ],
    ids=["empty", "no rows", "binary", "no csv", "too many rows"],
)
def test_a_file_that_is_no_table_is_refused_with_the_reason(
    own: Dashboard, visitor: Visitor, content: bytes, wanted: str
) -> None:
    path = own.path("outcomes", "upload")
    page = visitor.post_files(path, path, {"calls.csv": content})
    assert wanted in text_of(page)
    assert 'name="save"' not in page.text


def test_what_is_in_a_table_cannot_become_markup_and_a_changed_form_is_refused(
    own: Dashboard, visitor: Visitor
) -> None:
    path = own.path("outcomes", "upload")
    page = visitor.post_files(path, path, {"calls.csv": b"session,<script>x</script>\n<i>c</i>,resolved\n"})
    assert "<script>x" not in page.text
    assert "<i>c" not in page.text
    for packed in ("?", "aGVsbG8="):
        assert "choose the file again" in text_of(visitor.post(path, path, packed=packed))
    assert "choose a file" in text_of(visitor.post(path, path))
    assert "unknown encoding" in text_of(visitor.post_files(path, path, {"a.csv": b"a,b\n"}, encoding="nope"))


def test_calls_show_their_outcomes_and_can_be_filtered(own: Dashboard, visitor: Visitor) -> None:
    page = text_of(visitor.get(own.path("calls", outcome="escalated", prompt="1")))
    assert page.count("escalated 2") == 10
    assert "v2-" not in page
    assert "With version 1 of the prompt." in page
    assert "No such calls in this period." in text_of(visitor.get(own.path("calls", outcome="unheard-of")))
    call = text_of(visitor.get(own.path("callers", own.user_id, "calls", "v1-0")))
    assert "Prompt version 1" in call
    assert "resolved 4" in call
    assert "escalated 5.5" in text_of(visitor.get(own.path("callers", own.user_id)))


def test_versions_stand_side_by_side_and_two_are_compared(own: Dashboard, visitor: Visitor) -> None:
    page = visitor.get(own.path("prompt-figures"))
    text = text_of(page)
    assert "resolved : share of calls with an outcome" in text
    assert "version 1 30 of 40 75.0 % (59.8 % to 85.8 %)" in text
    assert "version 2 10 of 40 25.0 % (14.2 % to 40.2 %)" in text
    assert "version 3 5 of 5 100.0 % (56.6 % to 100.0 %)" in text
    assert f"5 and {MIN_CALLS}" not in text
    assert "not enough calls yet 40 and 5 calls; at least 30 each are needed" in text, "by default the two latest"
    assert page.text.count('<svg class="interval"') >= 6

    compared = text_of(visitor.get(own.path("prompt-figures", before="1", after="2")))
    assert "resolved 75.0 % 30 of 40 25.0 % 10 of 40 -50.0 (-65.3 to -28.5)" in compared
    assert "version 2 is lower" in compared
    assert "version 2 is higher" in compared, "of escalated"
    assert "resolved, mean score" in compared
    assert "not enough calls yet 1 and 10 scores; at least 30 each are needed" in compared
    same = text_of(visitor.get(own.path("prompt-figures", before="1", after="1")))
    assert "Choose two different versions." in same
    of_calls = text_of(visitor.get(own.path("prompt-figures", base="calls")))
    assert "share of all calls" in of_calls
    assert visitor.get(own.path("prompt-figures", before="x")).status == 422
