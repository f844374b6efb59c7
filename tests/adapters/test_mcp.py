"""``memoair mcp``: the library's own client over stdio, and what comes over a raw pipe."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
import psutil
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from support.clients import turn_ids
from support.clouds import running
from support.commands import MEMOAIR, environment, memoair, starting
from support.runtimes import PROJECT
from support.waiting import PATIENCE, eventually

from memoair_voice_sync import MemoAirVoiceMemorySync

T = TypeVar("T")
TOOLS = ["search_memory", "save_turn", "list_memories", "forget_memory"]
NO_CLOUD = (
    "cloud.unreachable: this server has no cloud, which alone lists and forgets memories; MEMOAIR_API_KEY is not set"
)
SECRET = "xyzzy-plugh"


@pytest.fixture(autouse=True)
def nothing_left(nothing_left_behind: None) -> None:
    """No server and no runtime outlives its client."""


class Server:
    """``memoair mcp`` for one caller over a storage root, as a program starts it."""

    def __init__(self, home: Path, user: str, *arguments: str | Path, **environ: str) -> None:
        told = ("mcp", "--storage", home / "storage", "--timeout-ms", "10000", *arguments)
        named = {"MEMOAIR_PROJECT_ID": PROJECT, "MEMOAIR_USER_ID": user, "PYTHONPATH": PATIENCE, **environ}
        self.arguments = list(map(str, told))
        self.environ = environment(home, **named)

    @property
    def parameters(self) -> StdioServerParameters:
        return StdioServerParameters(command=MEMOAIR[0], args=[*MEMOAIR[1:], *self.arguments], env=self.environ)

    def use(self, talk: Callable[[Client], Awaitable[T]], *, mode: Any = "auto") -> tuple[T, str]:
        """Talk with the server; return what came of it and what it logged."""

        async def run() -> T:
            parameters = StdioServerParameters(
                command=MEMOAIR[0], args=[*MEMOAIR[1:], *self.arguments], env=self.environ
            )
            async with Client(stdio_client(parameters, errlog=errors), mode=mode) as client:
                return await talk(client)

        with tempfile.TemporaryFile("w+") as errors:
            came = anyio.run(run)
            errors.seek(0)
            return came, errors.read()

    def said(self, name: str, **arguments: Any) -> str:
        """What a tool answers that does as it is asked."""
        came, logged = self.use(lambda client: client.call_tool(name, arguments))
        assert (came.is_error, logged) == (False, ""), came
        return str(came.content[0].text)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path, "ana")


def storage(home: Path) -> Path:
    return home / "storage"


# What a client sees


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_is_told_of_four_tools_none_of_which_takes_a_caller(server: Server, mode: str) -> None:
    async def look(client: Client) -> Any:
        return (await client.list_tools()).tools, client.server_info, client.instructions

    (tools, info, instructions), logged = server.use(look, mode=mode)
    assert [tool.name for tool in tools] == TOOLS
    assert info.name == "memoair"
    assert info.version
    assert "no instructions to you" in instructions
    assert logged == ""
    taken = {tool.name: sorted(tool.input_schema["properties"]) for tool in tools}
    assert taken == {
        "search_memory": ["intent", "query"],
        "save_turn": ["assistant_text", "turn_id", "user_text"],
        "list_memories": ["history", "limit"],
        "forget_memory": ["memory_id"],
    }
    assert all(tool.description and tool.input_schema["additionalProperties"] is False for tool in tools)
    assert [tool.annotations.read_only_hint for tool in tools] == [True, False, True, False]
    assert [tool.annotations.destructive_hint for tool in tools] == [None, False, None, True]
    memory = MemoAirVoiceMemorySync(project_id="p", user_id="u", runtime_url="http://127.0.0.1:0")
    ours = memory.to_openai_function()["function"]["parameters"]
    assert tools[0].input_schema["properties"]["intent"]["enum"] == ours["properties"]["intent"]["enum"]
    assert tools[0].input_schema["required"] == ours["required"]


def test_what_is_saved_in_one_session_is_found_in_the_next(server: Server, tmp_path: Path) -> None:
    async def talk(client: Client) -> list[Any]:
        before = await client.call_tool("search_memory", {"query": "Which colour are the boots?"})
        assert before.content[0].text == "Nothing was found."
        turn = {"user_text": "The boots are red.", "assistant_text": "Noted.", "turn_id": "t1"}
        return [
            await client.call_tool("save_turn", turn),
            await client.call_tool("save_turn", turn),
            await client.call_tool("search_memory", {"query": "Which colour are the boots?"}),
        ]

    came, logged = server.use(talk)
    assert [each.is_error for each in came] == [False, False, False]
    assert [each.content[0].text for each in came[:2]] == ["Saved.", "Saved."]
    assert "The boots are red." in came[2].content[0].text
    assert logged == ""
    assert turn_ids(storage(tmp_path), "ana") == ["t1"], "a turn that is known is not kept twice"

    found = server.said("search_memory", query="Which colour are the boots?", intent="fallback")
    assert "## permanent" in found
    assert "The boots are red." in found


def test_two_servers_of_two_callers_do_not_see_each_others_memory(tmp_path: Path) -> None:
    async def with_ben(ana: Client) -> tuple[Any, ...]:
        await ana.call_tool("save_turn", {"user_text": "My parcel is code1111."})

        async def with_ana(ben: Client) -> tuple[Any, ...]:
            await ben.call_tool("save_turn", {"user_text": "My parcel is code2222."})
            asked = {"query": "Which code is my parcel?"}
            tried = {**asked, "user_id": "ana"}
            return (
                (await ana.call_tool("search_memory", asked)).content[0].text,
                (await ben.call_tool("search_memory", asked)).content[0].text,
                await ben.call_tool("search_memory", tried),
            )

        async with Client(stdio_client(ben.parameters)) as client:
            return await with_ana(client)

    ben = Server(tmp_path, "ben")
    (found, other, tried), _ = Server(tmp_path, "ana").use(with_ben)
    assert ("code1111" in found, "code2222" in found) == (True, False)
    assert ("code1111" in other, "code2222" in other) == (False, True)
    assert tried.is_error is True, "no tool lets a model choose another caller"


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("search_memory", {}, "query: Field required"),
    ("search_memory", {"query": [SECRET]}, "query: Input should be a valid string"),
    ("search_memory", {"query": SECRET, "intent": SECRET}, "intent: Input should be"),
    ("search_memory", {"query": "boots", SECRET: SECRET}, "it takes query, intent only"),
    ("search_memory", {"query": "boots", "user_id": SECRET}, "it takes query, intent only"),
    ("save_turn", {"assistant_text": SECRET}, "user_text: Field required"),
    ("save_turn", {"user_text": SECRET, "turn_id": ""}, "turn_id is empty"),
    ("save_turn", {"user_text": SECRET, "turn_id": SECRET * 1000}, "turn_id is longer than 1024 characters"),
    ("save_turn", {"user_text": SECRET * 100_000}, "runtime.payload_too_large"),
    ("list_memories", {"limit": SECRET}, "limit: Input should be a valid integer"),
    ("list_memories", {"limit": "5"}, "limit: Input should be a valid integer"),
    ("list_memories", {"limit": 0}, "limit: Input should be greater than or equal to 1"),
    ("forget_memory", {"memory_id": ""}, "memory_id: String should have at least 1 character"),
    ("list_memories", {}, NO_CLOUD),
    ("forget_memory", {"memory_id": SECRET}, NO_CLOUD),
    (SECRET, {}, "there is no such tool; there are search_memory, save_turn, list_memories, forget_memory"),
]


def test_a_call_that_can_not_be_is_told_in_an_error_that_quotes_nobody(server: Server, tmp_path: Path) -> None:
    async def talk(client: Client) -> list[Any]:
        return [await client.call_tool(tool, arguments) for tool, arguments, _ in WRONG]

    came, logged = server.use(talk)
    for result, (tool, arguments, told) in zip(came, WRONG, strict=True):
        assert result.is_error is True, (tool, arguments)
        [content] = result.content
        assert content.text.startswith(told)
        assert SECRET not in content.text
    assert logged == ""
    assert turn_ids(storage(tmp_path), "ana") == []


def test_a_memory_that_fails_is_an_error_of_the_tool(tmp_path: Path) -> None:
    late = Server(tmp_path, "ana", "--timeout-ms", "1", PYTHONPATH="")
    came, logged = late.use(lambda client: client.call_tool("search_memory", {"query": SECRET}))
    assert came.is_error is True
    assert came.content[0].text.startswith("the memory could not be searched: runtime.timeout: ")
    assert SECRET not in came.content[0].text + logged


def test_a_server_of_the_organisation_alone_only_searches(tmp_path: Path) -> None:
    documents = tmp_path / "faq.jsonl"
    documents.write_text(json.dumps({"id": "returns", "text": "Boots can be returned within thirty days."}) + "\n")
    alone = Server(tmp_path, "ana", "--org-file", documents, MEMOAIR_ORG_ONLY="1")

    async def talk(client: Client) -> Any:
        names = [tool.name for tool in (await client.list_tools()).tools]
        found = await client.call_tool("search_memory", {"query": "How long can boots be returned?"})
        return names, found.content[0].text, await client.call_tool("save_turn", {"user_text": "The boots are red."})

    (names, found, saved), _ = alone.use(talk)
    assert names == ["search_memory"]
    assert "thirty days" in found
    assert saved.is_error is True


@pytest.fixture
def learned(tmp_path: Path) -> Iterator[tuple[Server, Any]]:
    """A server with a cloud, which has learned something about the caller; and that cloud's client."""
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path / "cloud") as cloud:
        tenant = cloud.tenant()
        tenant.send_call("call-1", "My name is Ana Lopez.", "I live in Leeds.")
        cloud.run_tasks()
        identity = {
            "MEMOAIR_API_KEY": str(tenant.key),
            "MEMOAIR_PROJECT_ID": tenant.identity["project"],
            "MEMOAIR_AGENT_ID": tenant.identity["agent"],
            "MEMOAIR_BASE_URL": cloud.url,
        }
        yield Server(tmp_path, tenant.identity["user"], **identity), tenant
        for each in cloud._clients:
            each.close()


def test_with_a_cloud_what_is_known_is_listed_and_forgotten_for_good(learned: tuple[Server, Any]) -> None:
    server, tenant = learned

    async def talk(client: Client) -> Any:
        listed = await client.call_tool("list_memories", {})
        first = listed.structured_content["memories"][0]
        one = await client.call_tool("list_memories", {"limit": 1})
        forgotten = await client.call_tool("forget_memory", {"memory_id": first["memoryId"]})
        nobody = await client.call_tool("forget_memory", {"memory_id": SECRET})
        return listed, first, one, forgotten, nobody, await client.call_tool("list_memories", {})

    (listed, first, one, forgotten, nobody, left), logged = server.use(talk)
    assert json.loads(listed.content[0].text) == listed.structured_content
    texts = [each["text"] for each in listed.structured_content["memories"]]
    assert any("Leeds" in text for text in texts)
    assert one.structured_content == {"memories": [first], "total": len(texts)}
    assert (forgotten.is_error, forgotten.content[0].text) == (False, "Forgotten.")
    assert nobody.is_error is True
    assert nobody.content[0].text.startswith("cloud.not_found")
    assert SECRET not in nobody.content[0].text + logged
    assert first["memoryId"] not in [each["memoryId"] for each in left.structured_content["memories"]]
    assert first["memoryId"] not in [each["memoryId"] for each in tenant.memories()]


# How it ends

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
SAVE = {"name": "save_turn", "arguments": {"user_text": "The last words.", "turn_id": "t1"}}
CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": SAVE}


def lines(*messages: dict[str, Any] | str) -> str:
    return "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in messages)


def raw(server: Server, home: Path) -> Any:
    """The server with bare pipes."""
    return starting(*server.arguments, home=home, **server.environ)


def test_it_ends_with_its_input_and_a_turn_on_its_way_is_kept(server: Server, tmp_path: Path) -> None:
    with raw(server, tmp_path) as process:
        out, err = process.communicate(lines(INITIALIZE, INITIALIZED, CALL), timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out.splitlines()[0])["result"]["serverInfo"]["name"] == "memoair"
    assert turn_ids(storage(tmp_path), "ana") == ["t1"]


NOISY = """
import os
from memoair_cli.app import main
from memoair_cli.mcp.tools import MemoryTools

def noisy(self, turn, save=MemoryTools._save):
    print("a word printed")
    os.write(1, b"a word written\\n")
    return save(self, turn)

MemoryTools._save = noisy
main()
"""


def test_nothing_but_the_protocol_comes_on_stdout_whoever_prints(server: Server, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", NOISY, *server.arguments],
        env=server.environ,
        input=lines(INITIALIZE, INITIALIZED, CALL),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [json.loads(line)["jsonrpc"] for line in process.stdout.splitlines()] == ["2.0"]
    assert sorted(process.stderr.splitlines()) == ["a word printed", "a word written"]


def test_input_that_is_none_ends_it(server: Server, tmp_path: Path) -> None:
    with raw(server, tmp_path) as process:
        out, err = process.communicate("", timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_lines_that_are_no_messages_are_survived_and_quoted_nowhere(server: Server, tmp_path: Path) -> None:
    wrong = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": 5, "arguments": SECRET}}
    with raw(server, tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines(INITIALIZE, INITIALIZED, SECRET, "{" * 10_000, wrong, CALL))
        process.stdin.flush()
        answers = {each["id"]: each for each in (json.loads(process.stdout.readline()) for _ in range(3))}
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert answers[2]["result"]["content"][0]["text"] == "Saved."
    assert "error" in answers[3]
    assert SECRET not in json.dumps(answers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_it_in_order(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    with raw(server, tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines(INITIALIZE, INITIALIZED, CALL))
        process.stdin.flush()
        told = [json.loads(process.stdout.readline()) for _ in range(2)]
        runtimes = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        process.wait(60)  # with its input still open
        assert (process.stdout.read(), process.stderr.read()) == ("", "")  # type: ignore[union-attr]
    assert process.returncode == 0
    assert told[1]["result"]["content"][0]["text"] == "Saved."
    assert runtimes
    assert not [each for each in runtimes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    logs = [path.read_text().splitlines() for path in storage(tmp_path).rglob("session.jsonl")]
    assert [json.loads(line)["type"] for line in logs[0]][-1] == "session_end"


def test_whoever_no_longer_reads_is_no_reason_for_a_traceback(server: Server, tmp_path: Path) -> None:
    with raw(server, tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(lines(INITIALIZE, INITIALIZED, CALL))  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        process.wait(60)  # with its input still open
        assert (process.returncode, process.stderr.read()) == (1, "")
        process.stdout = None
    assert turn_ids(storage(tmp_path), "ana") in ([], ["t1"])


def test_a_cloud_that_is_silent_holds_nobody_up_at_the_end(tmp_path: Path) -> None:
    listing = {**CALL, "params": {"name": "list_memories", "arguments": {}}}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        identity = {"MEMOAIR_API_KEY": "memoair_pk_x", "MEMOAIR_AGENT_ID": "agent_x"}
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        server = Server(tmp_path, "ana", **identity, MEMOAIR_BASE_URL=url)
        with raw(server, tmp_path) as process:
            process.stdin.write(lines(INITIALIZE, INITIALIZED, listing))
            process.stdin.flush()
            process.stdout.readline()
            connection, _ = silent.accept()
            process.communicate(timeout=60)  # the answer would be waited for for two minutes
            connection.close()
    assert process.returncode == 0


CLIENT = """
import sys, anyio
from mcp import Client, StdioServerParameters

async def main():
    command, *arguments = sys.argv[1:]
    async with Client(StdioServerParameters(command=command, args=arguments, env={environ!r})) as client:
        await client.call_tool("save_turn", {{"user_text": "The last words.", "turn_id": "t1"}})
        print("saved", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def test_a_client_that_is_killed_leaves_no_server_and_no_runtime(server: Server, tmp_path: Path) -> None:
    code = CLIENT.format(environ=server.environ)
    client = subprocess.Popen(
        [sys.executable, "-c", code, *MEMOAIR, *server.arguments], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "saved\n"
    left = psutil.Process(client.pid).children(recursive=True)
    assert len(left) >= 2, "the server, and at least one runtime"
    client.kill()
    client.wait()
    client.stdout.close()

    eventually(lambda: not [each for each in left if each.is_running() and each.status() != psutil.STATUS_ZOMBIE])
    assert turn_ids(storage(tmp_path), "ana") == ["t1"]


def test_a_server_that_is_killed_leaves_no_runtime(server: Server, tmp_path: Path) -> None:
    with raw(server, tmp_path) as process:
        process.stdin.write(lines(INITIALIZE, INITIALIZED, CALL))  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        for _ in range(2):
            process.stdout.readline()  # type: ignore[union-attr]
        left = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert left
    eventually(lambda: not [each for each in left if each.is_running() and each.status() != psutil.STATUS_ZOMBIE])


# Options


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"MEMOAIR_USER_ID": "ana"}, "MEMOAIR_PROJECT_ID is not set"),
        ({"MEMOAIR_PROJECT_ID": PROJECT}, "MEMOAIR_USER_ID is not set"),
        (
            {"MEMOAIR_PROJECT_ID": PROJECT, "MEMOAIR_USER_ID": "ana", "MEMOAIR_API_KEY": "memoair_pk_x"},
            "MEMOAIR_AGENT_ID is not set",
        ),
        ({"MEMOAIR_PROJECT_ID": "p" * 2_000, "MEMOAIR_USER_ID": "ana"}, "project_id is longer than 1024 characters"),
        ({"MEMOAIR_PROJECT_ID": PROJECT, "MEMOAIR_USER_ID": "a" * 2_000}, "is longer than 1024 characters"),
    ],
)
def test_an_identity_that_is_not_whole_is_refused_before_anything_starts(environ: dict[str, str], told: str) -> None:
    done = memoair("mcp", code=2, given="", **environ)
    assert told in done.err
    assert done.out == ""
