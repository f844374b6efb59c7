"""``memoair mcp --http``, driven by the MCP library's own client and by raw requests."""

import http.client
import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from adapters.mcp_server import HttpServer, McpServer, storage
from mcp import Client
from support.clients import turn_ids
from support.commands import memoair
from support.runtimes import PROJECT
from support.waiting import eventually

TOKEN = "token-xyzzy"
SECRET = "plugh"
IDENTITY = {"MEMOAIR_PROJECT_ID": PROJECT, "MEMOAIR_USER_ID": "ana"}
SAVE = {"user_text": f"The word is {SECRET}.", "turn_id": "t1"}
ACCEPTED = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
LISTING = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "save_turn", "arguments": SAVE}}


@pytest.fixture(autouse=True)
def nothing_left(nothing_left_behind: None) -> None:
    """Fail a test whose server or runtime outlives it."""


@pytest.fixture
def http_server(tmp_path: Path) -> Iterator[HttpServer]:
    with McpServer(tmp_path, "ana", MEMOAIR_MCP_TOKEN=TOKEN).serve_http() as server:
        yield server


def post(server: HttpServer, message: Any, *, path: str | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
    """Send one message as a client without the library does."""
    with urllib3.PoolManager() as pool:
        url = server.url if path is None else server.url.removesuffix("/mcp") + path
        return pool.request("POST", url, body=json.dumps(message), headers=ACCEPTED | headers, retries=False)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_with_the_token_saves_and_searches(http_server: HttpServer, tmp_path: Path, mode: str) -> None:
    async def call_tools(client: Client) -> Any:
        names = [tool.name for tool in (await client.list_tools()).tools]
        saved = await client.call_tool("save_turn", {**SAVE, "assistant_text": None})
        found = await client.call_tool("search_memory", {"query": "Which word is it?", "intent": None})
        return names, client.server_info, saved.content[0].text, found.content[0].text

    names, info, saved, found = http_server.run_client(call_tools, TOKEN, mode=mode)
    assert names == ["search_memory", "save_turn", "list_memories", "forget_memory"]
    assert info.name == "memoair"
    assert saved == "Saved."
    assert SECRET in found
    assert turn_ids(storage(tmp_path), "ana") == ["t1"]
    # Of the next session, too, and without the words of the first one in the log.
    assert (
        SECRET
        in http_server.run_client(
            lambda client: client.call_tool("search_memory", {"query": "Which word is it?"}), TOKEN, mode=mode
        )
        .content[0]
        .text
    )
    assert http_server.log() == f"memoair mcp listens on {http_server.url}\n"


def test_several_clients_at_once_are_served(http_server: HttpServer, tmp_path: Path) -> None:
    def save(number: int) -> None:
        turn = {"user_text": f"Word {number}.", "turn_id": f"t{number}"}
        http_server.run_client(lambda client: client.call_tool("save_turn", turn), TOKEN)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turn_ids(storage(tmp_path), "ana")) == ["t0", "t1", "t2", "t3"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN.upper()}"},
        {"Authorization": "Bearer tök\xff"},
        {"X-Api-Key": TOKEN},
    ],
    ids=str,
)
def test_a_missing_or_wrong_token_is_unauthorized(
    shared_server: HttpServer, shared_home: Path, headers: dict[str, str]
) -> None:
    for path in (None, f"/mcp?token={TOKEN}"):
        reply = post(shared_server, CALL, path=path, **headers)
        assert reply.status == 401
        assert reply.headers["WWW-Authenticate"].startswith("Bearer ")
        assert TOKEN not in reply.data.decode()
    for method in ("GET", "DELETE"):
        with urllib3.PoolManager() as pool:
            assert pool.request(method, shared_server.url, headers=headers, retries=False).status == 401
    assert turn_ids(storage(shared_home), "ana") == []


def test_the_token_is_accepted_whatever_the_case_of_the_scheme(shared_server: HttpServer) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        reply = post(shared_server, LISTING, Authorization=f"{scheme} {TOKEN}")
        assert reply.status == 200
        assert len(reply.json()["result"]["tools"]) == 4


@pytest.mark.parametrize(("name", "status"), [("Host", 421), ("Origin", 403)])
def test_a_web_page_of_another_name_is_refused(shared_server: HttpServer, name: str, status: int) -> None:
    for value in ("evil.example", "http://evil.example", "127.0.0.1.evil.example"):
        reply = post(shared_server, CALL, **AUTHORIZED, **{name: value})
        assert reply.status == status


def test_a_proxy_may_pass_on_its_name(tmp_path: Path) -> None:
    server = McpServer(tmp_path, "ana", MEMOAIR_MCP_TOKEN=TOKEN)
    with server.serve_http("--allowed-host", "memory.example.com") as http_server:
        for host in ("memory.example.com", "memory.example.com:8443"):
            named = {"Host": host, "Origin": f"https://{host}"}
            assert post(http_server, LISTING, **AUTHORIZED, **named).status == 200
        assert post(http_server, LISTING, **AUTHORIZED).status == 200
        assert post(http_server, LISTING, **AUTHORIZED, Host="evil.example").status == 421


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mcp")


@pytest.fixture(scope="module")
def shared_server(shared_home: Path) -> Iterator[HttpServer]:
    """Return a server for tests that it refuses, and for those that save nothing."""
    with McpServer(shared_home, "ana", MEMOAIR_MCP_TOKEN=TOKEN).serve_http() as server:
        yield server


def test_it_listens_on_loopback_only(shared_server: HttpServer) -> None:
    listening = [
        connection.laddr
        for connection in psutil.Process(shared_server.process.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert [address.ip for address in listening] == ["127.0.0.1"]


def test_the_token_is_read_from_a_file_and_passed_to_no_process(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with McpServer(tmp_path, "ana").serve_http("--token-file", str(file)) as http_server:
        http_server.run_client(lambda client: client.call_tool("save_turn", SAVE), TOKEN)
        assert post(http_server, CALL, Authorization="Bearer other").status == 401
        process = psutil.Process(http_server.process.pid)
        assert TOKEN not in " ".join(process.cmdline())


def test_runtimes_do_not_inherit_the_token(http_server: HttpServer) -> None:
    http_server.run_client(lambda client: client.call_tool("save_turn", SAVE), TOKEN)
    runtimes = psutil.Process(http_server.process.pid).children(recursive=True)
    assert runtimes
    for runtime in runtimes:
        assert TOKEN not in runtime.environ().values()


@pytest.mark.parametrize(
    "signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name
)
def test_a_signal_shuts_the_server_down_cleanly(
    http_server: HttpServer, tmp_path: Path, signal_number: signal.Signals
) -> None:
    http_server.run_client(lambda client: client.call_tool("save_turn", SAVE), TOKEN)
    runtimes = psutil.Process(http_server.process.pid).children(recursive=True)
    http_server.process.send_signal(signal_number)
    assert http_server.process.wait(60) == 0
    assert runtimes
    eventually(lambda: not any(process.is_running() for process in runtimes))
    logs = [path.read_text().splitlines() for path in storage(tmp_path).rglob("session.jsonl")]
    assert [json.loads(line)["type"] for line in logs[0]][-1] == "session_end"
    assert http_server.log().count("\n") == 1


def test_an_unresponsive_cloud_does_not_delay_shutdown(tmp_path: Path) -> None:
    listing = {**CALL, "params": {"name": "list_memories", "arguments": {}}}
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as connections:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        identity = {"MEMOAIR_API_KEY": "memoair_pk_x", "MEMOAIR_AGENT_ID": "agent_x", "MEMOAIR_BASE_URL": url}
        with McpServer(tmp_path, "ana", MEMOAIR_MCP_TOKEN=TOKEN, **identity).serve_http() as http_server:
            client = http.client.HTTPConnection("127.0.0.1", urllib3.util.parse_url(http_server.url).port or 0)
            connections.callback(client.close)
            client.request("POST", "/mcp", body=json.dumps(listing), headers=ACCEPTED | AUTHORIZED)
            request = b""
            while b"/memories" not in request:  # the runtime has requests, too
                connection = connections.enter_context(silent.accept()[0])
                request = connection.recv(65_536)
            http_server.process.terminate()
            assert http_server.process.wait(30) == 0  # the request to the cloud would time out after two minutes


def test_an_address_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        storage_root = str(tmp_path / "storage")
        environ = {**IDENTITY, "MEMOAIR_MCP_TOKEN": TOKEN}
        done = memoair("mcp", "--http", "--port", str(port), "--storage", storage_root, code=1, **environ)
    assert done.err.startswith(f"cannot listen on 127.0.0.1 port {port}: Address already in use")


@pytest.mark.parametrize(
    ("arguments", "content", "environ", "message"),
    [
        (["--http"], None, {}, "MEMOAIR_MCP_TOKEN is not set; set it, or pass --token-file"),
        (["--http"], None, {"MEMOAIR_MCP_TOKEN": " "}, "MEMOAIR_MCP_TOKEN is not set; set it, or pass --token-file"),
        (["--http"], None, {"MEMOAIR_MCP_TOKEN": f"{SECRET} x"}, "MEMOAIR_MCP_TOKEN: the token has a character"),
        (["--http"], None, {"MEMOAIR_MCP_TOKEN": f"{SECRET}é"}, "MEMOAIR_MCP_TOKEN: the token has a character"),
        (["--http"], None, {"MEMOAIR_MCP_TOKEN": SECRET * 1000}, "the token is longer than 4096 characters"),
        (["--http", "--token-file", "FILE"], b"", {}, "FILE is empty; write a token to it"),
        (["--http", "--token-file", "FILE"], b"plugh\xff\n", {}, "FILE: the token has a character"),
        (["--http", "--token-file", "FILE"], b"plugh\nplugh\n", {}, "FILE: the token has a character"),
        (["--http", "--token-file", "FILE"], None, {}, "FILE: No such file or directory"),
        (
            ["--http", "--token-file", "FILE"],
            b"x",
            {"MEMOAIR_MCP_TOKEN": SECRET},
            "MEMOAIR_MCP_TOKEN and --token-file are both set; set one",
        ),
        (["--port", "9000"], None, {}, "--host, --port, --token-file and --allowed-host require --http"),
    ],
)
def test_an_invalid_token_is_rejected_and_not_quoted(
    tmp_path: Path, arguments: list[str], content: bytes | None, environ: dict[str, str], message: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    arguments = [str(file) if argument == "FILE" else argument for argument in arguments]
    done = memoair("mcp", *arguments, code=2, stdin="", **IDENTITY, **environ)
    assert message.replace("FILE", str(file)) in done.err
    assert SECRET not in done.err
    assert done.out == ""
