"""``memoair cloud``: make and run a server. What it needs comes with an extra, and is imported when asked for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from memoair_cloud.settings import CloudSettings
    from memoair_cloud.tenancy.accounts import Accounts, KnownKey

app = typer.Typer(name="cloud", no_args_is_help=True, help="Host the memory of many machines.")

DatabaseUrl = Annotated[
    Optional[str],  # noqa: UP045 - Typer reads it on Python 3.10, too
    typer.Option(help="SQLite or PostgreSQL; by default a SQLite file in the user's data folder."),
]
BlobUrl = Annotated[
    Optional[str],  # noqa: UP045 - Typer reads it on Python 3.10, too
    typer.Option(help="Where index files are kept: a folder, or any URL that fsspec can reach."),
]


@app.command()
def init(
    database_url: DatabaseUrl = None,
    account: Annotated[str, typer.Option(help="The account's name; one that is known gets one more key.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help='Print {"accountId", "apiKey"}.')] = False,
) -> None:
    """Make the database's tables and an account, and print its API key: once, for it is kept nowhere."""
    with _accounts(database_url) as accounts:
        issued = accounts.create_or_issue_key(account)
    if as_json:
        typer.echo(json.dumps({"accountId": issued.account_id, "apiKey": issued.key}))
    else:
        typer.echo(f"account  {issued.account_id}\nAPI key  {issued.key}\n\nKeep the key: it is not shown again.")


@app.command()
def keys(database_url: DatabaseUrl = None, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List the API keys of all accounts: what they begin with, when they were last used, whether they are revoked."""
    with _accounts(database_url) as accounts:
        found = accounts.list_keys()
    if as_json:
        typer.echo(json.dumps([_as_json(key) for key in found]))
        return
    for key in found:
        used = f"last used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
        state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else used
        typer.echo(f"{key.key_id}  {key.hint}…  {key.account_name} ({key.account_id})  {state}")


@app.command()
def revoke(key_id: str, database_url: DatabaseUrl = None) -> None:
    """Let a key be refused from now on; `memoair cloud keys` shows which there are."""
    with _accounts(database_url) as accounts:
        from memoair_cloud.errors import NotFoundError

        try:
            accounts.revoke_key(key_id)
        except NotFoundError as error:
            typer.echo(f"{key_id}: {error.message}", err=True)
            raise typer.Exit(1) from None
    typer.echo(f"{key_id} is revoked")


@app.command()
def serve(
    host: Annotated[Optional[str], typer.Option(help="The address to listen at (127.0.0.1).")] = None,  # noqa: UP045
    port: Annotated[Optional[int], typer.Option(help="The port to listen at (8080).")] = None,  # noqa: UP045
    database_url: DatabaseUrl = None,
    blob_url: BlobUrl = None,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Run a worker in this process, too.")] = True,
) -> None:
    """Serve the HTTP API until the process is told to end."""
    settings = _settings(host=host, port=port, database_url=database_url, blob_url=blob_url)
    from memoair_cloud.logs import log_to_stderr
    from memoair_cloud.serving import serve as run

    log_to_stderr()
    run(settings, with_worker=worker)


@app.command()
def worker(database_url: DatabaseUrl = None, blob_url: BlobUrl = None) -> None:
    """Do what servers have queued until the process is told to end."""
    settings = _settings(database_url=database_url, blob_url=blob_url)
    from memoair_cloud.logs import log_to_stderr
    from memoair_cloud.serving import run_worker

    log_to_stderr()
    run_worker(settings)


@contextmanager
def _accounts(database_url: str | None) -> Iterator["Accounts"]:
    """The accounts of a database, which is brought up to date."""
    settings = _settings(database_url=database_url)
    from memoair_cloud.database.engine import make_engine
    from memoair_cloud.database.migrate import migrate
    from memoair_cloud.tenancy.accounts import Accounts

    engine = make_engine(settings.database_url)
    try:
        migrate(engine)
        yield Accounts(engine)
    finally:
        engine.dispose()


def _as_json(key: "KnownKey") -> dict[str, Any]:
    moments = {"createdAt": key.created_at, "lastUsedAt": key.last_used_at, "revokedAt": key.revoked_at}
    return {
        "keyId": key.key_id,
        "hint": key.hint,
        "name": key.name,
        "accountId": key.account_id,
        "accountName": key.account_name,
        **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
    }


def _settings(**flags: Any) -> "CloudSettings":
    """The settings, or the end of the command with what is wrong about them, or with the extra missing."""
    try:
        from pydantic import ValidationError

        import memoair_cloud.serving  # noqa: F401 - all that the extra brings
        from memoair_cloud.settings import load_settings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("memoair_"):
            raise
        typer.echo(f"memoair cloud needs more ({error.name}): pip install 'memoair-voice[cloud]'", err=True)
        raise typer.Exit(1) from None
    try:
        return load_settings(**flags)
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):
            typer.echo(f"{'.'.join(map(str, each['loc']))}: {each['msg']}", err=True)
        raise typer.Exit(2) from None
