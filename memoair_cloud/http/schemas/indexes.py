"""An organisation's documents."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from memoair_cloud.http.schemas.base import Identifier, RequestBody, ResponseBody, SanitizedText

MAX_DOCUMENTS = 100
# Paths of the API's own, and what a client's URL library would shorten away.
_RESERVED_NAMES = ("create", "list")


def _check_index_name(name: str) -> str:
    if "/" in name or not name.strip(".") or name in _RESERVED_NAMES:
        raise ValueError("the name of an index has no slash, not only dots, and is neither create nor list")
    return name


IndexName = Annotated[Identifier, AfterValidator(_check_index_name)]


class DocumentIn(RequestBody):
    """A document: its id is the client's own, and known within the index."""

    id: Identifier
    text: SanitizedText
    metadata: dict[str, Any] | None = None


class IndexIn(RequestBody):
    """Documents for an index, at most 100 and 1 MB of body in one call."""

    name: IndexName
    # The limit is told here and held in the route: what is over it has an error of its own.
    documents: Annotated[list[DocumentIn], Field(json_schema_extra={"maxItems": MAX_DOCUMENTS})]
    metadata: dict[str, Any] | None = None


class BuiltOut(ResponseBody):
    """What the index has come to."""

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
