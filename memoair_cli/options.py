"""What several commands share: options, from flags or from the environment, and messages."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer

from memoair_protocol.identifiers import identifier_problem
from memoair_runtime.settings import default_storage_root

PLACEHOLDER_KEY = "memoair_pk_local"  # for clients without a cloud, which require a key but send it nowhere

BaseUrl = Annotated[str, typer.Option(envvar="MEMOAIR_BASE_URL", help="The URL of the cloud.")]
ApiKey = Annotated[
    str,
    typer.Option(envvar="MEMOAIR_API_KEY", help="The account's API key. Prefer the variable: others can see options."),
]
ProjectId = Annotated[str, typer.Option("--project", envvar="MEMOAIR_PROJECT_ID", help="The project's id.")]
IsConfirmed = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AgentId = Annotated[str, typer.Option("--agent", envvar="MEMOAIR_AGENT_ID", help="The agent's id.")]
OptionalPath = Optional[Path]  # noqa: UP045 - Typer needs this on Python 3.10
StorageRoot = Annotated[OptionalPath, typer.Option(help="The storage root.", file_okay=False)]
OrgFile = Annotated[OptionalPath, typer.Option(help="The organization's documents as JSON lines.", dir_okay=False)]


# The options that can be passed instead of a variable, for messages.
_OPTIONS = {
    "MEMOAIR_API_KEY": "--api-key",
    "MEMOAIR_PROJECT_ID": "--project",
    "MEMOAIR_AGENT_ID": "--agent",
    "MEMOAIR_USER_ID": "--user",
}


def require(value: str, variable: str, code: int = 1) -> str:
    """Return a value, or exit if it is empty, or an invalid id."""
    if not value:
        fail(f"{variable} is not set; set it, or pass {_OPTIONS[variable]}", code)
    return value if variable == "MEMOAIR_API_KEY" else check_id(variable, value, code)


def check_id(name: str, value: str, code: int = 1) -> str:
    """Return an id, or exit if the cloud would reject it."""
    if problem := identifier_problem(value):
        fail(f"{name} {problem}", code)
    return value


def require_key(value: str, code: int = 1) -> str:
    """Return the API key, or exit if it is missing or invalid. Messages never contain it."""
    key = require(value.strip(), "MEMOAIR_API_KEY", code)
    if not is_valid_key(key):
        fail("MEMOAIR_API_KEY has a character that is invalid in keys", code)
    return key


def is_valid_key(value: str) -> bool:
    """Return whether a value fits into a header as an API key. An empty value does."""
    return value.isascii() and " " not in value and value.isprintable()


def resolve_storage_root(folder: Path | None) -> Path:
    """Return the storage root: a folder, or else that of the environment, or else the default."""
    variable = os.environ.get("MEMOAIR_RUNTIME_STORAGE_ROOT")
    return (folder or (Path(variable) if variable else default_storage_root())).expanduser().absolute()


def warn_renamed(option: str, new_name: str) -> None:
    """Print to standard error that an option has a new name."""
    typer.echo(f"{option} is now {new_name}; the old name will be removed in the next release", err=True)


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 call``, ``2 calls``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def fail(message: str, code: int = 1) -> NoReturn:
    """Print a message to standard error and exit."""
    typer.echo(message, file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def errors_exit_with(code: int) -> Iterator[None]:
    """Exit with a code of the command's own where a step of it fails, whatever the step's code."""
    try:
        yield
    except typer.Exit as error:
        raise typer.Exit(code if error.exit_code else 0) from error


def project_headers(project: str) -> dict[str, str]:
    """Return the headers that name the project; exit if it is not set."""
    return {"X-Project-Id": require(project, "MEMOAIR_PROJECT_ID")}


def agent_headers(project: str, agent: str, code: int = 1) -> dict[str, str]:
    """Return the headers that name the project and the agent; exit if one of them is not set."""
    return {
        "X-Project-Id": require(project, "MEMOAIR_PROJECT_ID", code),
        "X-Agent-Id": require(agent, "MEMOAIR_AGENT_ID", code),
    }


def confirm(question: str, is_confirmed: bool) -> None:
    """Ask on a terminal. Elsewhere ``--yes`` is required."""
    if is_confirmed:
        return
    if not sys.stdin.isatty():
        fail("nothing was deleted: pass --yes", 2)
    typer.confirm(question, abort=True, err=True)
