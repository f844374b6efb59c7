"""``memoair indexes add``: add files and folders to an index."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import track

from memoair_cli.cloud_client import connect, post, request
from memoair_cli.documents.reading import FoundDocuments, check_encoding, read_paths, split_batches
from memoair_cli.options import AgentId, ApiKey, BaseUrl, ProjectId, check_id, fail, pluralize, require
from memoair_documents.reading import ReadOptions
from memoair_protocol.defaults import CLOUD_BASE_URL

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

_INDEX_PATH = "/v1/voice-sdk/index"

OptionalText = Optional[str]  # noqa: UP045 - Typer needs this on Python 3.10


def add_documents(
    name: Annotated[str, typer.Argument(help="The index; it is created if it does not exist.")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATHS...", help="Folders and files; - is standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")] = False,
    delete_missing: Annotated[
        bool, typer.Option("--delete-missing", help="Delete what is in the index but no longer in PATHS.")
    ] = False,
    text_column: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A column of CSV files that is text; repeat it for several. By default, chosen by name."),
    ] = None,
    id_column: Annotated[str, typer.Option(help="The column of CSV files with the ids.")] = "id",
    encoding: Annotated[OptionalText, typer.Option(help="The encoding of the files, if it is not recognized.")] = None,
    project: ProjectId = "",
    agent: AgentId = "",
    api_key: ApiKey = "",
    base_url: BaseUrl = CLOUD_BASE_URL,
) -> None:
    """Add documents to an index: folders, Markdown, HTML, PDF, DOCX, CSV, JSON lines, and plain text.

    A line of a .jsonl file ({"id", "text", "metadata"}) and a row of a .csv file are a document each, any other file
    is one as a whole. Adding a file again replaces its document.
    """
    found = read_paths(paths, ReadOptions(check_encoding(encoding), tuple(text_column or ()), id_column))
    if not found.documents:
        fail("the files contain no documents")
    if dry_run and not delete_missing:
        _print_ids(found)
        return
    headers = {"X-Project-Id": require(project, "MEMOAIR_PROJECT_ID")}
    if agent:
        headers["X-Agent-Id"] = check_id("--agent", agent)
    with connect(base_url, api_key) as cloud:
        missing = _find_missing(cloud, name, found, headers) if delete_missing else []
        if dry_run:
            _print_ids(found, missing)
            return
        reply: Any = None
        batches = list(split_batches(found.documents.values()))
        for batch in _show_progress(batches):
            body = b'{"name":%b,"documents":[%b]}' % (json.dumps(name).encode(), b",".join(batch))
            reply = post(cloud, f"{_INDEX_PATH}/create", body, **headers)
        for document_id in missing:  # last, so that a failure before leaves the index complete
            path = f"{_INDEX_PATH}/{quote(name, safe='')}/documents/{quote(document_id, safe='')}"
            reply = request(cloud, "DELETE", path, headers)
    deleted = f", {len(missing):,} deleted" if delete_missing else ""
    typer.echo(
        f"{pluralize(len(found.documents), 'document')} sent{deleted};"
        f" {name} has {pluralize(reply['chunkCount'], 'chunk')}, version {reply['version']}"
    )


def _find_missing(cloud: "CloudHttp", name: str, found: FoundDocuments, headers: dict[str, str]) -> list[str]:
    """Return the ids of the index's documents that were not read and whose files were not skipped."""
    indexes = request(cloud, "GET", f"{_INDEX_PATH}/list", headers)["indexes"]
    if name not in {index["name"] for index in indexes}:
        return []
    known: list[str] = []
    cursor = ""
    while True:
        query = f"?limit=500{f'&cursor={quote(cursor)}' if cursor else ''}"
        page = request(cloud, "GET", f"{_INDEX_PATH}/{quote(name, safe='')}/documents{query}", headers)
        known += [document["id"] for document in page["documents"]]
        cursor = page["next"] or ""
        if not cursor:
            return [
                document_id
                for document_id in known
                if document_id not in found.documents
                and not {document_id, document_id.rpartition("#")[0]} & found.skipped_ids
            ]


def _show_progress(batches: list[list[bytes]]) -> Iterable[list[bytes]]:
    if not sys.stderr.isatty():
        return batches
    return track(batches, "sending", console=Console(stderr=True), transient=True)


def _print_ids(found: FoundDocuments, missing: list[str] | None = None) -> None:
    for document_id, content in found.documents.items():
        typer.echo(f"add {document_id} ({len(content):,} bytes)")
    for document_id in missing or []:
        typer.echo(f"delete {document_id}")
    typer.echo(f"{pluralize(len(found.documents), 'document')} to send; nothing was sent (--dry-run)")
