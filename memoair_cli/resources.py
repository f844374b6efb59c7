"""``memoair project``, ``agent`` and ``index``: create projects, agents and indexes in a cloud."""

import json
from typing import Annotated, Any, Optional
from urllib.parse import quote

import typer

from memoair_cli.cloud_client import connect, post, request
from memoair_cli.documents.command import add_documents
from memoair_cli.options import ApiKey, BaseUrl, ProjectId, fail, pluralize, require
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
    keep_turns: Annotated[
        OptionalText, typer.Option(metavar="DAYS", help="Drop turns that are older, or 'forever'.")
    ] = None,
    keep_callers: Annotated[
        OptionalText, typer.Option(metavar="DAYS", help="Erase callers not heard of for so long, or 'forever'.")
    ] = None,
    keep_traces: Annotated[
        OptionalText, typer.Option(metavar="DAYS", help="Drop recall traces that are older, or 'forever'.")
    ] = None,
    facts: Annotated[
        OptionalText, typer.Option(metavar="keep|drop", help="Whether facts go with the turns they came from.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be dropped now.")] = False,
    recall_traces: Annotated[
        OptionalText,
        typer.Option(
            metavar="MODE", help="What machines that set nothing keep of searches: ids, text, off; or default."
        ),
    ] = None,
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Set what the cloud never learns in a project, and how long it keeps what; print the project's id."""
    periods = {"turnsDays": keep_turns, "callersDays": keep_callers, "tracesDays": keep_traces}
    retention: dict[str, Any] = {name: _parse_days(days) for name, days in periods.items() if days is not None}
    retention |= {"facts": facts} if facts is not None else {}
    if exclude and exclude_nothing:
        fail("--exclude and --exclude-nothing contradict each other")
    changes: dict[str, Any] = {"excludedKinds": exclude or []} if exclude or exclude_nothing else {}
    changes |= {"retention": retention} if retention else {}
    if recall_traces is not None:
        changes["recallTraces"] = None if recall_traces == "default" else recall_traces
    path = f"/v1/projects/{quote(project, safe='')}"
    with connect(base_url, api_key) as cloud:
        if dry_run:
            preview = post(cloud, f"{path}/retention/preview", retention)
            typer.echo(json.dumps(preview) if as_json else _describe_preview(preview))
            return
        if not changes:
            fail("nothing to set: pass --exclude, --exclude-nothing, --keep-turns, --keep-callers, ... (see --help)")
        _print_reply(request(cloud, "PATCH", path, {}, json.dumps(changes).encode()), as_json)


@projects.command("show")
def show_project(
    project: Annotated[str, typer.Argument(help="The project's id.")],
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
) -> None:
    """Print a project with its settings, as JSON."""
    with connect(base_url, api_key) as cloud:
        typer.echo(json.dumps(request(cloud, "GET", f"/v1/projects/{quote(project, safe='')}", {}), indent=2))


@projects.command("hold")
def hold_project(
    project: Annotated[str, typer.Argument(help="The project's id.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    by: Annotated[OptionalText, typer.Option(help="Who says so, for the record.")] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Lift the hold.")] = False,
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
) -> None:
    """Place a legal hold on all callers of a project, or lift it; print it as JSON."""
    path = f"/v1/projects/{quote(project, safe='')}/holds{'/lift' if lift else ''}"
    with connect(base_url, api_key) as cloud:
        typer.echo(json.dumps(post(cloud, path, {"reason": reason, **({"by": by} if by else {})}), indent=2))


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


def _parse_days(text: str) -> int | None:
    if text == "forever":
        return None
    return int(text) if text.isascii() and text.isdigit() else fail(f"{text!r} is not a number of days, nor 'forever'")


def _describe_preview(preview: dict[str, Any]) -> str:
    parts = ("turn", "turns"), ("caller", "callers"), ("trace", "traces")
    counts = ", ".join(pluralize(preview[name], noun) for noun, name in parts)
    held = preview["heldCallers"]
    return f"would be dropped now: {counts}" + (f"; kept by legal holds: {pluralize(held, 'caller')}" if held else "")


def _make_slug(name: str) -> str:
    return "-".join("".join(char if char.isascii() and char.isalnum() else " " for char in name.lower()).split())[:60]


def _print_reply(reply: Any, as_json: bool) -> None:
    typer.echo(json.dumps(reply) if as_json else reply["id"])
