"""``memoair cloud``: make and run a server. What it needs comes with an extra, and is imported when asked for."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from memoair_cloud.settings import Settings

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
    settings = _settings(database_url=database_url)
    from memoair_cloud.database.engine import make_engine
    from memoair_cloud.database.migrate import migrate
    from memoair_cloud.tenancy.accounts import Accounts

    engine = make_engine(settings.database_url)
    try:
        migrate(engine)
        issued = Accounts(engine).create_or_extend(account)
    finally:
        engine.dispose()
    if as_json:
        typer.echo(json.dumps({"accountId": issued.account_id, "apiKey": issued.key}))
    else:
        typer.echo(f"account  {issued.account_id}\nAPI key  {issued.key}\n\nKeep the key: it is not shown again.")


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
    from memoair_cloud.serving import work

    log_to_stderr()
    work(settings)


def _settings(**flags: Any) -> "Settings":
    """The settings, or the end of the command with what is wrong about them, or with the extra missing."""
    try:
        from pydantic import ValidationError

        import memoair_cloud.serving  # noqa: F401 - all that the extra brings
        from memoair_cloud.settings import settings_from
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("memoair_"):
            raise
        typer.echo(f"memoair cloud needs more ({error.name}): pip install 'memoair-voice[cloud]'", err=True)
        raise typer.Exit(1) from None
    try:
        return settings_from(**flags)
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):
            typer.echo(f"{'.'.join(map(str, each['loc']))}: {each['msg']}", err=True)
        raise typer.Exit(2) from None
