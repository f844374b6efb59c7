"""``memoair cloud``: set up and run a server. The packages of the extra ``cloud`` are imported only when needed."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from memoair_cli.cloud_demo.command import demo
from memoair_cli.options import fail
from memoair_protocol.installing import install_command

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from memoair_cloud.settings import CloudSettings
    from memoair_cloud.tenancy.accounts import Accounts, KnownKey

app = typer.Typer(name="cloud", no_args_is_help=True, help="Set up and run a MemoAir server.")
key_app = typer.Typer(name="key", no_args_is_help=True, help="Create API keys.")
app.add_typer(key_app)
app.command()(demo)

# The packages of the extra that a server needs. Commands for keys import only some of them, which takes half the time.
_EXTRA_PACKAGES = (
    *("alembic", "fastapi", "fsspec", "huey", "itsdangerous", "jinja2", "psycopg", "pydantic", "pydantic_settings"),
    *("python_multipart", "sqlalchemy", "uvicorn"),
)

DatabaseUrl = Annotated[
    Optional[str],  # noqa: UP045 - Typer needs this on Python 3.10
    typer.Option(help="SQLite or PostgreSQL URL; by default a SQLite file in the user's data folder."),
]
BlobUrl = Annotated[
    Optional[str],  # noqa: UP045 - Typer needs this on Python 3.10
    typer.Option(help="Where index files are stored: a folder, or a URL that fsspec supports."),
]


@app.command()
def init(
    database_url: DatabaseUrl = None,
    account: Annotated[str, typer.Option(help="The account's name; an existing one gets another key.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help='Print JSON: {"accountId", "apiKey"}.')] = False,
) -> None:
    """Create the database tables and an account, and print its API key. The key is shown only once."""
    with _open_accounts(database_url) as accounts:
        issued = accounts.create_or_issue_key(account)
    if as_json:
        typer.echo(json.dumps({"accountId": issued.account_id, "apiKey": issued.key}))
    else:
        typer.echo(f"account  {issued.account_id}\nAPI key  {issued.key}\n\nKeep the key: it is not shown again.")


@app.command()
def keys(
    database_url: DatabaseUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the keys as JSON.")] = False,
) -> None:
    """List the API keys of all accounts: their prefixes, when they were last used, whether they are revoked."""
    with _open_accounts(database_url) as accounts:
        known_keys = accounts.list_keys()
    if as_json:
        typer.echo(json.dumps([_key_to_json(key) for key in known_keys]))
        return
    for key in known_keys:
        last_use = f"last used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
        state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else last_use
        project = f" of {key.grant.project_id}" if key.grant.project_id else ""
        scope = f"{key.grant.scope.value}{project}"
        typer.echo(f"{key.key_id}  {key.hint}…  {key.account_name} ({key.account_id})  {scope}  {state}")


class ScopeChoice(str, Enum):
    """What a key may do."""

    EVERYTHING = "everything"
    READ = "read"
    INGEST = "ingest"


@key_app.command("create")
def create_key(
    account: Annotated[str, typer.Option(help="The account's name or id.")] = "default",
    scope: Annotated[
        ScopeChoice, typer.Option(help="What it may do: read changes nothing; ingest only sends calls.")
    ] = ScopeChoice.EVERYTHING,
    project: Annotated[Optional[str], typer.Option(help="The only project that it may access.")] = None,  # noqa: UP045
    name: Annotated[str, typer.Option(help="A name for the key, shown in lists and in the audit log.")] = "further key",
    database_url: DatabaseUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help='Print JSON: {"accountId", "keyId", "apiKey"}.')] = False,
) -> None:
    """Create an API key that may do only some things. The key is shown only once."""
    with _open_accounts(database_url) as accounts:
        from memoair_cloud.errors import NotFoundError
        from memoair_cloud.tenancy.grants import Grant, KeyScope

        try:
            grant = Grant(KeyScope(scope.value), project)
            issued = accounts.issue_key(accounts.find_account(account), name, grant)
        except NotFoundError as error:
            typer.echo(error.message, err=True)
            raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps({"accountId": issued.account_id, "keyId": issued.key_id, "apiKey": issued.key}))
    else:
        typer.echo(f"key id   {issued.key_id}\nAPI key  {issued.key}\n\nKeep the key: it is not shown again.")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, from `memoair cloud keys`.")],
    database_url: DatabaseUrl = None,
) -> None:
    """Revoke an API key. Servers reject it from now on."""
    with _open_accounts(database_url) as accounts:
        from memoair_cloud.errors import NotFoundError

        try:
            accounts.revoke_key(key_id)
        except NotFoundError as error:
            typer.echo(f"{key_id}: {error.message}", err=True)
            raise typer.Exit(1) from None
    typer.echo(f"{key_id} is revoked")


@app.command()
def serve(
    host: Annotated[Optional[str], typer.Option(help="The address to listen on (127.0.0.1).")] = None,  # noqa: UP045
    port: Annotated[Optional[int], typer.Option(help="The port to listen on (8080).")] = None,  # noqa: UP045
    database_url: DatabaseUrl = None,
    blob_url: BlobUrl = None,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Also run a worker in this process.")] = True,
    dashboard: Annotated[
        Optional[bool],  # noqa: UP045 - Typer needs this on Python 3.10
        typer.Option("--dashboard/--no-dashboard", help="Serve the dashboard at /dashboard, too (yes)."),
    ] = None,
) -> None:
    """Serve the HTTP API and the dashboard until the process is stopped."""
    settings = _load_settings(host=host, port=port, database_url=database_url, blob_url=blob_url, dashboard=dashboard)
    from memoair_cloud.logs import log_to_stderr
    from memoair_cloud.serving import serve as run

    log_to_stderr()
    with _exiting_on_start_error():
        run(settings, with_worker=worker)


@app.command()
def worker(database_url: DatabaseUrl = None, blob_url: BlobUrl = None) -> None:
    """Run queued work (learning, index builds) until the process is stopped."""
    settings = _load_settings(database_url=database_url, blob_url=blob_url)
    from memoair_cloud.logs import log_to_stderr
    from memoair_cloud.serving import run_worker

    log_to_stderr()
    with _exiting_on_start_error():
        run_worker(settings)


@app.command()
def restored(
    database_url: DatabaseUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help='Print JSON: {"projects"}.')] = False,
) -> None:
    """Say that the database was restored from a backup. Run it once, before the servers start.

    All machines then send again what they have, which counts once, and request everything again. Users who were erased
    since the backup are erased again, as far as a machine remembers them.
    """
    with _open_database(database_url) as engine:
        from memoair_cloud.restoring import begin_new_epoch

        projects = begin_new_epoch(engine)
    if as_json:
        typer.echo(json.dumps({"projects": projects}))
    else:
        typer.echo(f"{projects:,} projects have a new epoch: their machines compare and send again what is missing")


@contextmanager
def _open_accounts(database_url: str | None) -> Iterator["Accounts"]:
    """Open the accounts of a database, after migrating it to the current version."""
    with _open_database(database_url) as engine:
        from memoair_cloud.tenancy.accounts import Accounts

        yield Accounts(engine)


@contextmanager
def _open_database(database_url: str | None) -> Iterator["Engine"]:
    """Open a database, after migrating it to the current version."""
    settings = _load_settings(database_url=database_url)
    from memoair_cloud.database.engine import make_engine
    from memoair_cloud.database.migrate import migrate
    from memoair_cloud.starting import explaining_start_errors, prepare_database

    with _exiting_on_start_error():
        with explaining_start_errors():
            engine = make_engine(settings.database_url)
        try:
            prepare_database(lambda: migrate(engine), settings.database_wait_s, _report_wait, threading.Event())
        except BaseException:
            engine.dispose()
            raise
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _exiting_on_start_error() -> Iterator[None]:
    """Exit with one sentence if the database or the blob store cannot be used."""
    from memoair_cloud.starting import StartError

    try:
        yield
    except StartError as error:
        fail(str(error))


def _report_wait(reason: str) -> None:
    typer.echo(f"waiting for the database: {reason}", err=True)


def _key_to_json(key: "KnownKey") -> dict[str, Any]:
    timestamps = {"createdAt": key.created_at, "lastUsedAt": key.last_used_at, "revokedAt": key.revoked_at}
    return {
        "keyId": key.key_id,
        "hint": key.hint,
        "name": key.name,
        "accountId": key.account_id,
        "accountName": key.account_name,
        "scope": key.grant.scope.value,
        "projectId": key.grant.project_id,
        **{name: moment.isoformat() if moment else None for name, moment in timestamps.items()},
    }


def _load_settings(**flags: Any) -> "CloudSettings":
    """Return the settings. Exit with a message if they are invalid, or if the extra is not installed."""
    missing = next((package for package in _EXTRA_PACKAGES if find_spec(package) is None), None)
    if missing is not None:
        typer.echo(f"{missing} is not installed; run: {install_command('cloud')}", err=True)
        raise typer.Exit(1)
    from pydantic import ValidationError

    from memoair_cloud.settings import load_settings

    try:
        return load_settings(**flags)
    except ValidationError as error:
        for details in error.errors(include_input=False, include_url=False):
            reason = details["msg"].removeprefix("Value error, ")  # how pydantic begins the messages of our validators
            typer.echo(f"{'.'.join(map(str, details['loc']))}: {reason}", err=True)
        raise typer.Exit(2) from None
