"""The loopback wire: what a request may hold, checked once; inside, everybody trusts these records."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from memoair_runtime.enums import Intent, LaneName, Variant
from memoair_runtime.errors import BadRequestError
from memoair_runtime.filters import Predicate, parse_filter
from memoair_runtime.timeutil import parse_moment

# The longest question anybody speaks is some thousand characters; a hundred thousand is a mistake in the caller's code.
MAX_QUERY_CHARS = 16_384
MAX_TOP_K = 1_000
MAX_TIMEOUT_MS = 60_000
DEFAULT_TIMEOUT_MS = 250
# Metadata comes back within log lines and replies, which nest it deeper still; a reader gives up at about a thousand.
_MAX_DEPTH = 64
# A string without an end matches to the end, or each sign in it would be looked at anew for each before it.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]
Milliseconds = Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_MS)]
TopK = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP_K)]
Metadata = dict[str, Any]


class IdentifiedRequest(msgspec.Struct, frozen=True, rename="camel"):
    """What every request may carry: whom the sender takes this process for."""

    workspace_id: str | None = None
    project_id: str | None = None
    user_id: str | None = None


class SessionUser(msgspec.Struct, frozen=True, rename="camel"):
    """The end user, as the agent knows him."""

    id: Identifier | None = None
    name: str | None = None
    metadata: Metadata | None = None


class SessionMetadata(msgspec.Struct, frozen=True, rename="camel"):
    """The part of a session's metadata that the runtime reads; all of it is kept."""

    user: SessionUser | None = None
    assistant_name: str | None = None


class StartRequest(IdentifiedRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/session/start."""

    session_id: Identifier
    satham: Metadata | None = None
    metadata: Metadata | None = None
    mode: str | None = None

    def variant(self) -> Variant:
        """The embedding that is asked for; the default one for a name that this version does not know."""
        try:
            return Variant((self.satham or {}).get("variant") or Variant.DEFAULT)
        except ValueError:
            return Variant.DEFAULT

    def known_metadata(self) -> SessionMetadata:
        """The typed part of the metadata; raises `BadRequestError` where it has another type."""
        return converted(self.metadata or {}, SessionMetadata, "metadata")


class TopKs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many items each lane may give at most; None is the default."""

    profile: TopK | None = None
    working: TopK | None = None
    permanent: TopK | None = None
    org: TopK | None = None


class SearchRequest(IdentifiedRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/search_memory."""

    session_id: Identifier
    query: Annotated[str, msgspec.Meta(max_length=MAX_QUERY_CHARS)]
    turn_id: str | None = None
    intent: str | None = None
    include_sources: bool | None = None
    lanes: list[LaneName] | None = None
    top_k: TopKs | None = None
    timeout_ms: Milliseconds | None = None
    filter: Metadata | None = None
    explain: bool | None = None

    def known_intent(self) -> Intent | None:
        """The intent; None for one that this version does not know."""
        try:
            return Intent(self.intent or Intent.ANSWER_CURRENT_USER)
        except ValueError:
            return None

    def predicate(self) -> Predicate | None:
        """The filter, ready to be asked; raises `BadRequestError` where it is none."""
        return parse_filter(self.filter) if self.filter else None


class TurnMetadata(msgspec.Struct, frozen=True, rename="camel"):
    """The part of a turn's metadata that the runtime reads; all of it is kept."""

    occurred_at: str | None = None
    assistant_name: str | None = None
    heard: str | None = None


class TurnRequest(IdentifiedRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/turn/after."""

    session_id: Identifier
    turn_id: Identifier
    user_text: str
    assistant_text: str
    tool_calls: list[Metadata] | None = None
    metadata: Metadata | None = None

    def occurred_at(self) -> datetime | None:
        """When the turn was spoken, where it says so."""
        told = converted(self.metadata or {}, TurnMetadata, "metadata").occurred_at
        return None if told is None else _moment(told, "metadata.occurredAt")


class EndRequest(IdentifiedRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/session/end."""

    session_id: Identifier
    reason: str | None = None


class DeadlineRequest(IdentifiedRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/sync/flush and /v1/runtime/shutdown, and what else takes its time."""

    deadline_ms: Milliseconds | None = None


class PullRequest(DeadlineRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/sync/pull."""

    scopes: list[Literal["profile", "permanent", "org"]] | None = None


class ForgetRequest(DeadlineRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/forget. ``forgotten_at``: when the cloud forgot the caller, where whoever asks knows that."""

    forgotten_at: str | None = None

    def forgotten(self) -> datetime | None:
        """The moment; raises `BadRequestError` for what is none."""
        return None if self.forgotten_at is None else _moment(self.forgotten_at, "forgottenAt")


RequestT = TypeVar("RequestT", bound=IdentifiedRequest)
StructT = TypeVar("StructT", bound=msgspec.Struct)


class BodyParser(Generic[RequestT]):
    """From the bytes of a body to a request of one kind."""

    def __init__(self, kind: type[RequestT]) -> None:
        self._decode: Callable[[bytes], RequestT] = msgspec.json.Decoder(kind).decode

    def __call__(self, body: bytes) -> RequestT:
        """Parse a body, or raise `BadRequestError` that names the field and what was expected of it."""
        if body.count(b"[") + body.count(b"{") > _MAX_DEPTH and _depth(body) > _MAX_DEPTH:
            raise BadRequestError(f"the body is nested deeper than {_MAX_DEPTH} levels")
        try:
            return self._decode(body or b"{}")
        except UnicodeDecodeError as error:
            raise BadRequestError("the body is not valid UTF-8", position=error.start) from None
        except msgspec.ValidationError as error:
            raise BadRequestError(_without_values(str(error))) from None
        except msgspec.DecodeError:
            raise BadRequestError("the body is not valid JSON") from None


def converted(value: Metadata, kind: type[StructT], where: str) -> StructT:
    """Take a part of a request that is kept whole as a record of what is read of it."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"{where}: {_without_values(str(error))}", field=where) from None


def _moment(told: str, field: str) -> datetime:
    try:
        return parse_moment(told)
    except ValueError:
        raise BadRequestError(f"{field} is not an ISO 8601 moment", field=field) from None


def _without_values(message: str) -> str:
    """The library's message, which names types, limits and places, without what it quotes of the request."""
    what, at, where = message.rpartition(" - at ")
    lanes = ", ".join(lane.value for lane in LaneName)
    for start, instead in (("Invalid enum value", f"Expected one of {lanes}"), ("Object contains unknown field", None)):
        if message.startswith(start):
            return f"{instead or start}{at}{where}" if what else instead or start
    return message


def _depth(body: bytes) -> int:
    """How deep the brackets of a JSON text are nested, those in its strings left out."""
    depth = deepest = 0
    for sign in _BRACKETS.findall(body):
        if sign in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in b"]}":
            depth -= 1
    return deepest
