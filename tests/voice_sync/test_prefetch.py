"""Prefetch: the result is ready when the words are final, and it is the one that a search would return."""

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
    frozen,
    logged,
    pid_of,
    recall,
    runtime_of,
    say,
)
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError, SearchResult
from memoair_voice_sync._loopback.prefetch import normalize_transcript

ASKED = "which colour are my zanzibarplum boots"


@pytest.fixture(scope="module", autouse=True)
def no_lingering_and_no_hurry() -> Iterator[None]:
    """End idle threads at once, since tests wait for their end, and let prefetches take their time."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("memoair_voice_sync._loopback.prefetch.LINGER_S", 0.0)
        monkeypatch.setattr("memoair_voice_sync._loopback.prefetch.PREFETCH_TTL_S", 60.0)
        for module in ("_loopback.prefetch", "_user_calls"):
            monkeypatch.setattr(f"memoair_voice_sync.{module}.PREFETCH_TIMEOUT_S", 10.0)
        yield


@pytest.fixture(scope="module")
def client(shared_client: MemoAirVoiceClientSync) -> MemoAirVoiceClientSync:
    """Return one client for all tests that do not change it."""
    for caller in ("ada", "bob"):
        say(shared_client, caller, f"The boots of {caller} are red.")
    return shared_client


def prefetch(client: MemoAirVoiceClientSync, user_id: str, query: str = ASKED, **options: Any) -> None:
    """Prefetch, and wait until it is done."""
    client.prefetch(query, user={"id": user_id}, **options)
    eventually(lambda: not prefetch_threads())


def prefetch_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "memoair-prefetch"]


def is_prefetched(found: SearchResult) -> bool:
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
def test_a_matching_search_gets_the_prefetched_result_even_if_the_runtime_hangs(
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

    assert is_prefetched(found)
    assert 0 < found.trace["prefetched"]["ageMs"] < (ended_at - asked_at) * 1e3
    assert ended_at - began_at < 10, "the search calls the runtime, which does not answer for a minute"
    assert "The boots of ada are red." in found.contextText
    assert (found.contextText, found.working, found.sources) == (plain.contextText, plain.working, plain.sources)
    assert client.stats()["prefetched_searches"] == used + 1
    assert not is_prefetched(recall(client, "ada", said)), "a prefetched result is used once"


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
        (ASKED, {"min_confidence": 0.2}),
        (ASKED, {"say_nothing_found": True}),
        (ASKED, {"user": {"id": "ada", "name": "Ada"}}),
    ],
)
def test_a_different_search_does_not_use_the_prefetch(
    client: MemoAirVoiceClientSync, said: str, options: dict[str, Any]
) -> None:
    prefetch(client, "ada")

    assert not is_prefetched(client.search_memory(said, **{"user": {"id": "ada"}, "timeout_ms": PATIENT_MS, **options}))


def test_a_search_with_the_same_options_gets_the_prefetched_result(client: MemoAirVoiceClientSync) -> None:
    options: dict[str, Any] = {"lanes": ["working"], "intent": "summarise_recent", "top_k": {"working": 2}}
    client.load_index(user={"id": "carol"})
    prefetch(client, "carol", **options)

    assert is_prefetched(recall(client, "carol", ASKED, **options))


def test_a_user_never_gets_the_prefetch_of_another(client: MemoAirVoiceClientSync) -> None:
    prefetch(client, "ada")
    found = recall(client, "bob", ASKED)

    assert not is_prefetched(found)
    assert "ada" not in found.contextText
    assert is_prefetched(recall(client, "ada", ASKED))


def test_a_change_after_a_prefetch_invalidates_its_result(new_client: NewClient) -> None:
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
        assert not is_prefetched(found)
        assert words in found.contextText
    prefetch(client, "ada")
    client.forget_user(user={"id": "ada"})
    assert "boots" not in recall(client, "ada", ASKED).contextText


def test_a_save_during_a_prefetch_invalidates_its_result(new_client: NewClient) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.")
    with frozen(pid_of(client, "ada")):
        client.prefetch(ASKED, user={"id": "ada"})
        eventually(lambda: runtime_of(client, "ada")["in_use"])
        assert client.save_response(user={"id": "ada"}, user_text="Now they are green.", assistant_text="") is None
    eventually(lambda: not prefetch_threads() and not client.stats()["pending_saves"])

    assert "Now they are green." in recall(client, "ada", ASKED).contextText


def test_a_prefetched_result_expires(client: MemoAirVoiceClientSync, monkeypatch: pytest.MonkeyPatch) -> None:
    prefetch(client, "ada")
    monkeypatch.setattr("memoair_voice_sync._loopback.prefetch.PREFETCH_TTL_S", 1e-9)

    assert not is_prefetched(recall(client, "ada", ASKED))


def test_a_prefetch_stores_nothing(client: MemoAirVoiceClientSync, shared_root: Path) -> None:
    before = logged(shared_root, "ada")
    prefetch(client, "ada")
    recall(client, "ada", ASKED)

    assert logged(shared_root, "ada") == before
    assert not [path for path in shared_root.rglob("*") if path.is_file() and b"zanzibarplum" in path.read_bytes()]


def test_only_the_latest_prefetch_counts_and_none_blocks(client: MemoAirVoiceClientSync) -> None:
    before = set(threading.enumerate())
    with frozen(pid_of(client, "ada")):
        took_s = []
        for number in range(200):
            began_at = time.monotonic()
            client.prefetch(f"{ASKED} {number}", user={"id": "ada"})
            took_s.append(time.monotonic() - began_at)
        threads = set(threading.enumerate()) - before
        bob = recall(client, "bob", "which boots?")
    eventually(lambda: not prefetch_threads())

    assert median(took_s) < 0.0025
    assert max(took_s) < 5, "a prefetch waits for the runtime"
    assert len(threads) == 1
    assert "The boots of bob are red." in bob.contextText
    assert is_prefetched(recall(client, "ada", f"{ASKED} 199"))


def test_prefetches_of_many_users_share_a_few_threads(new_client: NewClient) -> None:
    client = new_client(max_concurrent_users=12)
    callers = [f"caller_{number}" for number in range(12)]
    for _ in range(3):
        for caller in callers:
            client.prefetch(ASKED, user={"id": caller})
        assert len(prefetch_threads()) <= 8
    eventually(lambda: not prefetch_threads(), 30)
    client.close()


def test_a_prefetch_thread_lingers_and_ends_with_the_client(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync._loopback.prefetch.LINGER_S", 600.0)
    client = new_client()
    client.load_index(user={"id": "ada"})
    threads = set()

    for _ in range(3):
        with frozen(pid_of(client, "ada")):
            client.prefetch(ASKED, user={"id": "ada"})
            eventually(lambda: runtime_of(client, "ada")["in_use"])
        eventually(lambda: not len(client._prefetch_cache._queue))  # then the result is in the cache
        threads.update(prefetch_threads())
        assert is_prefetched(recall(client, "ada", ASKED))
    assert len(threads) == 1
    began_at = time.monotonic()
    client.close()
    assert not prefetch_threads()
    assert time.monotonic() - began_at < 15, "close waits for a thread that lingers"


def test_a_search_drops_a_queued_prefetch(client: MemoAirVoiceClientSync) -> None:
    with frozen(pid_of(client, "ada")):
        client.prefetch("first", user={"id": "ada"})
        eventually(lambda: runtime_of(client, "ada")["in_use"])
        client.prefetch(ASKED, user={"id": "ada"})
        client.search_memory(ASKED, user={"id": "ada"}, timeout_ms=1)
    eventually(lambda: not prefetch_threads())

    assert not is_prefetched(recall(client, "ada", ASKED))


def test_a_session_can_prefetch(client: MemoAirVoiceClientSync) -> None:
    with client.session(user={"id": "ada"}) as call:
        call.prefetch(ASKED)
        eventually(lambda: not prefetch_threads())
        found = call.search_memory(ASKED, timeout_ms=PATIENT_MS)

    assert is_prefetched(found)


def test_org_only_prefetches_are_separate_for_each_user(new_client: NewClient, org_file: Path) -> None:
    client = new_client(org_only=True, org_file=str(org_file))
    client.load_index(user={"id": "ada"})
    prefetch(client, "ada", "returns of boots")
    prefetch(client, "bob", "returns by express")

    assert is_prefetched(recall(client, "ada", "Returns of boots?"))
    assert is_prefetched(recall(client, "bob", "Returns by express?"))


def test_a_failed_prefetch_is_ignored_and_logs_no_speech(
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
def test_invalid_prefetch_arguments_are_rejected_at_once(
    client: MemoAirVoiceClientSync, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.prefetch(**{"query_so_far": ASKED, "user": {"id": "ada"}, **arguments})
    assert not prefetch_threads()


def test_a_client_can_be_closed_during_a_prefetch(new_client: NewClient) -> None:
    client = new_client()
    client.prefetch(ASKED, user={"id": "ada"})  # starts a runtime
    client.close()

    assert not prefetch_threads()
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        client.prefetch(ASKED, user={"id": "ada"})
    assert raised.value.code == "pool.closed"


def test_prefetch_works_in_parent_and_child_after_a_fork(storage_root: Path, nothing_left_behind: None) -> None:
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
    report(ahead=ahead("bob"))
    client.close()
    os._exit(0)
code = wait_for(child)
report(ahead=ahead("ada"), code=code)
client.close()
""",
        client_arguments(storage_root),
    )
    try:
        assert app.read_report() == {"ahead": True}
        assert app.read_report() == {"ahead": True, "code": 0}
        assert app.wait_for_exit() == 0
    finally:
        app.close()


# Normalization of transcripts

WORDS = ["which", "boots", "don't", "1.5", "10:30", "50%", "कि", "où", "naïve", "a@b"]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5), st.data())
def test_punctuation_and_capitals_are_ignored(words: list[str], data: st.DataObject) -> None:
    between = st.text(" ,;!?()\N{EM DASH}\n\N{HORIZONTAL ELLIPSIS}", min_size=1, max_size=3).map(
        lambda each: f"{each} "
    )
    written = "".join(word.capitalize() + data.draw(between) for word in words)

    assert normalize_transcript(written) == normalize_transcript(" ".join(words))


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
def test_different_words_are_normalized_differently(one: str, other: str) -> None:
    assert normalize_transcript(one) != normalize_transcript(other)


@given(st.text())
def test_any_text_can_be_normalized(text: str) -> None:
    assert normalize_transcript(text) == normalize_transcript(text).strip()
    assert normalize_transcript(f" {text}\n") == normalize_transcript(text)
