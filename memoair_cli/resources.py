"""``memoair project``, ``agent`` and ``index``: what a cloud is told of one's customers, over HTTP."""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Optional
from urllib.parse import quote

import typer

from memoair_cli.cloud_http import CloudHttp, CloudUnreachableError
from memoair_cli.options import DEFAULT_CLOUD_URL, AgentId, ApiKey, BaseUrl, ProjectId, fail, require, require_key

projects = typer.Typer(name="project", no_args_is_help=True, help="Customers' workspaces.")
agents = typer.Typer(name="agent", no_args_is_help=True, help="A project's bots.")
indexes = typer.Typer(name="index", no_args_is_help=True, help="What an organisation knows.")

# What one call takes; some room is left for what stands around the documents.
_MAX_DOCUMENTS = 100
_MAX_BYTES = 1_000_000

AsJson = Annotated[bool, typer.Option("--json", help="Print the cloud's answer.")]
Text = Annotated[Optional[str], typer.Option()]  # noqa: UP045 - Typer reads it on Python 3.10, too


@projects.command("create")
def create_project(
    name: str,
    slug: Text = None,
    description: Text = None,
    api_key: ApiKey = "",
    base_url: BaseUrl = DEFAULT_CLOUD_URL,
    as_json: AsJson = False,
) -> None:
    """Make a project, and print its id."""
    body = {"name": name, "slug": slug or _make_slug(name), **({"description": description} if description else {})}
    with _connect(base_url, api_key) as cloud:
        _print_reply(_post(cloud, "/v1/projects", body), as_json)


@agents.command("create")
def create_agent(
    name: Annotated[str, typer.Argument()] = "Voice agent",
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = DEFAULT_CLOUD_URL,
    as_json: AsJson = False,
) -> None:
    """Make an agent in a project, and print its id."""
    path = f"/v1/projects/{quote(require(project, 'MEMOAIR_PROJECT_ID'), safe='')}/agents"
    with _connect(base_url, api_key) as cloud:
        _print_reply(_post(cloud, path, {"name": name, "agentType": "voice"}), as_json)


@indexes.command("add")
def add_documents(
    name: str,
    files: list[Path],
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = DEFAULT_CLOUD_URL,
) -> None:
    """Add documents to an index: lines {"id", "text", "metadata"} of .jsonl files, any other file as one text."""
    headers = {"X-Project-Id": require(project, "MEMOAIR_PROJECT_ID"), **({"X-Agent-Id": agent} if agent else {})}
    try:
        documents = [document for file in files for document in _read_documents(file)]
    except (OSError, ValueError) as error:
        fail(str(error))
    reply: Any = None
    with _connect(base_url, api_key) as cloud:
        for batch in _batches(documents):
            body = b'{"name":%b,"documents":[%b]}' % (json.dumps(name).encode(), b",".join(batch))
            reply = _post(cloud, "/v1/voice-sdk/index/create", body, **headers)
    if reply is None:
        fail("there is no document in these files")
    typer.echo(f"{len(documents)} documents sent; {name} has {reply['chunkCount']} chunks, version {reply['version']}")


def _connect(base_url: str, api_key: str) -> closing[CloudHttp]:
    return closing(CloudHttp(base_url, require_key(api_key)))


def _post(cloud: CloudHttp, path: str, body: Any, **headers: str) -> Any:
    """Send a request; what the cloud refuses, or does not answer, ends the command."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        reply = cloud.request("POST", path, content, headers)
    except CloudUnreachableError as error:
        fail(str(error))
    return reply.body if reply.is_ok else fail(f"the cloud at {cloud.address} refuses: {reply.error_message}")


def _read_documents(file: Path) -> Iterator[dict[str, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix != ".jsonl":
        yield {"id": file.name, "text": text}
        return
    for line_number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                document = json.loads(line)
            except ValueError:
                document = None
            if not isinstance(document, dict) or not {"id", "text"} <= set(document):
                raise ValueError(
                    f'{file}:{line_number}: not a document, {{"id": "...", "text": "...", "metadata": {{...}}}}'
                )
            yield document


def _batches(documents: Iterable[dict[str, Any]]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in documents:
        line = json.dumps(document, ensure_ascii=False).encode()
        if batch and (len(batch) == _MAX_DOCUMENTS or size + len(line) > _MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line) + 1
    if batch:
        yield batch


def _make_slug(name: str) -> str:
    return "-".join("".join(sign if sign.isascii() and sign.isalnum() else " " for sign in name.lower()).split())[:60]


def _print_reply(reply: Any, as_json: bool) -> None:
    typer.echo(json.dumps(reply) if as_json else reply["id"])
