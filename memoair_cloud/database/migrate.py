"""Bring a database to the tables that this version knows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from memoair_cloud.database.engine import WRITE_OPTION

_MIGRATIONS_FOLDER = Path(__file__).parent / "migrations"
# Any number that nobody else takes for a lock on the same database.
_ADVISORY_LOCK_ID = 0x6D656D6F


def migrate(engine: Engine, revision: str = "head") -> None:
    """Apply the migrations that are missing. Many servers may do this at once: one does it, the others wait.

    All of it is one transaction: a server that dies in the middle leaves the database as it was.
    """
    with engine.connect().execution_options(**{WRITE_OPTION: True}) as connection, connection.begin():
        _acquire_schema_lock(connection)
        command.upgrade(_alembic_config(connection), revision)


@contextmanager
def schema_lock(engine: Engine) -> Iterator[None]:
    """Let others that make tables wait, on PostgreSQL: two that make one table at once disturb each other there.

    SQLite lets them wait by itself, and a transaction of ours would be what they wait for.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.connect() as connection, connection.begin():
        _acquire_schema_lock(connection)
        yield


def is_current(connection: Connection) -> bool:
    """Whether the database has the tables of this version."""
    heads = ScriptDirectory(str(_MIGRATIONS_FOLDER)).get_heads()
    return set(MigrationContext.configure(connection).get_current_heads()) == set(heads)


def _acquire_schema_lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = 0"))  # a migration of much data may take its time
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK_ID})


def _alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
