"""``memoair projects``, ``agents`` and ``indexes``: manage projects, agents and documents in a cloud."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Optional
from urllib.parse import quote

import typer

from memoair_cli.cloud_client import connect, post, request
from memoair_cli.documents.command import add_documents
from memoair_cli.listings import AsJson, MaxItems, format_time, iterate_items, make_printable, print_items
from memoair_cli.options import ApiKey, BaseUrl, ProjectId, fail, require
from memoair_protocol.defaults import CLOUD_BASE_URL

projects = typer.Typer(name="projects", no_args_is_help=True, help="Manage projects, one for each customer.")
agents = typer.Typer(name="agents", no_args_is_help=True, help="Manage the agents of a project.")
indexes = typer.Typer(name="indexes", no_args_is_help=True, help="Manage the organization's documents.")

ProjectArgument = Annotated[str, typer.Argument(metavar="PROJECT", help="The project's id.")]
AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's id.")]
IndexArgument = Annotated[str, typer.Argument(metavar="INDEX", help="The index's name.")]
IsConfirmed = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_INDEX_PATH = "/v1/voice-sdk/index"

OptionalText = Optional[str]  # noqa: UP045 - Typer needs this on Python 3.10
OptionalTexts = Optional[list[str]]  # noqa: UP045


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="The project's name.")],
    slug: Annotated[OptionalText, typer.Option(help="A short name for URLs; by default made from NAME.")] = None,
    description: Annotated[OptionalText, typer.Option(help="A description for people.")] = None,
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Create a project and print its id."""
    body = {"name": name, "slug": slug or _make_slug(name), **({"description": description} if description else {})}
    with connect(base_url, api_key) as cloud:
        _print_reply(post(cloud, "/v1/projects", body), as_json)


@projects.command("list")
def list_projects(
    limit: MaxItems = 500, api_key: ApiKey = "", base_url: BaseUrl = CLOUD_BASE_URL, as_json: AsJson = False
) -> None:
    """List the account's projects, the oldest first."""
    columns = {"id": _cell("id"), "name": _cell("name"), "created": _time_cell("createdAt")}
    with connect(base_url, api_key) as cloud:
        found = iterate_items(cloud, "/v1/projects", "projects", {})
        print_items(found, columns, max_items=limit, as_json=as_json, nothing="the account has no projects")


@projects.command("show")
def show_project(
    project: ProjectArgument, api_key: ApiKey = "", base_url: BaseUrl = CLOUD_BASE_URL, as_json: AsJson = False
) -> None:
    """Show a project."""
    with connect(base_url, api_key) as cloud:
        _print_fields(request(cloud, "GET", _project_path(project), {}), as_json)


@projects.command("delete")
def delete_project(
    project: ProjectArgument,
    is_confirmed: IsConfirmed = False,
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Delete a project with its callers, their calls and memories, its documents and agents.

    Machines keep their copies: delete their storage folders, too.
    """
    with connect(base_url, api_key) as cloud:
        _confirm(f"Delete {project} with all its callers, calls and documents?", is_confirmed)
        _print_fields(request(cloud, "DELETE", _project_path(project), {}), as_json)


@projects.command("set")
def change_project(
    project: Annotated[str, typer.Argument(help="The project's id.")],
    exclude: Annotated[
        OptionalTexts,
        typer.Option(
            metavar="KIND",
            help="What is never learned: iban, card, phone, email, birth_date, security_code; or facts of a kind: "
            "identity, preference, plan, event, commitment, relation. May be repeated. What was learned is removed.",
        ),
    ] = None,
    exclude_nothing: Annotated[bool, typer.Option("--exclude-nothing", help="Learn all kinds.")] = False,
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Set what the cloud never learns in a project, and print the project's id."""
    if bool(exclude) == exclude_nothing:
        fail("either --exclude or --exclude-nothing is required")
    body = json.dumps({"excludedKinds": exclude or []}).encode()
    with connect(base_url, api_key) as cloud:
        _print_reply(request(cloud, "PATCH", _project_path(project), {}, body), as_json)


@agents.command("create")
def create_agent(
    name: Annotated[str, typer.Argument(help="The agent's name.")] = "Voice agent",
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Create an agent in a project and print its id."""
    with connect(base_url, api_key) as cloud:
        _print_reply(post(cloud, _agents_path(project), {"name": name, "agentType": "voice"}), as_json)


@agents.command("list")
def list_agents(
    limit: MaxItems = 500,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """List a project's agents, the oldest first."""
    columns = {"id": _cell("id"), "name": _cell("name"), "created": _time_cell("createdAt")}
    with connect(base_url, api_key) as cloud:
        found = iterate_items(cloud, _agents_path(project), "agents", {})
        print_items(found, columns, max_items=limit, as_json=as_json, nothing="the project has no agents")


@agents.command("show")
def show_agent(
    agent: AgentArgument,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Show an agent."""
    with connect(base_url, api_key) as cloud:
        _print_fields(request(cloud, "GET", f"{_agents_path(project)}/{quote(agent, safe='')}", {}), as_json)


@agents.command("delete")
def delete_agent(
    agent: AgentArgument,
    is_confirmed: IsConfirmed = False,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Delete an agent. Its calls stay; requests that name it are rejected from then on."""
    path = f"{_agents_path(project)}/{quote(agent, safe='')}"
    with connect(base_url, api_key) as cloud:
        _confirm(f"Delete {agent}? Programs that name it will be rejected.", is_confirmed)
        _print_fields(request(cloud, "DELETE", path, {}), as_json)


indexes.command("add")(add_documents)


@indexes.command("list")
def list_indexes(
    limit: MaxItems = 500,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """List a project's indexes by name."""
    columns = {
        "name": _cell("name"),
        "documents": _cell("documentCount"),
        "chunks": _cell("chunkCount"),
        "version": _cell("version"),
        "changed": _time_cell("updatedAt"),
    }
    with connect(base_url, api_key) as cloud:
        found = iterate_items(cloud, f"{_INDEX_PATH}/list", "indexes", _project_headers(project))
        print_items(found, columns, max_items=limit, as_json=as_json, nothing="the project has no indexes")


@indexes.command("show")
def show_index(
    index: IndexArgument,
    limit: MaxItems = 100,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """List the documents of an index by id."""
    path, headers = f"{_INDEX_PATH}/{quote(index, safe='')}/documents", _project_headers(project)
    columns = {"document": _cell("id"), "chunks": _cell("chunkCount")}
    with connect(base_url, api_key) as cloud:
        found = iterate_items(cloud, path, "documents", headers)
        print_items(found, columns, max_items=limit, as_json=as_json, nothing="the index has no documents")


@indexes.command("delete")
def delete_index(
    index: IndexArgument,
    is_confirmed: IsConfirmed = False,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Delete an index and its documents. Agents no longer find them as soon as their machines have pulled."""
    path, headers = f"{_INDEX_PATH}/{quote(index, safe='')}", _project_headers(project)
    with connect(base_url, api_key) as cloud:
        _confirm(f"Delete the index {index} with its documents?", is_confirmed)
        _print_fields(request(cloud, "DELETE", path, headers), as_json)


def _cell(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda item: item[name]


def _time_cell(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda item: format_time(item[name])


def _project_path(project: str) -> str:
    return f"/v1/projects/{quote(project, safe='')}"


def _agents_path(project: str) -> str:
    return f"{_project_path(require(project, 'MEMOAIR_PROJECT_ID'))}/agents"


def _project_headers(project: str) -> dict[str, str]:
    return {"X-Project-Id": require(project, "MEMOAIR_PROJECT_ID")}


def _confirm(question: str, is_confirmed: bool) -> None:
    """Ask on a terminal. Elsewhere ``--yes`` is required."""
    if is_confirmed:
        return
    if not sys.stdin.isatty():
        fail("nothing was deleted: pass --yes", 2)
    typer.confirm(question, abort=True, err=True)


def _print_fields(reply: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(reply, ensure_ascii=False))
        return
    for name, value in reply.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        typer.echo(f"{name}: {make_printable(text)}")


def _make_slug(name: str) -> str:
    return "-".join("".join(char if char.isascii() and char.isalnum() else " " for char in name.lower()).split())[:60]


def _print_reply(reply: Any, as_json: bool) -> None:
    typer.echo(json.dumps(reply) if as_json else reply["id"])
