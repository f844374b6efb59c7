"""Bodies of the index routes."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.http.schemas.base import Identifier, RequestBody, ResponseBody, SanitizedText

MAX_DOCUMENTS = 100
# These names are paths of the API. Names of only dots are rejected, too: URL libraries remove such path segments.
_RESERVED_NAMES = ("create", "list")


def _check_index_name(name: str) -> str:
    if "/" in name or not name.strip(".") or name in _RESERVED_NAMES:
        raise ValueError("an index name must not contain a slash, consist of dots only, or be create or list")
    return name


def check_index_name(name: str) -> None:
    """Raise `InvalidRequestError` for a name that no index can have."""
    try:
        _check_index_name(name)
    except ValueError as error:
        raise InvalidRequestError(str(error), field="name") from None


IndexName = Annotated[Identifier, AfterValidator(_check_index_name)]


class DocumentIn(RequestBody):
    """A document. Its id is chosen by the client and unique within the index."""

    id: Identifier
    text: SanitizedText
    metadata: dict[str, Any] | None = None


class IndexIn(RequestBody):
    """Documents for an index: at most 100 documents and 1 MB of body per request."""

    name: IndexName
    # The limit is documented here and enforced in the route, because exceeding it has its own error code.
    documents: Annotated[list[DocumentIn], Field(json_schema_extra={"maxItems": MAX_DOCUMENTS})]
    metadata: dict[str, Any] | None = None


class IndexChangeOut(ResponseBody):
    """The state of an index after a change."""

    index_name: str
    chunk_count: int
    version: int


class IndexOut(ResponseBody):
    """An index."""

    name: str
    version: int
    chunk_count: int
    document_count: int
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, Any] = Field(validation_alias="details")


class IndexesOut(ResponseBody):
    """The project's indexes."""

    indexes: list[IndexOut]


class DocumentOut(ResponseBody):
    """A document of an index, without its text."""

    id: str
    chunk_count: int
    metadata: dict[str, Any] = Field(validation_alias="details")


class WholeDocumentOut(ResponseBody):
    """A document with its text, and the texts of its chunks as they are indexed."""

    id: str
    chunk_count: int
    metadata: dict[str, Any]
    text: str
    chunks: list[str]


class DocumentsOut(ResponseBody):
    """A page of the documents of an index. `next` is the cursor of the next page, null on the last one."""

    documents: list[DocumentOut]
    next: str | None


class DocumentSearchOut(ResponseBody):
    """A search that found a document. Its question is known only if traces are kept with words."""

    trace_id: str
    occurred_at: datetime
    rank: int
    score: float
    user_id: str | None
    session_id: str
    turn_event_id: str | None
    question: str | None


class DocumentSearchesOut(ResponseBody):
    """A page of the searches that found a document."""

    searches: list[DocumentSearchOut]
    next: str | None
