"""A database that is full, locked or read-only: reads are answered, nothing that must be known is lost."""

import asyncio
import json
import logging
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select, update
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session
from support.clouds import Client, RunningCloud, locked_sqlite, running, turn
from support.commands import free_port, is_ready, run_in_background, serve_arguments
from support.waiting import eventually

from memoair_cloud.audit.log import AuditAction, _AuditRecord
from memoair_cloud.dashboard.sessions import SessionStore
from memoair_cloud.dashboard.signing import Signer
from memoair_cloud.database.access_models import AuditEntry, DashboardSession, SigningSecret
from memoair_cloud.database.deferred import DeferredWrites, begin_short_write
from memoair_cloud.database.engine import make_engine
from memoair_cloud.database.migrate import migrate
from memoair_cloud.database.models import ApiKey
from memoair_cloud.database.writer_gate import MAX_WAITING
from memoair_cloud.errors import ServiceUnavailableError
from memoair_cloud.http.readiness import ReadinessCheck
from memoair_cloud.logs import JsonLines
from memoair_cloud.tenancy.access import authenticate
from memoair_protocol.timestamps import utc_now

pytestmark = pytest.mark.timeout(300)

READS = (
    "/v1/projects",
    "/v1/voice-sdk/index/list",
    "/v1/voice-sdk/bootstrap",
    "/v1/voice-sdk/projections/permanent",
    "/v1/voice-sdk/projections/org",
    "/v1/voice-sdk/users",
    "/v1/voice-sdk/users/0xab12",
    "/v1/voice-sdk/users/0xab12/memories",
    "/v1/voice-sdk/users/0xab12/sessions",
    "/v1/voice-sdk/users/0xab12/export",
    "/v1/voice-sdk/sessions/call-1/events",
    "/v1/voice-sdk/audit",
)
EVENTS = "/v1/voice-sdk/events"


def never_used(cloud: RunningCloud) -> None:
    """Let all keys be such as were never used, so that the next request of each has its use to note."""
    with begin_short_write(cloud.services.engine, 30) as session:
        session.execute(update(ApiKey).values(last_used_at=None))


def set_file_size_limit(pid: int, limit: int) -> None:
    """Let a process write no file beyond a size: to the process, the disk is full."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


@contextmanager
def no_writes(url: str) -> Iterator[None]:
    """Let a database take no writes in the block: another process holds SQLite's lock; PostgreSQL is read-only."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with locked_sqlite(url, "IMMEDIATE"):
            yield
        return
    server = parsed.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:

        def set_read_only(word: str) -> None:
            connection.execute(f"ALTER DATABASE {parsed.database} SET default_transaction_read_only = {word}".encode())
            # It holds for new connections only.
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            connection.execute(ended, [parsed.database])

        set_read_only("on")
        try:
            yield
        finally:
            set_read_only("off")


def test_a_server_on_a_full_disk_answers_reads_and_is_not_ready(tmp_path: Path) -> None:
    url, port = f"sqlite:///{tmp_path / 'cloud.db'}", free_port()
    with running(url, tmp_path) as cloud:
        tenant = cloud.tenant()
        tenant.send_call("call-1", "I live in Lisbon.")
        cloud.run_tasks()
        never_used(cloud)
    client = Client(f"http://127.0.0.1:{port}", tenant.key, **tenant.identity)
    with run_in_background(*serve_arguments(tmp_path, url, port, "--no-worker"), home=tmp_path) as server:
        eventually(lambda: is_ready(port), 120)
        # The log of a small transaction fits, a file of the blob store does not.
        set_file_size_limit(server.pid, 512 << 10)
        unready = client.call("GET", "/readyz")
        assert (unready.status, unready.body["error"]["details"]) == (503, {"store": "blobs"})
        assert list((tmp_path / "blobs").iterdir()) == []
        set_file_size_limit(server.pid, 0)
        assert {path: client.call("GET", path).status for path in READS} == dict.fromkeys(READS, 200)
        unready = client.call("GET", "/readyz")
        assert (unready.status, unready.body["error"]["details"]) == (503, {"store": "database"})
        assert client.error_of("POST", EVENTS, {"events": [turn("late")]}) == (503, "cloud.unavailable")
        set_file_size_limit(server.pid, resource.RLIM_INFINITY)
        eventually(lambda: is_ready(port), 60)
        assert client.send(turn("late"))["accepted"] == ["late"]

        def read_actions() -> set[str]:
            return {entry["action"] for entry in client.ok("GET", "/v1/voice-sdk/audit")["entries"]}

        wanted = {"caller.read", "call.read", "memories.read", "memory.pulled", "caller.exported"}
        eventually(lambda: wanted <= read_actions(), 60)
        with running(url, tmp_path) as cloud:
            eventually(lambda: [key for key in cloud.accounts.list_keys() if key.last_used_at], 60)
    client.close()


def test_reads_are_answered_and_recorded_when_the_database_takes_writes_again(
    new_database: Callable[[], str], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = new_database()
    with running(url, folder) as cloud:
        client = cloud.tenant()
        client.send_call("call-1", "I live in Lisbon.")
        cloud.run_tasks()
        never_used(cloud)
        with no_writes(url):
            if url.startswith("postgresql"):  # its connections were ended, which the server finds out by using them
                assert client.error_of("POST", EVENTS, {"events": [turn("x")]}) == (503, "cloud.unavailable")
            started_at = utc_now()
            with caplog.at_level(logging.WARNING, "memoair_cloud"):
                assert {path: client.call("GET", path).status for path in READS} == dict.fromkeys(READS, 200)
            unready = client.call("GET", "/readyz")
            assert (unready.status, unready.body["error"]["details"]) == (503, {"store": "database"})
            ended_at = utc_now()
            lines = [JsonLines().format(record) for record in caplog.records]
            deferred = [json.loads(line) for line in lines if '"audit_deferred"' in line]
            # Each of the five actions once: the list of sessions and the user's page are the same action.
            assert len(deferred) == 5
            assert not [line for line in lines if "0xab12" in line or "call-1" in line or str(client.key) in line]
            assert {entry["read"] for entry in deferred} >= {"caller.read", "call.read", "memory.pulled"}

        def find_rows() -> list[AuditEntry]:
            with Session(cloud.services.engine) as session:
                return list(session.scalars(select(AuditEntry).where(AuditEntry.action != "memory.corrected")))

        rows = eventually(lambda: rows if len(rows := find_rows()) >= 5 else [], 60)
        assert {row.action for row in rows} == {entry["read"] for entry in deferred}
        assert {row.user_digest for row in rows} == {entry["user"] for entry in deferred}
        assert all(started_at <= row.at <= ended_at for row in rows)
        eventually(lambda: [key for key in cloud.accounts.list_keys() if key.last_used_at], 60)
        eventually(lambda: client.call("GET", "/readyz").status == 200, 60)


def test_an_entry_of_the_audit_log_that_comes_late_does_not_name_a_user_who_was_erased(
    cloud: RunningCloud, client: Client
) -> None:
    tenant = authenticate(cloud.services.engine, str(client.key)).make_tenant(cloud.services.engine)
    scope = tenant.for_project(client.identity["project"]).scope
    late = _AuditRecord.make(scope, AuditAction.READ_CALL, client.identity["user"], "call-1")
    client.send(turn("one"))
    client.ok("DELETE", client.path)
    with begin_short_write(cloud.services.engine, 30) as session:
        late(session)

    entries = client.ok("GET", "/v1/voice-sdk/audit")["entries"]
    assert {entry["action"] for entry in entries} == {"caller.erased", "call.read"}
    assert [(entry["userId"], entry["target"]) for entry in entries] == [(None, None)] * 2


def test_a_session_of_the_dashboard_lasts_while_the_database_takes_no_writes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'cloud.db'}"
    with running(url, tmp_path) as cloud:
        engine, deferred = cloud.services.engine, cloud.services.deferred
        sessions = SessionStore(engine, deferred, timedelta(hours=1), timedelta(hours=12))
        signed = Signer(engine, deferred).sign("session", "x")
        token, _ = sessions.sign_in(cloud.accounts.create("Fundamento").key)
        with begin_short_write(engine, 30) as session:
            session.execute(update(DashboardSession).values(seen_at=utc_now() - timedelta(minutes=59)))
            session.execute(update(SigningSecret).values(created_at=utc_now() - timedelta(days=40)))
        with no_writes(url):
            assert sessions.resume(token)
            assert Signer(engine, deferred).verify("session", signed, 60) == "x"  # a server that has just started
            # Its last use is known, although the database does not know it: an hour of inactivity begins again.
            impatient = SessionStore(engine, deferred, timedelta(minutes=30), timedelta(hours=12))
            assert impatient.resume(token)

        def count_secrets() -> int:
            with Session(engine) as session:
                return len(session.scalars(select(SigningSecret)).all())

        eventually(lambda: count_secrets() == 2, 60)
        eventually(lambda: deferred.find("signing secret") is None, 60)
        assert impatient.resume(token)


def test_a_deferred_write_that_is_impossible_does_not_stop_the_others(tmp_path: Path) -> None:
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path) as cloud:
        done = threading.Event()

        def fail(_: Session) -> None:
            raise ValueError

        with no_writes(str(cloud.services.engine.url)):
            assert cloud.services.deferred.put("bad", fail)
            assert cloud.services.deferred.put("good", lambda _: done.set())
        assert done.wait(60)
        eventually(lambda: cloud.services.deferred.find("bad") is None, 60)


def test_more_deferred_writes_than_may_wait_are_refused(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'cloud.db'}")
    migrate(engine)
    others = set(threading.enumerate())
    with no_writes(str(engine.url)):
        deferred = DeferredWrites(engine, max_waiting=2)
        try:
            assert [deferred.put(key, lambda _: None) for key in ("a", "b", "a", "c")] == [True, True, True, False]
        finally:
            deferred.close()  # returns within seconds, whatever is waiting
            engine.dispose()
    assert set(threading.enumerate()) <= others


def test_writers_that_wait_for_a_lock_leave_reads_a_connection(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'cloud.db'}"
    with running(url, tmp_path, requests_at_once=10_000) as cloud, ThreadPoolExecutor(2 * MAX_WAITING) as pool:
        client = cloud.tenant()
        with no_writes(url):
            batches = [{"events": [turn(f"e{n}")]} for n in range(MAX_WAITING)]
            waiting = [pool.submit(client.call, "POST", EVENTS, batch) for batch in batches]
            # Beyond those that may wait for the lock, a writer gets an error at once as soon as the lock is stuck.
            deadline = time.monotonic() + 20
            while True:
                impatient = Client(cloud.url, client.key, **client.identity)
                begun_at = time.monotonic()
                more = pool.submit(impatient.call, "POST", EVENTS, {"events": [turn("more")]})
                try:
                    assert more.result(1).status == 503
                except TimeoutError:
                    assert time.monotonic() < deadline
                    waiting.append(more)
                    continue
                assert time.monotonic() - begun_at < 20
                break
            assert client.call("GET", "/v1/voice-sdk/users").status == 200
        assert {future.result(60).status for future in waiting} == {200}


class HangingStore:
    """A blob store that does not respond until `may_respond` is set."""

    folder = None

    def __init__(self) -> None:
        self.checks = 0
        self.may_respond = threading.Event()

    def check_writable(self) -> None:
        self.checks += 1
        self.may_respond.wait(60)


def test_a_check_of_a_store_that_hangs_ends_and_is_made_once(tmp_path: Path) -> None:
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path) as cloud:
        store = HangingStore()
        readiness = ReadinessCheck(cloud.services.engine, store, timeout_s=2)  # type: ignore[arg-type]

        async def check_often() -> list[Any]:
            return await asyncio.gather(*(readiness.check() for _ in range(20)), return_exceptions=True)

        failures = asyncio.run(check_often())
        assert [type(failure) for failure in failures] == [ServiceUnavailableError] * 20
        assert failures[0].details == {"store": "blobs"}
        assert store.checks == 1
        store.may_respond.set()
        eventually(lambda: not [t for t in threading.enumerate() if t.name == "memoair-readiness"])
        assert asyncio.run(check_often()) == [None] * 20
