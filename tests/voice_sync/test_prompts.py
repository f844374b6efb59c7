"""The agent's prompt: from the cloud once, then from this machine, and what is said of it to the cloud."""

import json
import logging
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.clients import AGENT, API_KEY, Application, NewClient, client_arguments, logged
from support.prompt_server import PromptServer
from support.waiting import eventually

from memoair_protocol.prompt_template import PromptTemplateError
from memoair_voice_sync import (
    MemoAirVoiceAgent,
    MemoAirVoiceClientSync,
    MemoAirVoiceMemoryError,
    MemoAirVoiceMemorySync,
    Prompt,
)
from memoair_voice_sync._prompts import calls, store
from memoair_voice_sync._prompts.prompt_file import PROMPT_FOLDER, FetchedPrompt, PromptFiles, WantedPrompt

TEXT = "You help callers of {{shop}}."
SECRET = "zanzibarplum"
# Longer than any test takes, and shorter than any call.
FRESH, STALE = 3_600.0, 1e-6


@pytest.fixture
def cloud(nothing_left_behind: None) -> Iterator[PromptServer]:
    with PromptServer() as server:
        server.push(TEXT, "production")
        yield server


@pytest.fixture
def connect(new_client: NewClient, cloud: PromptServer) -> Callable[..., MemoAirVoiceClientSync]:
    """Make clients of the cloud. None of these tests starts a runtime."""
    return lambda **arguments: new_client(**{"cloud_base_url": cloud.url, "prompt_fresh_s": STALE, **arguments})


def files(root: Path) -> list[Path]:
    return sorted((root / PROMPT_FOLDER).iterdir())


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(MemoAirVoiceMemoryError) as caught:
        call()
    return caught.value.code


def test_a_prompt_is_fetched_once_and_filled_in_for_each_call(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer
) -> None:
    client = connect(prompt_fresh_s=FRESH)
    first = client.prompt(label="production", shop="Leather & Lace")

    assert first == Prompt("You help callers of Leather & Lace.", 1, "production", AGENT, is_stale=False)
    assert "Leather" not in repr(first)
    assert client.prompt(shop=12).text == "You help callers of 12."
    assert cloud.requests == [(AGENT, "/prompt-labels/production", 200)]
    assert cloud.headers["X-Project-Id"] == client._project_id
    assert cloud.headers["Authorization"] == f"Bearer {API_KEY}"
    [state] = client.stats()["prompts"]
    assert {**state, "age_s": 0} == {
        "label": "production", "version": 1, "age_s": 0, "is_stale": False, "failures": 0, "error": None,
    }  # fmt: skip


def test_a_stale_prompt_is_returned_at_once_and_refreshed_behind_the_call(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer
) -> None:
    client = connect()
    client.prompt(shop="us")
    cloud.released.clear()
    cloud.arrived.clear()

    before = time.monotonic()
    again = client.prompt(shop="us", timeout_ms=60_000)
    assert (again.version, again.is_stale) == (1, True)
    assert time.monotonic() - before < 30
    assert cloud.arrived.wait(30)
    cloud.push("Second of {{shop}}.", "production")
    cloud.released.set()
    eventually(lambda: client.prompt(shop="us").text == "Second of us.")
    eventually(lambda: 304 in (client.prompt(shop="us") and cloud.statuses()))
    assert cloud.statuses().count(200) == 2, "what has not changed is not sent again"


def test_a_prompt_is_there_after_a_restart_without_a_network(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer, caplog: pytest.LogCaptureFixture
) -> None:
    connect().prompt(shop="us")
    cloud.close()
    restarted = connect()
    prompt = restarted.prompt(shop="them", timeout_ms=60_000)

    assert (prompt.text, prompt.version, prompt.is_stale) == ("You help callers of them.", 1, True)
    eventually(lambda: restarted.stats()["prompts"][0]["error"] == "cloud.unreachable")
    assert restarted.prompt(shop="them") == prompt
    [message] = [record.getMessage() for record in caplog.records if "action=prompt_failed" in record.getMessage()]
    assert "version 1 of it is used" in message
    assert "label=production" in message


def test_a_fresh_prompt_is_not_asked_for_after_a_restart(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer
) -> None:
    connect(prompt_fresh_s=FRESH).prompt(shop="us")
    assert not connect(prompt_fresh_s=FRESH).prompt(shop="us").is_stale
    assert len(cloud.requests) == 1


def test_nothing_known_and_a_cloud_that_hangs_costs_the_timeout_and_no_more(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect()
    cloud.released.clear()
    before = time.monotonic()
    assert code_of(lambda: client.prompt(shop=SECRET, timeout_ms=30)) == "cloud.timeout"
    own = client.prompt(shop=SECRET, timeout_ms=30, default="I am {{shop}}.")
    assert time.monotonic() - before < 20, "the request itself may take longer"

    assert own == Prompt(f"I am {SECRET}.", None, "production", AGENT, is_stale=True)
    cloud.released.set()
    eventually(lambda: client.prompt(shop=SECRET, timeout_ms=10_000).version == 1)
    assert "action=prompt_default code=cloud.timeout" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("status", "code"), [(401, "cloud.unauthorized"), (403, "cloud.forbidden"), (503, "cloud.unavailable")]
)
def test_what_the_cloud_answers_is_the_error(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer, status: int, code: str
) -> None:
    cloud.failure = status, code
    client = connect()
    assert code_of(lambda: client.prompt(shop="us", timeout_ms=30_000)) == code
    cloud.failure = None
    eventually(lambda: client.prompt(shop="us", timeout_ms=30_000, default="").version == 1)


def test_a_label_that_does_not_exist_or_was_removed(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect()
    assert code_of(lambda: client.prompt("staging", timeout_ms=30_000)) == "cloud.not_found"
    client.prompt(shop="us", timeout_ms=30_000)
    cloud.remove_label("production")
    eventually(lambda: client.prompt(shop="us") and client.stats()["prompts"][1]["error"] == "cloud.not_found")
    assert client.prompt(shop="us").is_stale
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [message.partition("action=")[2] for message in errors] == [
        "prompt_failed code=cloud.not_found label=staging",
        "prompt_failed code=cloud.not_found label=production",
    ]


def test_without_a_cloud_there_is_only_the_default(new_client: NewClient) -> None:
    client = new_client()
    assert code_of(client.prompt) == "cloud.unreachable"
    assert client.prompt(default="Hello {{{{").text == "Hello {{"


def test_a_cloud_that_fails_is_not_asked_with_each_call(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer
) -> None:
    client = connect()
    client.prompt(shop="us", timeout_ms=30_000)
    cloud.failure, cloud.retry_after = (429, "cloud.rate_limited"), "120"
    eventually(lambda: client.prompt(shop="us") and client.stats()["prompts"][0]["failures"])
    for _ in range(100):
        assert client.prompt(shop="us").version == 1
    assert cloud.statuses().count(429) == 1
    assert client._prompts._entries[WantedPrompt("production")].pause_s >= 120


def test_calls_at_once_share_one_request(connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer) -> None:
    client = connect(prompt_fresh_s=FRESH)
    cloud.released.clear()
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(client.prompt, shop=number, timeout_ms=60_000) for number in range(8)]
        assert cloud.arrived.wait(30)
        cloud.released.set()
        assert {each.result().text for each in asked} == {f"You help callers of {number}." for number in range(8)}
    assert len(cloud.requests) == 1


def test_a_version_is_fetched_once_and_never_again(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer
) -> None:
    cloud.push("Second.", "production")
    client = connect()
    prompt = client.prompt(version=1, shop="us", timeout_ms=30_000)
    assert (prompt.text, prompt.version, prompt.label, prompt.is_stale) == ("You help callers of us.", 1, None, False)
    cloud.failure = 500, "cloud.internal"
    assert connect().prompt(version=1, shop="us") == prompt
    assert cloud.requests == [(AGENT, "/prompts/1", 200)]
    with pytest.raises(ValueError, match="label and version"):
        client.prompt("staging", version=1)


@pytest.mark.parametrize(
    "changes", [{"text": "Another text."}, {"version": 0}, {"agentId": "agent_other"}, {"text": 7}, {"version": True}]
)
def test_a_reply_that_is_no_prompt_of_this_agent_is_not_used(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer, storage_root: Path, changes: dict[str, Any]
) -> None:
    cloud.changes = changes
    assert code_of(lambda: connect().prompt(shop="us", timeout_ms=30_000)) == "cloud.internal"
    assert not (storage_root / PROMPT_FOLDER).exists()


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({}, PromptTemplateError, "missing for placeholders: shop"),
        ({"shop": None}, PromptTemplateError, "missing for placeholders: shop"),
        ({"shop": SECRET * 1_000}, PromptTemplateError, "longer than 10,000 characters: shop"),
        ({"shop": SECRET + "\ud800"}, ValueError, "the value of the placeholder shop is not valid Unicode"),
        ({"shop": Unprintable()}, ValueError, "the value of the placeholder shop cannot be formatted"),
        ({"shop": [SECRET]}, TypeError, "the value of the placeholder shop must be a text or a number, not list"),
        (
            {"shop": SECRET.encode()},
            TypeError,
            "the value of the placeholder shop must be a text or a number, not bytes",
        ),
        ({"shop": object()}, TypeError, "the value of the placeholder shop must be a text or a number, not object"),
        ({"shop": 1, "values": {"shop": 2}}, ValueError, "shop: given in values= and as an argument"),
        ({"values": [SECRET]}, TypeError, "values must be a dict"),
        ({"shop": SECRET, "label": "Not a label"}, ValueError, "label must be"),
        ({"shop": SECRET, "version": 0}, ValueError, "version must be at least 1"),
        ({"shop": SECRET, "timeout_ms": 0}, ValueError, "timeout_ms must be positive"),
        ({"shop": SECRET, "default": "{{name}}"}, PromptTemplateError, "missing for placeholders: name"),
        ({"shop": SECRET, "default": "{{"}, PromptTemplateError, "line 1, column 1"),
    ],
)
def test_an_error_names_the_placeholder_and_never_the_value(
    connect: Callable[..., MemoAirVoiceClientSync],
    caplog: pytest.LogCaptureFixture,
    values: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    client = connect()
    with pytest.raises(error, match=message) as caught:
        client.prompt(**{"timeout_ms": 30_000, **values})
    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.__context__)
    assert SECRET not in caplog.text


def test_names_that_the_method_uses_itself_and_values_that_are_not_needed(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer
) -> None:
    cloud.push("{{label}} {{ version }} {{self}} {{self}}", "production")
    values = {"label": "{{self}}", "version": "a\nb", "no name": 1}
    assert connect().prompt(values=values, self=1, unused=2, timeout_ms=30_000).text == "{{self}} a\nb 1 1"


def test_a_number_is_refused_as_a_label(connect: Callable[..., MemoAirVoiceClientSync]) -> None:
    with pytest.raises(ValueError, match="a number is a version, which is passed as version="):
        connect().prompt(label="3")


# On the disk


def test_the_files_are_private_and_have_no_secret_and_nothing_that_was_filled_in(
    connect: Callable[..., MemoAirVoiceClientSync], storage_root: Path
) -> None:
    connect().prompt(shop=SECRET, timeout_ms=30_000)
    [file] = files(storage_root)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert json.loads(file.read_bytes())["text"] == TEXT
    assert SECRET.encode() not in file.read_bytes()
    assert API_KEY.encode() not in file.read_bytes()


def test_agents_clouds_and_projects_do_not_see_each_others_prompts(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer, storage_root: Path
) -> None:
    cloud.push("Another agent's.", "production", agent="agent_other")
    connect().prompt(shop="us", timeout_ms=30_000)
    assert connect(agent_id="agent_other").prompt(timeout_ms=30_000).text == "Another agent's."
    one, other = files(storage_root)
    content = one.read_bytes()
    shutil.copy(other, one)
    other.write_bytes(content)
    cloud.failure = 503, "cloud.unavailable"
    assert code_of(lambda: connect().prompt(shop="us", timeout_ms=30_000)) == "cloud.unavailable"
    assert code_of(lambda: connect(agent_id="agent_other").prompt(timeout_ms=30_000)) == "cloud.unavailable"
    assert code_of(lambda: connect(project_id="proj_other").prompt(timeout_ms=30_000)) == "cloud.unavailable"
    with PromptServer() as elsewhere:
        elsewhere.failure = 503, "cloud.unavailable"
        there = connect(cloud_base_url=elsewhere.url)
        assert code_of(lambda: there.prompt(shop="us", timeout_ms=30_000)) == "cloud.unavailable"


@pytest.mark.parametrize("damage", [b"", b"{}", b"[" * 100_000, b"\xff", None])
def test_a_damaged_file_is_fetched_again(
    connect: Callable[..., MemoAirVoiceClientSync],
    cloud: PromptServer,
    storage_root: Path,
    caplog: pytest.LogCaptureFixture,
    damage: bytes | None,
) -> None:
    connect().prompt(shop="us", timeout_ms=30_000)
    [file] = files(storage_root)
    file.write_bytes(file.read_bytes().replace(b"You", b"Hey") if damage is None else damage)
    assert connect(prompt_fresh_s=FRESH).prompt(shop="us", timeout_ms=30_000).text == "You help callers of us."
    assert cloud.statuses() == [200, 200]
    assert "action=prompt_unread" in caplog.text
    eventually(lambda: json.loads(file.read_bytes())["text"] == TEXT)


def test_a_folder_that_is_a_link_is_not_used(
    connect: Callable[..., MemoAirVoiceClientSync], storage_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    storage_root.mkdir(parents=True, exist_ok=True)
    (storage_root / PROMPT_FOLDER).symlink_to(elsewhere)
    client = connect(prompt_fresh_s=FRESH)
    assert client.prompt(shop="us", timeout_ms=30_000).text == client.prompt(shop="us").text
    client.close()
    assert list(elsewhere.iterdir()) == []
    assert caplog.text.count("is a link") == 1


def test_processes_share_what_one_of_them_has_fetched(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer, storage_root: Path
) -> None:
    ours = connect(prompt_fresh_s=FRESH)
    ours.prompt(shop="us", timeout_ms=30_000)
    cloud.push("Second of {{shop}}.", "production")
    script = """
first = client.prompt(shop="it").version
while client.prompt(shop="it").version == 1: time.sleep(0.01)
child = os.fork()
if not child:
    os._exit(client.prompt(shop="it").version)
report(first=first, child=wait_for(child))
client.close()
"""
    arguments = client_arguments(storage_root, cloud_base_url=cloud.url, prompt_fresh_s=STALE)
    application = Application(script, arguments)
    try:
        assert application.read_report() == {"first": 1, "child": 2}
        assert application.wait_for_exit() == 0
    finally:
        application.close()
    requests = len(cloud.requests)
    ours._prompts._entries.clear()  # it would ask only in an hour
    assert ours.prompt(shop="us").text == "Second of us."
    assert len(cloud.requests) == requests


def test_an_earlier_reply_does_not_replace_a_later_one(storage_root: Path) -> None:
    kept = PromptFiles(storage_root, "https://cloud.example", "proj_test", AGENT)
    key, now = WantedPrompt("production"), time.time()
    kept.write(key, FetchedPrompt("later", 2, None, now))
    kept.write(key, FetchedPrompt("earlier", 1, None, now - 1))
    assert kept.read(key) == FetchedPrompt("later", 2, None, now)


def test_a_clock_that_was_ahead_does_not_keep_a_prompt_for_years(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer, storage_root: Path
) -> None:
    connect(prompt_fresh_s=FRESH).prompt(shop="us", timeout_ms=30_000)
    [file] = files(storage_root)
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "checkedAt": time.time() + 1e9}))
    cloud.push("Second of {{shop}}.", "production")
    client = connect(prompt_fresh_s=FRESH)
    assert client.prompt(shop="us").is_stale
    eventually(lambda: client.prompt(shop="us").version == 2)
    eventually(lambda: json.loads(file.read_bytes())["version"] == 2)
    assert connect(prompt_fresh_s=FRESH).prompt(shop="us").version == 2


def test_closing_does_not_wait_for_a_cloud_that_hangs(
    new_client: NewClient, cloud: PromptServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "CLOUD_TIMEOUTS_S", (0.2, 0.2))
    client = new_client(cloud_base_url=cloud.url)
    cloud.released.clear()
    codes: list[str] = []
    caller = threading.Thread(target=lambda: codes.append(code_of(lambda: client.prompt(shop="us", timeout_ms=60_000))))
    caller.start()
    assert cloud.arrived.wait(30)
    client.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("memoair-prompt")]
    caller.join(30)
    assert codes in (["pool.closed"], ["cloud.timeout"])
    assert code_of(lambda: client.prompt(shop="us", default="x{{shop}}")) == "pool.closed"


def test_the_timeouts_of_a_request_end_before_a_client_gives_up_on_its_thread() -> None:
    assert sum(store.CLOUD_TIMEOUTS_S) < store._JOIN_TIMEOUT_S


# Settings


def test_how_long_a_prompt_is_fresh(monkeypatch: pytest.MonkeyPatch, new_client: NewClient) -> None:
    assert new_client()._prompts._fresh_s == 60
    monkeypatch.setenv("MEMOAIR_PROMPT_FRESH_S", "7.5")
    assert new_client()._prompts._fresh_s == 7.5
    assert new_client(prompt_fresh_s=3)._prompts._fresh_s == 3
    values = {"MEMOAIR_API_KEY": "memoair_pk_x", "MEMOAIR_PROJECT_ID": "proj_x", "MEMOAIR_AGENT_ID": "agent_x"}
    agent = MemoAirVoiceAgent.from_env({**values, "MEMOAIR_PROMPT_FRESH_S": "9"}, cloud_base_url=None)
    with agent.client() as client:
        assert (agent.prompt_fresh_s, client._prompts._fresh_s) == (9, 9)
    for invalid in ("soon", "0", "nan"):
        with pytest.raises(ValueError, match="MEMOAIR_PROMPT_FRESH_S must be"):
            MemoAirVoiceAgent.from_env({**values, "MEMOAIR_PROMPT_FRESH_S": invalid})
        monkeypatch.setenv("MEMOAIR_PROMPT_FRESH_S", invalid)
        with pytest.raises(ValueError, match="MEMOAIR_PROMPT_FRESH_S must be"):
            new_client()
    with pytest.raises(ValueError, match="prompt_fresh_s must be positive"):
        new_client(prompt_fresh_s=0)


# What calls say of it


def test_a_call_records_its_prompt(new_client: NewClient, storage_root: Path) -> None:
    client = new_client(redact=lambda text: "".join("#" if char.isdigit() else char for char in text))
    prompt = Prompt("rendered for Dana", 31, "production", AGENT, is_stale=True)
    with client.session(user_id="dana", metadata={"number": "12"}, prompt=prompt):
        pass
    client.load_index(user_id="dana", session_id="webhook", prompt=Prompt("x", 32, None, AGENT, is_stale=False))
    client.end_call(user_id="dana", session_id="webhook")
    client.load_index(user_id="dana", prompt=Prompt("x", 33, None, AGENT, is_stale=False))
    client.end_call(user_id="dana")
    client.load_index(user_id="dana", prompt=Prompt("my own", None, "production", AGENT, is_stale=True))
    described = [event["payload"]["metadata"] for event in logged(storage_root, "dana", "session_start")]
    assert described == [
        {"number": "##", "prompt": {"version": 31, "label": "production"}},
        {"prompt": {"version": 32}},
        {"prompt": {"version": 33}},
        {},
    ]
    assert not any(b"rendered" in file.read_bytes() for file in storage_root.rglob("*") if file.is_file())


def test_a_raw_memory_has_prompts_and_records_them(
    new_memory: Callable[..., MemoAirVoiceMemorySync], cloud: PromptServer, storage_root: Path
) -> None:
    memory = new_memory(agent_id=AGENT, api_key=API_KEY, cloud_base_url=cloud.url, prompt_fresh_s=FRESH)
    prompt = memory.prompt(shop="us", timeout_ms=30_000)
    MemoAirVoiceMemorySync.start_session(memory, {"number": 1}, timeout_s=30, prompt=prompt)
    [start] = logged(storage_root, memory._user_id, "session_start")
    assert start["payload"]["metadata"] == {"number": 1, "prompt": {"version": 1, "label": "production"}}
    with pytest.raises(ValueError, match="agent_id is required"):
        new_memory(api_key=API_KEY, cloud_base_url=cloud.url).prompt()


def test_something_else_than_a_prompt_is_refused(new_client: NewClient) -> None:
    client = new_client()
    with pytest.raises(TypeError, match="prompt must be a Prompt"):
        client.session(user_id="dana", prompt="text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="another agent"):
        client.load_index(user_id="dana", prompt=Prompt("x", 1, None, "agent_other", is_stale=False))
    own = Prompt("x", 1, None, AGENT, is_stale=False)
    with pytest.raises(ValueError, match="are the same"):
        client.session(user_id="dana", metadata={"prompt": "x"}, prompt=own)
    assert client.stats()["runtimes"] == []


# Outcomes


def test_an_outcome_is_reported(connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer) -> None:
    client = connect()
    client.report_outcome("call-1", "resolved", score=0.5, user_id="dana")
    client.report_outcome("call-2", "handed-over")
    connect(user={"id": "mara"}).report_outcome("call-3", "resolved", score=-1)
    assert [{name: value for name, value in sent.items() if name != "occurredAt"} for sent in cloud.outcomes] == [
        {"sessionId": "call-1", "userId": "dana", "outcome": "resolved", "score": 0.5},
        {"sessionId": "call-2", "outcome": "handed-over"},
        {"sessionId": "call-3", "userId": "mara", "outcome": "resolved", "score": -1},
    ]
    assert all(sent["occurredAt"].endswith("Z") for sent in cloud.outcomes)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"outcome": "Not a name"}, ValueError),
        ({"outcome": 1}, TypeError),
        ({"score": float("nan")}, ValueError),
        ({"score": -2e12}, ValueError),
        ({"score": "1"}, TypeError),
        ({"score": True}, TypeError),
        ({"session_id": ""}, ValueError),
        ({"user_id": "a\n"}, ValueError),
    ],
)
def test_an_invalid_outcome_is_not_sent(
    connect: Callable[..., MemoAirVoiceClientSync],
    cloud: PromptServer,
    arguments: dict[str, Any],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        connect().report_outcome(**{"session_id": "call-1", "outcome": "resolved", **arguments})
    assert cloud.requests == []


def test_an_outcome_that_the_cloud_does_not_take_is_an_error(
    connect: Callable[..., MemoAirVoiceClientSync], cloud: PromptServer, new_client: NewClient
) -> None:
    cloud.outcome_reply = {
        "accepted": 0,
        "unknownSessions": 0,
        "rejected": [{"index": 0, "reason": "the user is gone"}],
    }
    with pytest.raises(MemoAirVoiceMemoryError, match="the user is gone") as caught:
        connect().report_outcome("call-1", "resolved")
    assert caught.value.code == "cloud.invalid"
    assert code_of(lambda: new_client().report_outcome("call-1", "resolved")) == "cloud.unreachable"
