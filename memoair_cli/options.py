"""Who asks whom: the options that several commands share, from flags or from the environment."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from memoair_runtime.settings import default_storage_root

DEFAULT_CLOUD_URL = "https://backend.memoair.space"
PLACEHOLDER_KEY = "memoair_pk_local"  # where a key must be named, and is shown to nobody

BaseUrl = Annotated[str, typer.Option(envvar="MEMOAIR_BASE_URL", help="The cloud.")]
ApiKey = Annotated[str, typer.Option(envvar="MEMOAIR_API_KEY", help="The account's key; better set as a variable.")]
ProjectId = Annotated[str, typer.Option("--project", envvar="MEMOAIR_PROJECT_ID", help="The project's id.")]
AgentId = Annotated[str, typer.Option("--agent", envvar="MEMOAIR_AGENT_ID", help="The agent's id.")]


def require(value: str, variable: str, code: int = 1) -> str:
    """The value, or the end of the command where it was not given."""
    return value or fail(f"{variable} is not set", code)


def require_key(value: str, code: int = 1) -> str:
    """The API key, or the end of the command where it is none. It is never shown."""
    key = require(value.strip(), "MEMOAIR_API_KEY", code)
    if not is_valid_key(key):
        fail("MEMOAIR_API_KEY holds a character that no key has", code)
    return key


def is_valid_key(value: str) -> bool:
    """Whether a header could carry the value as a key; none at all is no wrong one."""
    return value.isascii() and " " not in value and value.isprintable()


def resolve_storage_root(folder: Path | None) -> Path:
    """Where the runtimes that this process starts keep what they keep."""
    variable = os.environ.get("MEMOAIR_RUNTIME_STORAGE_ROOT")
    return (folder or (Path(variable) if variable else default_storage_root())).expanduser().absolute()


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what is wrong, and end the command."""
    typer.echo(message, file=sys.stderr)
    raise typer.Exit(code)
