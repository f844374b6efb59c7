"""The commands of ``memoair prompt``."""

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from memoair_cli.cloud_client import connect, post, request
from memoair_cli.listings import AsJson, MaxItems, cell, iterate_items, make_printable, print_items, time_cell
from memoair_cli.options import (
    AgentId,
    ApiKey,
    BaseUrl,
    IsConfirmed,
    ProjectId,
    agent_headers,
    confirm,
    errors_exit_with,
    fail,
)
from memoair_cli.prompts.texts import (
    LABELS_PATH,
    PROMPTS_PATH,
    check_prompt,
    fetch_prompt,
    find_latest,
    find_text,
    label_path,
    name_prompt,
    print_text,
    read_text,
    write_text,
)
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.text_diff import diff_texts

app = typer.Typer(name="prompt", no_args_is_help=True, help="Manage the prompt of an agent: versions and labels.")

OptionalText = Optional[str]  # noqa: UP045 - Typer needs this on Python 3.10
OptionalTexts = Optional[list[str]]  # noqa: UP045
OptionalPath = Optional[Path]  # noqa: UP045
OptionalNumber = Optional[int]  # noqa: UP045
Expected = Annotated[
    OptionalNumber,
    typer.Option("--expect", metavar="VERSION", min=0, help="Change nothing unless this is the version now; 0: none."),
]
Reference = Annotated[str, typer.Argument(metavar="VERSION|LABEL", help="The number of a version, or a label.")]


@app.command("push")
def push_prompt(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A text file in UTF-8; - is standard input.")],
    label: Annotated[OptionalTexts, typer.Option(help="Point this label to it. May be repeated.")] = None,
    notes: Annotated[OptionalText, typer.Option(help="What has changed, and why.")] = None,
    expected: Expected = None,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Add a version with the text of a file, unless the latest version has it already.

    Agents get it once a label that they ask for points to it.
    """
    headers = agent_headers(project, agent)
    labels = list(dict.fromkeys(label or ()))
    for name in labels:
        label_path(name)
    text = read_text(file)
    check_prompt(file, text)
    body = {"text": text, "labels": labels, "expectedVersion": expected, **({"notes": notes} if notes else {})}
    with connect(base_url, api_key) as cloud:
        pushed = post(cloud, PROMPTS_PATH, body, **headers)
    if as_json:
        typer.echo(json.dumps(pushed, ensure_ascii=False))
        return
    version = pushed["version"]
    pointing = f"; {_join(labels)} point{'s' if len(labels) == 1 else ''} to it" if labels else ""
    typer.echo(f"pushed version {version}{pointing}" if pushed["isNew"] else _describe_unchanged(version, pointing))


@app.command("pull")
def pull_prompt(
    reference: Reference = "production",
    output: Annotated[OptionalPath, typer.Option(help="Write it to this file.", dir_okay=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it has another text.")] = False,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Write the text of a version exactly as it was pushed, to standard output or to a file."""
    headers = agent_headers(project, agent)
    with connect(base_url, api_key) as cloud:
        prompt = fetch_prompt(cloud, headers, reference)
    if output is not None:
        is_changed = write_text(output, prompt["text"], overwrite=force)
        state = "written to" if is_changed else "what is there already:"
        typer.echo(f"version {prompt['version']} is {state} {output}", err=True)
    if as_json:
        typer.echo(json.dumps(prompt, ensure_ascii=False))
    elif output is None:
        print_text(prompt["text"])


@app.command("diff")
def diff_prompts(
    before: Annotated[str, typer.Argument(metavar="FROM", help="A version, a label or a file; - is standard input.")],
    after: Annotated[str, typer.Argument(metavar="[TO]", help="The same; by default the latest version.")] = "",
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Show how one text differs from another one. Exits with 0 if they are the same, 1 if not, 2 if something fails.

    A label comes before a file of the same name: write ./NAME for the file. A file alone is compared with the latest
    version: this is what a push would change.
    """
    with errors_exit_with(2):  # for a comparison, 1 means a difference
        if before == after == "-":
            fail("standard input can be read only once")
        headers = agent_headers(project, agent)
        with connect(base_url, api_key) as cloud:
            if after:
                texts = [find_text(cloud, headers, reference) for reference in (before, after)]
            else:
                texts = [find_text(cloud, headers, before), name_prompt(find_latest(cloud, headers))]
                if texts[0].is_file:
                    texts.reverse()
    diff = diff_texts(texts[0].text, texts[1].text, texts[0].name, texts[1].name)
    if as_json:
        typer.echo(json.dumps({"from": texts[0].name, "to": texts[1].name, "diff": diff}, ensure_ascii=False))
    elif diff:
        print_text(diff)
    else:
        typer.echo(f"{texts[0].name} and {texts[1].name} are the same", err=True)
    raise typer.Exit(1 if diff else 0)


@app.command("label")
def change_label(
    name: Annotated[str, typer.Argument(metavar="[LABEL]", help="The label; without it, all labels are listed.")] = "",
    reference: Annotated[
        str, typer.Argument(metavar="[VERSION|LABEL]", help="Point it to this version, or to that of a label.")
    ] = "",
    rollback: Annotated[bool, typer.Option("--rollback", help="Point it to the version that it had before.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove it.")] = False,
    expected: Expected = None,
    is_confirmed: IsConfirmed = False,
    limit: MaxItems = 500,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """List labels, show one, point one to a version, roll it back, or remove it.

    A rollback that is repeated goes further back. It also undoes a removal.
    """
    headers = agent_headers(project, agent)
    if sum((bool(reference), rollback, remove)) > 1:
        fail("pass one of VERSION, --rollback and --remove", 2)
    if not name:
        if rollback or remove:
            fail("name the label", 2)
        _list_labels(headers, limit, api_key, base_url, as_json=as_json)
        return
    path = label_path(name)
    query = "" if expected is None else f"?expectedVersion={expected}"
    with connect(base_url, api_key) as cloud:
        if rollback:
            label = request(cloud, "POST", f"{path}/rollback{query}", headers)
        elif remove:
            confirm(f"Remove {name}? Agents that ask for it get no prompt.", is_confirmed)
            label = request(cloud, "DELETE", f"{path}{query}", headers)
        elif reference:
            version = fetch_prompt(cloud, headers, reference)["version"]
            content = json.dumps({"version": version, "expectedVersion": expected}).encode()
            label = request(cloud, "PUT", path, headers, content)
        else:
            label = {"name": name, **request(cloud, "GET", path, headers)}
    if as_json:
        typer.echo(json.dumps(label, ensure_ascii=False))
    else:
        typer.echo(f"{name} {'is removed; it pointed' if remove else 'points'} to version {label['version']}")


@app.command("list")
def list_prompts(
    limit: MaxItems = 100,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """List the versions of an agent's prompt, the latest first."""
    columns = {
        "version": cell("version"),
        "labels": lambda prompt: " ".join(prompt["labels"]),
        "pushed": time_cell("createdAt"),
        "by": cell("createdBy"),
        "notes": lambda prompt: " ".join(prompt["notes"].split()),
    }
    headers = agent_headers(project, agent)
    with connect(base_url, api_key) as cloud:
        found = iterate_items(cloud, PROMPTS_PATH, "prompts", headers)
        print_items(found, columns, max_items=limit, as_json=as_json, nothing="the agent has no prompt yet")


@app.command("log")
def list_moves(
    name: Annotated[str, typer.Argument(metavar="LABEL", help="The label.")] = "production",
    limit: MaxItems = 100,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """List where a label has pointed, the latest move first."""
    columns = {
        "moved": time_cell("movedAt"),
        "from": lambda move: move["replaced"] or "",
        "to": lambda move: move["version"] or "removed",
        "": lambda move: "rollback" if move["isRollback"] else "",
        "by": cell("movedBy"),
    }
    headers, path = agent_headers(project, agent), f"{label_path(name)}/moves"
    with connect(base_url, api_key) as cloud:
        found = iterate_items(cloud, path, "moves", headers)
        print_items(found, columns, max_items=limit, as_json=as_json, nothing="the label was never moved")


def _list_labels(headers: dict[str, str], limit: int, api_key: str, base_url: str, *, as_json: bool) -> None:
    columns = {
        "label": cell("name"),
        "version": cell("version"),
        "since": time_cell("movedAt"),
        "by": cell("movedBy"),
    }
    with connect(base_url, api_key) as cloud:
        found = iterate_items(cloud, LABELS_PATH, "labels", headers)
        print_items(found, columns, max_items=limit, as_json=as_json, nothing="the agent's prompt has no labels")


def _describe_unchanged(version: int, pointing: str) -> str:
    return f"unchanged: version {version}, the latest, has this text already{pointing}"


def _join(names: list[str]) -> str:
    return make_printable(", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1])
