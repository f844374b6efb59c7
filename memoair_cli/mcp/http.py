"""The MCP server over streamable HTTP, for clients that show its token."""

import hmac
import socket
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import NoReturn

import typer
import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.applications import Starlette

from memoair_cli.mcp import McpExit
from memoair_cli.mcp.server import close_and_exit, log_to_stderr, make_server, on_stop_signal, start_at_signal
from memoair_cli.mcp.tools import MemoryTools
from memoair_protocol.addresses import is_loopback
from memoair_protocol.threads import ThreadUnavailableError, start_thread

_PATH = "/mcp"
_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
# Requests in progress have that long to end. Longer than a search, and than a save needs on a loaded disk.
_DRAIN_TIMEOUT_S = 5
# The server itself may wait for calls that it has cancelled, such as one to a cloud that does not reply.
_STOP_TIMEOUT_S = _DRAIN_TIMEOUT_S + 1.0


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise OSError if the address cannot be used."""
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def serve(
    tools: MemoryTools, listener: socket.socket, *, host: str, token: str, allowed_hosts: Sequence[str]
) -> NoReturn:
    """Serve until a signal arrives, let requests in progress end, then close the tools and exit.

    Args:
        tools: The tools to serve. They are closed at the end.
        listener: The socket of `listen`.
        host: The address of the socket.
        token: The token that each request must have.
        allowed_hosts: The names by which clients reach the server, besides those of this machine. If the server
            listens for other machines and none is named, each name is allowed.
    """
    log_to_stderr("uvicorn")
    address = f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        _make_app(tools, host, address, token, allowed_hosts),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_TIMEOUT_S,
    )
    server = uvicorn.Server(config)
    code = McpExit.FAILED

    def stop() -> None:
        nonlocal code
        code = McpExit.DONE
        server.should_exit = True
        start_at_signal(exit_late, name="memoair-mcp-end")

    def exit_late() -> None:
        time.sleep(_STOP_TIMEOUT_S)
        close_and_exit(tools, code)

    on_stop_signal(stop)
    try:
        # In a thread, where Uvicorn leaves signals alone: it would raise them again after its shutdown.
        serving = start_thread(server.run, name="memoair-mcp-http", args=([listener],))
    except ThreadUnavailableError as error:
        typer.echo(f"memoair mcp: {error}", err=True)
        close_and_exit(tools, code)
    typer.echo(f"memoair mcp listens on http://{address}{_PATH}", err=True)
    if not is_loopback(host):
        typer.echo("memoair mcp: tokens and memories are sent unencrypted; put a proxy with TLS in front", err=True)
    while serving.is_alive():
        serving.join(1.0)  # without a timeout, Windows would not interrupt it for a signal
    close_and_exit(tools, code)


def _make_app(tools: MemoryTools, host: str, address: str, token: str, allowed_hosts: Sequence[str]) -> Starlette:
    names = [*_LOOPBACK_HOSTS, *allowed_hosts]
    return make_server(tools).streamable_http_app(
        streamable_http_path=_PATH,
        # No state is kept between requests, so that clients survive a restart of the server.
        stateless_http=True,
        json_response=True,
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=bool(allowed_hosts) or is_loopback(host),
            allowed_hosts=[*names, *(f"{name}:*" for name in names)],
            allowed_origins=[
                f"{scheme}://{name}{port}" for scheme in ("http", "https") for name in names for port in ("", ":*")
            ],
        ),
        # There is no authorization server: without a resource URL, the library publishes nothing about one.
        auth=AuthSettings(issuer_url=AnyHttpUrl(f"http://{address}"), resource_server_url=None),
        token_verifier=_OneToken(token),
    )


class _OneToken:
    """Accepts one token. How long a comparison takes tells nothing about it."""

    def __init__(self, token: str) -> None:
        self._digest = _digest(token)

    async def verify_token(self, token: str) -> AccessToken | None:
        if not hmac.compare_digest(_digest(token), self._digest):
            return None
        return AccessToken(token=token, client_id="memoair", scopes=[])


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
