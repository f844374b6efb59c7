"""Outages of the server or its database during ingestion: each event is saved once."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3
from sqlalchemy.engine import make_url
from support.clouds import Client, locked_sqlite, running, turn
from support.commands import free_port, run_in_background, serve_arguments
from support.waiting import eventually

from memoair_cloud.queue import Worker

pytestmark = pytest.mark.timeout(600)

_OUTAGE_S = 10.0
# As long as a busy machine needs to start servers and to accept all batches.
_TIMEOUT_S = 240.0


def make_batches(caller: str, count: int = 12, size: int = 40) -> list[list[dict[str, Any]]]:
    """Return batches of turns in three calls. Each batch repeats some turns of the one before it."""
    turns = [
        turn(f"{caller}-{n}", f"{caller}-call-{n % 3}", n, occurredAt=f"2026-03-02T09:{n // 60 % 60:02}:{n % 60:02}Z")
        for n in range(count * size)
    ]
    return [turns[max(0, n * size - 5) : (n + 1) * size] for n in range(count)]


def send_all(
    client: Client,
    batches: list[list[dict[str, Any]]],
    on_acknowledged: Callable[[], object] = int,
    may_end: threading.Event | None = None,
) -> None:
    """Send batches in random order, each until it is acknowledged, as a runtime does.

    ``on_acknowledged`` is called after each batch. The last batch is held back until ``may_end`` is set.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    waiting = list(batches)
    random.Random(len(batches)).shuffle(waiting)
    while waiting:
        assert time.monotonic() < deadline, "the server did not come back"
        if len(waiting) == 1 and may_end is not None:
            may_end.wait(_TIMEOUT_S)
        with suppress(urllib3.exceptions.HTTPError, ConnectionError):
            answer = client.call("POST", "/v1/voice-sdk/events", {"events": waiting[-1]})
            if answer.status == 200:
                assert answer.body["rejected"] == []
                waiting.pop()
                on_acknowledged()
                continue
            assert answer.status == 503, answer
        time.sleep(0.02)


def check_each_event_is_saved_once(client: Client, sent: list[list[dict[str, Any]]]) -> None:
    expected: dict[str, list[str]] = {}
    for event in sorted(
        {event["eventId"]: event for batch in sent for event in batch}.values(), key=lambda e: e["seq"]
    ):
        expected.setdefault(event["sessionId"], []).append(event["eventId"])
    for session_id, event_ids in expected.items():
        assert [event["eventId"] for event in client.events(session_id)] == event_ids
    sessions = client.ok("GET", f"{client.path}/sessions")["sessions"]
    assert {session["sessionId"]: session["turnCount"] for session in sessions} == {
        session_id: len(event_ids) for session_id, event_ids in expected.items()
    }


@pytest.mark.extended_on("sqlite")
def test_a_server_killed_during_ingestion_saves_each_event_once(new_database: Callable[[], str], folder: Path) -> None:
    url, port = new_database(), free_port()
    with running(url, folder) as cloud:
        tenant = cloud.tenant()
    callers = [
        Client(f"http://127.0.0.1:{port}", tenant.key, **tenant.identity).with_identity(user=f"c{n}") for n in range(3)
    ]
    batches_by_caller = [make_batches(caller.identity["user"]) for caller in callers]
    dice, acknowledged, may_end = random.Random(1), list[bool](), threading.Event()
    with ThreadPoolExecutor(3) as pool:
        sending = [
            pool.submit(send_all, caller, sent, lambda: acknowledged.append(True), may_end)
            for caller, sent in zip(callers, batches_by_caller, strict=True)
        ]
        try:
            with run_in_background(*serve_arguments(folder, url, port, "--no-worker"), home=folder) as server:
                # Killed at a random moment during ingestion: the last batches are held back until then.
                min_acknowledged = dice.randint(1, 20)
                eventually(lambda: len(acknowledged) >= min_acknowledged, _TIMEOUT_S)
                time.sleep(dice.uniform(0, 0.02))
                server.kill()
        finally:
            may_end.set()
        with run_in_background(*serve_arguments(folder, url, port, "--no-worker"), home=folder):
            for future in sending:
                future.result()
    with running(url, folder) as cloud:
        for caller, sent in zip(callers, batches_by_caller, strict=True):
            check_each_event_is_saved_once(Client(cloud.url, tenant.key, **caller.identity), sent)
            caller.close()


def test_events_sent_during_a_database_outage_are_saved_once(new_database: Callable[[], str], folder: Path) -> None:
    url = new_database()
    with running(url, folder, session_idle_s=3_600) as cloud:
        client = cloud.tenant()
        worker = Worker(cloud.services.queue)
        worker.start()
        sent = make_batches("caller", count=6)
        sending = threading.Thread(target=send_all, args=(client, sent))
        try:
            with database_outage(url):
                sending.start()
                assert Client(cloud.url).ok("GET", "/healthz") == {"status": "ok"}
                time.sleep(_OUTAGE_S)
            sending.join()
            check_each_event_is_saved_once(client, sent)
            client.send_call("later", "I live in Lisbon.")
            eventually(lambda: client.memories() != [], within_s=60)  # the worker survived the outage, too
        finally:
            worker.stop(60)


@contextmanager
def database_outage(url: str) -> Iterator[None]:
    """Make the database unavailable for as long as the block runs."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with locked_sqlite(url, "EXCLUSIVE"):
            yield
        return
    name = parsed.database
    server = parsed.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:

        def allow(word: str) -> None:
            connection.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {word}".encode())

        allow("false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            allow("true")


@pytest.mark.parametrize("lost", ["in the middle", "at the end"])
def test_a_batch_can_be_sent_again_after_a_lost_response(client: Client, lost: str) -> None:
    events = [turn(f"e{n}", seq=n) for n in range(10)]
    client.send(*(events[:5] if lost == "in the middle" else events))
    receipt = client.send(*events)
    assert sorted(receipt["accepted"] + receipt["duplicate"]) == sorted(event["eventId"] for event in events)
    assert [event["eventId"] for event in client.events("call-1")] == [event["eventId"] for event in events]
