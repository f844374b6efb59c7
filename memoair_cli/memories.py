"""``memoair memories``: list, correct and delete what the cloud has learned about a caller."""

import json
from typing import Annotated, Any, Optional
from urllib.parse import quote

import typer

from memoair_cli.cloud_client import connect, request
from memoair_cli.listings import AsJson, MaxItems, format_time, iterate_items, print_items
from memoair_cli.options import ApiKey, BaseUrl, ProjectId, fail, project_headers, require
from memoair_protocol.defaults import CLOUD_BASE_URL

app = typer.Typer(name="memories", no_args_is_help=True, help="See and correct what was learned about a caller.")

CallerId = Annotated[str, typer.Option("--user", envvar="MEMOAIR_USER_ID", help="The caller's id.")]
MemoryId = Annotated[str, typer.Argument(metavar="MEMORY", help="The memory's id, from `memoair memories list`.")]
OptionalText = Optional[str]  # noqa: UP045 - Typer needs this on Python 3.10


@app.command("list")
def list_memories(
    user: CallerId = "",
    history: Annotated[bool, typer.Option("--history", help="Also what no longer holds.")] = False,
    limit: MaxItems = 200,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """List what was learned about a caller, the latest statement first."""
    columns = {
        "said": lambda memory: format_time(memory["saidAt"]),
        "kind": lambda memory: memory["kind"],
        "text": lambda memory: memory["text"],
        "state": _describe_state,
        "call": lambda memory: memory["sessionId"],
        "id": lambda memory: memory["memoryId"],
    }
    path = f"{_user_path(user)}/memories"
    with connect(base_url, api_key) as cloud:
        memories = iterate_items(cloud, path, "memories", project_headers(project), history="true" if history else None)
        print_items(
            memories, columns, max_items=limit, as_json=as_json, nothing="nothing was learned about this caller"
        )


@app.command("correct")
def correct_memory(
    memory: MemoryId,
    text: Annotated[OptionalText, typer.Option(help="The sentence as it should be.")] = None,
    value: Annotated[OptionalText, typer.Option(help="The value as the profile should show it.")] = None,
    user: CallerId = "",
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Correct a memory. The old text stays in its history, and no earlier statement overrides the correction."""
    changes = {name: given for name, given in (("text", text), ("value", value)) if given is not None}
    if not changes:
        fail("either --text or --value is required", 2)
    with connect(base_url, api_key) as cloud:
        reply = request(
            cloud, "PATCH", _memory_path(user, memory), project_headers(project), json.dumps(changes).encode()
        )
    _print_reply(reply, as_json, f"{memory} is corrected")


@app.command("delete")
def delete_memory(
    memory: MemoryId,
    user: CallerId = "",
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Delete a memory and its history. The turn it was learned from stays, but is not learned from again."""
    with connect(base_url, api_key) as cloud:
        reply = request(cloud, "DELETE", _memory_path(user, memory), project_headers(project))
    _print_reply(reply, as_json, f"{memory} is deleted")


def _describe_state(memory: dict[str, Any]) -> str:
    if memory["closedBy"]:
        return "replaced"
    return "corrected" if memory["correctedAt"] else "current"


def _print_reply(reply: Any, as_json: bool, message: str) -> None:
    typer.echo(json.dumps(reply, ensure_ascii=False) if as_json else message)


def _user_path(user: str) -> str:
    return f"/v1/voice-sdk/users/{quote(require(user, 'MEMOAIR_USER_ID'), safe='')}"


def _memory_path(user: str, memory: str) -> str:
    return f"{_user_path(user)}/memories/{quote(memory, safe='')}"
