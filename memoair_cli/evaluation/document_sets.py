"""Send documents to the server that a run searches instead of the project's."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from memoair_cli.cloud_client import post
from memoair_cli.documents.reading import read_paths, split_batches
from memoair_cli.options import fail
from memoair_documents.reading import ReadOptions

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

_PATH = "/v1/voice-sdk/evaluations/document-sets"


def send_document_set(cloud: "CloudHttp", headers: Mapping[str, str], paths: Sequence[Path], index: str) -> str:
    """Send the documents of folders and files as a set, and return its id.

    Args:
        cloud: The connection.
        headers: The headers of the requests.
        paths: Folders and files.
        index: The index that the documents are of.
    """
    documents = read_paths(paths, ReadOptions()).documents.values()
    if not documents:
        fail("the files contain no documents", 2)
    named = [json.dumps({**json.loads(document), "indexName": index}).encode() for document in documents]
    name = f"{', '.join(path.name for path in paths)[:100]} {datetime.now(timezone.utc):%Y-%m-%d %H:%M}"
    set_id: str = post(cloud, _PATH, {"name": name}, **headers)["setId"]
    for batch in split_batches(named):
        body = b'{"documents":[%b]}' % b",".join(batch)
        post(cloud, f"{_PATH}/{quote(set_id, safe='')}/documents", body, **headers)
    post(cloud, f"{_PATH}/{quote(set_id, safe='')}/complete", {}, **headers)
    return set_id
