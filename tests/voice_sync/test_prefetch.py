"""Recall ahead: the answer is there when the words have been said, and it is the one that a search would give."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clients import (
    PATIENT_MS,
    Application,
    NewClient,
    client_arguments,
    clients_over,
    frozen,
    leaving_nothing,
    logged,
    pid_of,
    recall,
    runtime_of,
    say,
)
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError, SearchResult
from memoair_voice_sync._prefetch import spoken

ASKED = "which colour are my zanzibarplum boots"


@pytest.fixture(autouse=True)
def no_lingering_and_no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads end when there is nothing to do, which is what tests wait for; what they do may take its time."""
    monkeypatch.setattr("memoair_voice_sync._prefetch.LINGER_S", 0.0)
    monkeypatch.setattr("memoair_voice_sync._prefetch.FRESH_S", 60.0)
    for module in ("_prefetch", "_client"):
        monkeypatch.setattr(f"memoair_voice_sync.{module}.PATIENCE_S", 10.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefetch") / "storage"


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[MemoAirVoiceClientSync]:
    """One client for all tests that leave it as it was."""
    with leaving_nothing(), clients_over(root) as new_client:
        client = new_client()
        for caller in ("ada", "bob"):
            say(client, caller, f"The boots of {caller} are red.")
        yield client


def prefetch(client: MemoAirVoiceClientSync, user_id: str, query: str = ASKED, **options: Any) -> None:
    """Ask ahead, and wait until that is over."""
    client.prefetch(query, user={"id": user_id}, **options)
    eventually(lambda: not working())


def working() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "memoair-prefetch"]


def is_ahead(found: SearchResult) -> bool:
    return "prefetched" in found.trace


@pytest.mark.parametrize(
    "said",
    [
        ASKED,
        "Which colour are my Zanzibarplum boots?",
        "  which colour, are my zanzibarplum  boots...\n",
        "\N{LEFT DOUBLE QUOTATION MARK}Which colour\N{RIGHT DOUBLE QUOTATION MARK} are my zanzibarplum-boots!",
    ],
)
def test_the_answer_is_there_when_the_words_agree_whatever_has_become_of_the_runtime(
    client: MemoAirVoiceClientSync, said: str
) -> None:
    plain = recall(client, "ada", said)
    used = client.stats()["prefetched_searches"]
    asked_at = time.monotonic()
    prefetch(client, "ada")
    with frozen(pid_of(client, "ada")):
        began_at = time.monotonic()
        found = client.search_memory(said, user={"id": "ada"}, timeout_ms=60_000)
        ended_at = time.monotonic()

    assert is_ahead(found)
    assert 0 < found.trace["prefetched"]["ageMs"] < (ended_at - asked_at) * 1e3
    assert ended_at - began_at < 10, "it asks the runtime, which answers nothing for a minute"
    assert "The boots of ada are red." in found.contextText
    assert (found.contextText, found.working, found.sources) == (plain.contextText, plain.working, plain.sources)
    assert client.stats()["prefetched_searches"] == used + 1
    assert not is_ahead(recall(client, "ada", said)), "it is given out once"


@pytest.mark.parametrize(
    ("said", "options"),
    [
        (f"{ASKED} today", {}),
        ("which colour are my zanzibarplum", {}),
        ("which colour are my zanzibarplum boot's", {}),
        (ASKED, {"lanes": ["permanent"]}),
        (ASKED, {"intent": "summarise_recent"}),
        (ASKED, {"top_k": {"working": 1}}),
        (ASKED, {"filter": {"topic": "boots"}}),
        (ASKED, {"user": {"id": "ada", "name": "Ada"}}),
    ],
)
def test_another_question_is_asked_anew(client: MemoAirVoiceClientSync, said: str, options: dict[str, Any]) -> None:
    prefetch(client, "ada")

    assert not is_ahead(client.search_memory(said, **{"user": {"id": "ada"}, "timeout_ms": PATIENT_MS, **options}))


def test_the_same_choices_agree(client: MemoAirVoiceClientSync) -> None:
    options: dict[str, Any] = {"lanes": ["working"], "intent": "summarise_recent", "top_k": {"working": 2}}
    client.load_index(user={"id": "carol"})
    prefetch(client, "carol", **options)

    assert is_ahead(recall(client, "carol", ASKED, **options))


def test_one_caller_never_gets_what_was_asked_for_another(client: MemoAirVoiceClientSync) -> None:
    prefetch(client, "ada")
    found = recall(client, "bob", ASKED)

    assert not is_ahead(found)
    assert "ada" not in found.contextText
    assert is_ahead(recall(client, "ada", ASKED))


def test_what_was_saved_or_imported_in_between_is_found(new_client: NewClient) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.")
    turn = {"turn_id": "t1", "user_text": "The zanzibarplum laces are blue.", "assistant_text": ""}
    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: say(client, "ada", "My zanzibarplum boots are green."), "are green"),
        (lambda: client.import_call("old", [turn], user={"id": "ada"}), "are blue"),
        (lambda: client.load_index(user={"id": "ada", "name": "Ada Lovelace"}), "Ada Lovelace"),
    ]
    for change, words in changes:
        prefetch(client, "ada")
        change()
        found = recall(client, "ada", ASKED)
        assert not is_ahead(found)
        assert words in found.contextText
    prefetch(client, "ada")
    client.forget_user(user={"id": "ada"})
    assert "boots" not in recall(client, "ada", ASKED).contextText


def test_what_is_saved_while_it_is_under_way_is_found(new_client: NewClient) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.")
    with frozen(pid_of(client, "ada")):
        client.prefetch(ASKED, user={"id": "ada"})
        eventually(lambda: runtime_of(client, "ada")["in_use"])
        assert client.save_response(user={"id": "ada"}, user_text="Now they are green.", assistant_text="") is None
    eventually(lambda: not working() and not client.stats()["pending_saves"])

    assert "Now they are green." in recall(client, "ada", ASKED).contextText


def test_an_answer_is_good_for_a_few_seconds(client: MemoAirVoiceClientSync, monkeypatch: pytest.MonkeyPatch) -> None:
    prefetch(client, "ada")
    monkeypatch.setattr("memoair_voice_sync._prefetch.FRESH_S", 1e-9)

    assert not is_ahead(recall(client, "ada", ASKED))


def test_nothing_of_it_is_kept(client: MemoAirVoiceClientSync, root: Path) -> None:
    before = logged(root, "ada")
    prefetch(client, "ada")
    recall(client, "ada", ASKED)

    assert logged(root, "ada") == before
    assert not [path for path in root.rglob("*") if path.is_file() and b"zanzibarplum" in path.read_bytes()]


def test_of_many_the_latest_counts_and_none_holds_anybody_up(client: MemoAirVoiceClientSync) -> None:
    before = set(threading.enumerate())
    with frozen(pid_of(client, "ada")):
        took_s = []
        for number in range(200):
            began_at = time.monotonic()
            client.prefetch(f"{ASKED} {number}", user={"id": "ada"})
            took_s.append(time.monotonic() - began_at)
        threads = set(threading.enumerate()) - before
        bob = recall(client, "bob", "which boots?")
    eventually(lambda: not working())

    assert median(took_s) < 0.0025
    assert max(took_s) < 5, "one of them waits for the runtime"
    assert len(threads) == 1
    assert "The boots of bob are red." in bob.contextText
    assert is_ahead(recall(client, "ada", f"{ASKED} 199"))


def test_callers_share_a_few_threads(new_client: NewClient) -> None:
    client = new_client(max_concurrent_users=12)
    callers = [f"caller_{number}" for number in range(12)]
    for _ in range(3):
        for caller in callers:
            client.prefetch(ASKED, user={"id": caller})
        assert len(working()) <= 8
    eventually(lambda: not working(), 30)
    client.close()


def test_a_thread_stays_for_the_next_words_and_ends_with_the_client(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync._prefetch.LINGER_S", 600.0)
    client = new_client()
    client.load_index(user={"id": "ada"})
    threads = set()

    for _ in range(3):
        with frozen(pid_of(client, "ada")):
            client.prefetch(ASKED, user={"id": "ada"})
            eventually(lambda: runtime_of(client, "ada")["in_use"])
        eventually(lambda: not client._prefetches._busy)  # then the answer lies there
        threads.update(working())
        assert is_ahead(recall(client, "ada", ASKED))
    assert len(threads) == 1
    began_at = time.monotonic()
    client.close()
    assert not working()
    assert time.monotonic() - began_at < 15, "it waits for a thread that stays"


def test_a_search_drops_what_still_waits_to_be_asked(client: MemoAirVoiceClientSync) -> None:
    with frozen(pid_of(client, "ada")):
        client.prefetch("first", user={"id": "ada"})
        eventually(lambda: runtime_of(client, "ada")["in_use"])
        client.prefetch(ASKED, user={"id": "ada"})
        client.search_memory(ASKED, user={"id": "ada"}, timeout_ms=1)
    eventually(lambda: not working())

    assert not is_ahead(recall(client, "ada", ASKED))


def test_a_session_asks_ahead_for_its_caller(client: MemoAirVoiceClientSync) -> None:
    with client.session(user={"id": "ada"}) as call:
        call.prefetch(ASKED)
        eventually(lambda: not working())
        found = call.search_memory(ASKED, timeout_ms=PATIENT_MS)

    assert is_ahead(found)


def test_documents_alone_are_asked_for_each_caller_by_himself(new_client: NewClient, org_file: Path) -> None:
    client = new_client(org_only=True, org_file=str(org_file))
    client.load_index(user={"id": "ada"})
    prefetch(client, "ada", "returns of boots")
    prefetch(client, "bob", "returns by express")

    assert is_ahead(recall(client, "ada", "Returns of boots?"))
    assert is_ahead(recall(client, "bob", "Returns by express?"))


def test_one_that_fails_is_passed_over_without_a_word_of_the_callers(
    new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = new_client(runtime_binary="/nowhere/voice-runtime")
    with caplog.at_level(logging.DEBUG):
        prefetch(client, "ada")
        found = client.search_memory(ASKED, user={"id": "ada"}, timeout_ms=PATIENT_MS)

    assert found.trace["degraded"]
    assert "action=prefetch_failed" in caplog.text
    assert "zanzibarplum" not in caplog.text
    assert "ada" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"query_so_far": 7}, TypeError),
        ({"user": {}}, ValueError),
        ({"user": {"id": "__org__"}}, ValueError),
        ({"lanes": ["attic"]}, ValueError),
        ({"top_k": 3}, TypeError),
        ({"filter": {"a": object()}}, TypeError),
    ],
)
def test_arguments_that_can_not_be_are_refused_at_once(
    client: MemoAirVoiceClientSync, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.prefetch(**{"query_so_far": ASKED, "user": {"id": "ada"}, **arguments})
    assert not working()


def test_a_client_may_be_closed_while_one_is_under_way(new_client: NewClient) -> None:
    client = new_client()
    client.prefetch(ASKED, user={"id": "ada"})  # a runtime is being started for it
    client.close()

    assert not working()
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        client.prefetch(ASKED, user={"id": "ada"})
    assert raised.value.code == "pool.closed"


def test_parent_and_child_of_a_fork_both_go_on(storage_root: Path, nothing_left_behind: None) -> None:
    app = Application(
        """
def ahead(user_id):
    say(user_id, "t1", "The boots are red.")
    client.prefetch("which boots", user={"id": user_id})
    while [each for each in threading.enumerate() if each.name == "memoair-prefetch"]:
        time.sleep(0.01)
    return "prefetched" in client.search_memory("which boots", user={"id": user_id}, timeout_ms=10_000).trace

say("ada", "t1", "The boots are red.")
client.prefetch("which boots", user={"id": "ada"})
child = os.fork()
if child == 0:
    tell(ahead=ahead("bob"))
    client.close()
    os._exit(0)
code = wait_for(child)
tell(ahead=ahead("ada"), code=code)
client.close()
""",
        client_arguments(storage_root),
    )
    try:
        assert app.told() == {"ahead": True}
        assert app.told() == {"ahead": True, "code": 0}
        assert app.ends() == 0
    finally:
        app.close()


# Words that agree

WORDS = ["which", "boots", "don't", "1.5", "10:30", "50%", "कि", "où", "naïve", "a@b"]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5), st.data())
def test_signs_between_words_and_capitals_make_no_difference(words: list[str], data: st.DataObject) -> None:
    between = st.text(" ,;!?()\N{EM DASH}\n\N{HORIZONTAL ELLIPSIS}", min_size=1, max_size=3).map(
        lambda each: f"{each} "
    )
    written = "".join(word.capitalize() + data.draw(between) for word in words)

    assert spoken(written) == spoken(" ".join(words))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1.5", "15"),
        ("1.5", "1 5"),
        ("we're", "were"),
        ("50%", "50"),
        ("$5", "5"),
        ("कि", "क"),
        ("+49", "49"),
        ("a", ""),
    ],
)
def test_other_words_do_not_agree(one: str, other: str) -> None:
    assert spoken(one) != spoken(other)


@given(st.text())
def test_any_text_has_its_words(text: str) -> None:
    assert spoken(text) == spoken(text).strip()
    assert spoken(f" {text}\n") == spoken(text)
