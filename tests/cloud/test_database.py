"""The tables: migrations create what the models define, and run completely or not at all."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import StatementError
from support.clouds import Client, running, turn

from memoair_cloud.database import migrate as migrations
from memoair_cloud.database.base import Base
from memoair_cloud.database.engine import make_engine
from memoair_cloud.database.models import Account
from memoair_cloud.queue import _make_huey
from memoair_cloud.settings import CloudSettings, load_settings
from memoair_cloud.tenancy.access import hash_key

PERMANENT = "/v1/voice-sdk/projections/permanent"
_DAY = "'2026-03-02 09:30:00'"
_PAYLOAD = {"turnId": "1", "userText": "I live in Lisbon.", "assistantText": "", "toolCalls": [], "metadata": {}}
# Rows as a server of the first version wrote them. Its models no longer exist.
_FIRST_VERSION_ROWS = [
    f"INSERT INTO accounts (id, name, created_at) VALUES ('acct_a', 'F', {_DAY})",
    "INSERT INTO api_keys (account_id, id, sha256, hint, name, created_at)"
    f" VALUES ('acct_a', 'key_a', :sha256, 'memoair_pk_', 'first', {_DAY})",
    "INSERT INTO projects (account_id, id, name, slug, description, created_at, org_version)"
    f" VALUES ('acct_a', 'proj_acme', 'Acme', 'acme', '', {_DAY}, 1)",
    "INSERT INTO end_users (project_id, id, name, metadata, described_at, session_count, first_seen_at, last_seen_at)"
    f" VALUES ('proj_acme', '0xab12', 'Ana', '{{}}', {_DAY}, 1, {_DAY}, {_DAY})",
    "INSERT INTO call_sessions (project_id, user_id, id, metadata, boundary_seq, started_at, ended_at, last_event_at,"
    f" turn_count) VALUES ('proj_acme', '0xab12', 'call-1', '{{}}', 9, {_DAY}, {_DAY}, {_DAY}, 1)",
    "INSERT INTO call_events (project_id, user_id, id, session_id, type, seq, occurred_at, received_at, payload)"
    f" VALUES ('proj_acme', '0xab12', 'e1', 'call-1', 'turn', 2, {_DAY}, {_DAY}, :payload)",
    "INSERT INTO org_indexes (project_id, name, metadata, version, document_count, chunk_count, created_at, updated_at)"
    f" VALUES ('proj_acme', 'faq', '{{}}', 1, 1, 1, {_DAY}, {_DAY})",
    "INSERT INTO org_documents (project_id, index_name, id, text, metadata, chunk_count, version)"
    " VALUES ('proj_acme', 'faq', 'd', 'We open at nine.', '{}', 1, 1)",
    "INSERT INTO org_builds (project_id, version, sha256, size) VALUES ('proj_acme', 0, NULL, 0)",
]


def test_migrations_create_the_tables_of_the_models_and_are_idempotent(new_database: Callable[[], str]) -> None:
    engine = make_engine(CloudSettings(database_url=new_database()).database_url)
    with engine.connect() as connection:
        assert not migrations.is_current(connection)
    for _ in range(2):
        migrations.migrate(engine)
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
            assert migrations.is_current(connection)
    engine.dispose()


def test_a_failed_migration_leaves_the_database_unchanged(
    new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(CloudSettings(database_url=new_database()).database_url)
    upgrade = migrations.command.upgrade

    def upgrade_and_die(*arguments: str) -> None:
        upgrade(*arguments)  # type: ignore[arg-type]
        raise RuntimeError("the machine goes down")

    monkeypatch.setattr(migrations.command, "upgrade", upgrade_and_die)
    with pytest.raises(RuntimeError):
        migrations.migrate(engine)
    monkeypatch.undo()
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []
    migrations.migrate(engine)
    with engine.connect() as connection:
        assert migrations.is_current(connection)
    engine.dispose()


def test_a_timestamp_without_a_time_zone_is_rejected(new_database: Callable[[], str]) -> None:
    from datetime import datetime

    engine = make_engine(CloudSettings(database_url=new_database()).database_url)
    migrations.migrate(engine)
    row = {"id": "a", "name": "", "created_at": datetime(2026, 3, 2)}  # noqa: DTZ001 - that is the point
    with engine.connect() as connection, pytest.raises(StatementError, match="time zone"):
        connection.execute(Account.__table__.insert(), row)  # type: ignore[attr-defined]
    engine.dispose()


def test_flags_override_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMOAIR_CLOUD_PORT", "9000")
    monkeypatch.setenv("MEMOAIR_CLOUD_DATABASE_URL", "postgresql://u:p%40ss@host/db")

    settings = load_settings(port=None, host="0.0.0.0")
    assert (settings.port, settings.host) == (9000, "0.0.0.0")
    assert settings.database_url == "postgresql+psycopg://u:p%40ss@host/db"
    assert load_settings(port=9001).port == 9001


def test_an_upgrade_from_the_first_tables_keeps_the_data_and_consolidates_it(
    new_database: Callable[[], str], folder: Path
) -> None:
    url = CloudSettings(database_url=new_database()).database_url
    engine = make_engine(url)
    migrations.migrate(engine, "0001")
    with engine.begin() as connection:
        for statement in _FIRST_VERSION_ROWS:
            connection.execute(text(statement), {"sha256": hash_key("memoair_pk_old"), "payload": json.dumps(_PAYLOAD)})
    engine.dispose()

    with running(url, folder) as cloud:
        client = Client(cloud.url, "memoair_pk_old", project="proj_acme", user="0xab12")
        assert [event["eventId"] for event in client.events("call-1")] == ["e1"]
        bootstrap = client.ok("GET", "/v1/voice-sdk/bootstrap")
        assert (bootstrap["permanentManifestVersion"], bootstrap["orgManifestVersion"]) == (1, 1)
        assert [event["eventId"] for event in client.ok("GET", PERMANENT)["events"]] == ["e1"]
        cloud.run_tasks()
        assert [memory["text"] for memory in client.memories()] == ["Ana lives in Lisbon."]
        assert client.ok("GET", "/v1/voice-sdk/bootstrap")["orgFile"]["version"] == 1
        assert client.send(turn("e1"), turn("e2", seq=3))["accepted"] == ["e2"]
        assert client.ok("DELETE", client.path)["removed"]["events"] == 2


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_the_earliest_and_latest_timestamps_survive_any_time_zone_of_the_database(
    new_database: Callable[[], str], folder: Path, zone: str
) -> None:
    url = CloudSettings(database_url=new_database()).database_url
    engine = make_engine(url)
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"ALTER DATABASE {engine.url.database} SET timezone TO '{zone}'"))
    engine.dispose()
    with running(url, folder) as cloud:
        client = cloud.tenant()
        moments = ["0001-01-01T00:30:00Z", "9999-12-31T23:30:00Z", "1969-12-31T23:59:59.999999Z"]
        events = [turn(f"e{number}", seq=number, occurredAt=moment) for number, moment in enumerate(moments)]
        assert client.send(*events)["accepted"] == ["e0", "e1", "e2"]
        occurred_at = {event["eventId"]: event["occurredAt"] for event in client.events("call-1")}
        assert (occurred_at["e0"], occurred_at["e2"]) == (moments[0], moments[2])
        client.send_call("one", "I live in Lisbon.")
        cloud.run_tasks()
        assert [memory["text"] for memory in client.memories()] == ["Ana lives in Lisbon."]
        assert client.ok("DELETE", client.path)["removed"]["events"] == 6


def test_every_connection_to_sqlite_waits_for_the_disk_and_overwrites_what_is_deleted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'cloud.db'}"
    engine = make_engine(url)
    queue = _make_huey(engine)
    try:
        with ExitStack() as stack:
            opened = [stack.enter_context(engine.connect()) for _ in range(12)]  # more than the pool keeps
            for name, value in {"synchronous": 2, "secure_delete": 1, "foreign_keys": 1, "journal_mode": "wal"}.items():
                assert {each.exec_driver_sql(f"PRAGMA {name}").scalar_one() for each in opened} == {value}, name
        with engine.connect() as again:  # one that was given back
            assert again.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        [synchronous] = queue.storage.conn.execute("PRAGMA synchronous").fetchone()
        assert synchronous == 2, "a task that was acknowledged must survive a power failure, too"
    finally:
        queue.storage.close()
        engine.dispose()
