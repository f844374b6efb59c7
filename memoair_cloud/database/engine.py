"""The database engine: SQLite in WAL mode, or PostgreSQL. Transactions that write declare it when they begin."""

import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import ConnectionPoolEntry

from memoair_cloud.database.writer_gate import WriterGate
from memoair_protocol.durable import make_folder

# The execution option of a transaction that writes. SQLite must know it at the beginning: a transaction that reads
# first and then writes fails immediately if another one has written in between, however long it may wait.
WRITE_OPTION = "memoair_writes"
# The execution option of a transaction that fails rather than wait long for a lock, with its seconds.
LOCK_TIMEOUT_OPTION = "memoair_lock_timeout_s"
_BUSY_TIMEOUT_S = 30
_LOCK_TIMEOUT_S = 10
_CONNECT_TIMEOUT_S = 10


def make_engine(url: str) -> Engine:
    """Create an engine. It creates the folder of a SQLite file, but does not connect yet.

    Args:
        url: A database URL as validated by `CloudSettings`.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        make_folder(Path(parsed.database or "").parent)
        # Enough connections that reads have some while writers wait for the lock: see `WriterGate`.
        wait = {"timeout": _BUSY_TIMEOUT_S}
        engine = create_engine(parsed, hide_parameters=True, connect_args=wait, pool_size=10, max_overflow=20)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", partial(_begin_sqlite, WriterGate()))
        return engine
    # `hide_parameters`: errors would contain callers' words, which must not get into a log. `timezone`: in other zones
    # than UTC, the first and the last moments of the calendar cannot be read back. `lock_timeout`: a request that waits
    # for a lock holds a thread that other requests wait for. `prepare_threshold`: the plan of a prepared statement
    # suits most users; for a user with a hundred times as many turns it would scan all of them (2.5 times the cost of a
    # turn). Prepared statements also fail behind pgbouncer.
    # `connect_timeout`: a host that is gone answers nothing, and a request would wait for minutes to find out.
    connect_args: dict[str, Any] = {
        "options": f"-c timezone=UTC -c lock_timeout={_LOCK_TIMEOUT_S}s",
        "prepare_threshold": None,
    }
    if "connect_timeout" not in parsed.query:
        connect_args["connect_timeout"] = _CONNECT_TIMEOUT_S
    engine = create_engine(
        parsed, hide_parameters=True, connect_args=connect_args, pool_size=10, max_overflow=40, pool_pre_ping=True
    )
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def purge_wal(engine: Engine) -> None:
    """Remove deleted data from SQLite's write-ahead log. If a reader is using the log, a later call removes it."""
    if engine.dialect.name == "sqlite":
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()


def _configure_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # SQLAlchemy begins and ends transactions; the driver must not
    _enable_wal(connection)
    # In WAL mode, NORMAL loses no transaction if a process dies, but may if the machine does. Acknowledged events must
    # be on disk.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    # Data of erased users must not be readable in free pages of the file.
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute("PRAGMA cache_size=-32768")
    connection.execute("PRAGMA temp_store=MEMORY")


def _enable_wal(connection: Any) -> None:
    # Switching to WAL upgrades a read lock to a write lock, and SQLite does not wait for that. Two servers that create
    # the same database would collide here.
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(gate: WriterGate, connection: Connection) -> None:
    options = connection.get_execution_options()
    timeout_s = options.get(LOCK_TIMEOUT_OPTION, _BUSY_TIMEOUT_S)
    if connection.info.get(LOCK_TIMEOUT_OPTION, _BUSY_TIMEOUT_S) != timeout_s:
        connection.exec_driver_sql(f"PRAGMA busy_timeout={int(timeout_s * 1000)}")
        connection.info[LOCK_TIMEOUT_OPTION] = timeout_s
    if not options.get(WRITE_OPTION, False):
        connection.exec_driver_sql("BEGIN")
        return
    with gate.wait():
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_postgresql(connection: Connection) -> None:
    timeout_s = connection.get_execution_options().get(LOCK_TIMEOUT_OPTION)
    if timeout_s is not None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(timeout_s * 1000)}")
