"""``memoair project``, ``agent`` and ``index``: what a cloud is told of one's customers, over HTTP."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional
from urllib.parse import quote

import attrs
import typer
import urllib3

projects = typer.Typer(name="project", no_args_is_help=True, help="Customers' workspaces.")
agents = typer.Typer(name="agent", no_args_is_help=True, help="A project's bots.")
indexes = typer.Typer(name="index", no_args_is_help=True, help="What an organisation knows.")

# What one call takes; some room is left for what stands around the documents.
_MOST_DOCUMENTS = 100
_MOST_BYTES = 1_000_000
_TIMEOUT_S = 30.0

BaseUrl = Annotated[str, typer.Option(envvar="MEMOAIR_BASE_URL", help="The cloud.")]
ApiKey = Annotated[str, typer.Option(envvar="MEMOAIR_API_KEY", help="The account's key; better set as a variable.")]
ProjectId = Annotated[str, typer.Option("--project", envvar="MEMOAIR_PROJECT_ID", help="The project's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the cloud's answer.")]
Text = Annotated[Optional[str], typer.Option()]  # noqa: UP045 - Typer reads it on Python 3.10, too
CLOUD = "https://backend.memoair.space"


@attrs.frozen
class _Cloud:
    base_url: str
    key: str = attrs.field(repr=False)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """Send a request; what the cloud refuses, or does not answer, ends the command."""
        try:
            response = urllib3.request(
                "POST",
                self.base_url.rstrip("/") + path,
                body=body if isinstance(body, bytes) else json.dumps(body).encode(),
                headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", **headers},
                timeout=_TIMEOUT_S,
                retries=False,
            )
            answer = json.loads(response.data)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            _end(f"the cloud at {self.base_url} does not answer: {type(error).__name__}")
        if response.status >= 400:
            told = answer.get("error") if isinstance(answer, dict) else None
            _end(f"{told['code']}: {told['message']}" if isinstance(told, dict) else f"refused with {response.status}")
        return answer


@projects.command("create")
def create_project(
    name: str,
    slug: Text = None,
    description: Text = None,
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD,
    as_json: AsJson = False,
) -> None:
    """Make a project, and print its id."""
    body = {"name": name, "slug": slug or _slug(name), **({"description": description} if description else {})}
    _show(_Cloud(base_url, _needed(api_key, "MEMOAIR_API_KEY")).post("/v1/projects", body), as_json)


@agents.command("create")
def create_agent(
    name: Annotated[str, typer.Argument()] = "Voice agent",
    project: ProjectId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD,
    as_json: AsJson = False,
) -> None:
    """Make an agent in a project, and print its id."""
    path = f"/v1/projects/{quote(_needed(project, 'MEMOAIR_PROJECT_ID'), safe='')}/agents"
    cloud = _Cloud(base_url, _needed(api_key, "MEMOAIR_API_KEY"))
    _show(cloud.post(path, {"name": name, "agentType": "voice"}), as_json)


@indexes.command("add")
def add_documents(
    name: str,
    files: list[Path],
    project: ProjectId = "",
    agent: Annotated[str, typer.Option(envvar="MEMOAIR_AGENT_ID", help="The agent's id.")] = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD,
) -> None:
    """Add documents to an index: lines {"id", "text", "metadata"} of .jsonl files, any other file as one text."""
    cloud = _Cloud(base_url, _needed(api_key, "MEMOAIR_API_KEY"))
    headers = {"X-Project-Id": _needed(project, "MEMOAIR_PROJECT_ID"), **({"X-Agent-Id": agent} if agent else {})}
    try:
        documents = [document for file in files for document in _read(file)]
    except (OSError, ValueError) as error:
        _end(str(error))
    answer: Any = None
    for batch in _batches(documents):
        body = b'{"name":%b,"documents":[%b]}' % (json.dumps(name).encode(), b",".join(batch))
        answer = cloud.post("/v1/voice-sdk/index/create", body, **headers)
    if answer is None:
        _end("there is no document in these files")
    typer.echo(
        f"{len(documents)} documents sent; {name} has {answer['chunkCount']} chunks, version {answer['version']}"
    )


def _read(file: Path) -> Iterator[dict[str, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix != ".jsonl":
        yield {"id": file.name, "text": text}
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                document = json.loads(line)
            except ValueError:
                document = None
            if not isinstance(document, dict) or not {"id", "text"} <= set(document):
                raise ValueError(
                    f'{file}:{number}: not a document, {{"id": "...", "text": "...", "metadata": {{...}}}}'
                )
            yield document


def _batches(documents: Iterable[dict[str, Any]]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in documents:
        line = json.dumps(document, ensure_ascii=False).encode()
        if batch and (len(batch) == _MOST_DOCUMENTS or size + len(line) > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line) + 1
    if batch:
        yield batch


def _slug(name: str) -> str:
    return "-".join("".join(sign if sign.isascii() and sign.isalnum() else " " for sign in name.lower()).split())[:60]


def _needed(value: str, variable: str) -> str:
    return value or _end(f"{variable} is not set")


def _show(answer: Any, as_json: bool) -> None:
    typer.echo(json.dumps(answer) if as_json else answer["id"])


def _end(message: str) -> NoReturn:
    typer.echo(message, file=sys.stderr)
    raise typer.Exit(1)
