"""What the client never reveals: keys, tokens, and anything that a caller says."""

import json
import logging
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from support.clients import (
    API_KEY,
    PATIENT_MS,
    NewClient,
    fork_server_of,
    frozen,
    pid_of,
    recall,
    runtime_of,
    say,
)
from support.runtimes import PROJECT, RawConnection
from support.waiting import eventually

from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

APPLICATIONS_SECRET = "a secret of the application"

# What a caller says and asks, and who they are: unique words that can be found wherever they are written.
SAID, ANSWERED, ASKED, NAME, PLAN, CALLER = "zebracake", "yakbutter", "xylophone", "Wilhelmina", "vip-platin", "ulrike"


@pytest.fixture(autouse=True)
def application_has_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put secrets into the environment of the application."""
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MEMOAIR_API_KEY", "MEMOAIR_RUNTIME_TOKEN"):
        monkeypatch.setenv(name, APPLICATIONS_SECRET)


def token_of(storage_root: Path, user_id: str) -> str:
    token = json.loads(UserFolder(storage_root, PROJECT, user_id).lease.read_bytes())["token"]
    assert len(token) >= 32
    return str(token)


# Secrets


def test_no_process_shows_a_key_or_a_token(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    say(client, "ada", "hello")
    say(client, "bob", "hello")
    tokens = {token_of(storage_root, "ada"), token_of(storage_root, "bob")}
    assert len(tokens) == 2
    fork_server = fork_server_of(client, "ada")
    processes = [fork_server, *fork_server.children(recursive=True)]
    assert {pid_of(client, "ada"), pid_of(client, "bob")} < {each.pid for each in processes}
    for process in processes:
        shown = " ".join([*process.cmdline(), *map("=".join, process.environ().items())])
        assert "memoair_runtime.fork_server" in shown
        assert not [secret for secret in (API_KEY, APPLICATIONS_SECRET, *tokens) if secret in shown]


def test_a_runtime_program_receives_secrets_only_in_its_environment(
    new_client: NewClient, executable: Callable[[str], str], storage_root: Path
) -> None:
    client = new_client(runtime_binary=executable(f"#!/bin/sh\nexec {sys.executable} -m memoair_runtime\n"))
    say(client, "ada", "hello")
    process = psutil.Process(pid_of(client, "ada"))
    token = token_of(storage_root, "ada")

    assert not [secret for secret in (API_KEY, token) if secret in " ".join(process.cmdline())]
    assert process.environ()["MEMOAIR_RUNTIME_API_KEY"] == API_KEY
    assert process.environ()["MEMOAIR_RUNTIME_TOKEN"] == token
    assert APPLICATIONS_SECRET not in process.environ().values()


def test_without_the_token_nothing_can_be_read(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    say(client, "ada", f"The word is {SAID}.")
    port, session_id = runtime_of(client, "ada")["port"], runtime_of(client, "ada")["session_id"]
    body = json.dumps({"sessionId": session_id, "query": "what is the word?"})
    for authorization in ("", "Authorization: Bearer guessed\r\n"):
        connection = RawConnection(port)
        connection.send(
            f"POST /v1/runtime/search_memory HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        reply = connection.read_reply()
        connection.close()
        assert (reply.status, reply.error["code"]) == (401, "runtime.unauthorized")
        assert SAID.encode() not in reply.body


def test_other_users_of_the_machine_cannot_read_the_files(new_client: NewClient, storage_root: Path) -> None:
    mask = os.umask(0)
    try:
        client = new_client()
        say(client, "ada", "hello")
        lease = UserFolder(storage_root, PROJECT, "ada").lease
        assert stat.S_IMODE(lease.stat().st_mode) == 0o600
        client.load_index(user_id="bob")
        modes: dict[Path, int] = {}
        for path in (storage_root, *storage_root.rglob("*")):
            with suppress(FileNotFoundError):  # of a temporary file that has been renamed
                modes[path] = path.stat().st_mode
        assert {path.name for path in modes} >= {"ada", "bob", "session.jsonl", "lease.json", "runtime.lock"}
        wrong = {path: oct(mode) for path, mode in modes.items() if stat.S_IMODE(mode) != _expected_mode(mode)}
        assert not wrong
        client.close()
        assert not lease.exists()
    finally:
        os.umask(mask)


def _expected_mode(mode: int) -> int:
    return 0o700 if stat.S_ISDIR(mode) else 0o600


def test_repr_and_stats_do_not_contain_the_key(new_client: NewClient) -> None:
    client = new_client()
    client.load_index(user_id="ada")
    handle = client._pool.acquire("ada")
    client._pool.release(handle)
    shown = [repr(each) for each in (client, client._pool, handle, handle.runtime, client._pool._spec)]
    assert all(shown)
    assert API_KEY not in " ".join([*shown, json.dumps(client.stats())])


# Speech


def talk(client: MemoAirVoiceClientSync, turn_id: str, timeout_ms: float = PATIENT_MS) -> list[str]:
    """Search and save, and return the errors that were raised."""
    user = {"id": CALLER, "name": NAME, "metadata": {"plan": PLAN}}
    raised: list[str] = []
    try:
        client.search_memory(ASKED, user=user, timeout_ms=timeout_ms)
    except MemoAirVoiceMemoryError as error:
        raised.append(repr(error) + str(error))
    try:
        client.save_response(user=user, user_text=SAID, assistant_text=ANSWERED, turn_id=turn_id)
    except MemoAirVoiceMemoryError as error:
        raised.append(repr(error) + str(error))
    return raised


def assert_no_leak(caplog: pytest.LogCaptureFixture, raised: list[str], secrets: list[str]) -> None:
    records = [f"{each.getMessage()} {each.args} {each.exc_text}" for each in caplog.records]
    assert records, "the failures must be logged"
    output = "\n".join([caplog.text, *records, *raised])
    assert not [each for each in (SAID, ANSWERED, ASKED, NAME, PLAN, API_KEY, *secrets) if each in output]


def test_no_speech_is_logged_when_runtimes_die_and_hang(
    new_client: NewClient, storage_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = new_client()
    talk(client, "t1")
    client.load_index(user_id=CALLER)
    tokens = [token_of(storage_root, CALLER)]
    with frozen(pid_of(client, CALLER)):
        raised = talk(client, "t2", timeout_ms=50)
    psutil.Process(pid_of(client, CALLER)).kill()
    raised += talk(client, "t3")
    eventually(lambda: client.stats()["pending_saves"] == 0, within_s=60.0)
    recall(client, CALLER, ASKED)
    tokens.append(token_of(storage_root, CALLER))
    client.close()
    raised += talk(client, "t4")

    assert len(raised) == 2
    assert_no_leak(caplog, raised, tokens)


def test_no_speech_is_logged_when_no_runtime_can_be_started(
    new_client: NewClient, executable: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = new_client(runtime_binary=executable("#!/bin/sh\nexit 1\n"))
    raised = talk(client, "t1") + talk(client, "t2")
    with suppress(MemoAirVoiceMemoryError):
        client.load_index(user_id=CALLER)
    client.close()

    assert raised == []
    assert "turns=2" in caplog.text
    assert_no_leak(caplog, raised, [])


@pytest.mark.usefixtures("patient_saves")
def test_no_speech_is_logged_when_a_turn_is_rejected(new_client: NewClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = new_client()
    client.load_index(user_id=CALLER)
    raised = []
    for fault in ({"user_text": SAID * (1 << 18)}, {"metadata": {"occurredAt": f"{SAID} o'clock"}}):
        with pytest.raises(MemoAirVoiceMemoryError) as refused:
            client.save_response(
                user_id=CALLER,
                **{"user_text": SAID, "assistant_text": ANSWERED, **fault},  # type: ignore[arg-type]
            )
        raised.append(repr(refused.value) + str(refused.value))
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        client.search_memory(ASKED * (1 << 12), user_id=CALLER, timeout_ms=PATIENT_MS)
    raised.append(repr(refused.value) + str(refused.value))
    client.close()

    assert_no_leak(caplog, raised, [])
