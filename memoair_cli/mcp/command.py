"""The options of ``memoair mcp``, and the client that they configure."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

from memoair_cli.mcp import McpExit
from memoair_cli.options import (
    PLACEHOLDER_KEY,
    AgentId,
    ApiKey,
    BaseUrl,
    OptionalPath,
    OrgFile,
    ProjectId,
    StorageRoot,
    fail,
    is_valid_key,
    require,
)
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.input_files import open_regular_file
from memoair_protocol.installing import install_command
from memoair_voice_sync import MemoAirVoiceClientSync

if TYPE_CHECKING:
    from memoair_cli.mcp.tools import MemoryTools

# The client requires an agent, although without a cloud it has no use.
_DEFAULT_AGENT = "agent_mcp"
_DEFAULT_HOST = "127.0.0.1"
_DEFAULT_PORT = 7979
_TOKEN_VARIABLE = "MEMOAIR_MCP_TOKEN"  # noqa: S105 - not the token
_MAX_TOKEN_BYTES = 4096


def serve_mcp(
    user: Annotated[
        str, typer.Option(envvar="MEMOAIR_USER_ID", help="The id of the caller whose memory is served.")
    ] = "",
    name: Annotated[str, typer.Option(help="The caller's name.")] = "",
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    storage: StorageRoot = None,
    org_file: OrgFile = None,
    org_only: Annotated[
        bool, typer.Option("--org-only", envvar="MEMOAIR_ORG_ONLY", help="Search only documents, and save nothing.")
    ] = False,
    timeout_ms: Annotated[float, typer.Option(min=1, help="Timeout of a search in milliseconds.")] = 2_000,
    http: Annotated[bool, typer.Option("--http", help="Serve over streamable HTTP, at the path /mcp.")] = False,
    host: Annotated[str, typer.Option(help="The address to listen on, with --http.")] = _DEFAULT_HOST,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The port to listen on, with --http. 0 takes a free one.")
    ] = _DEFAULT_PORT,
    token_file: Annotated[
        OptionalPath,
        typer.Option(
            help=f"A file with the token of clients, with --http, instead of {_TOKEN_VARIABLE}.", dir_okay=False
        ),
    ] = None,
    allowed_host: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer needs this on Python 3.10
        typer.Option(help="A name by which clients reach the server, with --http, such as that of a proxy."),
    ] = None,
) -> None:
    """Serve the memory of one caller to a Model Context Protocol client, on stdin and stdout or over HTTP.

    The caller is set here and not by the tools, so that a model cannot choose another one.

    Without an API key no cloud is used, and nothing leaves this machine.

    The server exits at the end of its input; over HTTP, at a signal.

    Over HTTP, each request needs a token. Set it in MEMOAIR_MCP_TOKEN or in a file: others can see options.
    """
    try:
        from memoair_cli.mcp import stdio
        from memoair_cli.mcp.tools import MemoryTools
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        fail(f"memoair mcp needs the MCP library: {install_command('mcp')}", McpExit.FAILED)

    if not http and (host != _DEFAULT_HOST or port != _DEFAULT_PORT or token_file or allowed_host):
        fail("--host, --port, --token-file and --allowed-host require --http", McpExit.USAGE)
    token = _read_token(token_file) if http else ""
    key = api_key.strip()
    project_id = require(project, "MEMOAIR_PROJECT_ID", McpExit.USAGE)
    user_id = require(user, "MEMOAIR_USER_ID", McpExit.USAGE)
    agent_id = require(agent, "MEMOAIR_AGENT_ID", McpExit.USAGE) if key else agent or _DEFAULT_AGENT
    try:
        client = MemoAirVoiceClientSync(
            api_key=key or PLACEHOLDER_KEY,
            project_id=project_id,
            agent_id=agent_id,
            cloud_base_url=base_url if key else None,
            max_concurrent_users=1,
            storage_root=str(storage) if storage else None,
            org_file=str(org_file) if org_file else None,
            org_only=org_only,
        )
        caller = {"id": user_id, **({"name": name} if name else {})}
        client.session(user=caller).close()  # reports an invalid caller now, not at the first tool call
        tools = MemoryTools(client, caller, timeout_ms=timeout_ms, has_cloud=bool(key), org_only=org_only)
    except (ValueError, TypeError) as error:
        fail(str(error), McpExit.USAGE)
    if http:
        _serve_http(tools, host, port, token, allowed_host or ())
    if sys.stdin.isatty():
        typer.echo("memoair mcp is started by an MCP client, which talks to it on stdin and stdout", err=True)
    stdio.serve(tools)


def _serve_http(tools: "MemoryTools", host: str, port: int, token: str, allowed_hosts: Sequence[str]) -> NoReturn:
    from memoair_cli.mcp.http import listen, serve  # imports a web server

    try:
        listener = listen(host, port)
    except OSError as error:
        tools.close()
        fail(f"cannot listen on {host} port {port}: {error.strerror}", McpExit.FAILED)
    serve(tools, listener, host=host, token=token, allowed_hosts=allowed_hosts)


def _read_token(file: Path | None) -> str:
    """Return the token that clients must show, or exit. Messages never contain it."""
    # Out of the environment, so that no process that is started from here inherits it.
    token = os.environ.pop(_TOKEN_VARIABLE, "").strip()
    if token and file:
        fail(f"{_TOKEN_VARIABLE} and --token-file are both set; set one", McpExit.USAGE)
    source = _TOKEN_VARIABLE
    if file:
        source = str(file)
        try:
            with open_regular_file(file) as opened:
                # As in a header: bytes beyond ASCII are rejected below.
                token = opened.read(_MAX_TOKEN_BYTES + 1).decode("latin-1").strip()
        except OSError as error:
            fail(f"{file}: {error.strerror}", McpExit.USAGE)
        if not token:
            fail(f"{file} is empty; write a token to it", McpExit.USAGE)
    if not token:
        fail(f"{_TOKEN_VARIABLE} is not set; set it, or pass --token-file", McpExit.USAGE)
    if not is_valid_key(token):
        fail(f"{source}: the token has a character that is invalid in headers", McpExit.USAGE)
    if len(token) > _MAX_TOKEN_BYTES:
        fail(f"{source}: the token is longer than {_MAX_TOKEN_BYTES} characters", McpExit.USAGE)
    return token
