"""The tables: what the migrations make is what the models say, and a half migration is none."""

from collections.abc import Callable

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy.exc import StatementError

from memoair_cloud.database import migrate as migrations
from memoair_cloud.database.engine import make_engine
from memoair_cloud.database.models import Account, Base
from memoair_cloud.settings import Settings, settings_from


def test_the_migrations_make_what_the_models_say_and_may_be_applied_again(new_database: Callable[[], str]) -> None:
    engine = make_engine(Settings(database_url=new_database()).database_url)
    with engine.connect() as connection:
        assert not migrations.is_current(connection)
    for _ in range(2):
        migrations.migrate(engine)
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
            assert migrations.is_current(connection)
    engine.dispose()


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(Settings(database_url=new_database()).database_url)
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


def test_a_moment_without_a_zone_is_not_kept(new_database: Callable[[], str]) -> None:
    from datetime import datetime

    engine = make_engine(Settings(database_url=new_database()).database_url)
    migrations.migrate(engine)
    row = {"id": "a", "name": "", "created_at": datetime(2026, 3, 2)}  # noqa: DTZ001 - that is the point
    with engine.connect() as connection, pytest.raises(StatementError, match="time zone"):
        connection.execute(Account.__table__.insert(), row)  # type: ignore[attr-defined]
    engine.dispose()


def test_flags_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMOAIR_CLOUD_PORT", "9000")
    monkeypatch.setenv("MEMOAIR_CLOUD_DATABASE_URL", "postgresql://u:p%40ss@host/db")

    told = settings_from(port=None, host="0.0.0.0")
    assert (told.port, told.host) == (9000, "0.0.0.0")
    assert told.database_url == "postgresql+psycopg://u:p%40ss@host/db"
    assert settings_from(port=9001).port == 9001
