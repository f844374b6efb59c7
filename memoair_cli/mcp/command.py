"""The options of ``memoair mcp``, and the client that they configure."""

import sys
from typing import Annotated

import typer

from memoair_cli.mcp import McpExit
from memoair_cli.options import (
    PLACEHOLDER_KEY,
    AgentId,
    ApiKey,
    BaseUrl,
    OrgFile,
    ProjectId,
    StorageRoot,
    fail,
    require,
)
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_voice_sync import MemoAirVoiceClientSync

# The client requires an agent, although without a cloud it has no use.
_DEFAULT_AGENT = "agent_mcp"


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
) -> None:
    """Serve the memory of one caller to a Model Context Protocol client, on stdin and stdout.

    The caller is set here and not by the tools, so that a model cannot choose another one.

    Without an API key no cloud is used, and nothing leaves this machine.

    The server exits at the end of its input.
    """
    try:
        from memoair_cli.mcp.server import serve
        from memoair_cli.mcp.tools import MemoryTools
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        fail("memoair mcp needs the MCP library: pip install 'memoair-voice[mcp]'", McpExit.FAILED)

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
    if sys.stdin.isatty():
        typer.echo("memoair mcp is started by an MCP client, which talks to it on stdin and stdout", err=True)
    serve(tools)
