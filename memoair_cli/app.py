"""The command line: its commands and options. Each command calls a module of its own."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Optional

import typer

from memoair_cli import calls, cloud, memories, projects, resources, runtimes
from memoair_cli.demo import play_demo
from memoair_cli.doctor.command import doctor
from memoair_cli.evaluation.command import evaluate
from memoair_cli.importing.command import import_files
from memoair_cli.mcp.command import serve_mcp
from memoair_cli.search import search
from memoair_cli.syncing.command import sync
from memoair_cli.users.command import app as users

app = typer.Typer(name="memoair", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for commands in (
    cloud.app,
    projects.app,
    resources.agents,
    resources.indexes,
    users,
    calls.app,
    memories.app,
    runtimes.app,
):
    app.add_typer(commands)
# The names of the first releases.
for name, commands in (
    ("project", projects.app),
    ("agent", resources.agents),
    ("index", resources.indexes),
):
    app.add_typer(commands, name=name, hidden=True)
app.command("import")(import_files)
app.command("search")(search)
app.command("sync")(sync)
app.command("doctor")(doctor)
app.command("eval")(evaluate)
app.command("mcp")(serve_mcp)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(version("memoair-voice"))
        raise typer.Exit


@app.callback()
def memoair(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Memory for voice agents."""


@app.command()
def demo(
    storage: Annotated[
        Optional[Path],  # noqa: UP045 - Typer needs this on Python 3.10
        typer.Option(help="Keep the demo's memory in this folder, instead of deleting it.", file_okay=False),
    ] = None,
) -> None:
    """Play two callers with two calls each, kill the runtime in between, and show what is remembered.

    Needs neither a key nor a network.
    """
    raise typer.Exit(0 if play_demo(storage) else 1)


def main() -> None:
    """Run the command line."""
    app()
