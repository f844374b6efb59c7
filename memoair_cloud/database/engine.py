"""The engine: SQLite in WAL mode or PostgreSQL. A transaction that will write says so when it begins."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import ConnectionPoolEntry

# What a transaction that will write carries. SQLite has to know at its beginning: one that reads first and writes then
# fails at once when another has written meanwhile, however long it would be willing to wait.
WRITE_OPTION = "memoair_writes"
_BUSY_TIMEOUT_S = 30
_LOCK_TIMEOUT_S = 10


def make_engine(url: str) -> Engine:
    """An engine for a URL that `CloudSettings` has checked. A SQLite file's folder is made; nothing is connected yet."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        Path(parsed.database or "").parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": _BUSY_TIMEOUT_S}, pool_size=10)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # An error's parameters are callers' words: they must not get into a log. In another zone than UTC the first and the
    # last moments of the calendar can't be read back. Whoever waits for a lock holds a thread that others wait for.
    # A statement that is prepared is planned for a caller like most; one who has said a hundred times as much would be
    # looked for in all that he has said (2.5 times the cost of a turn). It would also go wrong behind a pgbouncer.
    connect_args = {"options": f"-c timezone=UTC -c lock_timeout={_LOCK_TIMEOUT_S}s", "prepare_threshold": None}
    return create_engine(
        parsed, hide_parameters=True, connect_args=connect_args, pool_size=10, max_overflow=40, pool_pre_ping=True
    )


def purge_wal(engine: Engine) -> None:
    """Let nothing that was deleted stay in SQLite's log of changes. Where that is being read, the next time must do."""
    if engine.dialect.name == "sqlite":
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()


def _configure_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # SQLAlchemy begins and ends transactions, the driver must not
    _enable_wal(connection)
    # In WAL mode NORMAL loses no transaction when a process dies, but may when the machine does; events are
    # acknowledged, so they have to be on the disk.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    # Who is forgotten must not be read out of the free pages of the file.
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute("PRAGMA cache_size=-32768")
    connection.execute("PRAGMA temp_store=MEMORY")


def _enable_wal(connection: Any) -> None:
    # The change to WAL lifts a read lock to a write lock, for which SQLite does not wait: two servers that make one
    # database would meet here.
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


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITE_OPTION, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
