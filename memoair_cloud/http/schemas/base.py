"""Base classes and types of all bodies. JSON is camelCase; timestamps are ISO 8601 in UTC."""

from datetime import datetime
from typing import Annotated, Any, Literal

import attrs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from memoair_cloud.identifiers import check_identifier, sanitize_text
from memoair_protocol.identifiers import MAX_ID_BYTES
from memoair_protocol.timestamps import to_utc

Identifier = Annotated[str, AfterValidator(check_identifier), Field(min_length=1, max_length=MAX_ID_BYTES)]
UtcTime = Annotated[datetime, AfterValidator(to_utc)]  # one without an offset is in UTC
SanitizedText = Annotated[str, AfterValidator(sanitize_text)]
Name = Annotated[SanitizedText, Field(min_length=1, max_length=200)]


class RequestBody(BaseModel):
    """The base of all request bodies."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, strict=True)


@attrs.frozen
class DocumentedAs:
    """Describes a value as a model in the API's description, although another parser validates it.

    Attributes:
        model: The model. References in it lead to the schemas of the whole description.
    """

    model: type[BaseModel]

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema, as pydantic asks for it."""
        return handler(self.model.__pydantic_core_schema__)


class ResponseBody(BaseModel):
    """The base of all response bodies."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, from_attributes=True)


class StatusOut(ResponseBody):
    """Reports that the server works."""

    status: Literal["ok"] = "ok"
