"""Requests of the loopback API: each body is validated once, here, and turned into a record that is trusted inside."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from memoair_protocol.enums import Intent, LaneName, TraceMode, Variant
from memoair_protocol.identifiers import identifier_problem
from memoair_protocol.json_guards import is_deeper_than, strip_values
from memoair_protocol.limits import MAX_QUERY_CHARS, MAX_RUNTIME_JSON_DEPTH, MAX_TIMEOUT_MS, MAX_TOP_K, MAX_TURNS
from memoair_protocol.timestamps import parse_timestamp
from memoair_runtime.errors import BadRequestError
from memoair_runtime.filters import Predicate, parse_filter

_ENUM_VALUES = {
    "recallTrace.mode": ", ".join(mode.value for mode in TraceMode),
    "": ", ".join(lane.value for lane in LaneName),
}

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]
Milliseconds = Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_MS)]
Confidence = Annotated[float, msgspec.Meta(ge=0, le=1)]
TopK = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP_K)]
Metadata = dict[str, Any]


class IdentifiedRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Fields of every request: the identity that the client expects this process to serve."""

    workspace_id: str | None = None
    project_id: str | None = None
    user_id: str | None = None


class SessionRequest(IdentifiedRequest, frozen=True, rename="camel", kw_only=True):
    """Fields of every request that names a session."""

    session_id: Identifier

    def __post_init__(self) -> None:
        """Reject a session that the cloud would reject; the decoder turns the error into one of its own."""
        if problem := identifier_problem(self.session_id):
            raise ValueError(f"sessionId {problem}")


class SessionUser(msgspec.Struct, frozen=True, rename="camel"):
    """The user, as the agent knows them."""

    id: Identifier | None = None
    name: str | None = None
    metadata: Metadata | None = None


class SessionMetadata(msgspec.Struct, frozen=True, rename="camel"):
    """The part of a session's metadata that the runtime interprets; all of the metadata is saved."""

    user: SessionUser | None = None
    assistant_name: str | None = None


class StartRequest(SessionRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/session/start."""

    satham: Metadata | None = None
    metadata: Metadata | None = None
    mode: str | None = None
    reopen: bool | None = None
    shared: bool | None = None

    def variant(self) -> Variant:
        """Return the requested embedding, or the default one if this version does not know its name."""
        try:
            return Variant((self.satham or {}).get("variant") or Variant.DEFAULT)
        except ValueError:
            return Variant.DEFAULT

    def known_metadata(self) -> SessionMetadata:
        """Return the part of the metadata that the runtime interprets.

        Raises:
            BadRequestError: If a field of that part has another type.
        """
        return convert_part(self.metadata or {}, SessionMetadata, "metadata")


class TopKs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The maximum number of hits of each lane; None means the lane's default."""

    profile: TopK | None = None
    working: TopK | None = None
    permanent: TopK | None = None
    org: TopK | None = None


class RecallTraceOptions(msgspec.Struct, frozen=True, rename="camel"):
    """How a search is recorded.

    Attributes:
        id: The id of its trace, which the client chooses; None for a new one.
        mode: What to keep; None for what the environment and the project say.
        origin: Who asks: ``tool``, ``hook``, ``api`` or ``framework``. Other values count as ``api``.
        held: Whether it is a prefetch, which is recorded only if a later search uses it.
        traceparent: The W3C trace context of the caller, to find the search in the application's own traces.
    """

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    mode: TraceMode | None = None
    origin: str | None = None
    held: bool | None = None
    traceparent: Annotated[str, msgspec.Meta(max_length=128)] | None = None


class SearchRequest(SessionRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/search_memory."""

    query: Annotated[str, msgspec.Meta(max_length=MAX_QUERY_CHARS)]
    turn_id: str | None = None
    intent: str | None = None
    include_sources: bool | None = None
    lanes: list[LaneName] | None = None
    top_k: TopKs | None = None
    timeout_ms: Milliseconds | None = None
    filter: Metadata | None = None
    explain: bool | None = None
    min_confidence: Confidence | None = None
    say_nothing_found: bool | None = None
    recall_trace: RecallTraceOptions | None = None

    def known_intent(self) -> Intent | None:
        """Return the intent, or None if this version does not know it."""
        try:
            return Intent(self.intent or Intent.ANSWER_CURRENT_USER)
        except ValueError:
            return None

    def filter_predicate(self) -> Predicate | None:
        """Return the filter as a predicate over metadata, or None without a filter.

        Raises:
            BadRequestError: If the filter is invalid.
        """
        return parse_filter(self.filter) if self.filter else None


class FailedSearch(msgspec.Struct, frozen=True, rename="camel"):
    """A search that failed at the client.

    Attributes:
        session_id: The session.
        occurred_at: When it began.
        intent: Its intent.
        total_ms: How long the client waited, in milliseconds.
        deadline_ms: The time that it had.
        code: The error code.
        lanes: The status of each lane, as the client reports it.
        recall_trace: How it is recorded.
    """

    session_id: Identifier
    occurred_at: str
    intent: Annotated[str, msgspec.Meta(max_length=40)]
    total_ms: float
    deadline_ms: float
    code: Annotated[str, msgspec.Meta(max_length=80)]
    lanes: dict[LaneName, Annotated[str, msgspec.Meta(max_length=40)]]
    recall_trace: RecallTraceOptions

    def __post_init__(self) -> None:
        """Reject a session that the cloud would reject."""
        if problem := identifier_problem(self.session_id):
            raise ValueError(f"sessionId {problem}")


class RecallTraceRequest(IdentifiedRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/recall_trace: what only the client knows of a search that was answered.

    Attributes:
        trace_id: The trace.
        prefetched: Whether the result of a prefetch was used.
        turn_id: The turn of the search that used it.
        query: The question, redacted. It is kept only in the mode ``text``, as is the next one.
        context_text: The recalled texts as composed, redacted.
        failed: The search failed at the client, which got no reply in time.
    """

    trace_id: Identifier
    prefetched: bool | None = None
    turn_id: str | None = None
    query: str | None = None
    context_text: str | None = None
    failed: FailedSearch | None = None


class TurnMetadata(msgspec.Struct, frozen=True, rename="camel"):
    """The part of a turn's metadata that the runtime interprets; all of the metadata is saved."""

    occurred_at: str | None = None
    assistant_name: str | None = None
    heard: str | None = None


class TurnRequest(SessionRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/turn/after."""

    turn_id: Identifier
    user_text: str
    assistant_text: str
    tool_calls: list[Metadata] | None = None
    metadata: Metadata | None = None

    def occurred_at(self) -> datetime | None:
        """Return when the turn was spoken, or None if the metadata does not say.

        Raises:
            BadRequestError: If the timestamp is invalid.
        """
        text = convert_part(self.metadata or {}, TurnMetadata, "metadata").occurred_at
        return None if text is None else _parse_timestamp(text, "metadata.occurredAt")


class TurnsRequest(SessionRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/turns/after. Each turn has the fields of a `TurnRequest`, whose session it need not repeat."""

    turns: Annotated[list[Metadata], msgspec.Meta(min_length=1, max_length=MAX_TURNS)]

    def each(self) -> list[TurnRequest]:
        """Return a request for each turn.

        Raises:
            BadRequestError: If a turn is invalid.
        """
        shared = {"sessionId": self.session_id}
        return [convert_part(turn | shared, TurnRequest, "turns[]") for turn in self.turns]


class EndRequest(SessionRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/session/end."""

    reason: str | None = None


class DeadlineRequest(IdentifiedRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/sync/flush and /v1/runtime/shutdown; the base of requests that may take long."""

    deadline_ms: Milliseconds | None = None


class PullRequest(DeadlineRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/sync/pull."""

    scopes: list[Literal["profile", "permanent", "org"]] | None = None


class ForgetRequest(DeadlineRequest, frozen=True, rename="camel", kw_only=True):
    """POST /v1/runtime/forget: when the cloud erased the user, and the mark of that, if the client knows."""

    forgotten_at: str | None = None
    erasure: Annotated[str, msgspec.Meta(max_length=200)] | None = None

    def forgotten_time(self) -> datetime | None:
        """Return ``forgotten_at`` as a datetime, or None.

        Raises:
            BadRequestError: If the timestamp is invalid.
        """
        return None if self.forgotten_at is None else _parse_timestamp(self.forgotten_at, "forgottenAt")


RequestT = TypeVar("RequestT", bound=IdentifiedRequest)
StructT = TypeVar("StructT", bound=msgspec.Struct)


class BodyParser(Generic[RequestT]):
    """Parses bodies to requests of one type. Thread-safe.

    Example:
        >>> BodyParser(EndRequest)(b'{"sessionId": "call-1"}').session_id
        'call-1'
    """

    def __init__(self, request_type: type[RequestT]) -> None:
        self._decode: Callable[[bytes], RequestT] = msgspec.json.Decoder(request_type).decode

    def __call__(self, body: bytes) -> RequestT:
        """Parse a body.

        Raises:
            BadRequestError: If the body is invalid. The message names the field and the expected type, not the value.
        """
        if is_deeper_than(MAX_RUNTIME_JSON_DEPTH, body):
            raise BadRequestError(f"the body is nested deeper than {MAX_RUNTIME_JSON_DEPTH} levels")
        try:
            return self._decode(body or b"{}")
        except UnicodeDecodeError as error:
            raise BadRequestError("the body is not valid UTF-8", position=error.start) from None
        except msgspec.ValidationError as error:
            raise BadRequestError(strip_values(str(error), _ENUM_VALUES)) from None
        except msgspec.DecodeError:
            raise BadRequestError("the body is not valid JSON") from None


def convert_part(value: Metadata, struct_type: type[StructT], field: str) -> StructT:
    """Convert the interpreted part of a JSON object to a record.

    Args:
        value: The object, which may have further fields.
        struct_type: Type of the record.
        field: Name of the object in the request, for the error message.

    Raises:
        BadRequestError: If a field has the wrong type.
    """
    try:
        return msgspec.convert(value, struct_type)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"{field}: {strip_values(str(error), _ENUM_VALUES)}", field=field) from None


def _parse_timestamp(text: str, field: str) -> datetime:
    try:
        return parse_timestamp(text)
    except ValueError:
        raise BadRequestError(f"invalid {field}: use an ISO 8601 timestamp", field=field) from None
