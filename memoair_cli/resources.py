"""``memoair project``, ``agent`` and ``index``: create projects, agents and indexes in a cloud."""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional
from urllib.parse import quote

import typer

from memoair_cli.options import AgentId, ApiKey, BaseUrl, ProjectId, fail, require, require_key
from memoair_protocol.cloud_replies import CloudUnreachableError
from memoair_protocol.defaults import CLOUD_BASE_URL
from memoair_protocol.http_headers import encode_header

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

projects = typer.Typer(name="project", no_args_is_help=True, help="Manage projects, one for each customer.")
agents = typer.Typer(name="agent", no_args_is_help=True, help="Manage the agents of a project.")
indexes = typer.Typer(name="index", no_args_is_help=True, help="Manage the organization's documents.")

# The limits of one request, with some room for the rest of its body.
_MAX_DOCUMENTS = 100
_MAX_BYTES = 1_000_000

AsJson = Annotated[bool, typer.Option("--json", help="Print the cloud's reply as JSON.")]
OptionalText = Optional[str]  # noqa: UP045 - Typer needs this on Python 3.10


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
    with _connect(base_url, api_key) as cloud:
        _print_reply(_post(cloud, "/v1/projects", body), as_json)


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
    with _connect(base_url, api_key) as cloud:
        _print_reply(_post(cloud, path, {"name": name, "agentType": "voice"}), as_json)


@indexes.command("add")
def add_documents(
    name: Annotated[str, typer.Argument(help="The index; it is created if it does not exist.")],
    files: Annotated[list[Path], typer.Argument(help="The files to add.")],
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
) -> None:
    """Add documents to an index: each line of a .jsonl file ({"id", "text", "metadata"}), any other file as a whole."""
    headers = {"X-Project-Id": require(project, "MEMOAIR_PROJECT_ID"), **({"X-Agent-Id": agent} if agent else {})}
    try:
        documents = [document for file in files for document in _read_documents(file)]
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        fail(str(error))
    reply: Any = None
    with _connect(base_url, api_key) as cloud:
        for batch in _split_batches(documents):
            body = b'{"name":%b,"documents":[%b]}' % (json.dumps(name).encode(), b",".join(batch))
            reply = _post(cloud, "/v1/voice-sdk/index/create", body, **headers)
    if reply is None:
        fail("the files contain no documents")
    typer.echo(f"{len(documents)} documents sent; {name} has {reply['chunkCount']} chunks, version {reply['version']}")


def _connect(base_url: str, api_key: str) -> "closing[CloudHttp]":
    from memoair_protocol.cloud_http import CloudHttp

    return closing(CloudHttp(base_url, require_key(api_key), read_timeout_s=60.0))


def _post(cloud: "CloudHttp", path: str, body: Any, **headers: str) -> Any:
    """Send a request and return the body of the reply. Exit if the cloud is unreachable or rejects the request."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        reply = cloud.request("POST", path, content, {name: encode_header(value) for name, value in headers.items()})
    except CloudUnreachableError as error:
        fail(f"the cloud at {cloud.address} is unreachable: {error}")
    return (
        reply.body if reply.is_ok else fail(f"the cloud at {cloud.address} rejected the request: {reply.error_message}")
    )


def _read_documents(file: Path) -> Iterator[dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: not a text file in UTF-8") from None
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
                    f"{file}:{line_number}: not a document; expected "
                    '{"id": "...", "text": "...", "metadata": {...}}'
                )
            yield document


def _split_batches(documents: Iterable[dict[str, Any]]) -> Iterator[list[bytes]]:
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
    return "-".join("".join(char if char.isascii() and char.isalnum() else " " for char in name.lower()).split())[:60]


def _print_reply(reply: Any, as_json: bool) -> None:
    typer.echo(json.dumps(reply) if as_json else reply["id"])
