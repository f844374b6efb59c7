"""The command line: its commands and options. Each command calls a module of its own."""

from importlib.metadata import version
from typing import Annotated

import typer

from memoair_cli.lazy_commands import CommandSource, group_of

app = typer.Typer(
    name="memoair",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Each is imported when it is used: all together take three times as long to start as most of them alone.
    cls=group_of(
        {
            "import": CommandSource("memoair_cli.importing.command", "import_files"),
            "search": CommandSource("memoair_cli.search", "search"),
            "sync": CommandSource("memoair_cli.syncing.command", "sync"),
            "doctor": CommandSource("memoair_cli.doctor.command", "doctor"),
            "eval": CommandSource("memoair_cli.evaluation.command", "evaluate"),
            "replay": CommandSource("memoair_cli.evaluation.replay", "replay"),
            "mcp": CommandSource("memoair_cli.mcp.command", "serve_mcp"),
            "demo": CommandSource("memoair_cli.demo", "demo"),
            "cloud": CommandSource("memoair_cli.cloud", "app"),
            "projects": CommandSource("memoair_cli.projects", "app"),
            "agents": CommandSource("memoair_cli.resources", "agents"),
            "indexes": CommandSource("memoair_cli.resources", "indexes"),
            "users": CommandSource("memoair_cli.users.command", "app"),
            "calls": CommandSource("memoair_cli.calls", "app"),
            "memories": CommandSource("memoair_cli.memories", "app"),
            "prompt": CommandSource("memoair_cli.prompts.command", "app"),
            "outcomes": CommandSource("memoair_cli.outcomes", "app"),
            "runtime": CommandSource("memoair_cli.runtimes", "app"),
            # The names of the first releases.
            "project": CommandSource("memoair_cli.projects", "app", is_hidden=True),
            "agent": CommandSource("memoair_cli.resources", "agents", is_hidden=True),
            "index": CommandSource("memoair_cli.resources", "indexes", is_hidden=True),
        }
    ),
)


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


def main() -> None:
    """Run the command line."""
    app()
