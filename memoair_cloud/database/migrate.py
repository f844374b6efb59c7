"""Migrate a database to the tables of this version."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.private import make_private

_MIGRATIONS_FOLDER = Path(__file__).parent / "migrations"
# An arbitrary number that nothing else uses for an advisory lock in the same database.
_ADVISORY_LOCK_ID = 0x6D656D6F


def migrate(engine: Engine, revision: str = "head") -> None:
    """Apply all missing migrations, in one transaction, and keep other users of this machine from SQLite files.

    Several servers may call this at the same time: one migrates, the others wait. A server that dies during
    a migration leaves the database unchanged.

    Args:
        engine: The database of the server.
        revision: The Alembic revision to migrate to.
    """
    make_private(engine)
    with engine.connect().execution_options(**{WRITE_OPTION: True}) as connection, connection.begin():
        _acquire_schema_lock(connection)
        command.upgrade(_alembic_config(connection), revision)


@contextmanager
def schema_lock(engine: Engine) -> Iterator[None]:
    """Let one process at a time create tables on PostgreSQL, where concurrent attempts to create a table collide.

    SQLite serializes them itself; a transaction that is open here would only make them wait.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.connect() as connection, connection.begin():
        _acquire_schema_lock(connection)
        yield


def is_current(connection: Connection) -> bool:
    """Return whether the database has the tables of this version.

    Args:
        connection: A connection to the database.
    """
    heads = ScriptDirectory(str(_MIGRATIONS_FOLDER)).get_heads()
    return set(MigrationContext.configure(connection).get_current_heads()) == set(heads)


def _acquire_schema_lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = 0"))  # no timeout: another server's migration may take long
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK_ID})


def _alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
