"""``memoair agents`` and ``indexes``: manage the agents and the documents of a project."""

from typing import Annotated
from urllib.parse import quote

import typer

from memoair_cli.cloud_client import connect, post, request
from memoair_cli.documents.command import add_documents
from memoair_cli.listings import AsJson, MaxItems, cell, iterate_items, print_fields, print_items, time_cell
from memoair_cli.options import ApiKey, BaseUrl, IsConfirmed, ProjectId, confirm, project_headers, require
from memoair_cli.projects import print_id, project_path
from memoair_protocol.defaults import CLOUD_BASE_URL

agents = typer.Typer(name="agents", no_args_is_help=True, help="Manage the agents of a project.")
indexes = typer.Typer(name="indexes", no_args_is_help=True, help="Manage the organization's documents.")

AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's id.")]
IndexArgument = Annotated[str, typer.Argument(metavar="INDEX", help="The index's name.")]
_INDEX_PATH = "/v1/voice-sdk/index"


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
        print_id(post(cloud, _agents_path(project), {"name": name, "agentType": "voice"}), as_json)


@agents.command("list")
def list_agents(
    limit: MaxItems = 500,
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """List a project's agents, the oldest first."""
    columns = {"id": cell("id"), "name": cell("name"), "created": time_cell("createdAt")}
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
        print_fields(request(cloud, "GET", f"{_agents_path(project)}/{quote(agent, safe='')}", {}), as_json)


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
        confirm(f"Delete {agent}? Programs that name it will be rejected.", is_confirmed)
        print_fields(request(cloud, "DELETE", path, {}), as_json)


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
        "name": cell("name"),
        "documents": cell("documentCount"),
        "chunks": cell("chunkCount"),
        "version": cell("version"),
        "changed": time_cell("updatedAt"),
    }
    with connect(base_url, api_key) as cloud:
        found = iterate_items(cloud, f"{_INDEX_PATH}/list", "indexes", project_headers(project))
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
    path, headers = f"{_INDEX_PATH}/{quote(index, safe='')}/documents", project_headers(project)
    columns = {"document": cell("id"), "chunks": cell("chunkCount")}
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
    path, headers = f"{_INDEX_PATH}/{quote(index, safe='')}", project_headers(project)
    with connect(base_url, api_key) as cloud:
        confirm(f"Delete the index {index} with its documents?", is_confirmed)
        print_fields(request(cloud, "DELETE", path, headers), as_json)


def _agents_path(project: str) -> str:
    return f"{project_path(require(project, 'MEMOAIR_PROJECT_ID'))}/agents"
