"""Send documents to a server, for a run that searches them instead of the project's."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
import typer
from rich.console import Console
from rich.progress import track

from memoair_cli.cloud_client import post, request
from memoair_cli.documents.reading import split_batches
from memoair_cli.listings import iterate_items
from memoair_cli.options import fail

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

_PATH = "/v1/voice-sdk/evaluations/document-sets"
_USAGE = 2


def send_document_set(cloud: "CloudHttp", headers: Mapping[str, str], documents: Sequence[dict[str, Any]]) -> str:
    """Send documents as a set, and return its id. Exits with a message if they cannot be used.

    Args:
        cloud: The connection.
        headers: The headers of the requests.
        documents: ``indexName``, ``id``, ``text`` and ``metadata`` of each. Those without an index are of the only one
            that the project has.
    """
    named = name_indexes(cloud, headers, documents)
    name = f"memoair replay, {datetime.now(timezone.utc):%Y-%m-%d %H:%M}"
    set_id: str = post(cloud, _PATH, {"name": name}, **headers)["setId"]
    path = f"{_PATH}/{quote(set_id, safe='')}"
    for batch in _show_progress(list(split_batches(map(msgspec.json.encode, named)))):
        post(cloud, f"{path}/documents", b'{"documents":[%b]}' % b",".join(batch), **headers)
    post(cloud, f"{path}/complete", {}, **headers)
    return set_id


def name_indexes(
    cloud: "CloudHttp", headers: Mapping[str, str], documents: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return documents with the names of their indexes: those without are of the only one that the project has.

    Exits with a message if there are no documents, or if the project has several indexes or none. Names the indexes of
    the project of which there are no documents.
    """
    if not documents:
        fail("--documents: there are no documents", _USAGE)
    indexes = [index["name"] for index in iterate_items(cloud, "/v1/voice-sdk/index/list", "indexes", headers)]
    named = list(_name_indexes(documents, indexes))
    missing = sorted(set(indexes) - {document["indexName"] for document in named})
    if missing:
        typer.echo(f"the candidate has no documents of the project's {', '.join(missing)}", err=True)
    return named


def delete_document_set(cloud: "CloudHttp", headers: Mapping[str, str], set_id: str) -> None:
    """Delete a document set that no run needs any more."""
    request(cloud, "DELETE", f"{_PATH}/{quote(set_id, safe='')}", headers)


def _name_indexes(documents: Sequence[dict[str, Any]], indexes: Sequence[str]) -> Iterator[dict[str, Any]]:
    for document in documents:
        if document["indexName"] is None and len(indexes) != 1:
            known = f", one of {', '.join(sorted(indexes))}" if indexes else ""
            fail(f"--documents: name the index of the documents: INDEX=PATH{known}", _USAGE)
        yield {**document, "indexName": document["indexName"] or indexes[0]}


def _show_progress(batches: list[list[bytes]]) -> Iterable[list[bytes]]:
    if not sys.stderr.isatty():
        return batches
    return track(batches, "sending documents", console=Console(stderr=True), transient=True)
