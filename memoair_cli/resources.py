"""``memoair project``, ``agent`` and ``index``: create projects, agents and indexes in a cloud."""

import json
from typing import Annotated, Any, Optional
from urllib.parse import quote

import typer

from memoair_cli.cloud_client import connect, post, request
from memoair_cli.documents.command import add_documents
from memoair_cli.options import ApiKey, BaseUrl, ProjectId, fail, require
from memoair_protocol.defaults import CLOUD_BASE_URL

projects = typer.Typer(name="project", no_args_is_help=True, help="Manage projects, one for each customer.")
agents = typer.Typer(name="agent", no_args_is_help=True, help="Manage the agents of a project.")
indexes = typer.Typer(name="index", no_args_is_help=True, help="Manage the organization's documents.")

AsJson = Annotated[bool, typer.Option("--json", help="Print the cloud's reply as JSON.")]
OptionalText = Optional[str]  # noqa: UP045 - Typer needs this on Python 3.10
OptionalInt = Optional[int]  # noqa: UP045
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
    recall_traces: Annotated[
        OptionalText,
        typer.Option(
            metavar="MODE", help="What machines that set nothing keep of searches: ids, text, off; or default."
        ),
    ] = None,
    recall_trace_days: Annotated[
        OptionalInt, typer.Option(min=1, max=3_650, help="For how many days recall traces are kept.")
    ] = None,
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Set what the cloud never learns in a project and how it keeps recall traces, and print the project's id."""
    if exclude and exclude_nothing:
        fail("--exclude and --exclude-nothing contradict each other")
    changes: dict[str, Any] = {}
    if exclude or exclude_nothing:
        changes["excludedKinds"] = exclude or []
    if recall_traces is not None:
        changes["recallTraces"] = None if recall_traces == "default" else recall_traces
    if recall_trace_days is not None:
        changes["recallTraceDays"] = recall_trace_days
    if not changes:
        fail("nothing to set: pass --exclude, --exclude-nothing, --recall-traces or --recall-trace-days")
    path = f"/v1/projects/{quote(project, safe='')}"
    with connect(base_url, api_key) as cloud:
        _print_reply(request(cloud, "PATCH", path, {}, json.dumps(changes).encode()), as_json)


@agents.command("create")
def create_agent(
    name: Annotated[str, typer.Argument(help="The agent's name.")] = "Voice agent",
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Create an agent in a project and print its id."""
    path = f"/v1/projects/{quote(require(project, 'MEMOAIR_PROJECT_ID'), safe='')}/agents"
    with connect(base_url, api_key) as cloud:
        _print_reply(post(cloud, path, {"name": name, "agentType": "voice"}), as_json)


indexes.command("add")(add_documents)


def _make_slug(name: str) -> str:
    return "-".join("".join(char if char.isascii() and char.isalnum() else " " for char in name.lower()).split())[:60]


def _print_reply(reply: Any, as_json: bool) -> None:
    typer.echo(json.dumps(reply) if as_json else reply["id"])
